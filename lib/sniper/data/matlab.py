"""MATLAB files of version 5: arrays of numbers and texts, structures and cells (data only)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from sniper.errors import DataError

# Real files of data sets have some MB; what is compressed may claim to be anything.
MAX_BYTES = 256 << 20

_HEADER_BYTES = 128
_UINT16, _UTF8, _UTF16, _MATRIX, _COMPRESSED = 4, 16, 17, 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_NUMBERS |= {12: "i8", 13: "u8"}
_CELL, _STRUCT, _CHAR, _FIRST_NUMERIC, _LAST_NUMERIC = 1, 2, 4, 6, 15
_MOST_DEPTH = 32


class _Broken(ValueError):
    """The bytes are no such file."""


def read_matlab(path: str | Path) -> dict[str, Any]:
    """The variables of a file.

    Numeric arrays are NumPy arrays in MATLAB's shape, texts are `str`; an array of structures is a
    list of dicts and a cell array a list, both in MATLAB's order (columns first).

    Raises:
        DataError: the file cannot be read, is no MATLAB file of version 5 (`save -v7` and older),
            or holds something else than data.
    """
    try:
        content = Path(path).read_bytes()
        return dict(_variables(content))
    except (OSError, ValueError, struct.error, zlib.error, RecursionError) as error:
        raise DataError(
            "the MATLAB file cannot be read",
            where=path,
            got=error,
            expected="a file of MATLAB's version 5 format (save -v6 or -v7)",
        ) from error


def _variables(content: bytes) -> Iterator[tuple[str, Any]]:
    if len(content) < _HEADER_BYTES or content[126:128] not in (b"IM", b"MI"):
        raise _Broken("it has no header of this format")
    order = "<" if content[126:128] == b"IM" else ">"
    if struct.unpack(f"{order}H", content[124:126])[0] >> 8 != 1:
        raise _Broken("it is of another version")
    for kind, data in _elements(content[_HEADER_BYTES:], order):
        if kind == _COMPRESSED:
            inflater = zlib.decompressobj()
            data = inflater.decompress(data, MAX_BYTES)
            if inflater.unconsumed_tail:
                raise _Broken(f"a variable has more than {MAX_BYTES >> 20} MB")
            (kind, data), *_ = _elements(data, order)
        if kind == _MATRIX:
            yield _matrix(data, order)


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and content of the elements that follow each other."""
    place = 0
    while place + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        if kind >> 16:  # type and size share four bytes, the content has the other four
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
            place += 8
        else:
            start = place + 8
            # Compressed elements are not padded to 8 bytes.
            place = start + size + (0 if kind == _COMPRESSED else -size % 8)
        if start + size > len(data):
            raise _Broken("it is cut off")
        yield kind, data[start : start + size]


def _matrix(data: bytes, order: str, depth: int = 0) -> tuple[str, Any]:
    """Name and value of a matrix element."""
    if depth > _MOST_DEPTH:
        raise _Broken("its structures are nested too deeply")
    if not data:
        return "", np.zeros((0, 0))
    elements = _elements(data, order)

    def following() -> tuple[int, bytes]:
        try:
            return next(elements)
        except StopIteration:
            raise _Broken("an array is cut off") from None

    flags = struct.unpack_from(f"{order}I", following()[1])[0]
    shape = tuple(_numbers(*following(), order).tolist())
    name = following()[1].decode("latin-1")
    kind = flags & 0xFF
    if kind == _STRUCT:
        return name, _structures(following, prod(shape), order, depth)
    if kind == _CELL:
        return name, [_matrix(following()[1], order, depth + 1)[1] for _ in range(prod(shape))]
    if kind == _CHAR:
        return name, _text(*following(), order) if prod(shape) else ""
    if _FIRST_NUMERIC <= kind <= _LAST_NUMERIC:
        return name, _numbers(*following(), order).reshape(shape, order="F")
    raise _Broken(f"{name or 'an array'} is of a class that holds no plain data ({kind})")


def _structures(
    following: Callable[[], tuple[int, bytes]], count: int, order: str, depth: int
) -> list[dict[str, Any]]:
    width = int(_numbers(*following(), order)[0])
    names = following()[1]
    if width < 1:
        raise _Broken("a structure has no names")
    keys = [
        names[start : start + width].split(b"\0")[0].decode("latin-1")
        for start in range(0, len(names), width)
    ]
    return [
        {key: _matrix(following()[1], order, depth + 1)[1] for key in keys} for _ in range(count)
    ]


def _numbers(kind: int, data: bytes, order: str) -> np.ndarray:
    if kind not in _NUMBERS:
        raise _Broken(f"numbers of an unknown type ({kind})")
    return np.frombuffer(data, np.dtype(order + _NUMBERS[kind]))


def _text(kind: int, data: bytes, order: str) -> str:
    if kind in (_UTF16, _UINT16):
        return data.decode("utf-16-le" if order == "<" else "utf-16-be")
    return data.decode("utf-8" if kind == _UTF8 else "latin-1")
