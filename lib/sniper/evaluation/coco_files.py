"""COCO result files: written piece by piece, packed for upload, read back."""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable
from sniper.data.ids import FileId, id_key
from sniper.data.record import Record
from sniper.errors import DataError
from sniper.evaluation.coco_truth import run_lengths
from sniper.evaluation.result_rows import ResultRows, result_rows
from sniper.files import atomic_write, atomic_write_text

logger = logging.getLogger(__name__)


# Detections that are text at a time.
_CHUNK = 1 << 14
_INDENTED = """    {
        "bbox": [
            %r,
            %r,
            %r,
            %r
        ],
        "category_id": %s,
        "image_id": %s,
        "score": %r
    },
"""
_COMPACT = '{"bbox": [%r, %r, %r, %r], "category_id": %s, "image_id": %s, "score": %r},\n'
_COMPACT_WITH_MASK = (
    '{"bbox": [%r, %r, %r, %r], "category_id": %s, "image_id": %s, "score": %r, '
    '"segmentation": {"counts": "%s", "size": [%r, %r]}},\n'
)
_INDENTED_WITH_MASK = _INDENTED.replace(
    '"score": %r\n',
    '"score": %r,\n        "segmentation": {\n            "counts": "%s",\n'
    '            "size": [\n                %r,\n                %r\n            ]\n        }\n',
)
# A fixed time stamp: the same results give the same bytes.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_UNKNOWN_SHOWN = 5


def write_coco_results(
    path: str | Path, dataset: Dataset, table: DetectionTable, *, compact: bool | None = None
) -> int:
    """Writes detections as evaluation servers take them: JSON with sorted keys.

    They are ordered by class, image and rank; boxes x, y, x2 - x1 + 1, y2 - y1 + 1 are rounded to 1
    decimal and scores to 8 (2018 behaviour). Detections with masks get a `segmentation` of
    compressed run lengths. Nothing gives an empty list.

    Args:
        path: the file; an old one stays until the new one is complete.
        dataset: the set that was detected on.
        table: its detections.
        compact: one line for each detection instead of an indent of 4 (2018 behaviour); None
            writes masks compactly and boxes alone with the indent.

    Returns:
        The number of detections.

    Raises:
        DataError: the detections do not fit the set, or one is not finite.
        TrainingError: the file could not be written.
    """
    compact = table.has_masks if compact is None else compact
    pieces = _pieces(dataset, table, compact)
    first = next(pieces, None)

    def write(temporary: Path) -> None:
        with open(temporary, "w", encoding="ascii", newline="\n") as stream:
            if first is None:
                stream.write("[\n]\n" if compact else "[]")
                return
            # One piece is held back: the comma behind the last detection has to go.
            last = first
            stream.write("[\n")
            for piece in pieces:
                stream.write(last)
                last = piece
            stream.write(last[: -len(",\n")])
            stream.write("\n]\n" if compact else "\n]")

    atomic_write(path, write)
    return table.num_detections


