"""Ids are names: numbers of any size and texts. Numbered inside, written as they were read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Union

import numpy as np

FileId = Union[int, str]

_INT64 = np.iinfo(np.int64)


def id_key(value: object) -> FileId:
    """What tells ids apart: 7, 7.0 and "7" are one, since some tools make texts of numbers.

    Raises:
        ValueError: it is neither a whole number nor a text.
    """
    if isinstance(value, str):
        # "007" and "1e3" are names; int() would also take "1_000" and blanks.
        digits = value[1:] if value.startswith("-") else value
        is_number = digits.isascii() and digits.isdigit() and str(int(digits)) == digits
        return int(value) if is_number else value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"the id {value!r} is neither a whole number nor a text")


def file_id(value: object) -> FileId:
    """An id as results shall have it: as it was read, but 7.0 as 7.

    Raises:
        ValueError: as `id_key`.
    """
    return value if isinstance(value, str) and value else id_key(value)


def id_numbers(ids: Sequence[FileId]) -> np.ndarray:
    """(n,) int64, a distinct number for every id: itself where it is one of 64 bits.

    Texts and longer numbers get numbers that depend on themselves alone, so that files which hold
    these (proposals) fit other sets with the same images.
    """
    keys = [id_key(identity) for identity in ids]
    plain = [isinstance(key, int) and _INT64.min <= key <= _INT64.max for key in keys]
    if all(plain):
        return np.array(keys, np.int64).reshape(-1)
    taken = [int(key) for key, is_plain in zip(keys, plain) if is_plain]
    hashed = iter(stable_ids([str(k) for k, p in zip(keys, plain) if not p], taken=taken).tolist())
    return np.array([key if is_plain else next(hashed) for key, is_plain in zip(keys, plain)])


def pack_ids(ids: Sequence[FileId]) -> np.ndarray:
    """Ids as an array that a file can hold: int64, or JSON texts where one is something else."""
    if all(isinstance(i, int) and _INT64.min <= i <= _INT64.max for i in ids):
        return np.array(ids, np.int64).reshape(-1)
    return np.array([json.dumps(identity) for identity in ids], np.str_)


def unpack_ids(packed: np.ndarray) -> list[FileId]:
    """What `pack_ids` packed."""
    values = packed.tolist()
    return [json.loads(value) for value in values] if packed.dtype.kind == "U" else values


def packed_numbers(packed: np.ndarray) -> np.ndarray:
    """`id_numbers` of what `pack_ids` packed."""
    return packed if packed.dtype == np.int64 else id_numbers(unpack_ids(packed))


# Ids go into JSON files, whose readers may hold numbers as doubles.
_ID_BITS = 53


def stable_ids(names: Sequence[str], *, taken: Iterable[int] = ()) -> np.ndarray:
    """An id for every name: the same on every machine and, for all practical purposes, in any set.

    Args:
        names: distinct names.
        taken: numbers that others have.

    Returns:
        (n,) int64, distinct, from 0 to 2^53 - 1.
    """
    used = set(taken)
    ids = []
    for name in names:
        identity, attempt = _hash(name), 0
        # Two of 100,000 names get the same number once in a million sets.
        while identity in used:
            attempt += 1
            identity = _hash(f"{name}\0{attempt}")
        used.add(identity)
        ids.append(identity)
    return np.array(ids, np.int64)


def _hash(name: str) -> int:
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _ID_BITS)
