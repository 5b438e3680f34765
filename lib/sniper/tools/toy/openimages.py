"""The official tables of Open Images for a generated set, with hierarchy and group boxes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sniper.data.openimages_tables import ROOT
from sniper.tools.toy.shapes import ToyClass

CLASS_FILE, HIERARCHY_FILE = "class-descriptions-boxable.csv", "bbox_labels_600_hierarchy.json"
_BOX_TITLES = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,"
    "IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
)
_LABEL_TITLES = "ImageID,Source,LabelName,Confidence"
_IMAGE_TITLES = "ImageID,FileName,Width,Height"
_DECIMALS = 6

# What stands above the shapes; above fine classes stand their shapes.
_ROUND = frozenset({"ring", "crescent", "heart", "drop"})
_NUMBER_OF_KIND = {"round-shape": 901, "angular-shape": 902}
# Neighbours of one class are annotated as one group as often as this.
_GROUP_SHARE = 0.5
# How far apart they may be, in their mean size.
_GROUP_GAP = 0.5
# Of the classes that are not in an image, so many were verified to be absent.
_ABSENT_SHARE = 0.5


@dataclass(frozen=True)
class ToyImage:
    """An image with its objects, x y width height in px.

    Attributes:
        lost: rows of the objects without annotation.
    """

    image_id: int
    file_name: str
    width: int
    height: int
    boxes: Sequence[Sequence[float]]
    kinds: Sequence[ToyClass]
    lost: frozenset[int] = frozenset()

    @property
    def shown(self) -> frozenset[str]:
        """Names of all classes in it, annotated or not."""
        return frozenset(kind.name for kind in self.kinds)


def common_tables(kinds: Sequence[ToyClass]) -> dict[str, str]:
    """The texts of the list of classes and of the hierarchy, by file name."""
    above = {_above(kind): None for kind in kinds}
    names = [(_mid(kind), kind.name) for kind in kinds]
    names += [(_parent_mid(name), name) for name in above]
    nodes = [
        {
            "LabelName": _parent_mid(name),
            "Subcategory": [{"LabelName": _mid(kind)} for kind in kinds if _above(kind) == name],
        }
        for name in above
    ]
    tree = {"LabelName": ROOT, "Subcategory": nodes}
    return {
        CLASS_FILE: "".join(f"{mid},{name}\n" for mid, name in names),
        HIERARCHY_FILE: json.dumps(tree, indent=1) + "\n",
    }


def table_names(split: str) -> dict[str, str]:
    """File names of the tables of boxes, labels and images."""
    return {
        "boxes": f"{split}-annotations-bbox.csv",
        "labels": f"{split}-annotations-human-imagelabels-boxable.csv",
        "images": f"{split}-images.csv",
    }


def split_tables(
    split: str, images: Sequence[ToyImage], kinds: Sequence[ToyClass], seed: int
) -> dict[str, str]:
    """The texts of a split's tables, by file name; chance comes from the seed and the image."""
    boxes, labels, sizes = [_BOX_TITLES], [_LABEL_TITLES], [_IMAGE_TITLES]
    for image in images:
        rng = np.random.default_rng([seed, image.image_id])
        name = f"{image.image_id:016x}"
        sizes.append(f"{name},{image.file_name},{image.width},{image.height}")
        sides = (image.width, image.height)
        for box, kind, is_group in _with_groups(image, rng):
            x1, y1, x2, y2 = (box / np.tile(sides, 2)).round(_DECIMALS).tolist()
            mid = _mid(kind)
            boxes.append(f"{name},xclick,{mid},1,{x1},{x2},{y1},{y2},0,0,{int(is_group)},0,0")
        for kind in kinds:
            is_shown = kind.name in image.shown
            if is_shown or rng.random() < _ABSENT_SHARE:
                labels.append(f"{name},verification,{_mid(kind)},{int(is_shown)}")
    tables = dict(zip(("boxes", "labels", "images"), (boxes, labels, sizes)))
    return {file: "\n".join(tables[what]) + "\n" for what, file in table_names(split).items()}


def _with_groups(
    image: ToyImage, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, ToyClass, bool]]:
    """Corners, class, and whether the box is around neighbours of one class.

    What is lost has no part in a box; which of the others are a group does not depend on it.
    """
    boxes = np.array(image.boxes, np.float64).reshape(-1, 4)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    left = list(range(len(corners)))
    while left:
        first = left.pop(0)
        kind = image.kinds[first]
        near = [
            row
            for row in left
            if image.kinds[row].name == kind.name and _are_near(corners[first], corners[row])
        ]
        if near and rng.random() < _GROUP_SHARE:
            left = [row for row in left if row not in near]
            rows = [row for row in (first, *near) if row not in image.lost]
        else:
            rows = [row for row in (first,) if row not in image.lost]
        if rows:
            members = corners[rows]
            box = np.concatenate([members[:, :2].min(0), members[:, 2:].max(0)])
            yield box, kind, len(rows) > 1


def _are_near(a: np.ndarray, b: np.ndarray) -> bool:
    gap = np.maximum(np.maximum(a[:2], b[:2]) - np.minimum(a[2:], b[2:]), 0).max()
    sizes = [np.sqrt(np.prod(box[2:] - box[:2])) for box in (a, b)]
    return bool(gap <= _GROUP_GAP * float(np.mean(sizes)))


def _above(kind: ToyClass) -> str:
    if kind.group and kind.group != "shape":
        return kind.group
    return "round-shape" if kind.name in _ROUND else "angular-shape"


def _mid(kind: ToyClass) -> str:
    return f"/t/{kind.category_id:05d}"


def _parent_mid(name: str) -> str:
    return f"/t/{_NUMBER_OF_KIND[name]}" if name in _NUMBER_OF_KIND else f"/t/{name}"
