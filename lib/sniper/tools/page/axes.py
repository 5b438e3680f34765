"""Axes of the page's charts: numbers to places, and where the ticks are."""

from __future__ import annotations

import math
from dataclasses import dataclass

LINEAR, LOG2, LOG10 = "linear", "log2", "log10"
_MOST_TICKS = 6


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high`.

    Attributes:
        label: what is measured, with its unit.
        low: number at its beginning; positive for logarithms.
        high: number at its end, larger.
        kind: LINEAR, LOG2 or LOG10.
    """

    label: str
    low: float
    high: float
    kind: str = LINEAR

    def place(self, value: float) -> float:
        """Where a number lies: 0 at the beginning, 1 at the end; outside it is cut."""
        low, high = self._of(self.low), self._of(self.high)
        inside = min(max(value, self.low), self.high)
        return (self._of(inside) - low) / (high - low)

    def ticks(self) -> list[float]:
        """At most seven round numbers on the axis."""
        if self.kind == LINEAR:
            return _linear_ticks(self.low, self.high)
        base = 2.0 if self.kind == LOG2 else 10.0
        first = math.ceil(math.log(self.low, base) - 1e-9)
        last = math.floor(math.log(self.high, base) + 1e-9)
        step = max(1, -(-(last - first) // _MOST_TICKS))
        ticks = [base**power for power in range(first, last + 1, step)]
        return ticks if len(ticks) > 1 else [self.low, self.high]

    def _of(self, value: float) -> float:
        return value if self.kind == LINEAR else math.log(value)


def size_axis(label: str, smallest: float, largest: float) -> Axis:
    """An axis of sizes in px, in powers of two that hold them all."""
    low = math.floor(math.log2(max(smallest, 1)))
    high = math.ceil(math.log2(max(largest, 2)))
    return Axis(label, 2.0**low, 2.0 ** max(high, low + 1), LOG2)


def count_axis(label: str, largest: float) -> Axis:
    """An axis from 0 to a round number that is no smaller than `largest`."""
    step = _round_step(max(largest, 1) / 4)
    return Axis(label, 0, math.ceil(max(largest, 1) / step - 1e-9) * step)


def tick_text(value: float) -> str:
    """A short number: `0.25`, `12`, `3k`, `1.5M`."""
    for least, letter in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= least:
            return f"{value / (1e6 if letter == 'M' else 1e3):.3g}{letter}"
    return f"{value:.4g}"


def _linear_ticks(low: float, high: float) -> list[float]:
    step = _round_step((high - low) / (_MOST_TICKS - 1))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _round_step(step: float) -> float:
    """1, 2 or 5 times a power of ten, no smaller than `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(
        factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= step * (1 - 1e-9)
    )
