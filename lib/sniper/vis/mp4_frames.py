"""How many frames the index of an MP4 file lists: a file without an index does not play."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_INDEX = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsz")


def mp4_frames(path: str | Path) -> int | None:
    """Frames of the first track; None where the file is missing, cut off, or has no index."""
    try:
        with open(path, "rb") as file:
            return _frames(file, Path(path).stat().st_size)
    except (OSError, struct.error):
        return None


def _frames(file: BinaryIO, size: int) -> int | None:
    boxes = list(_boxes(file, 0, size))
    if not boxes or boxes[-1][2] != size:
        return None
    start, end = 0, size
    for wanted in _INDEX:
        found = next((box for box in _boxes(file, start, end) if box[0] == wanted), None)
        if found is None:
            return None
        _, start, end = found
    # Version and flags, the size that all samples share or 0, their number.
    file.seek(start + 8)
    (count,) = struct.unpack(">I", file.read(4))
    return count


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin of the content and end of every box in a range; stops at what is none."""
    while start + 8 <= end:
        file.seek(start)
        length, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if length == 1:  # the length follows in 64 bits
            (length,) = struct.unpack(">Q", file.read(8))
            head = 16
        elif length == 0:  # up to the end
            length = end - start
        if length < head or start + length > end:
            return
        yield kind, start + head, start + length
        start += length
