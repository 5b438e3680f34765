"""What an Open Images set knows for its evaluation: boxes, verified labels, the tree of classes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from sniper.data.collector import collector_off
from sniper.data.dataset import BACKGROUND, Dataset
from sniper.data.ids import id_numbers
from sniper.data.openimages_tables import (
    BoxRows,
    ClassList,
    LabelRows,
    SetFiles,
    find_file,
    find_sets,
    read_boxes,
    read_classes,
    read_hierarchy,
    read_labels,
)
from sniper.data.record import Record, image_record, sound_record
from sniper.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

_MarksT = TypeVar("_MarksT", bound="Marks")

CLASS_FILES, HIERARCHY_FILES = "*class-descriptions*.csv", "*hierarchy*.json"


@dataclass(frozen=True, eq=False)
class Marks:
    """N things that are said of images: boxes, labels, detections.

    Attributes:
        images: (N,) int64 index of the image.
        labels: (N,) int64 index of the class.
    """

    images: np.ndarray
    labels: np.ndarray

    def keys(self, num_classes: int) -> np.ndarray:
        """(N,) int64: a number for each image and class."""
        return self.images * num_classes + self.labels

    def take(self: _MarksT, rows: slice | np.ndarray) -> _MarksT:
        """Some of the rows."""
        return replace(self, **{name: values[rows] for name, values in vars(self).items()})

    def spread(self: _MarksT, tree: ClassTree) -> _MarksT:
        """Each row once for each class that its label stands for."""
        rows, labels = tree.spread(self.labels)
        return replace(self.take(rows), labels=labels)


@dataclass(frozen=True, eq=False)
class TrueBoxes(Marks):
    """Annotated boxes.

    Attributes:
        boxes: (N, 4) float64 x1 y1 x2 y2; detections have the same unit.
        groups: (N,) bool: around several objects.
    """

    boxes: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True, eq=False)
class Verified(Marks):
    """Verified labels.

    Attributes:
        present: (N,) bool: the class is in the image, else it is not.
    """

    present: np.ndarray


@dataclass(frozen=True, eq=False)
class ClassTree:
    """Which classes each stands for: those above it and itself.

    Attributes:
        offsets: (C + 1,) class i owns `above[offsets[i]:offsets[i + 1]]`.
        above: class indices.
    """

    offsets: np.ndarray
    above: np.ndarray

    @classmethod
    def of(cls, above: Sequence[Sequence[int]]) -> ClassTree:
        """The tree of the classes above each."""
        rows = [sorted({index, *own}) for index, own in enumerate(above)]
        return cls(
            np.cumsum([0, *map(len, rows)]).astype(np.int64),
            np.array([index for row in rows for index in row], np.int64),
        )

    @classmethod
    def flat(cls, num_classes: int) -> ClassTree:
        """No class stands above another."""
        return cls.of([()] * num_classes)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def turned(self) -> ClassTree:
        """Which classes stand below each, itself among them."""
        owners = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        order = np.argsort(self.above, kind="stable")
        counts = np.bincount(self.above, minlength=len(self))
        return ClassTree(np.concatenate([[0], np.cumsum(counts)]), owners[order])

    def only(self, classes: np.ndarray) -> ClassTree:
        """The tree in which classes stand for none but some, (C,) bool."""
        kept = classes[self.above]
        before = np.concatenate([[0], np.cumsum(kept)])
        return ClassTree(before[self.offsets], self.above[kept])

    def spread_counts(self, counts: np.ndarray) -> np.ndarray:
        """(C,) int64: how many rows `spread` makes of each class where it has (C,) `counts`."""
        of_row = np.repeat(counts, np.diff(self.offsets))
        return np.bincount(self.above, of_row, minlength=len(self)).astype(np.int64)

    def spread(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows, labels): row i stands there once for each class that its label stands for."""
        counts = np.diff(self.offsets)[labels]
        rows = np.repeat(np.arange(len(labels)), counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        return rows, self.above[self.offsets[labels][rows] + within]


@dataclass(frozen=True, eq=False)
class OpenImagesTruth:
    """`Dataset.truth` of an Open Images set; classes count from 0, images as the records do.

    Boxes and labels are made when they are asked for: training needs neither, and those of the
    whole of Open Images take a GB.

    Attributes:
        tree: which classes stand above each; None where there is no hierarchy.
        groups_known: the file says which boxes are around several objects.
        make: makes `boxes` and `verified`.
    """

    tree: ClassTree | None
    groups_known: bool
    make: Callable[[], tuple[TrueBoxes, Verified]]

    @cached_property
    def _made(self) -> tuple[TrueBoxes, Verified]:
        return self.make()

    @property
    def boxes(self) -> TrueBoxes:
        """Boxes as shares of the image's sides."""
        return self._made[0]

    @property
    def verified(self) -> Verified:
        """Labels of whole images."""
        return self._made[1]


def read_openimages_truth(folder: Path, image_set: str | None) -> Dataset:
    """The official annotations of a set for evaluation: images are neither looked up nor opened.

    The files lie in the folder or in folders in it. The sides of an image are the unit of its
    boxes, since no file tells its px.

    Args:
        folder: with `<set>-annotations-bbox.csv`, the labels of images
            (`<set>-annotations-human-imagelabels*.csv`), the classes and the hierarchy.
        image_set: the set's name; None where the folder has one set only.

    Raises:
        ConfigError: the set must be named, or pandas is not installed.
        DataError: files are missing or broken.
    """
    files = _chosen(folder, find_sets(folder), image_set)
    class_file = find_file(folder, CLASS_FILES)
    if class_file is None:
        raise DataError("the list of classes is missing", where=folder, expected=CLASS_FILES)
    classes = read_classes(class_file)
    boxes = read_boxes(files.boxes, shares=np.float64)
    labels = read_labels(files.labels) if files.labels is not None else None
    if labels is None:
        logger.warning(
            "%s: no labels of images (%s-annotations-human-imagelabels.csv): classes count in "
            "images that have a box of them",
            *(folder, files.name),
        )
    image_ids = joined_ids(boxes, labels)
    marks = (
        true_boxes(boxes, classes, image_ids, files.boxes),
        verified_labels(labels, classes, image_ids),
    )
    truth = OpenImagesTruth(
        *(read_tree(folder, classes), boxes.groups is not None), make=lambda: marks
    )
    del boxes, labels  # hundreds of MB
    return Dataset(
        name=f"OPENIMAGES_{files.name}",
        image_set=files.name,
        class_names=(BACKGROUND, *classes.names),
        category_ids=(0, *classes.ids),
        records=_records_without_files(image_ids),
        annotation_path=str(files.boxes),
        has_annotations=True,
        truth=truth,
        protocol="openimages",
    )


def _chosen(folder: Path, sets: Mapping[str, SetFiles], image_set: str | None) -> SetFiles:
    if image_set is None and len(sets) > 1:
        raise ConfigError(
            "which set was detected on?",
            where=folder,
            got=f"sets: {', '.join(sets)}",
            fix="name the set: --image_set NAME",
        )
    name = image_set or next(iter(sets), None)
    if name is None or name not in sets:
        raise DataError(
            "the set has no boxes",
            where=folder,
            got=f"sets: {', '.join(sets) or 'none'}",
            expected=f"{name or '<set>'}-annotations-bbox.csv",
        )
    return sets[name]


def read_tree(folder: Path, classes: ClassList) -> ClassTree | None:
    """The tree of the hierarchy in a folder; None, with a warning, where there is none."""
    path = find_file(folder, HIERARCHY_FILES)
    if path is None:
        logger.warning("%s: no %s: classes are taken as they are", folder, HIERARCHY_FILES)
        return None
    return class_tree(read_hierarchy(path), classes)


def class_tree(above: Mapping[str, frozenset[str]], classes: ClassList) -> ClassTree:
    """The tree of some classes; others of the hierarchy are left out."""
    place = {name: index for index, name in enumerate(classes.ids)}
    return ClassTree.of(
        [[place[a] for a in above.get(name, ()) if a in place] for name in classes.ids]
    )


def joined_ids(table: BoxRows, labels: LabelRows | None) -> list[str]:
    """Ids of the images of both tables, each once, in order."""
    more = [] if labels is None else labels.image_ids.tolist()
    # Sorted tables are merged, which is much faster than to sort a set.
    return list(dict.fromkeys(sorted([*table.image_ids.tolist(), *more])))


def box_classes(table: BoxRows, classes: ClassList, where: Path) -> np.ndarray:
    """(N,) int64: the class of each box, from 0.

    Raises:
        DataError: a box has a class that the list does not have.
    """
    labels = places_of(table.label_ids, classes.ids)[table.labels]
    if (labels < 0).any():
        unknown = sorted(set(table.label_ids[np.unique(table.labels[labels < 0])].tolist()))
        raise DataError(
            "boxes have classes that are not in the list of classes",
            where=where,
            got=f"{np.count_nonzero(labels < 0)} boxes of {', '.join(unknown[:5])}"
            f"{', ...' if len(unknown) > 5 else ''}",
            fix="take the list of classes of this version",
        )
    return labels


def true_boxes(
    table: BoxRows, classes: ClassList, image_ids: Sequence[str], where: Path
) -> TrueBoxes:
    """The boxes of a table with the numbers of classes and images.

    Raises:
        DataError: a box has a class that the list does not have.
    """
    labels = box_classes(table, classes, where)
    images = places_of(table.image_ids, image_ids)[table.images]
    groups = np.zeros(len(images), bool) if table.groups is None else table.groups
    return TrueBoxes(images, labels, table.boxes.astype(np.float64, copy=False), groups)


def verified_labels(
    table: LabelRows | None, classes: ClassList, image_ids: Sequence[str]
) -> Verified:
    """The labels of boxable classes; Open Images has labels of many more."""
    if table is None:
        nothing = np.zeros(0, np.int64)
        return Verified(nothing, nothing, nothing > 0)
    labels = places_of(table.label_ids, classes.ids)[table.labels]
    kept = labels >= 0
    images = places_of(table.image_ids, image_ids)[table.images[kept]]
    return Verified(images, labels[kept], table.present[kept])


def places_of(names: Sequence[str] | np.ndarray, of: Sequence[str] | np.ndarray) -> np.ndarray:
    """(N,) int64 place of each name in a list, -1 for none."""
    wanted, listed = (t.tolist() if isinstance(t, np.ndarray) else t for t in (names, of))
    place = {name: index for index, name in enumerate(listed)}
    return np.fromiter((place.get(name, -1) for name in wanted), np.int64, len(wanted))


def _records_without_files(image_ids: Sequence[str]) -> tuple[Record, ...]:
    """They share one record's arrays, and what `Record` asks was asked of that one."""
    shared = vars(image_record("", 0, 1, 1))
    columns = zip(image_ids, id_numbers(image_ids).tolist())
    with collector_off():
        return tuple(
            sound_record(
                {**shared, "image_path": f"{name}.jpg", "image_id": number, "file_id": name}.items()
            )
            for name, number in columns
        )
