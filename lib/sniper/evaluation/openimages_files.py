"""Result files of Open Images: a line an image (submissions), or a line a detection."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable
from sniper.data.openimages_tables import import_pandas
from sniper.errors import DataError
from sniper.evaluation.openimages import FoundBoxes
from sniper.files import atomic_write

# One line an image: words `id score x1 y1 x2 y2` of all detections.
_BY_IMAGE = ("ImageId", "PredictionString")
_WORDS = 6
# One line a detection, x before y as in the annotations.
_BY_BOX = ("ImageID", "LabelName", "Score", "XMin", "XMax", "YMin", "YMax")
_DECIMALS = 6
_SHOWN = 5


class ResultFile(NamedTuple):
    """The detections of a file, and how many were left out as of no image or class of the set."""

    found: FoundBoxes
    left_out: int


def found_boxes(dataset: Dataset, table: DetectionTable) -> FoundBoxes:
    """A table's detections in shares of the images' sides; the far corner is exclusive."""
    sides = np.array([(r.width, r.height) for r in dataset.records], np.float64).reshape(-1, 2)
    images = table.image_of_row
    corners = table.rows[:, :4].astype(np.float64)
    corners[:, 2:] += 1
    return FoundBoxes(
        images,
        table.classes.astype(np.int64) - 1,
        corners / np.tile(sides[images], 2),
        table.rows[:, 4].astype(np.float64),
    )


def detection_table(dataset: Dataset, found: FoundBoxes) -> DetectionTable:
    """The other way round."""
    sides = np.array([(r.width, r.height) for r in dataset.records], np.float64).reshape(-1, 2)
    order = np.lexsort((-found.scores, found.labels, found.images))
    corners = found.boxes[order] * np.tile(sides[found.images[order]], 2)
    corners[:, 2:] -= 1
    counts = np.bincount(found.images, minlength=len(dataset.records))
    return DetectionTable(
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        rows=np.column_stack([corners, found.scores[order]]).astype(np.float32),
        classes=(found.labels[order] + 1).astype(np.int32),
    )


def write_results(path: Path, dataset: Dataset, found: FoundBoxes) -> None:
    """Writes a file that can be submitted: every image has a line.

    Raises:
        TrainingError: it could not be written.
    """
    names = np.array(dataset.category_ids[1:])
    order = np.lexsort((-found.scores, found.images))
    ends = np.searchsorted(found.images[order], np.arange(len(dataset.records) + 1))

    def write(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(_BY_IMAGE)
            for index, record in enumerate(dataset.records):
                rows = order[ends[index] : ends[index + 1]]
                numbers = np.column_stack([found.scores[rows], found.boxes[rows]]).tolist()
                words = [
                    f"{name} " + " ".join(f"{value:.{_DECIMALS}f}" for value in values)
                    for name, values in zip(names[found.labels[rows]].tolist(), numbers)
                ]
                writer.writerow([record.original_id, " ".join(words)])

    atomic_write(path, write)


def read_results(path: Path, dataset: Dataset, *, leave_out_unknown: bool = False) -> ResultFile:
    """Reads a result file, whoever wrote it.

    Args:
        path: a CSV file with a line an image (`ImageId,PredictionString`), or a line a detection
            (`ImageID,LabelName,Score,XMin,XMax,YMin,YMax`); boxes are shares of the sides.
        dataset: the set that was detected on.
        leave_out_unknown: leave out and count what belongs to no image or class of the set.

    Raises:
        ConfigError: pandas is not installed.
        DataError: the file is missing or broken; by default also for unknown images and classes.
    """
    pandas = import_pandas(path)
    try:
        columns = list(pandas.read_csv(path, nrows=0).columns)
        if columns == list(_BY_IMAGE):
            images, labels, values = _by_image(pandas, path)
        else:
            images, labels, values = _by_box(pandas, path)
        if not np.isfinite(values).all():
            raise ValueError(f"detection {int((~np.isfinite(values)).any(axis=1).argmax()) + 1}")
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            "a result file cannot be read or is broken",
            where=path,
            got=error,
            expected=f"a CSV file with the columns {','.join(_BY_IMAGE)} or {','.join(_BY_BOX)}",
        ) from error
    image_places = {str(r.original_id): index for index, r in enumerate(dataset.records)}
    class_places = {str(name): index for index, name in enumerate(dataset.category_ids[1:])}
    image = np.array([image_places.get(name, -1) for name in images], np.int64)
    label = np.array([class_places.get(name, -1) for name in labels], np.int64)
    known = (image >= 0) & (label >= 0)
    if not known.all() and not leave_out_unknown:
        raise _unknown(path, dataset, images, labels, image, label)
    found = FoundBoxes(image[known], label[known], values[known, 1:], values[known, 0])
    return ResultFile(found, int(np.count_nonzero(~known)))


def _by_image(pandas: Any, path: Path) -> tuple[list[str], list[str], np.ndarray]:
    table = pandas.read_csv(path, dtype=str, keep_default_na=False)
    images: list[str] = []
    words: list[str] = []
    for name, text in zip(table[_BY_IMAGE[0]], table[_BY_IMAGE[1]]):
        of_image = text.split()
        if len(of_image) % _WORDS:
            raise ValueError(f"image {name}: {len(of_image)} words, {_WORDS} a detection")
        images += [name] * (len(of_image) // _WORDS)
        words += of_image
    columns = [words[k::_WORDS] for k in range(_WORDS)]
    values = np.array(columns[1:], np.float64).reshape(_WORDS - 1, -1).T
    return images, columns[0], values


def _by_box(pandas: Any, path: Path) -> tuple[list[str], list[str], np.ndarray]:
    texts = dict.fromkeys(_BY_BOX[:2], str)
    table = pandas.read_csv(path, usecols=list(_BY_BOX), dtype=texts, keep_default_na=False)
    values = table[["Score", "XMin", "YMin", "XMax", "YMax"]].to_numpy(np.float64)
    return table[_BY_BOX[0]].tolist(), table[_BY_BOX[1]].tolist(), values.reshape(-1, 5)


def _unknown(
    path: Path,
    dataset: Dataset,
    images: list[str],
    labels: list[str],
    image: np.ndarray,
    label: np.ndarray,
) -> DataError:
    counts: Counter[str] = Counter(f"image {images[k]}" for k in np.flatnonzero(image < 0))
    counts.update(f"class {labels[k]}" for k in np.flatnonzero((image >= 0) & (label < 0)))
    shown = ", ".join(f"{name} ({n})" for name, n in counts.most_common(_SHOWN))
    return DataError(
        f"{sum(counts.values())} detections belong to no image or class of {dataset.name}",
        where=path,
        got=f"{shown}{', ...' if len(counts) > _SHOWN else ''}",
        expected=f"ids of {dataset.annotation_path}",
        fix="name the result file of this set; `sniper evaluate --ignore-unknown` leaves them out",
    )
