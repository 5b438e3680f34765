"""Result files of WIDER FACE: `<event>/<name>.txt`, a text for each image."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable
from sniper.data.wider_text import result_name
from sniper.data.wider_truth import WiderTruth
from sniper.errors import DataError, TrainingError
from sniper.evaluation.report import check_shape
from sniper.evaluation.wider import FoundFaces

SCORE_DECIMALS = 8
_ENDING = ".txt"
_COLUMNS = 5
_SHOWN = 5


class ResultFolder(NamedTuple):
    """The detections of a folder.

    Attributes:
        found: of the images of the set.
        left_out: detections in files of no image of the set.
        without_file: images that have no file, taken as without detections.
    """

    found: FoundFaces
    left_out: int
    without_file: int


def wider_truth(dataset: Dataset) -> WiderTruth:
    """What a WIDER set knows beside its records.

    Raises:
        DataError: the set is none, or has no annotations.
    """
    if not isinstance(dataset.truth, WiderTruth):
        raise DataError("this set has no annotations of WIDER FACE", where=dataset.name)
    return dataset.truth


def found_faces(dataset: Dataset, table: DetectionTable) -> FoundFaces:
    """A table's detections as their files hold them: whole px, as the official tools write them.

    Corners are truncated, and a width is the difference of truncated corners; the far ones are
    those where a box ends.

    Raises:
        DataError: the table does not fit the set, or has numbers that are not finite.
    """
    check_shape(dataset, table)
    if not np.isfinite(table.rows).all():
        broken = int(np.flatnonzero(~np.isfinite(table.rows).all(axis=1))[0])
        record = dataset.records[int(table.image_of_row[broken])]
        raise DataError(
            "a detection is not finite",
            where=dataset.name,
            got=f"{table.rows[broken].tolist()} of image {record.original_id}",
            fix="check the weights: a network with NaN in it gives such boxes",
        )
    rows = table.rows.astype(np.float64)
    near, far = np.trunc(rows[:, :2]), np.trunc(rows[:, 2:4] + 1)
    scores = rows[:, 4].round(SCORE_DECIMALS)
    return FoundFaces(table.offsets, np.concatenate([near, far - near], axis=1), scores)


def write_results(folder: Path, dataset: Dataset, found: FoundFaces) -> None:
    """Writes `<folder>/<event>/<name>.txt` for every image: its name, how many, and the boxes.

    A folder that is there is replaced when the new one is complete, so that no file of an earlier
    test stays among the new ones.

    Raises:
        TrainingError: it could not be written.
    """
    own = f"{os.getpid()}-{secrets.token_hex(4)}"
    temporary, old = (folder.with_name(f".{folder.name}.{own}.{word}") for word in ("tmp", "old"))
    try:
        for index, record in enumerate(dataset.records):
            path = temporary / f"{result_name(str(record.original_id))}{_ENDING}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_text(str(record.original_id), found, index), encoding="utf-8")
        temporary.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(temporary, folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            if old.exists() and not folder.exists():
                os.replace(old, folder)
        raise TrainingError(
            "the result files could not be written; the previous ones are untouched",
            where=folder,
            got=error,
            fix="free some disk space or check the permissions, then run again",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _text(name: str, found: FoundFaces, index: int) -> str:
    rows = slice(*found.offsets[index : index + 2].tolist())
    lines = [
        f"{x:.0f} {y:.0f} {w:.0f} {h:.0f} {score:.{SCORE_DECIMALS}f}\n"
        for (x, y, w, h), score in zip(found.boxes[rows].tolist(), found.scores[rows].tolist())
    ]
    return "".join([f"{name}\n", f"{len(lines)}\n", *lines])


def read_results(
    folder: Path, dataset: Dataset, *, leave_out_unknown: bool = False
) -> ResultFolder:
    """Reads result files, whoever wrote them.

    Args:
        folder: with the folders of the events.
        dataset: the set that was detected on.
        leave_out_unknown: leave out and count what belongs to no image of the set.

    Raises:
        DataError: there is no result file of the set, one is broken or cut off, or, by default, one
            belongs to no image of the set.
    """
    places = {
        result_name(str(record.original_id)): index for index, record in enumerate(dataset.records)
    }
    files = sorted(folder.rglob(f"*{_ENDING}"))
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in files]
    if not places.keys() & set(names):
        raise DataError(
            f"there are no result files of {dataset.name}",
            where=folder,
            got=f"{names[0]}{_ENDING} and others" if names else "no text file",
            expected=f"<event>/<name>.txt, such as {next(iter(places), '<name>')}{_ENDING}",
        )
    of_images: dict[int, np.ndarray] = {}
    unknown: Counter[str] = Counter()
    for path, name in zip(files, names):
        rows = _read(path)
        if name in places:
            of_images[places[name]] = rows
        else:
            unknown[f"{name}{_ENDING}"] = len(rows)
    if unknown and not leave_out_unknown:
        raise _unknown(folder, dataset, unknown)
    none = np.zeros((0, _COLUMNS))
    rows_of = [of_images.get(index, none) for index in range(len(dataset.records))]
    joined = np.concatenate([none, *rows_of])
    offsets = np.concatenate([[0], np.cumsum([len(rows) for rows in rows_of])]).astype(np.int64)
    found = FoundFaces(offsets, joined[:, :4], joined[:, 4])
    return ResultFolder(found, sum(unknown.values()), len(places) - len(of_images))


def _read(path: Path) -> np.ndarray:
    """(k, 5) float64 of a file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError("a result file cannot be read", where=path, got=error) from error
    while lines and not lines[-1].strip():
        lines.pop()
    count = lines[1].strip() if len(lines) > 1 else "the end of the file"
    if not count.isdecimal() or int(count) != len(lines) - 2:
        raise _broken(path, 2, f"{count}, and {max(len(lines) - 2, 0)} lines of detections")
    rows = []
    for number, line in enumerate(lines[2:], start=3):
        try:
            numbers = [float(word) for word in line.split()]
        except ValueError as error:
            raise _broken(path, number, repr(line)) from error
        if len(numbers) != _COLUMNS or not math.isfinite(sum(numbers)):
            raise _broken(path, number, repr(line))
        rows.append(numbers)
    return np.array(rows, np.float64).reshape(-1, _COLUMNS)


