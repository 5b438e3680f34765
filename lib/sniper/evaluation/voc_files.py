"""Detections as the text files of Pascal VOC (2018 layout)."""

from __future__ import annotations

import glob
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable
from sniper.data.voc import VocTruth
from sniper.errors import DataError
from sniper.evaluation.report import check_shape
from sniper.files import atomic_write_text

_UNKNOWN_SHOWN = 5
_MOST_DECIMALS = 6


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
    truth = voc_truth(dataset)
    target = Path(folder) / f"VOC{truth.year}" / "Main"
    for name, of_class in zip(_file_parts(dataset.class_names), rows):
        if name is not None:
            text = "".join(_lines(of_class, truth.image_names))
            atomic_write_text(target / f"comp4_det_{truth.subset}_{name}.txt", text)
    return target


def voc_truth(dataset: Dataset) -> VocTruth:
    """What a Pascal VOC set knows beside its records.

    Raises:
        DataError: the set is none of Pascal VOC.
    """
    if not isinstance(dataset.truth, VocTruth):
        raise DataError(
            "this set has no Pascal VOC annotations and result files", where=dataset.name
        )
    return dataset.truth


@dataclass(frozen=True, eq=False)
class VocResults:
    """The detections of result files as they are there.

    Attributes:
        rows: per class, index 0 is the background.
        left_out: detections of images or classes that the set does not have.
    """

    rows: list[VocRows]
    left_out: int


def read_voc_results(folder: str | Path, dataset: Dataset) -> DetectionTable:
    """Reads the files of `write_voc_results`.

    Args:
        folder: of all results, or the one with the files in it.
        dataset: the Pascal VOC set that was detected on.

    Raises:
        DataError: the set is none of Pascal VOC, a file is missing or cut off, or a line is broken
            or of another image.
    """
    by_class = read_voc_rows(folder, dataset).rows
    places = {record.image_id: index for index, record in enumerate(dataset.records)}
    classes = np.repeat(np.arange(len(by_class)), [len(rows.scores) for rows in by_class])
    images = np.array([places[i] for rows in by_class for i in rows.image_ids.tolist()], np.int64)
    numbers = np.concatenate([np.column_stack([rows.boxes, rows.scores]) for rows in by_class])
    order = np.lexsort((classes, images))
    counts = np.bincount(images, minlength=len(places))
    return DetectionTable(
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        rows=numbers[order].astype(np.float32),
        classes=classes[order].astype(np.int32),
    )


def read_voc_rows(
    folder: str | Path, dataset: Dataset, *, leave_out_unknown: bool = False
) -> VocResults:
    """Reads result files, whoever wrote them, without rounding scores or boxes.

    Args:
        folder: of all results (`VOC<year>/Main` in it), or the one with the files in it.
        dataset: the Pascal VOC set that was detected on.
        leave_out_unknown: leave out and count what belongs to no image or class of the set.

    Raises:
        DataError: as `read_voc_results`; also when there is a file of a class that is none.
    """
    truth = voc_truth(dataset)
    source = _results_folder(Path(folder), truth.year)
    files = {
        index: _result_file(source, truth.subset, part)
        for index, part in enumerate(_file_parts(dataset.class_names))
        if part is not None
    }
    places = {truth.image_names[r.image_id]: r.image_id for r in dataset.records}
    unknown = _foreign_files(source, dataset, truth, set(files.values()))
    rows = [VocRows(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4)))]
    for path in files.values():
        rows.append(_read_class(path, places, unknown))
    if unknown and not leave_out_unknown:
        raise _unknown(source, dataset, unknown)
    return VocResults(rows, sum(unknown.values()))


def result_sets(folder: Path, year: str, class_names: Sequence[str]) -> set[str]:
    """The sets that result files of these classes are of, by their names."""
    source = _results_folder(folder, year)
    if not source.is_dir():
        return set()
    parts = "|".join(re.escape(part) for part in _file_parts(tuple(class_names)) if part)
    pattern = re.compile(rf"comp\d_det_(.+?)_(?:{parts})\.txt")
    matches = [pattern.fullmatch(path.name) for path in source.iterdir()]
    return {match[1] for match in matches if match}


