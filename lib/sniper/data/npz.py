"""NPZ files of plain arrays, read so that damage of any kind becomes one clear error."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sniper.errors import DataError
from sniper.files import atomic_write

# What zipfile and NumPy raise on damaged files, found by damaging files.
_BROKEN = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    SyntaxError,
    OverflowError,
    MemoryError,
    RuntimeError,
    struct.error,
    tokenize.TokenError,
    zlib.error,
    zipfile.BadZipFile,
)


def read_npz(source: str | Path | BinaryIO, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The named arrays of an NPZ file; others are not read. Never unpickles anything.

    Every byte of an array counts into its checksum, so that a damaged file cannot pass for a good
    one.

    Args:
        source: the file; an open one for reading twice, since another process may replace it.
        names: the arrays.

    Raises:
        DataError: the file is missing, damaged, or lacks one of the arrays.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            return {name: _member(archive, name) for name in names}
    except _BROKEN as error:
        where = source if isinstance(source, (str, Path)) else source.name
        raise DataError("the NPZ file cannot be read", where=where, got=_say(error)) from error


def write_npz(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays; a file that is there stays until the new one is complete.

    Raises:
        TrainingError: the file could not be written.
    """

    def write(temporary: Path) -> None:
        # Not np.savez: on a full disk it leaves an archive behind that cannot be closed.
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)

    atomic_write(path, write)


def _member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(f"{name}.npy") as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
        # Reading to the end makes zipfile compare the checksum, whatever shape the header claims.
        if stream.read(1):
            raise ValueError(f"there are bytes behind the end of {name}")
    return array


def _say(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
