"""The bytes of image files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sniper.errors import DataError


def read_content(path: str | Path) -> bytes:
    """What is in an image file; at least one byte.

    Raises:
        DataError: it is missing, empty or no file.
    """
    try:
        mode = os.stat(path).st_mode
        # Reading would wait for a writer of the pipe, and never come to the end of a device.
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise DataError("an image is no file", where=path, got="a pipe, device or socket")
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise DataError("an image cannot be read", where=path, got=error) from error
    if not content:
        raise DataError("an image file is empty", where=path)
    return content
