"""The boxes of many records in flat arrays, so that rules run over all of them at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sniper.data.record import Record


@dataclass(frozen=True, eq=False)
class BoxTable:
    """All boxes of R records, record by record: B boxes.

    Attributes:
        boxes: (B, 4) float32, image px.
        record: (B,) int64, which of the R records.
        row: (B,) int32, row in that record.
        is_gt: (B,) bool.
        width: (B,) int64, x2 - x1 truncated (chip generation has no +1; 2018 behaviour).
        height: (B,) int64, y2 - y1 truncated.
        side: (B,) float64, square root of width * height.
        image_width: (R,) int64.
        image_height: (R,) int64.
    """

    boxes: np.ndarray
    record: np.ndarray
    row: np.ndarray
    is_gt: np.ndarray
    width: np.ndarray
    height: np.ndarray
    side: np.ndarray
    image_width: np.ndarray
    image_height: np.ndarray

    @property
    def num_records(self) -> int:
        """R."""
        return len(self.image_width)


def box_table(records: Sequence[Record]) -> BoxTable:
    """Flat table of the boxes of `records` (any number, also none)."""
    counts = [len(record.boxes) for record in records]
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(r.boxes for r in records)])
    width = (boxes[:, 2] - boxes[:, 0]).astype(np.int64)
    height = (boxes[:, 3] - boxes[:, 1]).astype(np.int64)
    rows = [np.arange(count, dtype=np.int32) for count in counts]
    return BoxTable(
        boxes=boxes,
        record=np.repeat(np.arange(len(records)), counts),
        row=np.concatenate([np.zeros(0, np.int32), *rows]),
        is_gt=np.concatenate([np.zeros(0, bool), *(r.is_gt for r in records)]),
        width=width,
        height=height,
        side=np.sqrt(np.maximum(width * height, 0)),
        image_width=np.array([record.width for record in records], np.int64),
        image_height=np.array([record.height for record in records], np.int64),
    )


def record_blocks(records: Sequence[Record], max_boxes: int = 20000) -> Iterator[range]:
    """Consecutive ranges of records with about `max_boxes` boxes each: bounds the memory."""
    start, boxes = 0, 0
    for index, record in enumerate(records):
        boxes += len(record.boxes) + 1
        if boxes >= max_boxes:
            yield range(start, index + 1)
            start, boxes = index + 1, 0
    if start < len(records):
        yield range(start, len(records))
