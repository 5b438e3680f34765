"""From the compiled code's blocks to one table of chips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sniper.chips.chip_table import ChipTable
from sniper.chips.table import BoxTable

_DTYPES = {
    "chip_counts": np.int32,
    "rects": np.float64,
    "levels": np.uint8,
    "negative": np.bool_,
    "row_counts": np.int32,
    "rows": np.int32,
    "box_counts": np.int32,
    "gt_counts": np.int32,
}


def join_chips(
    blocks: Sequence[dict[str, Any]], table: BoxTable, factors: np.ndarray, chip_size: int
) -> ChipTable:
    """One table of the chips of all records; takes the arrays out of the blocks.

    Args:
        blocks: results of `epoch_chips`, in the order of the records.
        table: the records.
        factors: (R, L) float64, image px -> scaled px.
        chip_size: side of a chip, px.
    """
    joined = {name: _join(blocks, name) for name in _DTYPES}
    offsets = _offsets(joined["chip_counts"])
    level = joined["levels"]
    record = np.repeat(np.arange(len(table)), joined["chip_counts"])
    factor = factors[record, level]
    coarsest = level == factors.shape[1] - 1
    # Truncated, as `sniper.chips.pyramid.level_size` does.
    height = np.where(coarsest, table.height[record] * factor, chip_size).astype(np.int32)
    width = np.where(coarsest, table.width[record] * factor, chip_size).astype(np.int32)
    return ChipTable(
        offsets=offsets,
        rects=joined["rects"].reshape(-1, 4),
        level=level,
        negative=joined["negative"],
        factor=factor,
        height=height,
        width=width,
        row_offsets=_offsets(joined["row_counts"]),
        rows=joined["rows"],
        num_boxes=joined["box_counts"],
        num_gt=joined["gt_counts"],
    )


def _join(blocks: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    """One column of all blocks, which lose it: not everything is in memory twice."""
    columns = [block.pop(name) for block in blocks]
    return np.concatenate(columns) if columns else np.zeros(0, _DTYPES[name])


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
