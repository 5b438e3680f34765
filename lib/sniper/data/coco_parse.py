"""A COCO annotation file as flat arrays, checked entry by entry."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from sniper.data.box_problems import AnnotatedBoxes, report_boxes
from sniper.data.dataset import BACKGROUND
from sniper.data.problems import (
    BROKEN_ENTRY,
    DUPLICATE_ANNOTATION,
    DUPLICATE_ID,
    DUPLICATE_NAME,
    ORPHAN,
    OnProblem,
    Problem,
    ProblemKind,
    stop_at_errors,
)
from sniper.errors import DataError
from sniper.progress import Heartbeat

logger = logging.getLogger(__name__)

# A polygon needs three corners; shorter ones are dropped (2018 behaviour).
MIN_POLYGON_NUMBERS = 6

# From this size on reading takes seconds, and the log says what is going on.
_LARGE_FILE_BYTES = 50 << 20


@dataclass(frozen=True, eq=False)
class CocoTable:
    """An annotation file without its text. Images and objects are in the order of the file.

    Attributes:
        class_names: (C,) str, without the background.
        category_ids: (C,) int64.
        image_ids: (n,) int64.
        widths: (n,) int64, px.
        heights: (n,) int64, px.
        file_names: (n,) str, empty where the file names none.
        box_offsets: (n + 1,) int64; image i owns boxes[box_offsets[i]:box_offsets[i + 1]].
        boxes: (N, 4) float32, image px.
        classes: (N,) int32, 1...C.
        crowd_offsets: (n + 1,) int64, the same for the crowd regions.
        crowd_boxes: (M, 4) float32, image px.
        polygon_offsets: (N + 1,) int64 into the polygons; (1,) without masks.
        point_offsets: (P + 1,) int64 into the coordinates.
        coordinates: (K,) float32 x y x y ..., image px.
        has_annotations: () bool.
    """

    class_names: np.ndarray
    category_ids: np.ndarray
    image_ids: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    file_names: np.ndarray
    box_offsets: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    crowd_offsets: np.ndarray
    crowd_boxes: np.ndarray
    polygon_offsets: np.ndarray
    point_offsets: np.ndarray
    coordinates: np.ndarray
    has_annotations: np.ndarray


TABLE_FIELDS = tuple(field.name for field in fields(CocoTable))


Entry = dict[str, Any]


def read_annotation_json(
    path: str | Path, object_hook: Callable[[Entry], Entry] | None = None
) -> dict[str, Any]:
    """The content of an annotation file.

    Args:
        path: the file.
        object_hook: changes each object as soon as it has been read, e.g. to save memory.

    Raises:
        DataError: it cannot be read, is no JSON, lacks `images`, or has annotations without
            `categories`.
    """
    try:
        size = os.path.getsize(path)
        if size > _LARGE_FILE_BYTES:
            logger.info("reading %s (%d MB)", path, size >> 20)
        with open(path, encoding="utf-8-sig") as stream, Heartbeat(f"reading {path}"):
            content = json.load(stream, object_hook=object_hook)
    except OSError as error:
        raise DataError("the annotation file cannot be read", where=path, got=error) from error
    except (ValueError, RecursionError) as error:  # RecursionError: brackets without end
        raise DataError(
            "the annotation file is no valid JSON",
            where=path,
            got=error,
            fix="download or write it again; it may have been cut off",
        ) from error
    if not isinstance(content, dict):
        raise DataError(
            "the annotation file is not in COCO format",
            where=path,
            got=f"a JSON {type(content).__name__}",
            expected="an object with images, categories and annotations",
        )
    if not isinstance(content.get("annotations"), (list, type(None))):
        raise DataError("`annotations` is no list", where=path)
    if content.get("annotations") is None:
        content.setdefault("categories", [])
    for key in ("images", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f"the annotation file has no list `{key}`", where=path)
    return content


def parse_coco(
    path: str | Path, *, with_masks: bool, on_problem: OnProblem = stop_at_errors
) -> CocoTable:
    """Reads and checks an annotation file.

    Missing `iscrowd` (0), `area` (w * h), `segmentation` and `annotations` are tolerated, and
    missing `categories` where there are no annotations.

    Args:
        path: the file.
        with_masks: also read the polygons.
        on_problem: gets every problem; when it comes back, the broken entry is left out.

    Raises:
        DataError: the file is none, or lists no usable image or category; by default also for a
            broken entry, which the message names.
    """
    content = read_annotation_json(path, _with_packed_polygons if with_masks else _without_masks)
    annotations = content.get("annotations")
    reader = _Reader(path, on_problem)
    categories = _categories(content["categories"], reader)
    if annotations is not None and not categories:
        raise DataError("the annotation file has no categories", where=path)
    images = _images(content["images"], reader)
    objects = _objects(annotations or [], categories, images, reader)
    ground_truth = objects.keep & ~objects.crowd
    crowd = objects.keep & objects.crowd
    chosen, box_offsets = _by_image(ground_truth, objects.image_index, len(images))
    crowd_chosen, crowd_offsets = _by_image(crowd, objects.image_index, len(images))
    masked = objects.rows[chosen] if with_masks else objects.rows[:0]
    return CocoTable(
        class_names=np.array([name for name, _ in categories.values()], dtype=np.str_),
        category_ids=np.array(list(categories), np.int64),
        image_ids=np.array(list(images), np.int64),
        widths=np.array([width for _, width, _, _ in images.values()], np.int64),
        heights=np.array([height for _, _, height, _ in images.values()], np.int64),
        file_names=np.array([name for _, _, _, name in images.values()], dtype=np.str_),
        box_offsets=box_offsets,
        boxes=objects.boxes[chosen],
        classes=objects.classes[chosen],
        crowd_offsets=crowd_offsets,
        crowd_boxes=objects.boxes[crowd_chosen],
        has_annotations=np.array(annotations is not None),
        **_polygons(annotations or [], masked, reader),
    )


def _without_masks(entry: Entry) -> Entry:
    """Drops what takes most of the memory of a large file while it is read."""
    if "segmentation" in entry:
        del entry["segmentation"]
    return entry


def _with_packed_polygons(entry: Entry) -> Entry:
    """Packs the polygons of an annotation: 4 bytes a number instead of 32; odd ones stay."""
    polygons = entry.get("segmentation")
    if isinstance(polygons, list):
        try:
            entry["segmentation"] = [array("f", polygon) for polygon in polygons]
        except (TypeError, ValueError, OverflowError):
            entry["segmentation"] = polygons  # `_polygons` will say what is wrong, and where
    return entry


def convert_boxes(
    xywh: np.ndarray, widths: np.ndarray, heights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """COCO boxes to truncated inclusive corners (2018 behaviour).

    The size is added to the *clipped* corner, so a box that starts outside moves inwards.

    Args:
        xywh: (N, 4) float64.
        widths: (N,) image width of each box, px.
        heights: (N,) image height, px.

    Returns:
        (N, 4) float32 corners with integer values, and (N,) bool: the box touches its image.
    """
    start = np.maximum(xywh[:, :2], 0)
    limits = np.stack([widths, heights], axis=1) - 1
    end = np.minimum(limits, start + np.maximum(0, xywh[:, 2:] - 1))
    inside = (end >= start).all(axis=1)
    return np.trunc(np.concatenate([start, end], axis=1)).astype(np.float32), inside


@dataclass(frozen=True, eq=False)
class _Objects:
    rows: np.ndarray  # (N,) int64, places in the file's list
    image_index: np.ndarray  # (N,) int64, -1: not in this file's images
    classes: np.ndarray  # (N,) int32
    boxes: np.ndarray  # (N, 4) float32
    crowd: np.ndarray  # (N,) bool
    keep: np.ndarray  # (N,) bool


class _EntryError(ValueError):
    """An entry that cannot be used; `detail` stands behind its label in messages."""

    def __init__(
        self, problem: str, kind: ProblemKind = BROKEN_ENTRY, detail: str | None = None
    ) -> None:
        super().__init__(problem)
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True)
class _Reader:
    """Where the entries come from, and who is told of the broken ones."""

    path: str | Path
    on_problem: OnProblem

    @property
    def where(self) -> str:
        """The file's name."""
        return os.path.basename(self.path)

    def each(
        self, what: str, entries: list, read: Callable, rows: Iterable[int] | None = None
    ) -> list[int]:
        """Calls `read(entry)` for all or the given rows; rows of entries that it refused."""
        broken = []
        chosen = enumerate(entries) if rows is None else ((row, entries[row]) for row in rows)
        for row, entry in chosen:
            try:
                read(entry)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                self._tell(what, entry, row, error)
                broken.append(row)
        return broken

    def _tell(self, what: str, entry: object, row: int, error: Exception) -> None:
        problem = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        kind, label = BROKEN_ENTRY, _label(what, entry, row)
        if isinstance(error, _EntryError):
            kind = error.kind
            label += f" ({error.detail})" if error.detail else ""
        refusal = DataError(
            f"{label} of the annotation file is broken: {problem}",
            where=self.path,
            got=repr(entry)[:200],
        )
        self.on_problem(Problem(kind, self.where, 1, [f"{label}: {problem}"], refusal))