def _pieces(dataset: Dataset, table: DetectionTable, compact: bool) -> Iterator[str]:
    """The text of the results, some thousands at a time, with a comma and a line end after each."""
    detections = result_rows(dataset, table)
    # Ids are written as they were read; texts of them are made once.
    image_ids = [json.dumps(record.original_id) for record in dataset.records]
    category_ids = [json.dumps(identity) for identity in dataset.category_ids]
    sizes = np.array([(r.height, r.width) for r in dataset.records], np.int64).reshape(-1, 2)
    if table.has_masks:
        template = _COMPACT_WITH_MASK if compact else _INDENTED_WITH_MASK
    else:
        template = _COMPACT if compact else _INDENTED
    for start in range(0, len(detections), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        images = detections.images[chunk]
        columns = [
            *detections.boxes[chunk].T.tolist(),
            [category_ids[index] for index in detections.classes[chunk].tolist()],
            [image_ids[index] for index in images.tolist()],
            detections.scores[chunk].tolist(),
        ]
        if table.has_masks:
            # Run lengths use the backslash, which JSON escapes.
            masks = (table.mask(row) for row in detections.rows[chunk].tolist())
            columns.append([mask.decode("ascii").replace("\\", "\\\\") for mask in masks])
            columns += sizes[images].T.tolist()
        values = [value for row in zip(*columns) for value in row]
        yield (template * len(images)) % tuple(values)


def write_upload(path: str | Path) -> Path:
    """Packs a result file for an evaluation server: `<name>.zip` beside it, with it alone inside.

    The name inside is that of the file. The COCO server asks for `detections_<set>_<method>_
    results.json`; files called `detections_<set>_results.json` have an empty method.

    Raises:
        TrainingError: the file could not be read or written.
    """
    path = Path(path)
    target = path.with_suffix(".zip")

    def write(temporary: Path) -> None:
        entry = zipfile.ZipInfo(path.name, _ZIP_TIME)
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = 0o644 << 16
        entry.file_size = path.stat().st_size
        with zipfile.ZipFile(temporary, "w") as archive, open(path, "rb") as source:
            with archive.open(entry, "w") as packed:
                shutil.copyfileobj(source, packed, 1 << 20)

    atomic_write(target, write)
    return target


@dataclass(frozen=True, eq=False)
class ResultFile:
    """What a COCO result file holds.

    Attributes:
        rows: its detections as they are in the file; `rows.rows` are their places in it.
        segmentations: as in the file, by place; None unless every detection has one.
        left_out: detections of images or categories that the set does not have.
    """

    rows: ResultRows
    segmentations: dict[int, Any] | None
    left_out: int


def read_coco_results(path: str | Path, dataset: Dataset) -> DetectionTable:
    """Reads the boxes of a result file of a set, whoever wrote it; masks are left out.

    Args:
        path: a JSON list of detections with image_id, category_id, bbox and score.
        dataset: the set that was detected on.

    Raises:
        DataError: the file cannot be read or is cut off, a detection is broken, or it belongs to no
            image or category of the set.
    """
    rows = read_result_rows(path, dataset, with_masks=False).rows
    order = np.lexsort((rows.classes, rows.images))
    x, y, width, height = rows.boxes[order].T
    counts = np.bincount(rows.images, minlength=len(dataset.records))
    corners = [x, y, x + width - 1, y + height - 1]
    return DetectionTable(
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        rows=np.stack([*corners, rows.scores[order]], axis=1).astype(np.float32),
        classes=rows.classes[order],
    )


def read_result_rows(
    path: str | Path, dataset: Dataset, *, with_masks: bool, leave_out_unknown: bool = False
) -> ResultFile:
    """Reads a result file without changing a number in it.

    Args:
        path: a JSON list of detections with image_id, category_id, score, and bbox or segmentation.
        dataset: the set that was detected on.
        with_masks: also read the segmentations; a detection may then lack its bbox.
        leave_out_unknown: leave out and count what belongs to no image or category of the set.

    Raises:
        DataError: as `read_coco_results`.
    """
    results = _read_list(path, with_masks)
    images = {id_key(record.original_id): i for i, record in enumerate(dataset.records)}
    classes = _class_of_id(Path(path), dataset)
    numbers = array("d")
    kept: list[int] = []
    unknown: Counter[str] = Counter()
    for position, result in enumerate(results):
        try:
            image = _place(images, result["image_id"])
            category = _place(classes, result["category_id"])
            if image < 0 or category < 0:
                name, key = ("image", "image_id") if image < 0 else ("category", "category_id")
                unknown[f"{name} {result[key]!r}"] += 1
                continue
            x, y, width, height = _box(result, dataset.records[image])
            numbers.extend((image, category, x, y, width, height, result["score"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise _broken(path, position, result) from error
        kept.append(position)
    left_out = sum(unknown.values())
    if left_out and not leave_out_unknown:
        raise _unknown(path, dataset, unknown, len(results))
    table = np.frombuffer(numbers, np.float64).reshape(-1, 7)
    finite = np.isfinite(table).all(axis=1)
    if not finite.all():
        position = kept[int(np.argmin(finite))]
        raise _broken(path, position, results[position], "a number is not finite")
    flat = int(((table[:, 4:6] <= 0).any(axis=1)).sum())
    if flat:
        logger.warning(
            "%s: boxes without extent, which no object fits: %d of %d (a bbox is x, y, width, "
            "height)",
            *(path, flat, len(table)),
        )
    # Masks of some detections would give numbers that mean nothing.
    num_masks = sum(bool(results[i].get("segmentation")) for i in kept) if with_masks else 0
    if 0 < num_masks < len(kept):
        logger.warning(
            "%s: masks are not evaluated: %d of %d detections have a segmentation",
            *(path, num_masks, len(kept)),
        )
    masked = with_masks and bool(kept) and num_masks == len(kept)
    return ResultFile(
        rows=_sorted_rows(table, np.array(kept, np.int64)),
        segmentations={i: results[i]["segmentation"] for i in kept} if masked else None,
        left_out=left_out,
    )


def _class_of_id(path: Path, dataset: Dataset) -> dict[FileId, int]:
    """The class index of each category id in a result file.

    The report beside it says what the ids meant when it was written; annotations may have been
    numbered anew since then.
    """
    classes = {id_key(identity): i for i, identity in enumerate(dataset.category_ids) if i}
    written = _categories_of_report(path)
    places = {name: index for index, name in enumerate(dataset.class_names) if index}
    renamed = [name for i, name in written.items() if classes.get(i) != places.get(name)]
    if not renamed:
        return classes
    logger.warning(
        "%s: category ids do not mean what they mean in %s: %s; matched by the names in the report "
        "beside the results",
        *(path, dataset.annotation_path, ", ".join(renamed[:_UNKNOWN_SHOWN])),
    )
    return {i: places[name] for i, name in written.items() if name in places}


def _categories_of_report(path: Path) -> dict[FileId, str]:
    """Id -> name in the report that `main_test.py` writes beside a result file; else nothing."""
    report = path.with_name(path.name.replace("_results.json", "_report.json"))
    if report == path:
        return {}
    try:
        entries = json.loads(report.read_text(encoding="utf-8"))["categories"]
        return {id_key(entry["id"]): entry["name"] for entry in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _sorted_rows(table: np.ndarray, positions: np.ndarray) -> ResultRows:
    """Rows (image, class, x, y, width, height, score) by class and image; their rank is kept."""
    order = np.lexsort((table[:, 0], table[:, 1]))
    table = table[order]
    return ResultRows(
        images=table[:, 0].astype(np.int64),
        classes=table[:, 1].astype(np.int32),
        boxes=table[:, 2:6],
        scores=table[:, 6],
        rows=positions[order],
    )


def _place(places: dict[FileId, int], identity: Any) -> int:
    """The index of an id; -1 where there is none."""
    try:
        return places.get(id_key(identity), -1)
    except ValueError:  # a list, true, 1.5
        return -1


def _box(result: dict[str, Any], record: Record) -> tuple[float, float, float, float]:
    """x, y, width and height: the bbox, or that of the mask where there is none."""
    box = result.get("bbox")
    if not box and "segmentation" in result:
        box = coco_mask.toBbox(run_lengths(result["segmentation"], [record.height, record.width]))
        return tuple(box.tolist())
    x, y, width, height = result["bbox"]
    return x, y, width, height


def _read_list(path: str | Path, with_masks: bool) -> list[Any]:
    try:
        with open(path, encoding="utf-8-sig") as stream:
            results = json.load(stream, object_hook=None if with_masks else _without_mask)
    except OSError as error:
        raise DataError(
            "the result file cannot be read",
            where=path,
            got=error,
            fix="run main_test.py with the same --cfg first, or name another file",
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            "the result file is no valid JSON",
            where=path,
            got=error,
            fix="write it again; it may have been cut off",
        ) from error
    if not isinstance(results, list):
        raise DataError(
            "this is no COCO result file",
            where=path,
            got=f"a JSON {type(results).__name__}",
            expected="a list of detections",
        )
    return results


def _without_mask(entry: dict[str, Any]) -> dict[str, Any]:
    """Drops what takes most of the memory while it is read."""
    entry.pop("segmentation", None)
    return entry


def _unknown(path: str | Path, dataset: Dataset, unknown: Counter[str], total: int) -> DataError:
    """What to say about detections of images or categories that the set does not have."""
    shown = ", ".join(f"{name} ({count})" for name, count in unknown.most_common(_UNKNOWN_SHOWN))
    return DataError(
        f"{sum(unknown.values())} of {total} detections belong to no image or category of "
        f"{dataset.name}",
        where=path,
        got=f"{shown}{', ...' if len(unknown) > _UNKNOWN_SHOWN else ''}",
        expected=f"ids of {dataset.annotation_path}",
        fix="name the result file of this set; `sniper evaluate --ignore-unknown` leaves them out",
    )


def _broken(path: str | Path, position: int, result: object, reason: str = "") -> DataError:
    """Why a detection could not be taken."""
    return DataError(
        f"entry {position} of the result file is broken{reason and ': '}{reason}",
        where=path,
        got=repr(result)[:200],
        expected="image_id, category_id, bbox [x, y, width, height] and score",
    )


def write_image_list(path: str | Path, dataset: Dataset) -> None:
    """Writes images and categories in COCO format, as `image_info_<set>.json` has them.

    Raises:
        TrainingError: the file could not be written.
    """
    content = {
        "images": [
            {
                "id": record.original_id,
                "file_name": record.image_path,
                "width": record.width,
                "height": record.height,
            }
            for record in dataset.records
        ],
        "categories": dataset.categories(),
    }
    atomic_write_text(path, json.dumps(content, indent=1) + "\n")
