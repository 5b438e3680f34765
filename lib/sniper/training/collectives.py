"""Sums over the training processes of a job, through MXNet's parameter server.

The servers have no optimizer: what a key holds after a push is the sum of what all workers pushed,
and all workers pull the same bits. A sum of two is exact in any order; with three and more workers
the order of their arrival decides the last bit, so two runs may differ there, two workers of one
run never.

Every call here is collective: all workers make the same calls with the same shapes in the same
order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import mxnet as mx
import numpy as np

from sniper.errors import TrainingError

# Small tensors travel together: a network has hundreds of them, and each message costs time.
BUCKET_ELEMENTS = 1 << 20


class WorkerSum:
    """Replaces arrays by their sums over all workers.

    They travel as float32, several small ones in one message. The arrays of the first messages are
    sent while those of the later ones are still being computed.

    Args:
        kvstore: of the kind dist_sync, without an optimizer.
        label: no other sum of this job may have the same.
    """

    def __init__(self, kvstore: mx.kv.KVStore, label: str) -> None:
        self._kvstore = kvstore
        self._label = label
        self._buckets: list[_Bucket] = []
        self._layout: list[tuple[str, tuple[int, ...]]] = []

    def sum_(self, names: Sequence[str], arrays: Sequence[mx.nd.NDArray]) -> None:
        """Sums in place; returns at once, and reading an array waits for its sum.

        Args:
            names: of the arrays; they and the shapes must be those of the first call.
            arrays: float32 or float16, on one device; those that the next step needs first (the
                network's first layers) stand first.

        Raises:
            TrainingError: the arrays are not those of the first call.
        """
        layout = [(name, array.shape) for name, array in zip(names, arrays)]
        if not self._layout:
            self._layout = layout
            self._buckets = _buckets(self._label, layout)
            for bucket in self._buckets:
                self._kvstore.init(bucket.key, mx.nd.zeros(bucket.size))
        if layout != self._layout:
            raise TrainingError(
                "the arrays to be summed over the workers have changed", where=self._label
            )
        # Backward makes the last layers' gradients first.
        packed = {bucket.key: bucket.pack(arrays) for bucket in reversed(self._buckets)}
        # Higher priorities travel first: the next forward pass begins with the first layers.
        for rank, bucket in reversed(list(enumerate(self._buckets))):
            self._kvstore.push(bucket.key, packed[bucket.key], priority=-rank)
        for rank, bucket in enumerate(self._buckets):
            self._kvstore.pull(bucket.key, packed[bucket.key], priority=-rank)
        for bucket in self._buckets:
            bucket.unpack(packed[bucket.key], arrays)


@dataclass
class _Bucket:
    """Consecutive arrays that travel in one message."""

    key: str
    size: int = 0
    # (index of the array, begin, end)
    parts: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, index: int, count: int) -> None:
        self.parts.append((index, self.size, self.size + count))
        self.size += count

    def pack(self, arrays: Sequence[mx.nd.NDArray]) -> mx.nd.NDArray:
        """A new buffer: the arrays may be on a GPU, or of half precision."""
        flat = [_float32(arrays[index]).reshape(-1) for index, _, _ in self.parts]
        return mx.nd.concat(*flat, dim=0) if len(flat) > 1 else flat[0].copy()

    def unpack(self, buffer: mx.nd.NDArray, arrays: Sequence[mx.nd.NDArray]) -> None:
        for index, begin, end in self.parts:
            array = arrays[index]
            array[:] = buffer[begin:end].reshape(array.shape).astype(array.dtype, copy=False)


def _float32(array: mx.nd.NDArray) -> mx.nd.NDArray:
    return array.astype(np.float32, copy=False)


def _buckets(label: str, layout: Sequence[tuple[str, tuple[int, ...]]]) -> list[_Bucket]:
    buckets: list[_Bucket] = []
    for index, (_, shape) in enumerate(layout):
        count = int(np.prod(shape))
        if not buckets or buckets[-1].size + count > BUCKET_ELEMENTS:
            buckets.append(_Bucket(f"{label}:{len(buckets)}"))
        buckets[-1].add(index, count)
    return buckets


class RowGather:
    """Brings a few numbers of every worker to all of them.

    Args:
        kvstore: of the kind dist_sync, without an optimizer.
        rank: of this worker.
        count: of workers.
    """

    def __init__(self, kvstore: mx.kv.KVStore, rank: int, count: int) -> None:
        self._kvstore = kvstore
        self._rank, self._count = rank, count
        self._keys: dict[int, str] = {}

    def __call__(self, row: np.ndarray) -> np.ndarray:
        """The rows of all workers: (k,) float64 in, (count, k) float64 out, in their order."""
        # The servers add in float32: bytes come through whole where doubles would not.
        row_bytes = np.ascontiguousarray(row, np.float64).view(np.uint8)
        key = self._keys.get(len(row_bytes))
        sent = np.zeros((self._count, len(row_bytes)), np.float32)
        sent[self._rank] = row_bytes  # all other rows are zeros
        table = mx.nd.array(sent, dtype=np.float32)
        if key is None:
            key = self._keys[len(row_bytes)] = f"rows:{len(row_bytes)}"
            self._kvstore.init(key, mx.nd.zeros(table.shape))
        self._kvstore.push(key, table)
        self._kvstore.pull(key, table)
        return table.asnumpy().astype(np.uint8).view(np.float64)


def mean_(total: WorkerSum, arrays: Mapping[str, mx.nd.NDArray], count: int) -> None:
    """Replaces arrays by their means over `count` workers."""
    names = sorted(arrays)  # all workers have to name them in one order
    total.sum_(names, [arrays[name] for name in names])
    for name in names:
        arrays[name][:] = arrays[name] / count
