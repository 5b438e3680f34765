"""What training never sees: the parts of each level, and the objects on it, that no chip shows.

Chips are cut around the objects that a level is responsible for. What lies elsewhere, background
and objects of other sizes, is met for the first time at test, and may be taken for objects there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from sniper.chips.box_levels import BoxLevels
from sniper.chips.chip_table import ChipTable
from sniper.data.record import Record

# Areas are counted in cells, of which a chip has so many on a side.
_CELLS = 16
# An object is seen when chips show as much of it.
_SEEN_SHARE = 0.5


@dataclass(frozen=True)
class Unseen:
    """What no chip of one level shows in an epoch.

    Attributes:
        area: share of the level's area in all images, 0 to 1.
        others: objects of other levels, by their size.
        others_unseen: of these, objects of which chips show less than half.
    """

    area: float
    others: int
    others_unseen: int


def unseen(
    records: Sequence[Record], levels: BoxLevels, chips: ChipTable, chip_size: int
) -> tuple[Unseen, ...]:
    """Looks at every level of every image (at least one).

    Args:
        records: the images.
        levels: their ground truth (`sniper.chips.box_levels.box_levels`).
        chips: their chips.
        chip_size: side of a chip, scaled px.
    """
    count = levels.factors.shape[1]
    areas, hidden = np.zeros(count), np.zeros(count)
    others, others_unseen = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for index, record in enumerate(records):
        own = slice(chips.offsets[index], chips.offsets[index + 1])
        boxes = slice(levels.starts[index], levels.starts[index + 1])
        for level in range(count):
            per_px = levels.factors[index, level] * _CELLS / chip_size
            rects = chips.rects[own][chips.level[own] == level]
            shown = _shown(record, rects, per_px)  # (rows, columns)
            areas[level] += record.width * record.height
            hidden[level] += record.width * record.height * (1 - shown.mean())
            other = levels.boxes[boxes][~levels.in_range[boxes, level]]
            others[level] += len(other)
            if len(other):
                missed = _shares(shown, other * per_px) < _SEEN_SHARE
                others_unseen[level] += np.count_nonzero(missed)
    return tuple(
        Unseen(float(part / area), int(number), int(missed))
        for part, area, number, missed in zip(hidden, areas, others, others_unseen)
    )


def _shown(record: Record, rects: np.ndarray, per_px: float) -> np.ndarray:
    """Cells of a level that lie in a chip: (rows, columns) bool."""
    columns, rows = (max(1, round(side * per_px)) for side in (record.width, record.height))
    shown = np.zeros((rows, columns), bool)
    for x1, y1, x2, y2 in np.rint(rects * per_px).astype(np.int64).tolist():
        shown[y1:y2, x1:x2] = True
    return shown


def _shares(shown: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(n,) share of each box, in cells, that is shown."""
    most = np.array(shown.shape[::-1])
    start = np.minimum(np.maximum(boxes[:, :2].astype(np.int64), 0), most - 1)
    end = np.maximum(np.minimum(np.ceil(boxes[:, 2:]).astype(np.int64), most), start + 1)
    (left, top), (right, bottom) = start.T, end.T
    # Sums of all cells above and to the left: four of them count a box of any size.
    sums = cv2.integral(shown.view(np.uint8))  # (rows + 1, columns + 1) int32
    count = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return count / (end - start).prod(axis=1)
