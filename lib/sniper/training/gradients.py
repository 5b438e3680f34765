"""Sums of gradients over devices, accumulated batches and workers, and the search for overflow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import mxnet as mx
import numpy as np

from sniper.errors import TrainingError
from sniper.training.collectives import WorkerSum
from sniper.training.host_update import HostReduction, is_host
from sniper.training.replica import Arrays, Replica

if TYPE_CHECKING:
    from mxnet.kvstore import KVStore

# The operator that looks for overflow takes no more arrays at a time.
_ARRAYS_PER_CHECK = 200

PREFIX = "accumulated:"


class GradientSum:
    """Gradients of one update, on the first device.

    One device that takes no other batches into its update gives its own gradient arrays, and CPU
    devices add theirs up there. Otherwise float32 sums are kept. Devices are added in order, then
    batches in order, then workers.

    Args:
        replicas: one per device.
        accumulation: batches of an update.
        kvstore: sums over the workers, or None.
        mean: divide by the number of gradients in the sum.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        accumulation: int,
        kvstore: KVStore | None,
        *,
        mean: bool,
    ) -> None:
        self._replicas = replicas
        self._accumulation = accumulation
        self._workers = WorkerSum(kvstore, "gradients") if kvstore is not None else None
        self.num_workers = kvstore.num_workers if kvstore is not None else 1
        self._count = 0
        self._divisor = self.terms if mean else 1
        first = replicas[0]
        self._host: HostReduction | None = None
        if all(is_host(replica.gradients.values()) for replica in replicas):
            self._host = HostReduction(len(replicas))
        self._sums: Arrays = {}
        several = len(replicas) > 1 and self._host is None
        if several or accumulation > 1 or kvstore is not None:
            # float32: sums of half-precision gradients overflow, or lose their small terms.
            self._sums = {
                name: mx.nd.zeros(gradient.shape, ctx=first.device, dtype="float32")
                for name, gradient in first.gradients.items()
            }

    @property
    def terms(self) -> int:
        """Gradients in a finished sum: devices x batches x workers."""
        return len(self._replicas) * self._accumulation * self.num_workers

    @property
    def count(self) -> int:
        """Batches taken in since the last update."""
        return self._count

    def add(self) -> bool:
        """Takes the gradients of all devices in; returns whether the update is complete."""
        for replica in self._replicas if self._sums else ():
            is_first = self._count == 0 and replica is self._replicas[0]
            for name, gradient in replica.gradients.items():
                _add(self._sums[name], gradient, overwrite=is_first)
        self._count += 1
        return self._count == self._accumulation

    def finish(self) -> tuple[Arrays, bool]:
        """Gradients of the update in the types of the weights, and whether all are finite.

        The next `add` starts a new sum.
        """
        self._count = 0
        if not self._sums:
            gradients = [replica.gradients for replica in self._replicas]
            if self._host is not None:
                return gradients[0], self._host.reduce(gradients, self._divisor)
            return gradients[0], all_finite(gradients[0])
        if self._workers is not None:
            self._workers.sum_(list(self._sums), list(self._sums.values()))
        if self._divisor != 1:  # in float32: a sum of halves may be too large for their type
            for total in self._sums.values():
                total /= self._divisor
        types = self._replicas[0].gradients
        sums = {
            name: total.astype(types[name].dtype, copy=False) for name, total in self._sums.items()
        }
        if self._host is not None:
            return sums, self._host.reduce([sums], 1.0)
        return sums, all_finite(sums)

    def state(self) -> Arrays:
        """The unfinished sum; empty between updates."""
        if not self._count:
            return {}
        return {f"{PREFIX}{name}": total for name, total in self._sums.items()}

    def restore(self, arrays: Mapping[str, mx.nd.NDArray], count: int, where: Path) -> None:
        """Goes on with an unfinished sum of `count` batches.

        Raises:
            TrainingError: the sum does not belong to this network or accumulation.
        """
        for name, total in self._sums.items() if count else ():
            saved = arrays.get(f"{PREFIX}{name}")
            if saved is None or saved.shape != total.shape:
                raise TrainingError(
                    "the gradients of the unfinished update do not fit this network",
                    where=where,
                    got=f"{name}: {None if saved is None else saved.shape}",
                    expected=f"{name}: {total.shape}",
                )
            saved.copyto(total)
        if count >= self._accumulation:
            raise TrainingError(
                "the checkpoint was saved in the middle of a longer accumulation",
                where=where,
                got=f"{count} batches taken in, TRAIN.ACCUMULATION_STEPS {self._accumulation}",
                fix="resume with the settings that the run was started with",
            )
        self._count = count


def _add(total: mx.nd.NDArray, gradient: mx.nd.NDArray, *, overwrite: bool) -> None:
    if overwrite:
        gradient.copyto(total)  # converts from another type or device
    else:
        total += gradient.as_in_context(total.context).astype(total.dtype, copy=False)


def all_finite(gradients: Mapping[str, mx.nd.NDArray]) -> bool:
    """Whether no value is infinite or NaN: every value is read once, one number comes back."""
    by_dtype: dict[type, list[mx.nd.NDArray]] = defaultdict(list)
    for gradient in gradients.values():
        by_dtype[gradient.dtype].append(gradient)
    return all(map(_group_is_finite, by_dtype.values()))


def _group_is_finite(group: Sequence[mx.nd.NDArray]) -> bool:
    # On the CPU the check below takes 15 times as long as a dot product. A finite sum of squares
    # has finite terms; only if it is not, which may be the sum's own overflow, every value counts.
    if group[0].context.device_type == "cpu" and group[0].dtype == np.float32:
        flat = [value.reshape(-1) for value in group]
        squares = [mx.nd.dot(values, values) for values in flat]
        if np.isfinite(mx.nd.add_n(*squares).asscalar()):
            return True
    flags = []
    for start in range(0, len(group), _ARRAYS_PER_CHECK):
        chunk = group[start : start + _ARRAYS_PER_CHECK]
        flags.append(mx.nd.multi_all_finite(*chunk, num_arrays=len(chunk)))
    return all(bool(flag.asscalar()) for flag in flags)


def non_finite_names(gradients: Mapping[str, mx.nd.NDArray]) -> tuple[str, ...]:
    """Names of the gradients that hold an infinity or a NaN."""
    return tuple(
        name for name, value in gradients.items() if not np.isfinite(value.asnumpy()).all()
    )
