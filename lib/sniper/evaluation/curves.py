"""Precision over recall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# The IoU thresholds of the curves; the last is the mean over ten of them.
CURVE_IOUS = ("0.50", "0.75", "0.50:0.95")


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Best precision at 101 recalls, for three IoU thresholds (`CURVE_IOUS`).

    Attributes:
        recall: (101,) 0 ... 1.
        class_names: K names without the background.
        precision: (3, 101, K) float64; NaN for classes without objects.
    """

    recall: np.ndarray
    class_names: tuple[str, ...]
    precision: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """(3, 101) mean over the classes that have objects; NaN where none has."""
        known = ~np.isnan(self.precision[0, 0])
        if not known.any():
            return np.full(self.precision.shape[:2], np.nan)
        return self.precision[:, :, known].mean(axis=2)

    def as_dict(self) -> dict[str, list[float | None]]:
        """The mean curves, 4 decimals, ready for JSON."""
        curves = {"recall": self.recall.round(4).tolist()}
        for name, values in zip(CURVE_IOUS, self.mean):
            curves[name] = [None if np.isnan(v) else round(v, 4) for v in values.tolist()]
        return curves
