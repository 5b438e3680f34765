"""What is taken from a set of any format: images, objects, and flags of objects."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sniper.data import Dataset, Record, VocTruth
from sniper.data.classes import Classes, match_names
from sniper.data.coco_entries import is_set
from sniper.data.ids import FileId
from sniper.evaluation import objects_of
from sniper.evaluation.coco_truth import annotations_of

# Puts an image file to a place in the new set.
PutImage = Callable[[str, Path], None]


@dataclass(frozen=True)
class Thing:
    """An annotated object.

    Attributes:
        class_index: 1 ... C-1.
        box: x y width height, image px.
        outlines: x y x y ... px of each part; empty without a mask.
        ignored: it need not be found: difficult, or a crowd region.
        crowd: a region that may hold several objects.
    """

    class_index: int
    box: tuple[float, float, float, float]
    outlines: tuple[tuple[float, ...], ...] = ()
    ignored: bool = False
    crowd: bool = False


@dataclass(frozen=True)
class Picture:
    """An image with its objects; `name` is its path below the folder that all of the set share."""

    path: str
    name: str
    image_id: FileId
    width: int
    height: int
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class SetContent:
    """A set: its name in the new format, and its images."""

    name: str
    pictures: tuple[Picture, ...]

    def count(self, *, ignored: bool) -> int:
        """Objects of one kind."""
        return sum(t.ignored == ignored for picture in self.pictures for t in picture.things)


@dataclass(frozen=True)
class Conversion:
    """What is to be written, and what was lost on the way.

    Attributes:
        classes: of all sets together.
        sets: of the old format.
        losses: what the new format cannot hold, and how often it was there.
    """

    classes: Classes
    sets: tuple[SetContent, ...]
    losses: Counter[str]


def set_content(dataset: Dataset, name: str, classes: Classes) -> SetContent:
    """A set as its reader gives it, with the class indices of all sets together."""
    places = match_names(dataset.class_names, classes.names).places
    ignored = _ignored(dataset, places)
    names = _names([record.image_path for record in dataset.records])
    pictures = (
        Picture(
            *(record.image_path, image_name, record.original_id, record.width, record.height),
            things=(*_things(record, places), *ignored.get(index, ())),
        )
        for index, (record, image_name) in enumerate(zip(dataset.records, names))
    )
    return SetContent(name, tuple(pictures))


def target_names(datasets: Sequence[Dataset]) -> list[str]:
    """Names of the new sets: without the year of Pascal VOC where they stay different."""
    short = [ds.truth.subset if isinstance(ds.truth, VocTruth) else ds.image_set for ds in datasets]
    full = [dataset.image_set for dataset in datasets]
    return short if len(set(short)) == len(short) else full


def _things(record: Record, places: np.ndarray) -> list[Thing]:
    corners = record.gt_boxes.astype(np.float64)
    sides = corners[:, 2:] - corners[:, :2] + 1
    boxes = np.concatenate([corners[:, :2], sides], axis=1).tolist()
    outlines = record.polygons or ((),) * len(boxes)
    return [
        Thing(int(places[index]), tuple(box), tuple(tuple(part.tolist()) for part in parts))
        for box, index, parts in zip(boxes, record.gt_classes.tolist(), outlines)
    ]


def _ignored(dataset: Dataset, places: np.ndarray) -> dict[int, list[Thing]]:
    """Crowd regions and difficult objects by image: records have none, or without their class."""
    found: dict[int, list[Thing]] = {}
    if not dataset.num_ignored:
        return found
    if dataset.protocol == "coco" and dataset.truth is None:
        return _ignored_of_coco(dataset, places)
    objects = objects_of(dataset)
    for row in np.flatnonzero(objects.ignored).tolist():
        thing = Thing(
            int(places[objects.classes[row]]),
            tuple(objects.boxes[row].tolist()),
            ignored=True,
            crowd=bool(objects.crowd[row]),
        )
        found.setdefault(int(objects.images[row]), []).append(thing)
    return found


def _ignored_of_coco(dataset: Dataset, places: np.ndarray) -> dict[int, list[Thing]]:
    """Crowd regions, and what is flagged `ignore`, which evaluation does not know."""
    images = {record.image_id: index for index, record in enumerate(dataset.records)}
    classes = {i: int(place) for i, place in zip(dataset.category_ids[1:], places[1:])}
    found: dict[int, list[Thing]] = {}
    for entry in annotations_of(dataset, with_masks=False):
        crowd, ignored = (is_set(entry.get(key) or 0, key) for key in ("iscrowd", "ignore"))
        if crowd or ignored:
            x, y, width, height = map(float, entry["bbox"])
            box = (x, y, width, height)
            thing = Thing(classes[entry["category_id"]], box, ignored=True, crowd=crowd)
            found.setdefault(images[entry["image_id"]], []).append(thing)
    return found


def _names(paths: Sequence[str]) -> list[str]:
    if not paths:
        return []
    root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return [Path(os.path.relpath(os.path.abspath(path), root)).as_posix() for path in paths]
