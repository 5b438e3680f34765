"""Which boxes each chip of a level is trained on."""

from __future__ import annotations

import numpy as np

from sniper.chips.chip import POSITIVE
from sniper.chips.cover import ChipSet, Level
from sniper.chips.table import BoxTable

# A negative chip is kept with more assigned boxes than this (2018 behaviour).
MIN_FALSE_ALARMS = 10
MIN_FALSE_ALARMS_FINEST = 25


def assign(
    table: BoxTable, candidates: np.ndarray, chips: ChipSet, level: Level, kind: str
) -> np.ndarray:
    """Gives each candidate box to the chip of its record that holds the largest part of it.

    Args:
        table: the boxes.
        candidates: (B,) bool, boxes that may be assigned.
        chips: the chips of this level.
        level: the pyramid level.
        kind: `positive` or `negative`: the upper bound is part of the range for positive chips
            only (2018 behaviour).

    Returns:
        (B,) int64: the chip, or -1 where no chip holds a part whose size is in the valid range.
        Of equally good chips the first one is taken.
    """
    assigned = np.full(len(table.boxes), -1, np.int64)
    indices = np.flatnonzero(candidates)
    num_chips = np.diff(chips.starts)[table.record[indices]]
    indices, num_chips = indices[num_chips > 0], num_chips[num_chips > 0]
    if not len(indices):
        return assigned
    best = _largest_share(table, indices, chips, num_chips)
    assigned[indices] = np.where(
        _counts(table.boxes[indices], chips.rects[best], level, kind), best, -1
    )
    return assigned


def false_alarm_chips(assigned: np.ndarray, num_chips: int, level: Level) -> np.ndarray:
    """Chips with so many false alarms that they make good negatives: (num_chips,) bool."""
    counts = np.bincount(assigned[assigned >= 0], minlength=num_chips)
    fewest = MIN_FALSE_ALARMS_FINEST if level.index == 0 else MIN_FALSE_ALARMS
    return counts > fewest


def _largest_share(
    table: BoxTable, indices: np.ndarray, chips: ChipSet, num_chips: np.ndarray
) -> np.ndarray:
    """The chip with the largest IOB of each box in `indices`, which all have chips: (len,)."""
    # One row per pair of a box and a chip of its record; the pairs of a box are consecutive.
    starts = np.concatenate([[0], np.cumsum(num_chips)[:-1]])
    pair_box = np.repeat(np.arange(len(indices)), num_chips)
    offset = chips.starts[table.record[indices]] - starts
    pair_chip = np.arange(len(pair_box)) + offset[pair_box]
    boxes = table.boxes[indices].astype(np.float64)
    areas = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    sides = _overlap_sides(boxes[pair_box], chips.rects[pair_chip]) + 1
    share = np.maximum(sides[:, 0], 0) * np.maximum(sides[:, 1], 0) / areas[pair_box]
    is_best = share == np.maximum.reduceat(share, starts)[pair_box]
    pairs = np.flatnonzero(is_best)
    owners = pair_box[pairs]
    first = np.concatenate([[True], owners[1:] != owners[:-1]])
    return pair_chip[pairs[first]]


def _counts(boxes: np.ndarray, rects: np.ndarray, level: Level, kind: str) -> np.ndarray:
    """Whether the part of each box inside its chip is large and small enough: (n,) bool."""
    sides = _overlap_sides(boxes.astype(np.float64), rects)
    visible = (sides >= 1).all(axis=1)
    size = np.sqrt(np.abs(sides[:, 0] * sides[:, 1]))
    if level.coarsest:
        return visible & (size >= level.low)
    return visible & (size <= level.high if kind == POSITIVE else size < level.high)


def _overlap_sides(boxes: np.ndarray, rects: np.ndarray) -> np.ndarray:
    """Width and height of the overlap of each pair, without +1; negative if there is none."""
    return np.minimum(boxes[:, 2:], rects[:, 2:]) - np.maximum(boxes[:, :2], rects[:, :2])
