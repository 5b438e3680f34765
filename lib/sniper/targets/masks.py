"""Polygons of a chip's ground truth, encoded as rows of numbers for the mask operators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sniper.data.outlines import shortened
from sniper.data.record import Record
from sniper.errors import ConfigError, DataError
from sniper.targets.contract import BatchArray, ChipTruth, GtInChip, Labels, Window
from sniper.targets.gt import rows_that_fit

PADDING = -1
HEADER = 2  # numbers in front of the lengths


def mask_rows(
    record: Record,
    gt: GtInChip,
    chip: Window,
    max_gt: int,
    row_length: int,
    *,
    legacy: bool = False,
) -> np.ndarray:
    """The `gt_masks` array of the batch: one row for each row of `gt_boxes`, in the same order.

    A row is `class - 1, k, length of each of k polygons, their coordinates x y x y ..., -1 ...`.
    Points are moved into the chip, but neither rounded nor clipped. Polygons that do not fit all
    are simplified until they do. An object without polygons has k = 0: its mask is not trained.

    Args:
        record: the image.
        gt: its ground truth in the chip.
        chip: the chip.
        max_gt: rows of the result; see `sniper.targets.gt.pack_gt` for more boxes than that.
        row_length: numbers of a row; the operators must be told the same.
        legacy: as in 2018 polygons are kept in order until the first that does not fit: the
            numbers that count are 2, one for each polygon of the object, and the coordinates kept
            so far.

    Returns:
        (max_gt, row_length) float32, chip px; unused rows and ends of rows are -1.

    Raises:
        DataError: the record has no polygons.
        ConfigError: a row is too short for class and k.
    """
    if record.polygons is None:
        raise DataError(
            "masks are to be trained, but the annotations were loaded without polygons",
            where=record.image_path,
            fix="use a data set with polygons, or set TRAIN.WITH_MASK to false",
        )
    if row_length < HEADER:
        raise ConfigError(
            "a row of a polygon holds at least its class and a count",
            where="TRAIN.MAX_POLYGON_LEN",
            got=row_length,
            expected=f"{HEADER} or more",
        )
    rows = np.full((max_gt, row_length), PADDING, np.float32)
    origin = np.array(chip.rect[:2], np.float64)
    for row, n in zip(rows, rows_that_fit(gt, max_gt).tolist()):
        polygons = record.polygons[gt.rows[n]]
        kept = _that_fit(polygons, row_length) if legacy else _shortened(polygons, row_length)
        start = HEADER + len(kept)
        row[:start] = [gt.classes[n] - 1, len(kept), *map(len, kept)]
        if kept:
            points = np.concatenate(kept).astype(np.float64).reshape(-1, 2)
            encoded = ((points - origin) * chip.factor).reshape(-1)
            row[start : start + len(encoded)] = encoded
    return rows


def count_long_masks(records: Iterable[Record], row_length: int) -> int:
    """Objects whose polygons do not all fit into a row of `mask_rows`.

    Args:
        records: with polygons; mirrored copies count too.
        row_length: numbers of a row.
    """
    return sum(
        HEADER + len(polygons) + sum(map(len, polygons)) > row_length
        for record in records
        for polygons in record.polygons or ()
    )


def _shortened(polygons: Sequence[np.ndarray], row_length: int) -> list[np.ndarray]:
    rings = shortened([polygon.reshape(-1, 2) for polygon in polygons], row_length - HEADER)
    return [ring.reshape(-1) for ring in rings]


def _that_fit(polygons: Sequence[np.ndarray], row_length: int) -> list[np.ndarray]:
    kept = []
    length = HEADER + len(polygons)
    for polygon in polygons:
        length += len(polygon)
        if length > row_length:
            break
        kept.append(polygon)
    return kept


class MaskLabels(Labels):
    """Polygons of the ground truth, one row of numbers for every row of `gt_boxes`.

    Args:
        max_gt: rows.
        row_length: numbers of a row.
    """

    needs_polygons = True

    def __init__(self, max_gt: int, row_length: int) -> None:
        self.label = (BatchArray("gt_masks", (max_gt, row_length)),)

    def write(self, truth: ChipTruth, row: Mapping[str, np.ndarray]) -> int:
        """See `mask_rows`."""
        max_gt, row_length = self.label[0].shape
        row["gt_masks"][...] = mask_rows(
            truth.record, truth.gt, truth.chip, max_gt, row_length, legacy=truth.legacy
        )
        return 0
