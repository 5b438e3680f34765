"""A COCO annotation file as flat arrays, checked entry by entry."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from sniper.data.account import NO_MASK
from sniper.data.coco_entries import (
    Category,
    EntryReader,
    is_set,
    read_annotation_json,
    read_categories,
    read_images,
)
from sniper.data.coco_masks import read_polygons, with_packed_polygons, without_masks
from sniper.data.coco_problems import CocoObjects, report_annotations
from sniper.data.ids import FileId, id_key, pack_ids
from sniper.data.problems import OnProblem, stop_at_errors
from sniper.errors import DataError


@dataclass(frozen=True, eq=False)
class CocoTable:
    """An annotation file without its text. Images and objects are in the order of the file.

    Attributes:
        class_names: (C,) str, without the background.
        category_ids: (C,), packed (`sniper.data.ids.pack_ids`).
        image_ids: (n,), packed.
        widths: (n,) int64, px.
        heights: (n,) int64, px.
        file_names: (n,) str, empty where the file names none.
        box_offsets: (n + 1,) int64; image i owns boxes[box_offsets[i]:box_offsets[i + 1]].
        boxes: (N, 4) float32, image px.
        classes: (N,) int32, 1...C.
        crowd_offsets: (n + 1,) int64, the same for the crowd regions.
        crowd_boxes: (M, 4) float32, image px; also objects flagged `ignore`.
        polygon_offsets: (N + 1,) int64 into the polygons; (1,) without masks.
        point_offsets: (P + 1,) int64 into the coordinates.
        coordinates: (K,) float32 x y x y ..., image px.
        has_annotations: () bool.
        intake: `sniper.data.account.Intake` as an array.
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
    intake: np.ndarray


TABLE_FIELDS = tuple(field.name for field in fields(CocoTable))


def parse_coco(
    path: str | Path,
    *,
    with_masks: bool,
    legacy_boxes: bool = False,
    on_problem: OnProblem = stop_at_errors,
) -> CocoTable:
    """Reads and checks an annotation file.

    Missing `iscrowd` and `ignore` (0), `area` (w * h), `segmentation` and `annotations` are
    tolerated, and missing `categories` where there are no annotations.

    Args:
        path: the file.
        with_masks: also read the polygons.
        legacy_boxes: the rules of 2018, see `convert_boxes`.
        on_problem: gets every problem; when it comes back, the broken entry is left out.

    Raises:
        DataError: the file is none, or lists no usable image or category; by default also for a
            broken entry, which the message names.
    """
    content = read_annotation_json(path, with_packed_polygons if with_masks else without_masks)
    return parse_content(
        content, path, with_masks=with_masks, legacy_boxes=legacy_boxes, on_problem=on_problem
    )


def parse_content(
    content: Mapping[str, Any],
    path: str | Path,
    *,
    with_masks: bool,
    legacy_boxes: bool = False,
    on_problem: OnProblem = stop_at_errors,
) -> CocoTable:
    """Checks what an annotation file holds, or what another format says in its words.

    Args:
        content: images, categories and, for sets with objects, annotations.
        path: of the file, for messages.
        with_masks, legacy_boxes, on_problem: see `parse_coco`.

    Raises:
        DataError: see `parse_coco`.
    """
    annotations = content.get("annotations")
    reader = EntryReader(path, on_problem)
    categories = read_categories(content["categories"], annotations or [], reader)
    if annotations is not None and not categories:
        raise DataError("the annotation file has no categories", where=path)
    images, image_ids = read_images(content["images"], reader)
    objects = _objects(annotations or [], categories, images, reader, legacy_boxes)
    names = [name for _, _, _, name in images.values()]
    intake = report_annotations(
        annotations or [], objects, names, reader, legacy_boxes=legacy_boxes
    )
    ground_truth = objects.keep & objects.is_object
    crowd = objects.keep & ~objects.is_object
    chosen, box_offsets = _by_image(ground_truth, objects.image_index, len(images))
    crowd_chosen, crowd_offsets = _by_image(crowd, objects.image_index, len(images))
    masked = chosen if with_masks else chosen[:0]
    sizes = np.column_stack([objects.heights[masked], objects.widths[masked]]).astype(np.int64)
    masks, without = read_polygons(
        annotations or [], objects.rows[masked], objects.boxes[masked], sizes, reader
    )
    intake = replace(intake, remarks={**intake.remarks, NO_MASK.name: without})
    return CocoTable(
        class_names=np.array([category.name for category in categories.values()], dtype=np.str_),
        category_ids=pack_ids([category.file_id for category in categories.values()]),
        image_ids=pack_ids(image_ids),
        widths=np.array([width for _, width, _, _ in images.values()], np.int64),
        heights=np.array([height for _, _, height, _ in images.values()], np.int64),
        file_names=np.array([name for _, _, _, name in images.values()], dtype=np.str_),
        box_offsets=box_offsets,
        boxes=objects.boxes[chosen],
        classes=objects.classes[chosen],
        crowd_offsets=crowd_offsets,
        crowd_boxes=objects.boxes[crowd_chosen],
        has_annotations=np.array(annotations is not None),
        intake=intake.to_array(),
        **masks,
    )


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


