"""FocusPixel labels: where AutoFocus is to look again at the next finer level (training)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sniper.targets.contract import BatchArray, ChipTruth, Labels
from sniper.targets.gt import boxes_in_chip

FOCUS, DONT_CARE = 1, -1


@dataclass(frozen=True)
class FocusRanges:
    """Limits of the square root of a box's area (sides without +1), in chip px.

    Attributes:
        low: up to here a box is too small to be found, even at a finer level (2018: 5).
        small: below it a box is to be found at a finer level (2018: 64).
        high: from here on a box is large enough to be background (2018: 90).
    """

    low: float
    small: float
    high: float


def focus_labels(
    boxes_chip: np.ndarray, ranges: FocusRanges, stride: int, cells: int
) -> np.ndarray:
    """Labels of the feature cells of one chip (AutoFocus, section 3.1; 2018 behaviour).

    Every box whose size is below `ranges.high` stamps the cells that it touches and those at its
    right and lower end, later boxes over earlier ones: 1 between `low` and `small`, else -1. A box
    outside the chip was clipped to a line at its border and stamps -1 there.

    Args:
        boxes_chip: (n, 4) float32, chip px, rounded and clipped: all ground truth of the image,
            also what is too small to be trained, in the order of the record
            (`sniper.targets.gt.boxes_in_chip`).
        ranges: which sizes are stamped.
        stride: side of a feature cell in px.
        cells: feature cells per side.

    Returns:
        (cells * cells,) int8 of -1 (not trained), 0 (background) and 1, row by row. Zeros without
        boxes.
    """
    labels = np.zeros((cells, cells), np.int8)
    boxes = boxes_chip.astype(np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    sizes = np.sqrt(np.maximum(sides[:, 0] * sides[:, 1], 0))
    first = (boxes[:, :2] / stride).astype(np.int64)
    last = np.ceil(boxes[:, 2:] / stride).astype(np.int64)
    is_focus = (sizes > ranges.low) & (sizes < ranges.small)
    for n in np.flatnonzero(sizes < ranges.high).tolist():
        (column, row), (last_column, last_row) = first[n], last[n]
        stamp = FOCUS if is_focus[n] else DONT_CARE
        labels[row : last_row + 1, column : last_column + 1] = stamp
    return labels.reshape(-1)


class FocusLabels(Labels):
    """Cells with small objects: 1, with others that do not count: -1; they travel as bytes.

    Args:
        ranges: which sizes are small.
        stride: side of a feature cell, px.
        cells: feature cells along a side of a chip.
    """

    def __init__(self, ranges: FocusRanges, stride: int, cells: int) -> None:
        self._ranges, self._stride, self._cells = ranges, stride, cells
        self.label = (BatchArray("scale_label", (cells * cells,), np.int8),)

    def write(self, truth: ChipTruth, row: Mapping[str, np.ndarray]) -> int:
        """See `focus_labels`."""
        chip = truth.chip
        # All ground truth, small and far boxes too: 2018 behaviour.
        boxes = boxes_in_chip(
            *(truth.record.gt_boxes, chip.rect, chip.factor, truth.chip_size),
            legacy=truth.legacy,
        )
        row["scale_label"][...] = focus_labels(boxes, self._ranges, self._stride, self._cells)
        return 0
