"""Detections as the text files of Pascal VOC (2018 layout)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable
from sniper.errors import DataError
from sniper.evaluation.report import check_shape
from sniper.files import atomic_write_text


@dataclass(frozen=True, eq=False)
class VocRows:
    """The detections of one class as its result file holds them.

    Attributes:
        image_ids: (n,) int64, in data set order.
        scores: (n,) float64, 3 decimals.
        boxes: (n, 4) float64, 1 decimal, px counted from 0 (from 1 in the file).
    """

    image_ids: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray


def voc_rows(dataset: Dataset, table: DetectionTable) -> list[VocRows]:
    """Rounded detections per class (index 0 is the background), images in data set order.

    The numbers that are evaluated are those of the files, so that other programs get the same
    result from them (2018 behaviour).

    Args:
        dataset: a Pascal VOC set.
        table: its detections.

    Raises:
        DataError: the table does not have the set's number of images, or classes that the set does
            not have.
    """
    check_shape(dataset, table)
    ids = np.array([record.image_id for record in dataset.records], np.int64)
    # Rows of a table are ordered by image and rank already: a stable sort keeps that.
    order = np.argsort(table.classes, kind="stable")
    bounds = np.searchsorted(table.classes[order], np.arange(1, len(dataset.class_names) + 1))
    image_ids, rows = ids[table.image_of_row[order]], table.rows[order].astype(np.float64)
    none = VocRows(ids[:0], np.zeros(0), np.zeros((0, 4)))
    return [none, *(_rows(image_ids[a:b], rows[a:b]) for a, b in zip(bounds, bounds[1:]))]


def _rows(image_ids: np.ndarray, rows: np.ndarray) -> VocRows:
    return VocRows(image_ids, rows[:, 4].round(3), rows[:, :4].round(1))


def write_voc_results(folder: str | Path, dataset: Dataset, rows: list[VocRows]) -> Path:
    """Writes `<folder>/VOC<year>/Main/comp4_det_<set>_<class>.txt` for every class.

    A line is `image score x1 y1 x2 y2`, px counted from 1; a class without detections gets an
    empty file.

    Args:
        folder: of all results.
        dataset: a Pascal VOC set.
        rows: of `voc_rows`.

    Returns:
        The folder of the files.

    Raises:
        DataError: the set is none of Pascal VOC.
        TrainingError: a file could not be written.
    """
    truth = dataset.voc
    if truth is None:
        raise DataError("this set has no Pascal VOC result files", where=dataset.name)
    target = Path(folder) / f"VOC{truth.year}" / "Main"
    for name, own in zip(_file_parts(dataset.class_names), rows):
        if name is not None:
            text = "".join(_lines(own, truth.image_names))
            atomic_write_text(target / f"comp4_det_{truth.subset}_{name}.txt", text)
    return target


def read_voc_results(folder: str | Path, dataset: Dataset) -> DetectionTable:
    """Reads the files of `write_voc_results`.

    Args:
        folder: of all results.
        dataset: the Pascal VOC set that was detected on.

    Raises:
        DataError: the set is none of Pascal VOC, a file is missing or cut off, or a line is broken
            or of another image.
    """
    truth = dataset.voc
    if truth is None:
        raise DataError("this set has no Pascal VOC result files", where=dataset.name)
    source = Path(folder) / f"VOC{truth.year}" / "Main"
    places = {truth.image_names[r.image_id]: i for i, r in enumerate(dataset.records)}
    numbers = [np.zeros((0, 7))]
    for index, name in enumerate(_file_parts(dataset.class_names)):
        if name is not None:
            path = source / f"comp4_det_{truth.subset}_{name}.txt"
            numbers.append(_read_class(path, index, places))
    table = np.concatenate(numbers)
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    counts = np.bincount(table[:, 0].astype(np.int64), minlength=len(places))
    return DetectionTable(
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        rows=table[:, [3, 4, 5, 6, 2]].astype(np.float32),
        classes=table[:, 1].astype(np.int32),
    )


def _read_class(path: Path, index: int, places: dict[str, int]) -> np.ndarray:
    """Rows image, class, score, x1, y1, x2, y2 of the file of one class, px counted from 0."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(
            "a result file cannot be read",
            where=path,
            got=error,
            fix="run main_test.py with the same --cfg first, or name another folder",
        ) from error
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        name, *fields = line.split() or [""]
        try:
            score, *corners = map(float, fields)
            x1, y1, x2, y2 = (value - 1 for value in corners)
            rows.append((places[name], index, score, x1, y1, x2, y2))
        except (KeyError, ValueError) as error:
            known = name in places
            raise DataError(
                "a result file is broken or cut off" if known else "a result is of another set",
                where=f"{path}, line {number}",
                got=repr(line),
                expected="image score x1 y1 x2 y2, of an image of this set",
            ) from error
    return np.array(rows, np.float64).reshape(-1, 7)


def _lines(rows: VocRows, image_names: dict[int, str]) -> list[str]:
    numbers = np.concatenate([rows.scores[:, None], rows.boxes + 1], axis=1).tolist()
    return [
        "{} {:.3f} {:.1f} {:.1f} {:.1f} {:.1f}\n".format(image_names[image_id], *row)
        for image_id, row in zip(rows.image_ids.tolist(), numbers)
    ]


def _file_parts(class_names: tuple[str, ...]) -> list[str | None]:
    """Class names that are safe and distinct in file names; None for the background."""
    parts: list[str | None] = [None]
    for index, name in enumerate(class_names[1:], start=1):
        part = re.sub(r"[^\w.-]+", "_", name)
        parts.append(f"{part}_{index}" if part in parts or part.startswith(".") else part)
    return parts