def _results_folder(folder: Path, year: str) -> Path:
    """The folder with the files: the 2018 layout first."""
    candidates = [folder / f"VOC{year}" / "Main", folder / "Main", folder]
    return next((path for path in candidates[:-1] if path.is_dir()), _default(candidates))


def _default(candidates: list[Path]) -> Path:
    """The folder itself if it has result files; else the one that messages shall name."""
    *_, folder = candidates
    return folder if any(folder.glob("comp*_det_*.txt")) else candidates[0]


def _result_file(source: Path, subset: str, part: str) -> Path:
    """The file of a class: of competition 4, or of the competition that another program names."""
    ours = source / f"comp4_det_{subset}_{part}.txt"
    if ours.is_file():
        return ours
    others = sorted(source.glob(f"comp?_det_{glob.escape(subset)}_{glob.escape(part)}.txt"))
    return others[0] if others else ours


def _foreign_files(
    source: Path, dataset: Dataset, truth: VocTruth, known: set[Path]
) -> Counter[str]:
    """Detections in files of this set whose class the set does not have, by class."""
    lists = Path(dataset.annotation_path).parent / "ImageSets" / "Main"
    others = [path.stem for path in lists.glob("*.txt") if path.stem != truth.subset]
    foreign: Counter[str] = Counter()
    for path in source.glob(f"comp?_det_{glob.escape(truth.subset)}_*.txt"):
        rest = path.stem.split("_det_", 1)[1]
        # The file may be of a set with a longer name: `val_small` beside `val`.
        if path in known or any(rest.startswith(f"{name}_") for name in others):
            continue
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        foreign[f"class {rest[len(truth.subset) + 1 :]!r}"] += len(lines)
    return +foreign


def _unknown(source: Path, dataset: Dataset, unknown: Counter[str]) -> DataError:
    shown = ", ".join(f"{name} ({count})" for name, count in unknown.most_common(_UNKNOWN_SHOWN))
    return DataError(
        f"{sum(unknown.values())} results are of another set: {dataset.name} has no such images "
        "or classes",
        where=source,
        got=f"{shown}{', ...' if len(unknown) > _UNKNOWN_SHOWN else ''}",
        expected="images of its list, and its classes",
        fix="name the result files of this set; `sniper evaluate --ignore-unknown` leaves them out",
    )


def _read_class(path: Path, places: Mapping[str, int], unknown: Counter[str]) -> VocRows:
    """The file of one class; counts lines of unknown images."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(
            "a result file cannot be read",
            where=path,
            got=error,
            fix="run main_test.py with the same --cfg first, or name another folder; a class "
            "without detections has an empty file",
        ) from error
    image_ids, numbers = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        name, *fields = line.rsplit(maxsplit=5) or [""]  # names may have blanks
        try:
            score, x1, y1, x2, y2 = map(float, fields)
        except ValueError as error:
            raise _broken_line(path, number, line) from error
        if not math.isfinite(score + x1 + y1 + x2 + y2):
            raise _broken_line(path, number, line)
        if name not in places:
            unknown[f"image {name!r}"] += 1
            continue
        image_ids.append(places[name])
        numbers.append((score, x1, y1, x2, y2))
    table = np.array(numbers, np.float64).reshape(-1, 5)
    # Counted from 0, without the noise of the subtraction: 2.3 - 1 is less than 1.3.
    boxes = (table[:, 1:] - 1).round(_MOST_DECIMALS)
    return VocRows(np.array(image_ids, np.int64), table[:, 0], boxes)


def _broken_line(path: Path, number: int, line: str) -> DataError:
    return DataError(
        "a result file is broken or cut off",
        where=f"{path}, line {number}",
        got=repr(line),
        expected="image score x1 y1 x2 y2, of an image of this set",
    )


def _lines(rows: VocRows, image_names: Mapping[int, str]) -> list[str]:
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
