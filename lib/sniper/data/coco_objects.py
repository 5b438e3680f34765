"""The boxes of a COCO file: read, checked, and converted to corners."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from sniper.data.coco_columns import CROWD, IGNORED, Annotations
from sniper.data.coco_entries import Category, EntryReader, flag_of
from sniper.data.coco_problems import CocoObjects
from sniper.data.ids import FileId, id_key

# Index, width, height and file name of an image by the key of its id.
Images = Mapping[FileId, tuple[int, int, int, str]]
_UNLISTED = (-1, 1, 1, "")


def read_objects(
    annotations: Annotations,
    categories: Mapping[FileId, Category],
    images: Images,
    reader: EntryReader,
    legacy_boxes: bool,
) -> CocoObjects:
    """All annotations that can be read as arrays, in the order of the file.

    Args:
        annotations: those of the file; of the ones that are not odd, the numbers are finite and the
            categories known.
        categories: by the key of their id.
        images: by the key of their id.
        reader: hears of broken annotations, which are left out.
        legacy_boxes: see `convert_boxes`.
    """
    is_odd = annotations.is_odd
    odd, broken = _odd_rows(annotations, np.flatnonzero(is_odd), categories, images, reader)
    table = np.empty((len(annotations), 10))
    table[~is_odd] = _plain_rows(annotations, ~is_odd, categories, images)
    is_odd[broken] = False
    table[is_odd] = odd
    rows = np.delete(np.arange(len(annotations)), broken)
    table = np.delete(table, broken, axis=0) if broken else table
    # Doubles hold image indices, sizes and class numbers exactly.
    image_index = table[:, 5].astype(np.int64)
    boxes, inside = convert_boxes(table[:, :4], table[:, 6], table[:, 7], legacy=legacy_boxes)
    keep = inside & (image_index >= 0)
    if legacy_boxes:
        keep &= np.where(np.isnan(table[:, 4]), table[:, 2] * table[:, 3], table[:, 4]) > 0
    return CocoObjects(
        rows=rows,
        image_index=image_index,
        classes=table[:, 8].astype(np.int32),
        xywh=table[:, :4],
        areas=table[:, 4],
        widths=table[:, 6],
        heights=table[:, 7],
        boxes=boxes,
        crowd=table[:, 9] == CROWD,
        ignored=table[:, 9] == IGNORED,
        keep=keep,
    )


def _plain_rows(
    annotations: Annotations,
    chosen: np.ndarray,
    categories: Mapping[FileId, Category],
    images: Images,
) -> np.ndarray:
    """(n, 10) float64: x y width height area, index, width and height of the image, class, flags;
    of those (N,) `chosen` that are not odd."""
    table = annotations.table[chosen]
    ids, of_row = np.unique(table["image_id"], return_inverse=True)
    listed = np.array([images.get(number, _UNLISTED)[:3] for number in ids.tolist()], np.float64)
    ids, of_category = np.unique(table["category_id"], return_inverse=True)
    classes = np.array([categories[number].index for number in ids.tolist()], np.float64)
    return np.column_stack(
        [
            *(table[name] for name in ("x", "y", "width", "height")),
            annotations.areas[chosen],
            listed.reshape(-1, 3)[of_row],
            classes[of_category],
            table["flags"] & (CROWD | IGNORED),
        ]
    )


def _odd_rows(
    annotations: Annotations,
    rows: np.ndarray,
    categories: Mapping[FileId, Category],
    images: Images,
    reader: EntryReader,
) -> tuple[np.ndarray, list[int]]:
    """The same of odd annotations that can be read, and the rows of the others."""
    numbers = array("d")  # eight bytes a number: a list of tuples would take five times as much
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
            image_id if type(image_id) is int else id_key(image_id), _UNLISTED
        )
        area = math.nan if area is None else extent
        flag = flag_of(entry)
        numbers.extend(
            (x, y, width, height, area, index, image_width, image_height, category.index, flag)
        )

    broken = reader.each("annotation", annotations, read, rows.tolist())
    return np.frombuffer(numbers, np.float64).reshape(-1, 10), broken


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