def _broken(path: Path, line: int, got: str) -> DataError:
    return DataError(
        "a result file is broken or cut off",
        where=f"{path}, line {line}",
        got=got,
        expected="the name of the image, the number of detections, a line `x y width height score` "
        "for each",
    )


def _unknown(folder: Path, dataset: Dataset, unknown: Counter[str]) -> DataError:
    shown = ", ".join(f"{name} ({count})" for name, count in unknown.most_common(_SHOWN))
    return DataError(
        f"{len(unknown)} result files are of another set: {dataset.name} has no such images",
        where=folder,
        got=f"{shown}{', ...' if len(unknown) > _SHOWN else ''}",
        expected=f"images of {dataset.annotation_path}",
        fix="name the results of this set; `sniper evaluate --ignore-unknown` leaves them out",
    )


def detection_table(found: FoundFaces) -> DetectionTable:
    """The other way round: inclusive corners, the best first."""
    images = np.repeat(np.arange(len(found.offsets) - 1), np.diff(found.offsets))
    order = np.lexsort((-found.scores, images))
    boxes = found.boxes[order]
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - 1], axis=1)
    return DetectionTable(
        offsets=found.offsets,
        rows=np.column_stack([corners, found.scores[order]]).astype(np.float32),
        classes=np.ones(len(order), np.int32),
    )


def detector_settings(folder: Path, dataset: Dataset) -> Mapping[str, Any]:
    """What the report that a test writes beside its results says of the detector, or nothing.

    Args:
        folder: of the result files.
        dataset: the set.
    """
    path = folder.parent / f"detections_{dataset.image_set}_report.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return settings if isinstance(settings, dict) else {}
