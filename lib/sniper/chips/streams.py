"""Random streams that depend on what is drawn for, and not on who draws or when."""

from __future__ import annotations

from typing import Union

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)

Key = Union[int, np.ndarray]

# Kinds of draws of an epoch: the stride, the order of the samples, how often images are trained.
# The compiled code has 2 to 6 for those of each record, with its id as a further key
# (native/epoch_chips/record_chips_cpu.cc).
STRIDE, ORDER, REPEATS = 0, 1, 5


def stream_seeds(*keys: Key) -> np.ndarray:
    """Well mixed 63-bit seeds, one for each row of keys: int64, the broadcast shape of `keys`.

    The keys are whole numbers or integer arrays, such as seed, epoch, image id, level, flipped.
    Each is mixed in with the finaliser of SplitMix64 (Steele et al., 2014). The result is not
    negative, so that it fits every integer type on the way to C++.
    """
    state = np.zeros(np.broadcast(*keys).shape, np.uint64)
    with np.errstate(over="ignore"):
        for key in keys:
            state = _finalise((state ^ _as_uint64(key)) + _GOLDEN)
    return (state >> np.uint64(1)).astype(np.int64)


def _as_uint64(key: Key) -> np.ndarray | np.uint64:
    if isinstance(key, (int, np.integer)):
        return np.uint64(int(key) & 0xFFFFFFFFFFFFFFFF)
    return np.asarray(key).astype(np.int64).astype(np.uint64)


def _finalise(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))
