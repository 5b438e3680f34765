"""The ground truth of a record as one chip sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sniper.boxes import LAST_PX, areas, clip
from sniper.data.record import Record
from sniper.errors import ConfigError
from sniper.targets.contract import BatchArray, ChipTruth, GtInChip, Labels

# Boxes below this width or height (+1 convention, chip px) are dropped (2018 behaviour).
MIN_SIDE_PX = 10
# Of more boxes than these only those near the chip are looked at closely: an image of 10,000
# objects has as many chips.
_FEW_BOXES = 64
# Image px that float32 coordinates of an image may be off.
_ROUNDING_PX = 4


def boxes_in_chip(
    boxes_im: np.ndarray,
    chip_rect: tuple[float, ...],
    factor: float,
    chip_size: int,
    *,
    legacy: bool = False,
) -> np.ndarray:
    """Boxes in chip px, rounded (halves to even) and clipped: (n, 4) float32 -> (n, 4) float32.

    Both axes are clipped to the full chip size, even for a chip with less content (2018 behaviour).

    Args:
        boxes_im: (n, 4) inclusive corners, image px.
        chip_rect: x1 y1 x2 y2 of the chip, image px.
        factor: image px -> chip px.
        chip_size: side of the chip, px.
        legacy: as in 2018, where a box ended `factor` - 1 px before its last image px ends.
    """
    # float32 throughout: NumPy 1 cast the scalars down, NumPy 2 would raise the arrays to double.
    origin = np.array([*chip_rect[:2], *chip_rect[:2]], np.float64).astype(np.float32)
    boxes = boxes_im.astype(np.float32, copy=False)
    if legacy:
        boxes = (boxes - origin) * np.float32(factor)
    else:
        boxes = (boxes + LAST_PX - origin) * np.float32(factor) - LAST_PX
    return clip(np.rint(boxes), chip_size, chip_size)


def gt_in_chip(
    record: Record,
    chip_rect: tuple[float, ...],
    factor: float,
    rows: np.ndarray,
    chip_size: int,
    min_visible: float = 0.0,
    *,
    legacy: bool = False,
) -> GtInChip:
    """Ground truth of `record` inside a chip.

    Args:
        record: the record; its proposals are left out.
        chip_rect: x1 y1 x2 y2 of the chip, image px.
        factor: image px -> chip px.
        rows: rows of the record's boxes that are assigned to the chip (proposals are ignored).
        chip_size: side of the chip in px.
        min_visible: share of a box inside the chip from which on it is an object there, unless it
            is assigned to the chip; 0: every piece is one (2018 behaviour).
        legacy: see `boxes_in_chip`.

    Returns:
        The surviving boxes. A box is also valid when it coincides with a valid one after rounding
        (2018 behaviour: IoU of 1). Empty arrays when nothing survives.
    """
    # It comes first in a record.
    gt_rows = np.arange(record.num_gt, dtype=np.int32)
    if len(gt_rows) > _FEW_BOXES:
        gt_rows = gt_rows[_are_near(record.gt_boxes, chip_rect, chip_size / factor)]
    boxes = boxes_in_chip(record.boxes[gt_rows], chip_rect, factor, chip_size, legacy=legacy)
    # Ground truth outside the chip was clipped to a line and vanishes here too.
    large = (boxes[:, 2:] - boxes[:, :2] + 1 >= MIN_SIDE_PX).all(axis=1)
    is_assigned = np.zeros(len(record.boxes), bool)
    is_assigned[rows] = True
    survivors = boxes[large]
    valid_boxes = boxes[large & is_assigned[gt_rows]]
    same = (survivors[:, None] == valid_boxes[None]).all(axis=2)  # (n, valid)
    valid, kept = same.any(axis=1), gt_rows[large]
    is_object = np.ones_like(valid)
    if min_visible > 0:
        is_object = _visible_share(survivors, record.boxes[kept], factor, legacy) >= min_visible
        is_object |= valid
    return GtInChip(survivors, record.classes[kept], valid, kept, is_object)


def _are_near(boxes_im: np.ndarray, chip_rect: tuple[float, ...], side_im: float) -> np.ndarray:
    """(n,) bool: boxes that are not surely outside of a chip of `side_im` px; (n, 4) inclusive."""
    left, top = (np.float32(start - _ROUNDING_PX) for start in chip_rect[:2])
    right, bottom = (np.float32(start + side_im + _ROUNDING_PX) for start in chip_rect[:2])
    x1, y1, x2, y2 = boxes_im.T
    return np.asarray((x2 >= left) & (y2 >= top) & (x1 <= right) & (y1 <= bottom))


def crowd_in_chip(
    record: Record,
    chip_rect: tuple[float, ...],
    factor: float,
    chip_size: int,
    *,
    legacy: bool = False,
) -> np.ndarray:
    """Crowd regions of `record` inside a chip, in its order: (m, 4) float32, see `boxes_in_chip`.

    Regions outside are clipped to a line and vanish.
    """
    if record.crowd_boxes is None or not len(record.crowd_boxes):
        return np.zeros((0, 4), np.float32)
    boxes = boxes_in_chip(record.crowd_boxes, chip_rect, factor, chip_size, legacy=legacy)
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]


def _visible_share(
    boxes_chip: np.ndarray, boxes_im: np.ndarray, factor: float, legacy: bool
) -> np.ndarray:
    """Share of each box that lies in the chip: (n,) of 0 to about 1, as boxes were rounded."""
    sides_im = boxes_im[:, 2:] - boxes_im[:, :2]
    scale = np.float32(factor)
    whole = sides_im * scale + 1 if legacy else (sides_im + 1) * scale
    return np.asarray(areas(boxes_chip) / np.maximum(whole[:, 0] * whole[:, 1], 1))


def pack_gt(gt: GtInChip, max_gt: int) -> tuple[np.ndarray, int]:
    """The `gt_boxes` array of the batch and the number of boxes that had no room in it.

    Returns:
        (max_gt, 5) float32 `x1 y1 x2 y2 class`, used rows first, unused rows all -1; and the
        surplus. When there are more than `max_gt` boxes the valid ones are kept first, then the
        others, each in the order of the record; the rows stay in the order of the record.
    """
    kept = rows_that_fit(gt, max_gt)
    surplus = int(np.count_nonzero(gt.is_object)) - len(kept)
    packed = np.full((max_gt, 5), -1, np.float32)
    packed[: len(kept), :4] = gt.boxes[kept]
    packed[: len(kept), 4] = gt.classes[kept]
    return packed, surplus


def rows_that_fit(gt: GtInChip, max_gt: int) -> np.ndarray:
    """Which boxes `pack_gt` keeps: (k,) integers, ascending, k at most `max_gt`."""
    objects = np.flatnonzero(gt.is_object)
    if len(objects) <= max_gt:
        return objects
    return np.sort(objects[np.argsort(~gt.valid[objects], kind="stable")[:max_gt]])


class GtLabels(Labels):
    """Ground truth of a chip with what the target operators must know of the chip.

    Args:
        chip_size: side of the chips, px.
        max_gt: rows of `gt_boxes`; the operators take it from the array.
        valid_ranges: (low, high) of the square root of a box's area in image px per pyramid level.
        max_crowd: rows of `crowd_boxes`; 0: the network does not read them.
    """

    data = (BatchArray("valid_ranges", (2,)), BatchArray("im_info", (3,)))

    def __init__(
        self,
        chip_size: int,
        max_gt: int,
        valid_ranges: Sequence[Sequence[float]],
        max_crowd: int = 0,
    ) -> None:
        if max_gt < 1:
            raise ConfigError(
                "a chip needs room for at least one box", where="TRAIN.MAX_GT", got=max_gt
            )
        self._chip_size = chip_size
        self._max_gt = max_gt
        self._valid_ranges = valid_ranges
        self._max_crowd = max_crowd
        self.label = (BatchArray("gt_boxes", (max_gt, 5)),)
        if max_crowd:
            self.label += (BatchArray("crowd_boxes", (max_crowd, 5)),)

    def write(self, truth: ChipTruth, row: Mapping[str, np.ndarray]) -> int:
        """See above; returns the boxes without room."""
        chip = truth.chip
        low, high = self._valid_ranges[chip.level]
        # Nothing in a chip is larger than the chip: that is no bound.
        row["valid_ranges"][...] = (
            0 if low < 0 else low * chip.factor,
            self._chip_size if high < 0 else high * chip.factor,
        )
        row["im_info"][...] = chip.height, chip.width, chip.factor
        row["gt_boxes"][...], surplus = pack_gt(truth.gt, self._max_gt)
        if self._max_crowd:
            crowd = truth.crowd_boxes[: self._max_crowd]
            surplus += len(truth.crowd_boxes) - len(crowd)
            row["crowd_boxes"][...] = -1
            row["crowd_boxes"][: len(crowd)] = np.pad(crowd, ((0, 0), (0, 1)))
        return surplus
