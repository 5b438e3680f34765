"""Which boxes need chips at a pyramid level, and the chips that cover them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sniper.chips.table import BoxTable
from sniper.errors import OpsError


@dataclass(frozen=True)
class Level:
    """What the rules need to know about one pyramid level.

    Attributes:
        index: 0 is the finest.
        coarsest: the last level, or the only one.
        low: lower end of the valid range of the square root of a box's area, image px.
        high: its upper end, image px; not looked at on the coarsest level.
        factors: (R,) float64, image px -> scaled px of each record.
        chip_size: side of a chip, scaled px.
        stride: step of the lattice of candidates, scaled px.
    """

    index: int
    coarsest: bool
    low: float
    high: float
    factors: np.ndarray
    chip_size: int
    stride: int

    @property
    def size_limits(self) -> np.ndarray:
        """Longer sides of boxes must be below this, (R,) float64 image px.

        Neighbouring candidates are `stride` px apart: a longer box may fit into none of them.
        """
        return (self.chip_size - self.stride - 1) / self.factors


@dataclass(frozen=True, eq=False)
class ChipSet:
    """Chips of one level of R records, record by record: C chips.

    Attributes:
        rects: (C, 4) float64, image px, in the order in which the cover chose them.
        record: (C,) int64.
        starts: (R + 1,) int64: the chips of record r are `starts[r]:starts[r + 1]`.
    """

    rects: np.ndarray
    record: np.ndarray
    starts: np.ndarray


def eligible(table: BoxTable, level: Level) -> np.ndarray:
    """Boxes that may be assigned to chips of a level: (B,) bool (2018 behaviour).

    The coarsest level takes all boxes from `low` on. Every other level takes all boxes below
    `high` that surely fit into a chip, without a lower bound.
    """
    if level.coarsest:
        return table.side >= level.low
    fits = np.maximum(table.width, table.height) < level.size_limits[table.record]
    return (table.side < level.high) & fits & (table.width >= 2) & (table.height >= 2)


def needs_chip(table: BoxTable, level: Level) -> np.ndarray:
    """Ground truth that the positive chips of a level are made for: (B,) bool (2018 behaviour).

    Intermediate levels have a lower bound here, and no least width, unlike in `eligible`.
    """
    if level.coarsest or level.index == 0:
        return table.is_gt & eligible(table, level)
    fits = np.maximum(table.width, table.height) < level.size_limits[table.record]
    in_range = (table.side >= level.low) & (table.side < level.high)
    return table.is_gt & in_range & fits


def cover(table: BoxTable, chosen: np.ndarray, level: Level, seeds: np.ndarray) -> ChipSet:
    """Greedily covers the chosen boxes of every record with chips.

    Args:
        table: the boxes.
        chosen: (B,) bool, the boxes to be covered.
        level: the pyramid level.
        seeds: (R,) int64: ties between candidates are broken by a shuffle with this seed.

    Returns:
        No chips for records without chosen boxes; a box inside no candidate stays uncovered.
    """
    chip_cover = _native_chip_cover()
    indices = np.flatnonzero(chosen)
    boxes = np.ascontiguousarray(table.boxes[indices])
    ends = np.searchsorted(table.record[indices], np.arange(table.num_records + 1)).tolist()
    rects = []
    counts = np.zeros(table.num_records, np.int64)
    for record in np.unique(table.record[indices]).tolist():
        found = chip_cover(
            boxes[ends[record] : ends[record + 1]],
            float(level.factors[record]),
            int(table.image_width[record]),
            int(table.image_height[record]),
            level.chip_size,
            level.stride,
            int(seeds[record]),
        )
        rects.append(found)
        counts[record] = len(found)
    starts = np.concatenate([[0], np.cumsum(counts)])
    return ChipSet(
        rects=np.concatenate([np.zeros((0, 4)), *rects]),
        record=np.repeat(np.arange(table.num_records), counts),
        starts=starts,
    )


def _native_chip_cover():  # noqa: ANN202 (a compiled function)
    try:
        from sniper.native._native import chip_cover
    except ImportError as error:
        raise OpsError(
            "the compiled part of sniper is missing",
            where="sniper.native._native",
            got=str(error),
            fix="pip install . (or `python setup.py build_ext --inplace` in the repository)",
        ) from error
    return chip_cover
