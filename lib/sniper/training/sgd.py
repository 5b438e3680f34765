"""SGD with momentum on the first device: MXNet's optimizer, its schedule and its states.

On the CPU the numbers are MXNet's, to the bit, and the loop is ours: one pass for all parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import mxnet as mx

from sniper.errors import TrainingError
from sniper.native import _native
from sniper.training.host_update import HostArrays, is_host, update_threads, wait
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
        copies: the same parameters on other devices, which get the new weights.
    """

    def __init__(
        self,
        symbol: mx.sym.Symbol,
        weights: Arrays,
        settings: StepSettings,
        copies: Sequence[Mapping[str, mx.nd.NDArray]] = (),
    ) -> None:
        self._symbol = symbol
        self._weights = weights
        self._copies = [[copy[name] for name in weights] for copy in copies]
        everywhere = [*weights.values(), *(array for copy in self._copies for array in copy)]
        self._host = HostArrays() if settings.momentum and is_host(everywhere) else None
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
        if self._host is not None:
            self._update_on_host(self._host, weights, values)
            return
        self._updater(list(range(len(weights))), values, weights)
        for copy in self._copies:
            for weight, target in zip(weights, copy):
                weight.copyto(target)

    def _update_on_host(
        self, host: HostArrays, weights: list[mx.nd.NDArray], gradients: list[mx.nd.NDArray]
    ) -> None:
        """What MXNet's updater does, with its counts, rates and states."""
        optimizer, numbers = self._optimizer, list(range(len(weights)))
        for number in numbers:
            if number not in self._states:
                self._states[number] = optimizer.create_state_multi_precision(
                    number, weights[number]
                )
                self._updater.states_synced[number] = True
        optimizer._update_count(numbers)
        rates, decays = optimizer._get_lrs(numbers), optimizer._get_wds(numbers)
        limit = optimizer.clip_gradient
        wait()
        _native.sgd_update(
            host.of(gradients),
            host.of(weights),
            host.of(self._states[number] for number in numbers),
            [host.of(copy) for copy in self._copies],
            rates,
            decays,
            self._settings.momentum,
            -1.0 if limit is None else limit,
            update_threads(1 + len(self._copies)),
        )

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
