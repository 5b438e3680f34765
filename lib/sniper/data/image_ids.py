"""Numbers for images that have names only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

# Ids go into JSON files, whose readers may hold numbers as doubles.
_ID_BITS = 53


def stable_ids(names: Sequence[str]) -> np.ndarray:
    """An id for every name: the same on every machine and, for all practical purposes, in any set.

    Args:
        names: distinct names.

    Returns:
        (n,) int64, distinct, from 0 to 2^53 - 1.
    """
    taken: set[int] = set()
    ids = []
    for name in names:
        identity, attempt = _hash(name), 0
        # Two of 100,000 names get the same number once in a million sets.
        while identity in taken:
            attempt += 1
            identity = _hash(f"{name}\0{attempt}")
        taken.add(identity)
        ids.append(identity)
    return np.array(ids, np.int64)


def _hash(name: str) -> int:
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _ID_BITS)
