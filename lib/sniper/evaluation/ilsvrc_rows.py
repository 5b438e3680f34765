"""Detections as ILSVRC DET submits them: a line `image class score x1 y1 x2 y2` for each."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable
from sniper.data.ilsvrc import IlsvrcTruth
from sniper.errors import DataError
from sniper.evaluation.report import check_shape
from sniper.files import atomic_write

# What 2018 left out of its files.
LEAST_SCORE = 1e-3
_DECIMALS = 6
_NUM_WORDS = 7
_UNKNOWN_SHOWN = 5
_LINES_AT_ONCE = 1 << 16


@dataclass(frozen=True, eq=False)
class IlsvrcRows:
    """D detections as result files have them, in the order of the file.

    Attributes:
        image_ids: (D,) int64 number of the image.
        classes: (D,) int32, 1 ... K of `IlsvrcTruth.class_names`.
        scores: (D,) float64.
        boxes: (D, 4) float64 as in the file.
    """

    image_ids: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def taken(self, rows: np.ndarray) -> IlsvrcRows:
        """Some of them, by index or flag."""
        return IlsvrcRows(
            self.image_ids[rows], self.classes[rows], self.scores[rows], self.boxes[rows]
        )


class IlsvrcFile(NamedTuple):
    """The detections of a file, and how many were left out as of no image or class of the set."""

    rows: IlsvrcRows
    left_out: int


def ilsvrc_truth(dataset: Dataset) -> IlsvrcTruth:
    """What an ILSVRC set knows beside its records.

    Raises:
        DataError: the set is none.
    """
    if not isinstance(dataset.truth, IlsvrcTruth):
        raise DataError("this set has no ILSVRC annotations and result files", where=dataset.name)
    return dataset.truth


def ilsvrc_rows(dataset: Dataset, table: DetectionTable) -> IlsvrcRows:
    """The detections of a table as result files and evaluation take them (2018 rounding).

    Detections below a score of 0.001, and of classes that are not evaluated, are left out.

    Raises:
        DataError: the table does not have the set's number of images, or has classes that the set
            does not have.
    """
    check_shape(dataset, table)
    truth = ilsvrc_truth(dataset)
    classes = truth.evaluated_as[table.classes]
    kept = np.flatnonzero((classes > 0) & (table.rows[:, 4] >= LEAST_SCORE))
    numbers = np.array([record.image_id for record in dataset.records], np.int64)
    rows = table.rows[kept].astype(np.float64)
    return IlsvrcRows(
        image_ids=numbers[table.image_of_row[kept]],
        classes=classes[kept],
        scores=rows[:, 4].round(_DECIMALS),
        boxes=(rows[:, :4] + truth.first_px).round(_DECIMALS),
    )


def write_ilsvrc_results(path: Path, dataset: Dataset, rows: IlsvrcRows) -> None:
    """Writes a file that can be submitted: classes by their number.

    Raises:
        DataError: the set has no ILSVRC truth.
        TrainingError: the file could not be written.
    """
    numbers = ilsvrc_truth(dataset).class_numbers

    def write(temporary: Path) -> None:
        with open(temporary, "w", encoding="ascii") as stream:
            for start in range(0, len(rows), _LINES_AT_ONCE):
                part = rows.taken(np.arange(start, min(start + _LINES_AT_ONCE, len(rows))))
                columns = (part.image_ids.tolist(), numbers[part.classes - 1].tolist())
                scored = np.column_stack([part.scores, part.boxes]).tolist()
                stream.writelines(
                    f"{image} {number} " + " ".join(f"{v:.{_DECIMALS}f}" for v in values) + "\n"
                    for image, number, values in zip(*columns, scored)
                )

    atomic_write(path, write)


def read_ilsvrc_results(
    path: Path, dataset: Dataset, *, leave_out_unknown: bool = False
) -> IlsvrcFile:
    """Reads a result file, whoever wrote it, without rounding.

    Args:
        path: lines `image class score x1 y1 x2 y2`.
        dataset: the set that was detected on.
        leave_out_unknown: leave out and count what belongs to no listed image or no class.

    Raises:
        DataError: the file is missing or broken; by default also for unknown images and classes.
    """
    truth = ilsvrc_truth(dataset)
    values = _read_numbers(path)
    images, numbers = values[:, 0].astype(np.int64), values[:, 1].astype(np.int64)
    whole = (images == values[:, 0]) & (numbers == values[:, 1])
    place = np.searchsorted(truth.class_numbers, numbers)
    place = np.minimum(place, len(truth.class_numbers) - 1)
    has_class = whole & (truth.class_numbers[place] == numbers)
    has_image = whole & np.isin(images, truth.listed)
    known = has_class & has_image
    if not known.all() and not leave_out_unknown:
        raise _unknown(path, dataset, values, has_image, has_class)
    rows = IlsvrcRows(images, (place + 1).astype(np.int32), values[:, 2], values[:, 3:])
    return IlsvrcFile(rows.taken(known), int(np.count_nonzero(~known)))


def _read_numbers(path: Path) -> np.ndarray:
    """(D, 7) float64."""
    numbers: list[list[float]] = []
    blocks = [np.zeros((0, _NUM_WORDS))]
    try:
        with open(path, encoding="ascii") as stream:
            for place, line in enumerate(stream, start=1):
                words = line.split()
                if not words:
                    continue
                values = list(map(float, words)) if len(words) == _NUM_WORDS else [math.nan]
                if not math.isfinite(sum(values)):
                    raise ValueError(f"line {place}: {line.strip()!r}")
                numbers.append(values)
                if len(numbers) == _LINES_AT_ONCE:
                    blocks.append(np.array(numbers))
                    numbers.clear()
    except (OSError, ValueError) as error:
        raise DataError(
            "a result file cannot be read or is broken",
            where=path,
            got=error,
            expected="lines `image class score x1 y1 x2 y2`",
        ) from error
    return np.concatenate([*blocks, np.array(numbers).reshape(-1, _NUM_WORDS)])


def _unknown(
    path: Path, dataset: Dataset, values: np.ndarray, has_image: np.ndarray, has_class: np.ndarray
) -> DataError:
    truth = ilsvrc_truth(dataset)
    counts: Counter[str] = Counter(f"image {v:g}" for v in values[~has_image, 0].tolist())
    counts.update(f"class {v:g}" for v in values[has_image & ~has_class, 1].tolist())
    shown = ", ".join(f"{name} ({n})" for name, n in counts.most_common(_UNKNOWN_SHOWN))
    return DataError(
        f"{sum(counts.values())} results are of another set: {dataset.name} has no such images or "
        "classes",
        where=path,
        got=f"{shown}{', ...' if len(counts) > _UNKNOWN_SHOWN else ''}",
        expected="images {} to {}, classes {} to {}".format(
            *truth.listed[[0, -1]], *truth.class_numbers[[0, -1]]
        ),
        fix="name the result file of this set; `sniper evaluate --ignore-unknown` leaves them out",
    )
