"""Training metrics of all heads: sums of numerators and denominators, never NaN."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

# Outputs and labels of a batch by name -> (numerator, denominator) of every metric, in printing
# order (`sniper.models.assembly.batch_metrics`).
Measure = Callable[
    [Mapping[str, np.ndarray], Mapping[str, np.ndarray]], Mapping[str, tuple[float, float]]
]


@dataclass
class Ratio:
    """A running sum divided by a running count."""

    numerator: float = 0.0
    denominator: float = 0.0

    def add(self, numerator: float, denominator: float) -> None:
        """Adds one batch."""
        self.numerator += float(numerator)
        self.denominator += float(denominator)

    @property
    def value(self) -> float:
        """The ratio; 0 where nothing was counted."""
        return self.numerator / self.denominator if self.denominator else 0.0


@dataclass
class Metrics:
    """Metrics over a window and over the epoch.

    Who reads a window or an epoch starts the next one with empty sums.

    Args:
        measure: gives those of a batch.
        window: sums since the last progress line.
        epoch: sums of the epoch.
    """

    measure: Measure
    window: dict[str, Ratio] = field(default_factory=dict)
    epoch: dict[str, Ratio] = field(default_factory=dict)

    def update(self, outputs: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> dict:
        """Adds a batch and returns its own values.

        Args:
            outputs: network outputs by name (`sniper.models.assembly.short_output_names`).
            labels: label tensors of the batch by name.
        """
        batch = self.measure(outputs, labels)
        for name, (numerator, denominator) in batch.items():
            for sums in (self.window, self.epoch):
                sums.setdefault(name, Ratio()).add(numerator, denominator)
        return {name: n / d if d else 0.0 for name, (n, d) in batch.items()}