def _label(what: str, entry: object, row: int) -> str:
    """How messages call an entry, which may lack its id."""
    known = isinstance(entry, Mapping) and "id" in entry
    return f"{what} {entry['id']}" if known else f"{what} number {row + 1} (no id)"


def _integer(entry: Mapping[str, Any], key: str) -> int:
    value = entry[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise ValueError(f"{key} is {value!r}, not an integer")
    return int(value)


def _categories(entries: list, reader: _Reader) -> dict[int, tuple[str, int]]:
    """Category id -> (name, class index 1...), in the order of the file."""
    categories: dict[int, tuple[str, int]] = {}
    names: set[str] = set()

    def read(entry: Mapping[str, Any]) -> None:
        name = entry["name"]
        if not isinstance(name, str):
            raise ValueError(f"its name is {name!r}, not a string")
        if name == BACKGROUND:
            raise ValueError(f"{BACKGROUND} is always there and must not be listed")
        identity = _integer(entry, "id")
        if identity in categories:
            raise _EntryError("the id is used before", DUPLICATE_ID, name)
        if name in names:
            raise _EntryError(f"the name {name!r} is used before", DUPLICATE_NAME)
        names.add(name)
        categories[identity] = (name, len(categories) + 1)

    reader.each("category", entries, read)
    return categories


def _images(entries: list, reader: _Reader) -> dict[int, tuple[int, int, int, str]]:
    """Image id -> (index, width, height, file name), in the order of the file."""
    images: dict[int, tuple[int, int, int, str]] = {}
    owners: dict[str, int] = {}

    def read(entry: Mapping[str, Any]) -> None:
        identity = _integer(entry, "id")
        width, height = _integer(entry, "width"), _integer(entry, "height")
        name = entry.get("file_name", "")
        if width < 1 or height < 1:
            raise ValueError(f"its size is {width}x{height}")
        if not isinstance(name, str):
            raise ValueError(f"its file_name is {name!r}, not a string")
        if identity in images:
            raise _EntryError("the id is used before", DUPLICATE_ID, name or "no file_name")
        images[identity] = (len(images), width, height, name)
        if name and owners.setdefault(name, identity) != identity:
            owner = owners[name]
            raise _EntryError(f"the file {name} is that of image {owner}", DUPLICATE_NAME)

    reader.each("image", entries, read)
    if not images:
        raise DataError(
            "the annotation file has no images",
            where=reader.path,
            got="it lists no usable image",
        )
    return images


def _objects(
    annotations: list,
    categories: Mapping[int, tuple[str, int]],
    images: Mapping[int, tuple[int, int, int, str]],
    reader: _Reader,
) -> _Objects:
    """All usable annotations as arrays, in the order of the file."""
    numbers = array("d")  # eight bytes a number: a list of tuples would take five times as much
    unknown = (-1, 1, 1, "")
    isfinite = math.isfinite

    def read(entry: Mapping[str, Any]) -> None:
        category = categories.get(entry["category_id"])
        if category is None:
            raise ValueError(f"category_id {entry['category_id']!r} is not in the categories")
        bbox = entry["bbox"]
        if len(bbox) != 4:
            raise ValueError(f"its bbox has {len(bbox)} numbers instead of 4")
        x, y, width, height = map(float, bbox)
        area = entry.get("area")
        area = width * height if area is None else float(area)
        if not isfinite(x + y + width + height + area):
            raise ValueError("its bbox or area is not finite")
        index, image_width, image_height, _ = images.get(entry["image_id"], unknown)
        crowd = entry.get("iscrowd")
        crowd = float(crowd) > 0 if crowd else False
        numbers.extend(
            (x, y, width, height, area, index, image_width, image_height, category[1], crowd)
        )

    broken = reader.each("annotation", annotations, read)
    rows = np.delete(np.arange(len(annotations)), broken)
    table = np.frombuffer(numbers, np.float64).reshape(-1, 10)
    image_index = table[:, 5].astype(np.int64)
    boxes, inside = convert_boxes(table[:, :4], table[:, 6], table[:, 7])
    keep = inside & (table[:, 4] > 0) & (image_index >= 0)
    objects = _Objects(
        rows=rows,
        image_index=image_index,
        classes=table[:, 8].astype(np.int32),
        boxes=boxes,
        crowd=table[:, 9] > 0,
        keep=keep,
    )
    _report_entries(annotations, objects, reader)
    names = [name for _, _, _, name in images.values()]
    _report_boxes(annotations, objects, table, names, reader)
    return objects


def _report_entries(annotations: list, objects: _Objects, reader: _Reader) -> None:
    """Warns of ids that are used twice, and of annotations whose image is not listed."""
    rows = objects.rows.tolist()
    twice = [rows[place] for place in _repeated([annotations[row].get("id") for row in rows])]
    if twice:
        texts = (_label("annotation", annotations[row], row) for row in twice)
        reader.on_problem(Problem(DUPLICATE_ANNOTATION, reader.where, len(twice), texts))
    orphans = objects.rows[objects.image_index < 0].tolist()
    if orphans:
        texts = (
            f"{_label('annotation', annotations[row], row)}: image_id "
            f"{annotations[row]['image_id']!r} is not listed"
            for row in orphans
        )
        reader.on_problem(Problem(ORPHAN, reader.where, len(orphans), texts))


def _repeated(ids: list) -> list[int]:
    """Places of ids that stood there before; None is no id."""
    with contextlib.suppress(TypeError):  # an id that is a list
        if len(set(ids)) == len(ids):
            return []
    seen: set[str] = set()
    places = []
    for place, identity in enumerate(ids):
        # Text and numbers are one id, since some tools make texts of numbers.
        if identity is not None and str(identity) in seen:
            places.append(place)
        seen.add(str(identity))
    return places


def _report_boxes(
    annotations: list, objects: _Objects, table: np.ndarray, names: list[str], reader: _Reader
) -> None:
    """Warns of boxes that are left out or changed; `table` is that of `_objects`."""
    listed = np.flatnonzero(objects.image_index >= 0)
    columns = table.T if len(listed) == len(table) else table[listed].T
    x, y, width, height = columns[:4]

    def label(number: int) -> str:
        row = int(objects.rows[listed[number]])
        name = names[objects.image_index[listed[number]]]
        return f"{_label('annotation', annotations[row], row)} of {name}"

    boxes = AnnotatedBoxes(
        corners=(x, y, x + width, y + height),
        areas=columns[4],
        widths=columns[6],
        heights=columns[7],
        kept=objects.keep[listed],
        read=objects.boxes[listed],
        label=label,
    )
    report_boxes(boxes, reader.where, reader.on_problem)


def _by_image(
    chosen: np.ndarray, image_index: np.ndarray, num_images: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the chosen annotations grouped by image, and the offsets of the groups."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(image_index[rows], kind="stable")]
    counts = np.bincount(image_index[rows], minlength=num_images)
    return rows, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _polygons(annotations: list, rows: np.ndarray, reader: _Reader) -> dict[str, np.ndarray]:
    """The polygon arrays of the table for the given rows; a run-length mask has no polygon."""
    coordinates = array("f")
    lengths, counts = array("q", [0]), array("q", [0])

    def read(entry: Mapping[str, Any]) -> None:
        counts.append(0)  # what a broken entry leaves behind
        segmentation = entry.get("segmentation")
        polygons = segmentation if isinstance(segmentation, list) else []
        kept = [_packed(polygon) for polygon in polygons if _has_corners(polygon)]
        for polygon in kept:
            coordinates.extend(polygon)
            lengths.append(len(polygon))
        counts[-1] = len(kept)

    reader.each("annotation", annotations, read, rows.tolist())
    return {
        "polygon_offsets": np.cumsum(np.frombuffer(counts, np.int64)),
        "point_offsets": np.cumsum(np.frombuffer(lengths, np.int64)),
        "coordinates": np.frombuffer(coordinates, np.float32).copy(),
    }


def _has_corners(polygon: object) -> bool:
    """Whether a polygon has enough points.

    Raises:
        ValueError: it is no polygon.
    """
    if not isinstance(polygon, (list, array)) or len(polygon) % 2:
        raise ValueError("a polygon is no flat list of x, y pairs")
    return len(polygon) >= MIN_POLYGON_NUMBERS


def _packed(polygon: list | array) -> array:
    if not math.isfinite(sum(polygon)):
        raise ValueError("a polygon is not finite, or no flat list of x, y pairs")
    return polygon if isinstance(polygon, array) else array("f", polygon)
