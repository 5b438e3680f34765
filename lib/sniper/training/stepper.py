"""The training step: gradients of all devices, one update, loss scale, averaged weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mxnet as mx
import numpy as np

from sniper.errors import TrainingError
from sniper.loader.train import Batch
from sniper.models.assembly import DetectorSpec, short_output_names
from sniper.models.untrained_norms import with_stored_statistics
from sniper.training.averaging import PREFIX as AVERAGE_PREFIX
from sniper.training.averaging import WeightAverage
from sniper.training.gradients import GradientSum, non_finite_names
from sniper.training.loss_scale import LossScale, scale_losses
from sniper.training.replica import Arrays, Replica
from sniper.training.sgd import Sgd
from sniper.training.step_settings import StepSettings

if TYPE_CHECKING:
    from mxnet.kvstore import KVStore

logger = logging.getLogger(__name__)

_STORED_STATISTICS = (
    "%d batch norm(s) use stored statistics, as in detection: nothing up to them is trained (%s)"
)
_NORMS_TOLD = 3
# Names in `Stepper.state`: a float64 vector (loss scale, updates since it changed, batches taken
# into the unfinished update), and the statistics of every device where a process has several.
SCALARS = "scalars"
STATISTICS = "aux"


@dataclass(frozen=True, eq=False)
class StepResult:
    """What came of a batch.

    Attributes:
        outputs: network outputs by name (without `_output`), all devices' rows in order.
        updated: the weights were updated; with accumulation only every so many batches.
        skipped: a gradient was not finite, so that the batches of this update had no effect.
        loss_scale: the scale of this batch's losses.
        bad_gradients: parameters with a gradient that is not finite, when no smaller loss scale
            can help; the run must stop. Checkpoints from before this step are good.
    """

    outputs: dict[str, np.ndarray]
    updated: bool
    skipped: bool
    loss_scale: float
    bad_gradients: tuple[str, ...] = ()


class Stepper:
    """Owns the network, its devices and its optimizer.

    A batch is cut into equal parts, one per device. Gradients are summed (or averaged) over the
    devices, over `accumulation` batches and over the workers of `kvstore`; the first device makes
    the update and sends the weights to the others. Before every update all its gradients are looked
    through for infinities and NaN: reading each value once is little beside the update itself,
    which reads three values and writes two, and no bad value can reach the weights or a checkpoint.

    Several devices make the update of one that holds all their chips if gradients are averaged,
    batch norms frozen, and the losses of all devices divided by equal numbers of labels: true of
    RPN and box head (the RPN samples equally many anchors on every chip), not of FocusPixels and
    masks, whose labels vary; a chip with fewer proposals than RoIs gets fillers that depend on its
    place in the batch. They make the update of as many accumulated batches always.

    A skipped update leaves no trace but in the loss scale: the running averages of BatchNorm go
    back to what they were before its batches.

    Usage::

        result = stepper.step(batch)
        broken = [names of losses that are not finite, *result.bad_gradients]

    Args:
        spec: what the network was built from, with the loss scale that is in the symbol.
        symbol: the network with its losses.
        devices: where it runs.
        input_shapes: shapes of all data and labels of one device, by name.
        arg: starting values of all parameters, by name.
        aux: starting values of all running averages, by name.
        settings: of the update.
        kvstore: of kind dist_sync, if other workers take part: it gives every worker the first
            one's weights and sums gradients. None: this process trains alone.
    """

    def __init__(
        self,
        spec: DetectorSpec,
        symbol: mx.sym.Symbol,
        devices: Sequence[mx.Context],
        input_shapes: Mapping[str, tuple[int, ...]],
        arg: Arrays,
        aux: Arrays,
        settings: StepSettings,
        *,
        kvstore: KVStore | None = None,
    ) -> None:
        self._symbol_scale = spec.loss_scale
        self._output_names = short_output_names(symbol.list_outputs(), spec)
        self._rows = input_shapes["data"][0]
        fixed = set(settings.fixed)
        trained = [n for n in symbol.list_arguments() if n not in input_shapes and n not in fixed]
        self._symbol, norms = with_stored_statistics(symbol, set(trained))
        if norms:
            told = ", ".join(norms[:_NORMS_TOLD]) + (", ..." if norms[_NORMS_TOLD:] else "")
            logger.info(_STORED_STATISTICS, len(norms), told)
        self._loss_scale = LossScale(
            settings.loss_scale, settings.dynamic_loss_scale, settings.loss_scale_window
        )
        self._replicas = [
            Replica(self._scaled_symbol(), device, input_shapes, trained) for device in devices
        ]
        for replica in self._replicas:
            replica.set_parameters(arg, aux)
        if kvstore is not None:
            self._share_first_workers_weights(kvstore)
        first = self._replicas[0]
        self._weights = {name: first.parameters[name] for name in trained}
        self._gradients = GradientSum(
            self._replicas, settings.accumulation, kvstore, mean=settings.reduction == "mean"
        )
        others = [replica.parameters for replica in self._replicas[1:]]
        self._sgd = Sgd(symbol, self._weights, settings, others)
        decay = settings.ema_decay
        self._average = WeightAverage(self._weights, decay) if decay > 0 else None
        self._statistics_before: list[Arrays] = []

    @property
    def updates(self) -> int:
        """Updates done; skipped ones do not count."""
        return self._sgd.updates

    @property
    def replicas(self) -> int:
        """Gradients that make an update: devices x accumulated batches x workers."""
        return self._gradients.terms

    @property
    def learning_rate(self) -> float:
        """Rate of the last update, as the recipe counts it."""
        return self._sgd.learning_rate

    def step(self, batch: Batch) -> StepResult:
        """Trains on a batch of one process: `BATCH_IMAGES` chips for each of its devices.

        Raises:
            TrainingError: the batch does not fit the network.
        """
        self._check_batch(batch)
        # Only a dynamic loss scale goes on after an overflow; all else stops the run.
        if self._loss_scale.dynamic and self._gradients.count == 0:
            self._statistics_before = [_copies(replica.statistics) for replica in self._replicas]
        arrays = {**batch.data, **batch.label}
        for index, replica in enumerate(self._replicas):
            replica.load(arrays, slice(index * self._rows, (index + 1) * self._rows))
        for replica in self._replicas:
            replica.run()
        complete = self._gradients.add()
        outputs = self._outputs()
        scale = self._loss_scale.value
        if not complete:
            return StepResult(outputs, updated=False, skipped=False, loss_scale=scale)
        gradients, is_finite = self._gradients.finish()
        if is_finite:
            self._update(gradients)
            return StepResult(outputs, updated=True, skipped=False, loss_scale=scale)
        bad = self._skip(gradients)
        return StepResult(outputs, updated=False, skipped=True, loss_scale=scale, bad_gradients=bad)

    def params(self) -> tuple[Arrays, Arrays]:
        """Copies of parameters and running averages as trained, on the CPU.

        The devices' weights are equal; the running averages are the mean over the devices.
        """
        arg = _copies(self._replicas[0].parameters, mx.cpu())
        return arg, self._mean_statistics()

    @property
    def weights(self) -> Arrays:
        """Parameters and running averages of the first device by name: live, not to be changed."""
        first = self._replicas[0]
        return {**first.parameters, **first.statistics}

    def averaged_params(self) -> tuple[Arrays, Arrays] | None:
        """The same with averaged weights, which go with the running averages of the last ones.

        None without `ema_decay`.
        """
        if self._average is None:
            return None
        arg, aux = self.params()
        for name, average in self._average.values.items():
            arg[name] = average.as_in_context(mx.cpu()).astype(arg[name].dtype)
        return arg, aux

    def state(self) -> Arrays:
        """What a checkpoint needs beside the parameters; live arrays, to be written at once."""
        arrays = {**self._sgd.state(), **self._gradients.state()}
        if self._average is not None:
            arrays.update(self._average.state())
        arrays.update(self._own_statistics())
        scale = self._loss_scale
        scalars = [scale.value, scale.good_updates, self._gradients.count]
        arrays[SCALARS] = mx.nd.array(scalars, dtype="float64")
        return arrays

    def restore(self, arrays: Mapping[str, mx.nd.NDArray], updates: int, where: Path) -> None:
        """Goes on where `state` was taken, after `updates` updates; the weights are in already.

        Momenta alone, as in older files, are enough. A run that starts to average its weights now
        starts from the present ones.

        Raises:
            TrainingError: the arrays belong to another network or other settings.
        """
        scalars = arrays[SCALARS].asnumpy() if SCALARS in arrays else np.zeros(3)
        self._sgd.restore(arrays, updates, where)
        if self._average is not None and any(n.startswith(AVERAGE_PREFIX) for n in arrays):
            self._average.restore(arrays, where)
        self._gradients.restore(arrays, int(scalars[2]), where)
        for name, value in self._own_statistics().items():
            if name in arrays:
                arrays[name].copyto(value)
        if self._loss_scale.dynamic and SCALARS in arrays:
            self._loss_scale.value = float(scalars[0])
            self._loss_scale.good_updates = int(scalars[1])
            self._apply_loss_scale()

    def _own_statistics(self) -> Arrays:
        """Statistics of every device: without them a resumed run would go on with their mean.

        None for one device, whose are the model's, nor for several workers: one saves for all.
        """
        if len(self._replicas) == 1 or self._gradients.num_workers > 1:
            return {}
        return {
            f"{STATISTICS}:{name}:{device}": value
            for device, replica in enumerate(self._replicas)
            for name, value in replica.statistics.items()
        }

    def _check_batch(self, batch: Batch) -> None:
        rows = len(batch.data["data"])
        if rows != self._rows * len(self._replicas):
            raise TrainingError(
                "the batch does not fit the devices",
                where=f"batch {batch.index}",
                got=f"{rows} chips",
                expected=f"{len(self._replicas)} devices x {self._rows}",
            )

    def _outputs(self) -> dict[str, np.ndarray]:
        by_output = zip(*(replica.outputs for replica in self._replicas))
        return {
            name: np.concatenate([array.asnumpy() for array in arrays])
            for name, arrays in zip(self._output_names, by_output)
        }

    def _update(self, gradients: Arrays) -> None:
        self._sgd.update(gradients)
        if self._average is not None:
            self._average.update(self._sgd.masters, self.updates)
        if self._loss_scale.updated():
            self._apply_loss_scale()

    def _skip(self, gradients: Arrays) -> tuple[str, ...]:
        for replica, before in zip(self._replicas, self._statistics_before):
            for name, value in replica.statistics.items():
                before[name].copyto(value)
        if not self._loss_scale.overflowed():
            return non_finite_names(gradients)
        self._apply_loss_scale()
        return ()

    def _apply_loss_scale(self) -> None:
        symbol = self._scaled_symbol()
        for replica in self._replicas:
            replica.replace_symbol(symbol)
        self._sgd.set_loss_scale(self._loss_scale.value)

    def _scaled_symbol(self) -> mx.sym.Symbol:
        # Always from the given symbol: roundings do not add up.
        return scale_losses(self._symbol, self._loss_scale.value / self._symbol_scale)

    def _share_first_workers_weights(self, kvstore: KVStore) -> None:
        """Every worker starts with the weights of the first one, whose `init` of a key counts."""
        first = self._replicas[0]
        for name, value in {**first.parameters, **first.statistics}.items():
            shared = value.astype("float32")  # the servers' type
            kvstore.init(name, shared)
            kvstore.pull(name, out=shared)
            for replica in self._replicas:
                shared.copyto(replica.parameters.get(name, replica.statistics.get(name)))

    def _mean_statistics(self) -> Arrays:
        of_devices = [_copies(replica.statistics, mx.cpu()) for replica in self._replicas]
        count = len(of_devices)
        if count == 1:
            return of_devices[0]
        return {name: sum(arrays[name] for arrays in of_devices) / count for name in of_devices[0]}


def _copies(arrays: Mapping[str, mx.nd.NDArray], device: mx.Context | None = None) -> Arrays:
    return {name: value.copyto(device or value.context) for name, value in arrays.items()}
