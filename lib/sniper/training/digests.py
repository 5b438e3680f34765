"""Digests of arrays: whether two runs saw the same numbers and, where not, where they part.

A row of a batch is cut into at most 32 blocks. A block is kept as a 64-bit hash of its bits and as
the sum of its numbers: 12 bytes stand for hundreds or thousands of numbers. The hash is the sum of
bits times fixed odd keys modulo 2^64 (multilinear hashing): whatever changes one number changes it,
and then the old number can be computed from it.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sniper.chips.streams import stream_seeds

if TYPE_CHECKING:
    import mxnet as mx

_BLOCKS = 32
_LEAST_BLOCK = 256  # numbers; smaller blocks would cost more bytes than they tell
_KEYS = 0x534E49504552
_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_HASH_BYTES = 8


@dataclass(frozen=True)
class Difference:
    """Where an array differs first from the one of another run.

    Attributes:
        row: of the array: the sample of a batch; 0 for weights.
        first: index of the first different number in the row, or of the block that holds it.
        last: the same number, or the last one of that block.
        was: the number of the other run, or the sum of the block.
        now: of this run.
        shape: of a row.
    """

    row: int
    first: int
    last: int
    was: float
    now: float
    shape: tuple[int, ...]

    def text(self) -> str:
        """One sentence: place and amounts."""
        start = _place(self.first, self.shape)
        if self.first == self.last:
            return f"number {start}: was {self.was:.9g}, is {self.now:.9g}"
        end = _place(self.last, self.shape)
        return (
            f"numbers {start} to {end}: their sum was {self.was:.9g}, is {self.now:.9g} "
            f"({self.now - self.was:+.3g})"
        )


@dataclass(frozen=True, eq=False)
class ArrayDigest:
    """Digest of an array (rows, ...).

    Attributes:
        shape: of the array.
        hashes: (rows, blocks) uint64.
        sums: (rows, blocks) float32; only shown, never compared.
    """

    shape: tuple[int, ...]
    hashes: np.ndarray
    sums: np.ndarray

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        hashes, sums = self.hashes.astype("<u8"), self.sums.astype("<f4")
        return {"shape": list(self.shape), "hashes": _text(hashes), "sums": _text(sums)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ArrayDigest:
        """What `as_dict` has made.

        Raises:
            KeyError, ValueError: it is something else.
        """
        shape = tuple(int(side) for side in values["shape"])
        hashes, sums = _array(values["hashes"], "<u8"), _array(values["sums"], "<f4")
        blocks = shape[0], _blocks(math.prod(shape[1:]))
        return cls(shape, hashes.reshape(blocks), sums.reshape(blocks))

    def difference(self, array: np.ndarray) -> Difference | None:
        """The first place where `array` is another one than that of the digest; None: nowhere.

        Raises:
            ValueError: the shapes differ.
        """
        if array.shape != self.shape:
            raise ValueError(f"shapes differ: {array.shape} and {self.shape}")
        now = digest_array(array)
        places = np.argwhere(now.hashes != self.hashes)
        if not len(places):
            return None
        row, block = places[0].tolist()
        return self._in_block(array, now, row, block)

    def _in_block(self, array: np.ndarray, now: ArrayDigest, row: int, block: int) -> Difference:
        numbers = array.reshape(array.shape[0], -1)[row]
        width = _block_width(numbers.size)
        first = block * width
        values = numbers[first : first + width]
        single = _single_change(values, int(self.hashes[row, block]), int(now.hashes[row, block]))
        shape = self.shape[1:]
        if single is not None:
            place, was = single
            return Difference(row, first + place, first + place, was, float(values[place]), shape)
        sums = float(self.sums[row, block]), float(now.sums[row, block])
        return Difference(row, first, first + len(values) - 1, *sums, shape)


def digest_array(array: np.ndarray) -> ArrayDigest:
    """The digest of an array (rows, ...) of numbers with 1, 2, 4 or 8 bytes."""
    rows = np.ascontiguousarray(array).reshape(array.shape[0], -1)
    count = rows.shape[1]
    width, blocks = _block_width(count), _blocks(count)
    if blocks * width != count:
        rows = np.pad(rows, ((0, 0), (0, blocks * width - count)))
    rows = rows.reshape(array.shape[0], blocks, width)
    words, keys = rows.view(_WORDS[rows.itemsize]), _keys(width)
    # Integers wrap modulo 2^64. Row by row: the copies stay in the processor's cache.
    hashes = np.array([row.astype(np.uint64) @ keys for row in words]).reshape(-1, blocks)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = rows.sum(axis=2, dtype=np.float64).astype(np.float32)
    return ArrayDigest(array.shape, hashes, sums)


@dataclass(frozen=True, eq=False)
class WeightsDigest:
    """Digest of the parameters and running averages of a network.

    Attributes:
        hashes: (n,) uint64, the first bytes of the SHA-256 of each array, in the order of names.
        sums: (n,) float64; only shown.
    """

    hashes: np.ndarray
    sums: np.ndarray

    @property
    def total(self) -> str:
        """One text for all arrays, hexadecimal."""
        return hashlib.sha256(self.hashes.astype("<u8").tobytes()).hexdigest()[:32]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        hashes, sums = self.hashes.astype("<u8"), self.sums.astype("<f8")
        return {"all": self.total, "hashes": _text(hashes), "sums": _text(sums)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WeightsDigest:
        """What `as_dict` has made; KeyError or ValueError if it is something else."""
        digest = cls(_array(values["hashes"], "<u8"), _array(values["sums"], "<f8"))
        if digest.total != values["all"] or len(digest.hashes) != len(digest.sums):
            raise ValueError("the digest of all arrays is not that of their hashes")
        return digest


def digest_weights(arrays: Mapping[str, mx.nd.NDArray]) -> WeightsDigest:
    """The digest of weights by name; waits until pending updates are done."""
    hashes, sums = [], []
    for value in arrays.values():
        numbers = value.asnumpy()
        content = hashlib.sha256(numbers.tobytes()).digest()
        hashes.append(int.from_bytes(content[:_HASH_BYTES], "little"))
        sums.append(float(numbers.sum(dtype=np.float64)))
    return WeightsDigest(np.array(hashes, np.uint64), np.array(sums, np.float64))


def _block_width(count: int) -> int:
    return max(1, min(max(count, 1), max(_LEAST_BLOCK, -(-count // _BLOCKS))))


def _blocks(count: int) -> int:
    return max(1, -(-count // _block_width(count)))


@lru_cache(maxsize=64)
def _keys(count: int) -> np.ndarray:
    """(count,) odd uint64: each has an inverse modulo 2^64."""
    seeds = stream_seeds(_KEYS, np.arange(count)).astype(np.uint64)
    return (seeds << np.uint64(1)) | np.uint64(1)


def _single_change(values: np.ndarray, was: int, now: int) -> tuple[int, float] | None:
    """Index and old value of the one number of a block that changed; None: several did.

    A change d of the bits of number i changes the hash by d keys[i], so that d is known for every i
    that it might be: only for the right one it is small, unless chance has it (1 of 2^31).
    """
    modulus, bits = 1 << 64, 8 * values.itemsize
    if bits > 32:
        return None
    words = np.ascontiguousarray(values).view(_WORDS[values.itemsize]).astype(np.int64)
    change = (was - now) % modulus
    for index, key in enumerate(_keys_of(values.size)):
        step = change * pow(key, -1, modulus) % modulus
        step = step - modulus if step >= modulus // 2 else step
        old = int(words[index]) + step
        if 0 <= old < 1 << bits:
            number = np.array([old], np.uint64).astype(_WORDS[values.itemsize]).view(values.dtype)
            return index, float(number[0])
    return None


def _keys_of(count: int) -> list[int]:
    return [int(key) for key in _keys(count)]


def _place(index: int, shape: tuple[int, ...]) -> str:
    place = [int(part) for part in np.unravel_index(index, shape)] if shape else [index]
    return f"[{', '.join(map(str, place))}]"


def _text(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def _array(text: str, kind: str) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(text, validate=True), kind)
    return values.astype(kind[1:], copy=False)
