"""What chip generation needs to know of many records: made once, used in every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sniper.chips.pyramid import Scale, level_factors
from sniper.data.record import Record
from sniper.errors import DataError


@dataclass(frozen=True, eq=False)
class BoxTable:
    """Boxes and sizes of R records.

    The boxes are the records' own arrays, not copies: with 900 proposals an image a copy would take
    as much memory as all records of a large data set.

    Attributes:
        boxes: R arrays (n, 4) float32, image px, ground truth first.
        num_gt: (R,) int64, rows that are ground truth.
        width: (R,) int64, image px.
        height: (R,) int64, image px.
        image_id: (R,) int64.
        flipped: (R,) bool.
        classes: R arrays (n,) of the boxes' classes, 0 for proposals; None if nobody needs them.
    """

    boxes: tuple[np.ndarray, ...]
    num_gt: np.ndarray
    width: np.ndarray
    height: np.ndarray
    image_id: np.ndarray
    flipped: np.ndarray
    classes: tuple[np.ndarray, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            sides = getattr(self, name)
            if not ((sides > 0) & np.isfinite(sides)).all():
                raise DataError(
                    f"the {name} of an image is not a positive number",
                    where="BoxTable",
                    got=sides[~((sides > 0) & np.isfinite(sides))][:5],
                )

    def __len__(self) -> int:
        return len(self.boxes)

    @cached_property
    def gt_offsets(self) -> np.ndarray:
        """(R + 1,) int64: where the ground truth of each record lies in `Epoch.gt_fate`."""
        return np.concatenate([[0], np.cumsum(self.num_gt)])

    def factors(self, scales: Sequence[Scale]) -> np.ndarray:
        """Image px -> scaled px of every level: (R, L) float64.

        Raises:
            ConfigError: the scales make no sense.
        """
        # A set has far fewer sizes than images: Python computes each size once.
        sizes, index = np.unique(self.width << 32 | self.height, return_inverse=True)
        factors = [level_factors(size >> 32, size & 0xFFFFFFFF, scales) for size in sizes.tolist()]
        return np.array(factors, np.float64).reshape(-1, len(scales))[index]


def box_table(records: Sequence[Record]) -> BoxTable:
    """The table of any number of records; about a second for 250,000 of them."""
    return BoxTable(
        boxes=tuple(np.ascontiguousarray(record.boxes) for record in records),
        num_gt=np.array([record.num_gt for record in records], np.int64),
        width=np.array([record.width for record in records], np.int64),
        height=np.array([record.height for record in records], np.int64),
        image_id=np.array([record.image_id for record in records], np.int64),
        flipped=np.array([record.flipped for record in records], bool),
        classes=tuple(record.classes for record in records),
    )
