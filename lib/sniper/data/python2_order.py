"""The order in which Python 2.7 walked through a dict of integers: that of the 2018 lists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_WORD = (1 << 64) - 1
_SMALLEST_TABLE = 8
_PERTURB_SHIFT = 5
# Up to here a full table grew to four times its entries, beyond it to twice.
_LARGE_DICT = 50_000


def python2_dict_order(keys: Sequence[int]) -> np.ndarray:
    """Positions of `keys` in the order of `dict.keys()` after inserting them one by one.

    Follows CPython 2.7 (Objects/dictobject.c): open addressing with perturbation, a table that is
    rebuilt when two thirds are used, iteration by slot.

    Args:
        keys: (n,) distinct integers of 64 bits.

    Returns:
        (n,) int64; `keys[result[0]]` came first.
    """
    hashes = [_python2_hash(int(key)) for key in keys]
    slots = [-1] * _SMALLEST_TABLE
    for position in range(len(hashes)):
        _insert(slots, hashes, position)
        used = position + 1
        if 3 * used >= 2 * len(slots):
            slots = _rebuilt(slots, hashes, used)
    return np.array([position for position in slots if position >= 0], np.int64)


def _python2_hash(key: int) -> int:
    """Hash of an int as an unsigned word: the number itself, but -2 for -1."""
    return (-2 if key == -1 else key) & _WORD


def _insert(slots: list[int], hashes: list[int], position: int) -> None:
    mask = len(slots) - 1
    index = perturb = hashes[position]
    while slots[index & mask] >= 0:
        index = (5 * index + perturb + 1) & _WORD
        perturb >>= _PERTURB_SHIFT
    slots[index & mask] = position


def _rebuilt(slots: list[int], hashes: list[int], used: int) -> list[int]:
    size, at_least = _SMALLEST_TABLE, used * (2 if used > _LARGE_DICT else 4)
    while size <= at_least:
        size *= 2
    larger = [-1] * size
    for position in slots:
        if position >= 0:
            _insert(larger, hashes, position)
    return larger
