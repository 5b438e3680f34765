"""Reads a COCO annotation file entry by entry and reports everything that is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sniper.data.coco import find_annotations, image_candidates, image_folder
from sniper.data.coco_parse import convert_boxes, read_annotation_json
from sniper.data.dataset import BACKGROUND
from sniper.data.listings import FileIndex
from sniper.data.record import Record
from sniper.errors import DataError
from sniper.tools.check.findings import Findings
from sniper.tools.check.raw_set import (
    Broken,
    RawBoxes,
    RawSet,
    add_error,
    check_boxes,
    try_entry,
)


@dataclass(frozen=True)
class _Image:
    identity: int
    width: int
    height: int
    file_name: str


@dataclass(frozen=True)
class _Object:
    label: str
    image: int
    category: int
    bbox: tuple[float, float, float, float]
    area: float
    crowd: bool


def read_coco_set(dataset_path: str | Path, image_set: str, findings: Findings) -> RawSet | None:
    """The usable part of a set; None where there is none.

    Args:
        dataset_path: folder with `annotations` and `images`.
        image_set: the set's name.
        findings: receives the problems.
    """
    root = Path(dataset_path)
    try:
        path = find_annotations(root, image_set)
        content = read_annotation_json(path)
    except DataError as error:
        add_error(findings, "annotations", root, error)
        return None
    where = path.name
    categories = _categories(content["categories"], where, findings)
    images = _images(content["images"], where, findings)
    annotations = content.get("annotations")
    if not images:
        findings.add("annotations", path, "it lists no usable image")
        return None
    if annotations is not None and not categories:
        findings.add("annotations", path, "it has annotations, but no usable category")
    known = {image.identity: row for row, image in enumerate(images)}
    objects = _objects(annotations or [], categories, known, where, findings)
    paths = _paths(root, image_set, images, findings)
    return RawSet(
        name=f"COCO_{image_set}",
        source=str(path),
        class_names=tuple(name for name, _ in categories.values()),
        records=_records(images, paths, objects, where, findings),
        num_ignored=sum(item.crowd for item in objects),
        has_annotations=annotations is not None,
    )


def _label(kind: str, entry: object, row: int) -> str:
    known = isinstance(entry, Mapping) and "id" in entry
    return f"{kind} {entry['id']}" if known else f"{kind} number {row + 1} (no id)"


def _whole(entry: Mapping[str, Any], key: str) -> int:
    value = entry[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise Broken(f"{key} is {value!r}, not a whole number")
    return int(value)


def _categories(entries: list, where: str, findings: Findings) -> dict[int, tuple[str, int]]:
    """Category id -> (name, class index 1...)."""

    def read(entry: Mapping[str, Any]) -> tuple[int, str]:
        name = entry["name"]
        if not isinstance(name, str):
            raise Broken(f"its name is {name!r}, not a text")
        if name == BACKGROUND:
            raise Broken(f"{BACKGROUND} is always there and must not be listed")
        return _whole(entry, "id"), name

    categories: dict[int, tuple[str, int]] = {}
    names: set[str] = set()
    for row, entry in enumerate(entries):
        label = _label("category", entry, row)
        found = try_entry(findings, where, label, read, entry)
        if found is None:
            continue
        identity, name = found
        if identity in categories:
            findings.add("duplicate_id", where, f"{label} ({name}): the id is used before")
        elif name in names:
            findings.add("duplicate_name", where, f"{label}: the name {name!r} is used before")
        else:
            names.add(name)
            categories[identity] = (name, len(categories) + 1)
    return categories


def _images(entries: list, where: str, findings: Findings) -> list[_Image]:
    def read(entry: Mapping[str, Any]) -> _Image:
        image = _Image(
            _whole(entry, "id"),
            _whole(entry, "width"),
            _whole(entry, "height"),
            entry.get("file_name", ""),
        )
        if image.width < 1 or image.height < 1:
            raise Broken(f"its size is {image.width}x{image.height}")
        if not isinstance(image.file_name, str):
            raise Broken(f"its file_name is {image.file_name!r}, not a text")
        return image

    images: list[_Image] = []
    ids: set[int] = set()
    names: dict[str, int] = {}
    for row, entry in enumerate(entries):
        label = _label("image", entry, row)
        image = try_entry(findings, where, label, read, entry)
        if image is None:
            continue
        if image.identity in ids:
            text = f"{label} ({image.file_name or 'no file_name'}): the id is used before"
            findings.add("duplicate_id", where, text)
            continue
        ids.add(image.identity)
        first = names.setdefault(image.file_name, image.identity)
        if image.file_name and first != image.identity:
            text = f"{label}: the file {image.file_name} is that of image {first}"
            findings.add("duplicate_name", where, text)
        images.append(image)
    return images


def _objects(
    entries: list,
    categories: Mapping[int, tuple[str, int]],
    images: Mapping[int, int],
    where: str,
    findings: Findings,
) -> list[_Object]:
    """Objects of known images and categories, image as a row, category as a class index."""

    def read(entry: Mapping[str, Any]) -> _Object:
        category = categories.get(entry["category_id"])
        if category is None:
            raise Broken(f"category_id {entry['category_id']!r} is not in the categories")
        bbox = entry["bbox"]
        if len(bbox) != 4:
            raise Broken(f"its bbox has {len(bbox)} numbers instead of 4")
        x, y, width, height = (float(value) for value in bbox)
        area = entry.get("area")
        area = width * height if area is None else float(area)
        if not math.isfinite(x + y + width + height + area):
            raise Broken("its bbox or area is not finite")
        crowd = float(entry.get("iscrowd") or 0) > 0
        row = images.get(entry["image_id"], -1)
        return _Object("", row, category[1], (x, y, width, height), area, crowd)

    objects: list[_Object] = []
    ids: set[object] = set()
    for row, entry in enumerate(entries):
        label = _label("annotation", entry, row)
        item = try_entry(findings, where, label, read, entry)
        if item is None:
            continue
        identity = entry.get("id")
        if identity is not None and str(identity) in ids:
            findings.add("duplicate_annotation", where, label)
        ids.add(str(identity))
        if item.image < 0:
            text = f"{label}: image_id {entry['image_id']!r} is not listed"
            findings.add("orphan", where, text)
            continue
        objects.append(_Object(label, *list(vars(item).values())[1:]))
    return objects


def _paths(root: Path, image_set: str, images: list[_Image], findings: Findings) -> list[str]:
    folder, index = image_folder(image_set), FileIndex()
    paths = []
    for image in images:
        candidates = image_candidates(root, folder, image.identity, image.file_name)
        found = next((path for path in candidates if index.has(path)), None)
        if found is None:
            text = f"image {image.identity}: no {' or '.join(candidates)}"
            findings.add("missing_file", f"COCO_{image_set}", text)
        paths.append(found or candidates[-1])
    return paths


def _records(
    images: list[_Image],
    paths: list[str],
    objects: list[_Object],
    where: str,
    findings: Findings,
) -> list[Record]:
    xywh = np.array([item.bbox for item in objects], np.float64).reshape(-1, 4)
    areas = np.array([item.area for item in objects], np.float64)
    owner = np.array([item.image for item in objects], np.int64)
    sizes = np.array([(image.width, image.height) for image in images], np.int64)
    widths, heights = sizes[owner, 0], sizes[owner, 1]
    labels = [f"{item.label} of {images[item.image].file_name}" for item in objects]
    corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
    check_boxes(findings, where, RawBoxes(corners, areas, owner, labels), widths, heights)
    boxes, inside = convert_boxes(xywh, widths, heights)
    kept = inside & (areas > 0) & ~np.array([item.crowd for item in objects], bool)
    classes = np.array([item.category for item in objects], np.int32)
    rows = np.flatnonzero(kept)
    rows = rows[np.argsort(owner[rows], kind="stable")]
    ends = np.searchsorted(owner[rows], np.arange(len(images) + 1)).tolist()
    records = []
    for index, (image, path) in enumerate(zip(images, paths)):
        own = rows[ends[index] : ends[index + 1]]
        records.append(
            Record(
                image_path=path,
                image_id=image.identity,
                width=image.width,
                height=image.height,
                flipped=False,
                boxes=boxes[own],
                classes=classes[own],
                is_gt=np.ones(len(own), bool),
            )
        )
    return records
