"""A COCO annotation file as flat arrays, checked entry by entry."""

from __future__ import annotations

import contextlib
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from sniper.data.box_problems import AnnotatedBoxes, report_boxes
from sniper.data.coco_entries import (
    Entry,
    EntryReader,
    entry_label,
    read_annotation_json,
    read_categories,
    read_images,
)
from sniper.data.problems import (
    DUPLICATE_ANNOTATION,
    ORPHAN,
    OnProblem,
    Problem,
    stop_at_errors,
)
from sniper.errors import DataError

# A polygon needs three corners; shorter ones are dropped (2018 behaviour).
MIN_POLYGON_NUMBERS = 6


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


def parse_coco(
    path: str | Path,
    *,
    with_masks: bool,
    legacy_boxes: bool = False,
    on_problem: OnProblem = stop_at_errors,
) -> CocoTable:
    """Reads and checks an annotation file.

    Missing `iscrowd` (0), `area` (w * h), `segmentation` and `annotations` are tolerated, and
    missing `categories` where there are no annotations.

    Args:
        path: the file.
        with_masks: also read the polygons.
        legacy_boxes: the rules of 2018, see `convert_boxes`.
        on_problem: gets every problem; when it comes back, the broken entry is left out.

    Raises:
        DataError: the file is none, or lists no usable image or category; by default also for a
            broken entry, which the message names.
    """
    content = read_annotation_json(path, _with_packed_polygons if with_masks else _without_masks)
    annotations = content.get("annotations")
    reader = EntryReader(path, on_problem)
    categories = read_categories(content["categories"], reader)
    if annotations is not None and not categories:
        raise DataError("the annotation file has no categories", where=path)
    images = read_images(content["images"], reader)
    objects = _objects(annotations or [], categories, images, reader, legacy_boxes)
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
    xywh: np.ndarray, widths: np.ndarray, heights: np.ndarray, *, legacy: bool
) -> tuple[np.ndarray, np.ndarray]:
    """COCO boxes to inclusive corners: x, x + width - 1.

    Boxes are cut at the border of their image and keep their fractions of a px. What is left of a
    box is one px wide at least.

    Args:
        xywh: (N, 4) float64.
        widths: (N,) image width of each box, px.
        heights: (N,) image height, px.
        legacy: the rules of 2018: corners are truncated to whole px, and the size is added to the
            *clipped* corner, so that a box that starts outside moves inwards.

    Returns:
        (N, 4) float32 corners, and (N,) bool: the box is not empty and touches its image.
    """
    if legacy:
        return _convert_boxes_2018(xywh, widths, heights)
    sizes = np.stack([widths, heights], axis=1)
    far = xywh[:, :2] + xywh[:, 2:]
    inside = ((far > np.maximum(xywh[:, :2], 0)) & (xywh[:, :2] < sizes)).all(axis=1)
    start = np.clip(xywh[:, :2], 0, sizes - 1)
    end = np.maximum(start, np.minimum(far, sizes) - 1)
    return np.concatenate([start, end], axis=1).astype(np.float32), inside


def _convert_boxes_2018(
    xywh: np.ndarray, widths: np.ndarray, heights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
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


def _objects(
    annotations: list,
    categories: Mapping[int, tuple[str, int]],
    images: Mapping[int, tuple[int, int, int, str]],
    reader: EntryReader,
    legacy_boxes: bool,
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
        # One test instead of five in the hottest loop: what is not finite makes the sum so.
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
    # Doubles hold image indices, sizes and class numbers exactly.
    image_index = table[:, 5].astype(np.int64)
    boxes, inside = convert_boxes(table[:, :4], table[:, 6], table[:, 7], legacy=legacy_boxes)
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
    _report_boxes(annotations, objects, table, names, reader, legacy_boxes)
    return objects


def _report_entries(annotations: list, objects: _Objects, reader: EntryReader) -> None:
    """Warns of ids that are used twice, and of annotations whose image is not listed."""
    rows = objects.rows.tolist()
    twice = [rows[place] for place in _repeated([annotations[row].get("id") for row in rows])]
    if twice:
        texts = (entry_label("annotation", annotations[row], row) for row in twice)
        reader.on_problem(Problem(DUPLICATE_ANNOTATION, reader.where, len(twice), texts))
    orphans = objects.rows[objects.image_index < 0].tolist()
    if orphans:
        texts = (
            f"{entry_label('annotation', annotations[row], row)}: image_id "
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
    annotations: list,
    objects: _Objects,
    table: np.ndarray,
    names: list[str],
    reader: EntryReader,
    legacy_boxes: bool,
) -> None:
    """Warns of boxes that are left out or changed; `table` is that of `_objects`."""
    listed = np.flatnonzero(objects.image_index >= 0)
    columns = table.T if len(listed) == len(table) else table[listed].T
    x, y, width, height = columns[:4]

    def label(number: int) -> str:
        row = int(objects.rows[listed[number]])
        name = names[objects.image_index[listed[number]]]
        return f"{entry_label('annotation', annotations[row], row)} of {name}"

    boxes = AnnotatedBoxes(
        corners=(x, y, x + width, y + height),
        areas=columns[4],
        widths=columns[6],
        heights=columns[7],
        kept=objects.keep[listed],
        read=objects.boxes[listed],
        label=label,
        legacy=legacy_boxes,
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


def _polygons(annotations: list, rows: np.ndarray, reader: EntryReader) -> dict[str, np.ndarray]:
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
        # An array with a view of its buffer cannot grow; a copy lets go of the spare room too.
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
