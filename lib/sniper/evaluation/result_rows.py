"""Detections as COCO results have them: rounded, in the order of class, image and rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable
from sniper.errors import DataError
from sniper.evaluation.report import check_shape

BOX_DECIMALS, SCORE_DECIMALS = 1, 8


@dataclass(frozen=True, eq=False)
class ResultRows:
    """D detections, ordered by class, image and rank.

    Attributes:
        images: (D,) int64 index into the records of the set.
        classes: (D,) int32, 1 ... C-1, rising.
        boxes: (D, 4) float64 x y width height, image px, 1 decimal; a width is x2 - x1 + 1.
        scores: (D,) float64, 8 decimals.
        rows: (D,) int64, the row of each in its table.
    """

    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def of_class(self, index: int) -> slice:
        """Where the detections of a class stand."""
        start, stop = np.searchsorted(self.classes, [index, index + 1])
        return slice(int(start), int(stop))


def result_rows(dataset: Dataset, table: DetectionTable) -> ResultRows:
    """The detections of a table as result files and evaluation take them (2018 rounding).

    Raises:
        DataError: the table does not have the set's number of images, has classes that the set
            does not have, or numbers that are not finite.
    """
    check_shape(dataset, table)
    if not np.isfinite(table.rows).all():
        broken = int(np.flatnonzero(~np.isfinite(table.rows).all(axis=1))[0])
        raise DataError(
            "a detection is not finite",
            where=dataset.name,
            got=f"{table.rows[broken].tolist()} of image {_image_of(dataset, table, broken)}",
            fix="check the weights: a network with NaN in it gives such boxes",
        )
    # Rows of a table are ordered by image and rank already: a stable sort keeps that.
    rows = np.argsort(table.classes, kind="stable")
    corners = table.rows[rows, :4].astype(np.float64)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2] + 1], axis=1)
    return ResultRows(
        images=table.image_of_row[rows],
        classes=table.classes[rows],
        boxes=boxes.round(BOX_DECIMALS),
        scores=table.rows[rows, 4].astype(np.float64).round(SCORE_DECIMALS),
        rows=rows,
    )


def best_of_groups(groups: np.ndarray, scores: np.ndarray, limit: int) -> np.ndarray:
    """(n,) bool: which rows are among the best of their group; of equal scores the first are.

    COCO counts a hundred detections of a class in an image.

    Args:
        groups: (n,) int, e.g. the image of each detection of a class.
        scores: (n,).
        limit: of rows in a group.
    """
    order = np.lexsort((-scores, groups))
    rank = np.arange(len(order)) - np.searchsorted(groups[order], groups[order])
    counted = np.zeros(len(order), bool)
    counted[order[rank < limit]] = True
    return counted


def _image_of(dataset: Dataset, table: DetectionTable, row: int) -> int:
    index = int(np.searchsorted(table.offsets, row, "right")) - 1
    return dataset.records[index].image_id
