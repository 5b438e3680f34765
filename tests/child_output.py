"""Files that a child process writes and a test reads meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import IO


def output_file(path: Path) -> IO[str]:
    """An empty file for the output of a child.

    Both share the place in the file, which reading sets back: only what is appended stays where it
    belongs.
    """
    path.unlink(missing_ok=True)
    return open(path, "a+", encoding="utf-8")
