"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mxnet as mx

from sniper.errors import TrainingError
from sniper.training.replica import Arrays

PREFIX = "ema:"


def decay_at(update: int, decay: float) -> float:
    """Decay of update number `update` (the first is 1): min(decay, (1 + n) / (10 + n)).

    The rule of TensorFlow's `ExponentialMovingAverage(num_updates=n)`, which others follow: the
    starting values, which are far off, are forgotten soon; `decay` holds for long runs.
    """
    return min(decay, (1 + update) / (10 + update))


class WeightAverage:
    """Moving average of the trained parameters in float32, on their device.

    Args:
        weights: starting values by name.
        decay: of the average, below 1.
    """

    def __init__(self, weights: Mapping[str, mx.nd.NDArray], decay: float) -> None:
        self._decay = decay
        self.values: Arrays = {
            name: weight.astype("float32").copy() for name, weight in weights.items()
        }

    def update(self, weights: Mapping[str, mx.nd.NDArray], update: int) -> None:
        """Takes in the weights after update number `update`."""
        decay = decay_at(update, self._decay)
        for name, average in self.values.items():
            # a + (1 - d)(w - a) rounds less than d a + (1 - d) w when d is near 1.
            average += (1 - decay) * (weights[name].astype("float32", copy=False) - average)

    def state(self) -> Arrays:
        """The averages by `ema:<parameter>`."""
        return {f"{PREFIX}{name}": average for name, average in self.values.items()}

    def restore(self, arrays: Mapping[str, mx.nd.NDArray], where: Path) -> None:
        """Goes on with saved averages.

        Raises:
            TrainingError: they belong to another network.
        """
        for name, average in self.values.items():
            saved = arrays.get(f"{PREFIX}{name}")
            if saved is None or saved.shape != average.shape:
                raise TrainingError(
                    "the averaged weights do not fit this network",
                    where=where,
                    got=f"{name}: {None if saved is None else saved.shape}",
                    expected=f"{name}: {average.shape}",
                )
            saved.copyto(average)