def _objects(
    annotations: list,
    categories: Mapping[FileId, Category],
    images: Mapping[FileId, tuple[int, int, int, str]],
    reader: EntryReader,
    legacy_boxes: bool,
) -> CocoObjects:
    """All annotations that can be read as arrays, in the order of the file."""
    numbers = array("d")  # eight bytes a number: a list of tuples would take five times as much
    unknown = (-1, 1, 1, "")
    isfinite = math.isfinite

    def read(entry: Mapping[str, Any]) -> None:
        category_id, image_id = entry["category_id"], entry["image_id"]
        category = categories.get(category_id if type(category_id) is int else id_key(category_id))
        if category is None:
            raise ValueError(f"category_id {entry['category_id']!r} is not in the categories")
        try:
            x, y, width, height = map(float, entry["bbox"])
            area = entry.get("area")
            extent = width * height if area is None else float(area)
        except (TypeError, ValueError):
            raise ValueError(_box_problem(entry)) from None
        # One test instead of five in the hottest loop: what is not finite makes the sum so.
        if not isfinite(x + y + width + height + extent):
            raise ValueError("its bbox or area is not finite")
        index, image_width, image_height, _ = images.get(
            image_id if type(image_id) is int else id_key(image_id), unknown
        )
        area = math.nan if area is None else extent
        crowd, ignored = entry.get("iscrowd"), entry.get("ignore")
        flags = 0 if not crowd else 1 if is_set(crowd, "iscrowd") else 0
        if ignored and not flags:
            flags = 2 if is_set(ignored, "ignore") else 0
        numbers.extend(
            (x, y, width, height, area, index, image_width, image_height, category.index, flags)
        )

    broken = reader.each("annotation", annotations, read)
    table = np.frombuffer(numbers, np.float64).reshape(-1, 10)
    # Doubles hold image indices, sizes and class numbers exactly.
    image_index = table[:, 5].astype(np.int64)
    boxes, inside = convert_boxes(table[:, :4], table[:, 6], table[:, 7], legacy=legacy_boxes)
    keep = inside & (image_index >= 0)
    if legacy_boxes:
        keep &= np.where(np.isnan(table[:, 4]), table[:, 2] * table[:, 3], table[:, 4]) > 0
    return CocoObjects(
        rows=np.delete(np.arange(len(annotations)), broken),
        image_index=image_index,
        classes=table[:, 8].astype(np.int32),
        xywh=table[:, :4],
        areas=table[:, 4],
        widths=table[:, 6],
        heights=table[:, 7],
        boxes=boxes,
        crowd=table[:, 9] == 1,
        ignored=table[:, 9] == 2,
        keep=keep,
    )


def _box_problem(entry: Mapping[str, Any]) -> str:
    """Why the bbox or the area of an annotation is no good."""
    bbox = entry["bbox"]
    if bbox is None:
        return "its bbox is null"
    if not isinstance(bbox, (list, tuple)):
        is_known = {dict: "an object", str: "a text"}
        kind = next((name for of, name in is_known.items() if isinstance(bbox, of)), repr(bbox))
        return f"its bbox is {kind}, not [x, y, width, height]"
    if len(bbox) != 4:
        return f"its bbox has {len(bbox)} numbers instead of 4"
    named = {**dict(zip(("x", "y", "width", "height"), bbox)), "area": entry.get("area", 0)}
    for name, value in named.items():
        try:
            float(value)
        except (TypeError, ValueError):
            return f"its {name} is {json.dumps(value)}, not a number"
    return "its bbox is broken"


def _by_image(
    chosen: np.ndarray, image_index: np.ndarray, num_images: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the chosen annotations grouped by image, and the offsets of the groups."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(image_index[rows], kind="stable")]
    counts = np.bincount(image_index[rows], minlength=num_images)
    return rows, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
