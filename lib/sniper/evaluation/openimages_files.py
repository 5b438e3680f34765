"""Result files of Open Images: a line an image (submissions), or a line a detection."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
_LINES_BY_IMAGE, _LINES_BY_BOX = 1 << 10, 1 << 17
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
    image_places = {str(r.original_id): index for index, r in enumerate(dataset.records)}
    class_places = {str(name): index for index, name in enumerate(dataset.category_ids[1:])}
    parts: list[FoundBoxes] = []
    unknown: Counter[str] = Counter()
    read = 0
    try:
        for chunk in _chunks(import_pandas(path), path):
            wrong = ~np.isfinite(chunk.values).all(axis=1)
            if wrong.any():
                raise ValueError(f"detection {read + int(wrong.argmax()) + 1}")
            read += len(wrong)
            parts.append(chunk.located(image_places, class_places, unknown))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            "a result file cannot be read or is broken",
            where=path,
            got=error,
            expected=f"a CSV file with the columns {','.join(_BY_IMAGE)} or {','.join(_BY_BOX)}",
        ) from error
    if unknown and not leave_out_unknown:
        raise _unknown(path, dataset, unknown)
    return ResultFile(_joined(parts), sum(unknown.values()))


class _Chunk(NamedTuple):
    """Some lines of a file: of n detections the places of their images and classes in the names.

    `values` are (n, 5) score x1 y1 x2 y2.
    """

    images: np.ndarray
    image_names: Sequence[str]
    labels: np.ndarray
    label_names: Sequence[str]
    values: np.ndarray

    def located(
        self,
        image_places: Mapping[str, int],
        class_places: Mapping[str, int],
        unknown: Counter[str],
    ) -> FoundBoxes:
        """With the numbers of the set, four bytes each; counts what has none."""
        images = _places(self.image_names, image_places)[self.images]
        labels = _places(self.label_names, class_places)[self.labels]
        known = (images >= 0) & (labels >= 0)
        unknown.update(_counts("image", self.image_names, self.images[images < 0]))
        of_class = (images >= 0) & (labels < 0)
        unknown.update(_counts("class", self.label_names, self.labels[of_class]))
        values = self.values[known]
        return FoundBoxes(images[known], labels[known], values[:, 1:], values[:, 0])


def _places(names: Sequence[str], places: Mapping[str, int]) -> np.ndarray:
    return np.array([places.get(name, -1) for name in names], np.int32)


def _counts(kind: str, names: Sequence[str], rows: np.ndarray) -> dict[str, int]:
    which, counts = np.unique(rows, return_counts=True)
    return {f"{kind} {names[k]}": n for k, n in zip(which.tolist(), counts.tolist())}


def _joined(parts: Sequence[FoundBoxes]) -> FoundBoxes:
    nothing = np.zeros(0)
    return FoundBoxes(
        np.concatenate([nothing.astype(np.int64), *(part.images for part in parts)]),
        np.concatenate([nothing.astype(np.int64), *(part.labels for part in parts)]),
        np.concatenate([nothing.reshape(0, 4), *(part.boxes for part in parts)]),
        np.concatenate([nothing, *(part.scores for part in parts)]),
    )


def _chunks(pandas: Any, path: Path) -> Iterator[_Chunk]:
    """The file in pieces: as texts its words take many times the memory of their numbers."""
    by_image = list(pandas.read_csv(path, nrows=0).columns) == list(_BY_IMAGE)
    names = _BY_IMAGE if by_image else _BY_BOX[:2]
    options = {"dtype": dict.fromkeys(names, str), "keep_default_na": False}
    if not by_image:
        # The numbers that Python makes of the texts: pandas' own may differ in the last bit.
        options |= {"usecols": list(_BY_BOX), "float_precision": "round_trip"}
    lines = _LINES_BY_IMAGE if by_image else _LINES_BY_BOX
    with pandas.read_csv(path, chunksize=lines, **options) as tables:
        for table in tables:
            yield _of_images(table) if by_image else _of_boxes(table)


def _of_images(table: Any) -> _Chunk:
    names = table[_BY_IMAGE[0]].tolist()
    words: list[str] = []
    counts = []
    for name, text in zip(names, table[_BY_IMAGE[1]]):
        of_image = text.split()
        if len(of_image) % _WORDS:
            raise ValueError(f"image {name}: {len(of_image)} words, {_WORDS} a detection")
        counts.append(len(of_image) // _WORDS)
        words += of_image
    labels = words[::_WORDS]
    place = {name: index for index, name in enumerate(dict.fromkeys(labels))}
    numbers = [[float(word) for word in words[k::_WORDS]] for k in range(1, _WORDS)]
    return _Chunk(
        np.repeat(np.arange(len(names)), counts),
        names,
        np.array([place[name] for name in labels], np.int64),
        list(place),
        np.array(numbers, np.float64).reshape(_WORDS - 1, -1).T,
    )


def _of_boxes(table: Any) -> _Chunk:
    names = [table[name].astype("category").cat for name in _BY_BOX[:2]]
    (images, image_names), (labels, label_names) = (
        (column.codes.to_numpy(), column.categories.tolist()) for column in names
    )
    values = table[["Score", "XMin", "YMin", "XMax", "YMax"]].to_numpy(np.float64)
    return _Chunk(images, image_names, labels, label_names, values.reshape(-1, _WORDS - 1))


def _unknown(path: Path, dataset: Dataset, unknown: Counter[str]) -> DataError:
    shown = ", ".join(f"{name} ({n})" for name, n in unknown.most_common(_SHOWN))
    return DataError(
        f"{sum(unknown.values())} detections belong to no image or class of {dataset.name}",
        where=path,
        got=f"{shown}{', ...' if len(unknown) > _SHOWN else ''}",
        expected=f"ids of {dataset.annotation_path}",
        fix="name the result file of this set; `sniper evaluate --ignore-unknown` leaves them out",
    )
