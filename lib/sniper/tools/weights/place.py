"""Putting a file of weights where programs look for it, without losing another one."""

from __future__ import annotations

from pathlib import Path

from sniper.errors import DataError
from sniper.files import atomic_write


def place(target: Path, data: bytes, *, overwrite: bool) -> bool:
    """Writes `data` unless the same bytes are there; returns whether it wrote.

    Raises:
        DataError: another file is there, and `overwrite` is False.
        TrainingError: the disk is full or the folder is not writable.
    """
    if target.exists():
        if target.stat().st_size == len(data) and target.read_bytes() == data:
            return False
        if not overwrite:
            raise DataError(
                "another file is there already",
                where=target,
                fix="move it away, or replace it with --overwrite",
            )

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    atomic_write(target, write)
    return True
