"""How often pictures are taken for what they show, and for what else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# With more classes a table of all pairs does not fit on a screen.
MOST_IN_TABLE = 20
_SHOWN_CONFUSIONS = 3


@dataclass(frozen=True, eq=False)
class ClassificationReport:
    """Pictures by class (rows) and what they were taken for (columns).

    Attributes:
        names: K classes; a background, if there is one, is the last.
        counts: (K, K) int64.
        mean_probability: (K,) float64, what pictures of a class gave for it; NaN without any.
    """

    names: tuple[str, ...]
    counts: np.ndarray
    mean_probability: np.ndarray

    @property
    def total(self) -> int:
        """Pictures."""
        return int(self.counts.sum())

    @property
    def accuracy(self) -> float:
        """Share of the pictures that were taken for what they show; NaN without pictures."""
        return float(np.trace(self.counts)) / self.total if self.total else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "accuracy": None if not self.total else round(self.accuracy, 6),
            "pictures": self.total,
            "classes": list(self.names),
            "confusion": self.counts.tolist(),
            "mean_probability": [
                None if np.isnan(value) else round(float(value), 6)
                for value in self.mean_probability
            ],
        }

    def table(self) -> str:
        """A line for each class, and with few classes all pairs behind it.

        Columns: number of the class, pictures, share taken for it, its mean probability; then how
        many were taken for each class by its number, or the most frequent confusions.
        """
        width = max(len(name) for name in self.names)
        with_pairs = len(self.names) <= MOST_IN_TABLE
        digits = len(str(max(int(self.counts.max(initial=0)), len(self.names)))) + 1
        head = f"{'':>3} {'class':<{width}} {'pictures':>8} {'right':>6} {'P':>5}  "
        columns = "".join(f"{number:>{digits}}" for number in range(1, len(self.names) + 1))
        lines = [head + (columns if with_pairs else "taken for")]
        for row, name in enumerate(self.names):
            count = int(self.counts[row].sum())
            right = f"{self.counts[row, row] / count:6.1%}" if count else f"{'-':>6}"
            probability = f"{self.mean_probability[row]:5.2f}" if count else f"{'-':>5}"
            begin = f"{row + 1:>3} {name:<{width}} {count:>8} {right:>6} {probability}  "
            lines.append(begin + (self._pairs(row, digits) if with_pairs else self._worst(row)))
        return "\n".join(line.rstrip() for line in lines)

    def _pairs(self, row: int, digits: int) -> str:
        return "".join(f"{count or '.':>{digits}}" for count in self.counts[row].tolist())

    def _worst(self, row: int) -> str:
        others = self.counts[row].copy()
        others[row] = 0
        worst = np.argsort(-others, kind="stable")[:_SHOWN_CONFUSIONS]
        return ", ".join(f"{self.names[k]} {others[k]}" for k in worst.tolist() if others[k])


def classification_report(
    names: Sequence[str], probabilities: np.ndarray, labels: np.ndarray
) -> ClassificationReport:
    """The report of some pictures.

    Args:
        names: K classes.
        probabilities: (n, K) float32.
        labels: (n,) int, 0 ... K-1.
    """
    count = len(names)
    taken_for = probabilities.argmax(axis=1) if len(labels) else np.zeros(0, np.int64)
    pairs = np.bincount(labels * count + taken_for, minlength=count * count)
    pictures = np.bincount(labels, minlength=count)
    of_label = np.bincount(
        labels, weights=probabilities[np.arange(len(labels)), labels], minlength=count
    )
    with np.errstate(invalid="ignore"):
        mean = np.where(pictures > 0, of_label / pictures, np.nan)
    return ClassificationReport(tuple(names), pairs.reshape(count, count), mean)
