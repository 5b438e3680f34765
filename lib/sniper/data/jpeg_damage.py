"""Damage in the middle of JPEG files, which decoders fill with grey or junk and call a success."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator

_START = b"\xff\xd8"
_SCAN, _END = 0xDA, 0xD9
# Behind the data of a scan: tables, the next scan, number of lines, comments, the end.
_BETWEEN_SCANS = frozenset((0xC4, 0xCC, _SCAN, 0xDB, 0xDC, 0xDD, _END, 0xFE, *range(0xE0, 0xF0)))
# In a scan 0xFF stands in front of 0, of a restart marker, or of what ends the scan. One 0xFF, not
# many: a pattern that begins with a plain byte is searched for thirty times as fast.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
# Blocks of a disk or of a download that were never written. No picture has so many in a scan.
_HOLE = bytes(64)
_MOST_SHOWN = 500  # bytes of messages


def jpeg_damage(content: bytes) -> str | None:
    """What is wrong in the scans of a JPEG, as far as bytes tell; None for other formats.

    Decoding tells more (`decoder_messages`), and takes a hundred times as long.
    """
    if not content.startswith(_START):
        return None
    position = len(_START)
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == _END:
            return None
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
        if marker != _SCAN:
            continue
        found = _MARKER.search(content, position)
        if found is None:
            return None  # without an end: told elsewhere
        if found[1][0] not in _BETWEEN_SCANS:
            return f"the picture is damaged at byte {found.start()} of {len(content)}"
        hole = content.find(_HOLE, position, found.start())
        if hole >= 0:
            return f"the picture is damaged: zeros from byte {hole} of {len(content)} on"
        position = found.start()
    return None


@contextlib.contextmanager
def decoder_messages() -> Iterator[Callable[[], str]]:
    """Catches what decoders write to the standard error of the whole process.

    The JPEG library says there that data are corrupt, not of which file, and OpenCV gives the
    picture as if all were well. Nobody else should write while this is open.

    Yields:
        A function that gives what was written since it was called last.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        try:
            before = os.dup(2)
        except OSError:  # a process without standard error
            yield lambda: ""
            return
        os.dup2(kept.fileno(), 2)

        seen = 0

        def written() -> str:
            nonlocal seen
            # The descriptor shares its position with the one that is written to.
            text = os.pread(kept.fileno(), _MOST_SHOWN, seen)
            seen = os.fstat(kept.fileno()).st_size
            return " ".join(text.decode("utf-8", "replace").split())

        try:
            yield written
        finally:
            os.dup2(before, 2)
            os.close(before)
