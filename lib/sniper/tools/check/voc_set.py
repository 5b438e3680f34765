"""Reads a Pascal VOC set file by file and reports everything that is wrong with it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sniper.data.image_header import image_size
from sniper.data.listings import FileIndex, read_class_list, read_lines
from sniper.data.record import Record
from sniper.data.voc import IMAGE_ENDINGS, VOC_CLASSES, parse_set, read_image_list, voc_image_ids
from sniper.data.voc_annotation import VocAnnotation, read_annotation
from sniper.errors import DataError
from sniper.tools.check.findings import Findings
from sniper.tools.check.raw_set import RawBoxes, RawSet, add_error, check_boxes


@dataclass(frozen=True)
class _Image:
    """An image with what its annotation file says; size 0 where it says none."""

    name: str
    identity: int
    path: str
    annotation: VocAnnotation


def read_voc_set(dataset_path: str | Path, image_set: str, findings: Findings) -> RawSet | None:
    """The usable part of a set; None where there is none.

    Args:
        dataset_path: the folder that holds `VOC<year>`.
        image_set: `<year>_<set>`.
        findings: receives the problems.
    """
    try:
        year, subset = parse_set(image_set)
        root = Path(dataset_path) / f"VOC{year}"
        names = _names(root / "ImageSets" / "Main" / f"{subset}.txt", findings)
        classes = read_class_list(root, root.parent) or VOC_CLASSES
    except DataError as error:
        add_error(findings, "annotations", image_set, error)
        return None
    set_name = f"PASCALVOC_{year}_{subset}"
    paths = _paths(root, names, set_name, findings)
    annotations = _annotations(root, names, classes, set_name, findings)
    identities = voc_image_ids(names).tolist()
    images = [
        _Image(name, identity, path, annotations[name])
        for name, identity, path in zip(names, identities, paths)
        if name in annotations
    ]
    return RawSet(
        name=set_name,
        source=str(root / "Annotations"),
        class_names=classes,
        records=_records(images, set_name, findings),
        num_ignored=sum(item.difficult for image in images for item in image.annotation.objects),
        has_annotations=bool(annotations),
    )


def _names(path: Path, findings: Findings) -> tuple[str, ...]:
    """The list without repetitions.

    Raises:
        DataError: it cannot be used even so.
    """
    try:
        return read_image_list(path)
    except DataError:
        lines = read_lines(path, "list of images")
        unique = tuple(dict.fromkeys(lines))
        if not unique or len(unique) == len(lines):
            raise
    for name in unique:
        if lines.count(name) > 1:
            findings.add("duplicate_name", path.name, f"{name}: {lines.count(name)} times")
    return unique


def _paths(root: Path, names: tuple[str, ...], set_name: str, findings: Findings) -> list[str]:
    index, paths = FileIndex(), []
    for name in names:
        stem = os.path.join(root, "JPEGImages", name)
        found = next((stem + end for end in IMAGE_ENDINGS if index.has(stem + end)), None)
        if found is None:
            findings.add("missing_file", set_name, f"image {name}: no {stem}{IMAGE_ENDINGS[0]}")
        paths.append(found or stem + IMAGE_ENDINGS[0])
    return paths


def _annotations(
    root: Path,
    names: tuple[str, ...],
    classes: tuple[str, ...],
    set_name: str,
    findings: Findings,
) -> dict[str, VocAnnotation]:
    """Annotations by image name; a set without any annotation file has none."""
    index = FileIndex()
    files = {name: os.path.join(root, "Annotations", f"{name}.xml") for name in names}
    if not any(index.has(path) for path in files.values()):
        findings.add("annotations", set_name, f"there is no annotation file in {root}/Annotations")
        return {}
    class_index = {name.lower(): number for number, name in enumerate(classes, start=1)}
    found = {}
    for name, path in files.items():
        try:
            found[name] = read_annotation(path, class_index)
        except DataError as error:
            add_error(findings, "broken_entry", path, error)
    return found


def _records(images: list[_Image], set_name: str, findings: Findings) -> list[Record]:
    records = []
    for image in images:
        size = _size(image)
        if size is not None:
            records.append(_record(image, size, set_name, findings))
    return records


def _size(image: _Image) -> tuple[int, int] | None:
    """Width and height; None when neither annotation nor file give them (reported elsewhere)."""
    if image.annotation.width:
        return image.annotation.width, image.annotation.height
    try:
        return image_size(image.path)
    except DataError:
        return None


def _record(image: _Image, size: tuple[int, int], set_name: str, findings: Findings) -> Record:
    objects = image.annotation.objects
    corners = np.array([item[:4] for item in objects], np.float64).reshape(-1, 4)
    count = len(objects)
    # Inclusive corners: a box of one px has equal ones.
    exclusive = corners + np.array([0, 0, 1, 1])
    labels = [f"{image.name}, object {number}" for number in range(1, count + 1)]
    widths, heights = np.full(count, size[0]), np.full(count, size[1])
    areas = np.prod(np.maximum(exclusive[:, 2:] - exclusive[:, :2], 0), axis=1)
    raw = RawBoxes(exclusive, areas, np.zeros(count, np.int64), labels)
    check_boxes(findings, set_name, raw, widths, heights)
    limits = np.array([*size, *size], np.float64) - 1
    boxes = np.trunc(np.clip(corners, 0, limits)).astype(np.float32)
    inside = (exclusive[:, :2] < limits[:2] + 1).all(axis=1) & (exclusive[:, 2:] > 0).all(axis=1)
    easy = np.array([not item.difficult for item in objects], bool)
    kept = inside & easy & (areas > 0)
    classes = np.array([item.class_index for item in objects], np.int32)
    return Record(
        image_path=image.path,
        image_id=image.identity,
        width=size[0],
        height=size[1],
        flipped=False,
        boxes=boxes[kept],
        classes=classes[kept],
        is_gt=np.ones(int(kept.sum()), bool),
    )
