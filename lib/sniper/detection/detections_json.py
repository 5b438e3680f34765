"""A JSON file of predictions that is valid after every image, however long the run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sniper.data.sources import Skipped


class DetectionsJson:
    """Writes `{<head>, "images": [...], "skipped": [...], "complete": true | false}`.

    Every image is one line. The end of the file is written anew after each of them, so that what a
    killed run has done can be read; `complete` tells the two apart. Use it as a context manager.

    Args:
        path: the file, which is replaced; its folder is made when missing.
        head: what stands at the beginning: classes, model, threshold.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: str | Path, head: Mapping[str, Any]) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._is_first = True
        self._file = open(path, "w+b")
        begin = json.dumps(dict(head))[:-1]
        self._file.write(f'{begin}{", " if head else ""}"images": ['.encode())
        self._end = self._file.tell()
        self._write("", [], complete=False)

    def add(self, image: Mapping[str, Any]) -> None:
        """Appends an image; the file is valid again when this returns."""
        line = ("\n" if self._is_first else ",\n") + json.dumps(image)
        self._write(line, [], complete=False)
        # An interruption before this line leaves the place of the broken rest.
        self._end, self._is_first = self._end + len(line.encode()), False

    def close(self, skipped: Sequence[Skipped] = (), *, complete: bool = False) -> None:
        """Notes what was left out and whether the run came to its end; idempotent."""
        if self._file.closed:
            return
        with self._file:
            self._write("", skipped, complete=complete)

    def __enter__(self) -> DetectionsJson:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _write(self, line: str, skipped: Sequence[Skipped], *, complete: bool) -> None:
        left_out = json.dumps([{"name": one.name, "reason": one.reason} for one in skipped])
        rest = f'{line}\n], "skipped": {left_out}, "complete": {json.dumps(complete)}}}\n'
        self._file.seek(self._end)
        self._file.write(rest.encode())
        self._file.truncate()
        self._file.flush()
