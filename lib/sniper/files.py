"""Writing files so that a crash or a full disk never leaves a broken one behind."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from sniper.errors import TrainingError


def atomic_write(path: str | Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path beside `path`, then moves that file into place.

    The old file stays as it was until the new one is complete on disk. What `write` returns is not
    used.

    Raises:
        TrainingError: the file could not be written (full disk, no permission, ...).
    """
    path = Path(path)
    if not path.name or path.is_dir():
        raise TrainingError("a file is to be written, and this is a folder", where=path)
    # Keeps two writers of the same file apart, on two machines as well; the suffix stays, since
    # some writers choose their format by it.
    own = f"{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.stem}.{own}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise TrainingError(
            "a file could not be written; the previous version is untouched",
            where=path,
            got=str(error),
            fix="free some disk space or check the permissions, then run again",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def atomic_write_text(path: str | Path, text: str) -> None:
    """`atomic_write` of a UTF-8 text."""
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
