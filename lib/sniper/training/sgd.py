"""SGD with momentum on the first device: MXNet's optimizer, its schedule and its states."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mxnet as mx

from sniper.errors import TrainingError
from sniper.training.replica import Arrays
from sniper.training.schedule import WarmupSchedule
from sniper.training.step_settings import StepSettings


class Sgd:
    """The optimizer of a run; it always runs in the worker, once for all its devices.

    As in 2018 a loss scale divides the learning rate and multiplies the weight decay, so that
    momenta do not depend on it.

    Args:
        symbol: the network, for its learning-rate and decay multipliers.
        weights: the trained parameters by name, in the order of the graph; updated in place.
        settings: rates, decay, clipping.
    """

    def __init__(self, symbol: mx.sym.Symbol, weights: Arrays, settings: StepSettings) -> None:
        self._symbol = symbol
        self._weights = weights
        self._settings = settings
        self._start(updates=0)

    def _start(self, updates: int) -> None:
        settings = self._settings
        self._schedule = WarmupSchedule(
            settings.lr,
            settings.steps,
            settings.lr_factor,
            settings.warmup_lr,
            settings.warmup_step,
            cosine_updates=settings.cosine_updates,
        )
        # Without `learning_rate`, which MXNet would write over the base rate of the schedule.
        self._optimizer = mx.optimizer.create(
            "sgd",
            sym=self._symbol,
            param_idx2name=dict(enumerate(self._weights)),
            momentum=settings.momentum,
            lr_scheduler=self._schedule,
            rescale_grad=1.0,
            multi_precision=settings.multi_precision,
            begin_num_update=updates,
        )
        self._updater = mx.optimizer.get_updater(self._optimizer)
        self.set_loss_scale(settings.loss_scale)

    @property
    def updates(self) -> int:
        """Updates done."""
        return self._optimizer.num_update

    @property
    def learning_rate(self) -> float:
        """Rate of the last update, or of the first one before it; without the loss scale."""
        return self._schedule.rate(max(self.updates, 1))

    def set_loss_scale(self, scale: float) -> None:
        """The gradients are multiplied by `scale` from now on."""
        self._schedule.loss_scale = scale
        self._optimizer.wd = self._settings.wd * scale
        self._optimizer.clip_gradient = self._settings.clip_gradient * scale or None

    def update(self, gradients: Mapping[str, mx.nd.NDArray]) -> None:
        """Makes one update with the gradients of all weights, by name."""
        weights = list(self._weights.values())
        values = [gradients[name] for name in self._weights]
        self._updater(list(range(len(weights))), values, weights)

    @property
    def masters(self) -> Arrays:
        """What the optimizer updates: the weights, or float32 copies of the fp16 ones."""
        return {
            name: state[1] if isinstance(state := self._states.get(index), tuple) else weight
            for index, (name, weight) in enumerate(self._weights.items())
        }

    @property
    def _states(self) -> dict:
        return self._updater.states

    def state(self) -> Arrays:
        """Momenta (part 0) and float32 masters (part 1) by `<part>:<parameter>:0`."""
        arrays = {}
        for index, name in enumerate(self._weights):
            for part, value in enumerate(_parts(self._states.get(index))):
                if value is not None:
                    arrays[_key(part, name)] = value
        return arrays

    def restore(self, arrays: Mapping[str, mx.nd.NDArray], updates: int, where: Path) -> None:
        """Goes on after `updates` updates.

        Raises:
            TrainingError: the arrays belong to another network or optimizer.
        """
        self._start(updates)
        if not updates:
            return  # the optimizer makes its states in the first one
        for index, (name, weight) in enumerate(self._weights.items()):
            state = self._optimizer.create_state_multi_precision(index, weight)
            for part, value in enumerate(_parts(state)):
                if value is not None:
                    _copy(arrays.get(_key(part, name)), value, name, where)
            self._states[index] = state
            # The updater asks this of every state that it finds: it is on the weight's device.
            self._updater.states_synced[index] = True


def _parts(state: object) -> tuple:
    return tuple(state) if isinstance(state, (tuple, list)) else (state,)


def _key(part: int, name: str) -> str:
    # The last field was the device; it is kept since older files have it.
    return f"{part}:{name}:0"


def _copy(saved: mx.nd.NDArray | None, value: mx.nd.NDArray, name: str, where: Path) -> None:
    if saved is None or saved.shape != value.shape:
        raise TrainingError(
            "the optimizer state does not fit this network",
            where=where,
            got=f"{name}: {None if saved is None else saved.shape}",
            expected=f"{name}: {value.shape}",
            fix="resume with the recipe that the run was started with",
        )
    saved.copyto(value)
