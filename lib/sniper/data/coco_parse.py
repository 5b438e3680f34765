"""A COCO annotation file as flat arrays, checked entry by entry."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from sniper.data.account import NO_MASK
from sniper.data.coco_columns import Annotations, read_annotations
from sniper.data.coco_entries import (
    EntryReader,
    read_annotation_json,
    read_categories,
    read_images,
)
from sniper.data.coco_masks import read_polygons, with_packed_polygons, without_masks
from sniper.data.coco_objects import read_objects
from sniper.data.coco_problems import report_annotations
from sniper.data.ids import pack_ids
from sniper.data.json_stream import NotStreamableError
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
    hook = with_packed_polygons if with_masks else without_masks
    options = _Options(path, with_masks, legacy_boxes, on_problem)
    with contextlib.suppress(NotStreamableError):
        content, annotations = read_annotations(path, with_masks=with_masks, hook=hook)
        # What is said of entries that cannot be used shows them as they are in the file.
        if _are_usable(annotations, content["categories"], path):
            return _parse(content, annotations, options)
        del content, annotations
    content = read_annotation_json(path, hook)
    return _parse(content, Annotations.of_entries(content.get("annotations") or []), options)


def _are_usable(annotations: Annotations, categories: list, path: str | Path) -> bool:
    """Whether the entries that are no odd ones are good, but for their image."""
    quiet = EntryReader(path, lambda problem: None)
    known = read_categories(categories, annotations.category_ids, quiet)
    used = annotations.table["category_id"][~annotations.is_odd]
    return set(np.unique(used).tolist()) <= known.keys() and annotations.are_finite()


def parse_content(
    content: Mapping[str, Any],
    path: str | Path,
    *,
    with_masks: bool,
    legacy_boxes: bool = False,
    on_problem: OnProblem = stop_at_errors,
) -> CocoTable:
    """Checks what another format says in the words of an annotation file.

    Args:
        content: images, categories and, for sets with objects, annotations.
        path: of the file, for messages.
        with_masks, legacy_boxes, on_problem: see `parse_coco`.

    Raises:
        DataError: see `parse_coco`.
    """
    annotations = Annotations.of_entries(content.get("annotations") or [])
    return _parse(content, annotations, _Options(path, with_masks, legacy_boxes, on_problem))


@dataclass(frozen=True)
class _Options:
    """What `parse_coco` was asked for."""

    path: str | Path
    with_masks: bool
    legacy_boxes: bool
    on_problem: OnProblem


def _parse(content: Mapping[str, Any], annotations: Annotations, options: _Options) -> CocoTable:
    """Checks the content of a file whose annotations stand apart."""
    has_annotations = content.get("annotations") is not None
    reader = EntryReader(options.path, options.on_problem)
    categories = read_categories(content["categories"], annotations.category_ids, reader)
    if has_annotations and not categories:
        raise DataError("the annotation file has no categories", where=options.path)
    images, image_ids = read_images(content["images"], reader)
    objects = read_objects(annotations, categories, images, reader, options.legacy_boxes)
    names = [name for _, _, _, name in images.values()]
    intake = report_annotations(
        annotations, objects, names, reader, legacy_boxes=options.legacy_boxes
    )
    ground_truth = objects.keep & objects.is_object
    crowd = objects.keep & ~objects.is_object
    chosen, box_offsets = _by_image(ground_truth, objects.image_index, len(images))
    crowd_chosen, crowd_offsets = _by_image(crowd, objects.image_index, len(images))
    masked = chosen if options.with_masks else chosen[:0]
    sizes = np.column_stack([objects.heights[masked], objects.widths[masked]]).astype(np.int64)
    masks, without = read_polygons(
        annotations, objects.rows[masked], objects.boxes[masked], sizes, reader
    )
    intake = replace(intake, remarks={**intake.remarks, NO_MASK.name: without})
    return CocoTable(
        class_names=np.array([category.name for category in categories.values()], dtype=np.str_),
        category_ids=pack_ids([category.file_id for category in categories.values()]),
        image_ids=pack_ids(image_ids),
        widths=np.array([width for _, width, _, _ in images.values()], np.int64),
        heights=np.array([height for _, _, height, _ in images.values()], np.int64),
        file_names=np.array(names, dtype=np.str_),
        box_offsets=box_offsets,
        boxes=objects.boxes[chosen],
        classes=objects.classes[chosen],
        crowd_offsets=crowd_offsets,
        crowd_boxes=objects.boxes[crowd_chosen],
        has_annotations=np.array(has_annotations),
        intake=intake.to_array(),
        **masks,
    )


def _by_image(
    chosen: np.ndarray, image_index: np.ndarray, num_images: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the chosen annotations grouped by image, and the offsets of the groups."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(image_index[rows], kind="stable")]
    counts = np.bincount(image_index[rows], minlength=num_images)
    return rows, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
