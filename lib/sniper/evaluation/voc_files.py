"""Detections as the text files of Pascal VOC (2018 layout)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sniper.data.dataset import Dataset
from sniper.errors import DataError
from sniper.evaluation.shape import Detections, check_shape
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


def voc_rows(dataset: Dataset, detections: Detections) -> list[VocRows]:
    """Rounded detections per class (index 0 is the background), images in data set order.

    The numbers that are evaluated are those of the files, so that other programs get the same
    result from them (2018 behaviour).

    Args:
        dataset: a Pascal VOC set.
        detections: per image and class (n, 5) float32 x1 y1 x2 y2 score, image px.

    Raises:
        DataError: the lists do not have the set's number of images or classes.
    """
    check_shape(dataset, detections)
    ids = np.array([record.image_id for record in dataset.records], np.int64)
    none = VocRows(ids[:0], np.zeros(0), np.zeros((0, 4)))
    return [
        none,
        *(
            _rows_of_class([per_class[index] for per_class in detections], ids)
            for index in range(1, len(dataset.class_names))
        ),
    ]


def _rows_of_class(per_image: list[np.ndarray], ids: np.ndarray) -> VocRows:
    arrays = [np.asarray(rows, np.float64).reshape(-1, 5) for rows in per_image]
    table = np.concatenate([np.zeros((0, 5)), *arrays])
    counts = [len(rows) for rows in arrays]
    return VocRows(np.repeat(ids, counts), table[:, 4].round(3), table[:, :4].round(1))


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
