"""Ground truth against the pyramid: which levels are responsible for a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sniper.chips.chip_settings import ChipSettings
from sniper.chips.pyramid import level_factors
from sniper.data.record import Record


@dataclass(frozen=True, eq=False)
class BoxLevels:
    """Ground truth of R records against a pyramid of L levels: N boxes, record by record.

    Attributes:
        boxes: (N, 4) float32, image px.
        classes: (N,) int32.
        record: (N,) int64, which of the R records.
        starts: (R + 1,) int64: record r owns the boxes starts[r]:starts[r + 1].
        side: (N,) float64, square root of width * height as chip generation truncates them.
        long_side: (N,) int64, the longer of the two.
        factors: (R, L) float64, image px -> scaled px.
        in_range: (N, L) bool: the box belongs to the level: its size lies in the range that chips
            are made for, and its longer side below the level's limit or at that of a finer one.
    """

    boxes: np.ndarray
    classes: np.ndarray
    record: np.ndarray
    starts: np.ndarray
    side: np.ndarray
    long_side: np.ndarray
    factors: np.ndarray
    in_range: np.ndarray


def box_levels(records: Sequence[Record], settings: ChipSettings) -> BoxLevels:
    """Compares the ground truth of `records` with a pyramid; no records give empty arrays."""
    counts = np.array([record.num_gt for record in records], np.int64)
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(r.gt_boxes for r in records)])
    classes = np.concatenate([np.zeros(0, np.int32), *(r.gt_classes for r in records)])
    width = (boxes[:, 2] - boxes[:, 0]).astype(np.int64)
    height = (boxes[:, 3] - boxes[:, 1]).astype(np.int64)
    side = np.sqrt(np.maximum(width * height, 0))
    long_side = np.maximum(width, height)
    return BoxLevels(
        boxes=boxes,
        classes=classes,
        record=np.repeat(np.arange(len(records)), counts),
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        side=side,
        long_side=long_side,
        factors=_factors(records, settings),
        in_range=_in_range(side, long_side, settings),
    )


def _factors(records: Sequence[Record], settings: ChipSettings) -> np.ndarray:
    """(R, L) float64; images of the same size share the arithmetic."""
    sizes = [(record.width, record.height) for record in records]
    known = {size: level_factors(*size, settings.scales) for size in dict.fromkeys(sizes)}
    rows = np.array([known[size] for size in sizes], np.float64)
    return rows.reshape(-1, len(settings.scales))


def _in_range(side: np.ndarray, long_side: np.ndarray, settings: ChipSettings) -> np.ndarray:
    ranges, limits = settings.size_ranges, settings.upper_sides
    lows = np.array([low for low, _ in ranges], np.float64)
    # As in chip generation the last level has no upper end, whatever the file says.
    highs = np.array([*(high for _, high in ranges[:-1]), np.inf], np.float64)
    finer = np.array([np.inf, *limits[:-1]])
    large_enough = (side[:, None] >= lows) | (long_side[:, None] >= finer)
    return large_enough & (side[:, None] < highs) & (long_side[:, None] < np.array(limits))
