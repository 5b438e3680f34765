"""Who is class 3: the classes of models and of data sets, matched by name wherever they meet."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sniper.data.dataset import BACKGROUND, Dataset
from sniper.data.detections import DetectionTable
from sniper.data.ids import FileId, id_key
from sniper.data.record import Record
from sniper.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

_SHOWN = 10  # names in a message


@dataclass(frozen=True)
class Classes:
    """The classes of a model, or of joined sets.

    Attributes:
        names: index 0 is the background.
        ids: category id of each in the annotation files, 0 for the background; None: not known.
        where: whose they are, for messages.
    """

    names: tuple[str, ...]
    ids: tuple[FileId, ...] | None = None
    where: str = "the model"

    @property
    def are_named(self) -> bool:
        """Whether somebody named them; the files of 2018 have numbers only."""
        return self.names != numbered_class_names(len(self.names))


def numbered_class_names(num_classes: int) -> tuple[str, ...]:
    """Names for classes that nobody named: `class 1`, `class 2`, ..."""
    return (BACKGROUND, *(f"class {index}" for index in range(1, num_classes)))


@dataclass(frozen=True, eq=False)
class NameMatch:
    """The places of names in another list.

    Attributes:
        places: (C,) int32, index in the other list; 0 for the background, -1 where it lacks a name.
        foreign: names that the other list lacks.
        missing: names of the other list that this one lacks.
    """

    places: np.ndarray
    foreign: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        """Both lists have the same names in the same order."""
        in_order = np.array_equal(self.places, np.arange(len(self.places)))
        return in_order and not self.missing


def match_names(names: Sequence[str], others: Sequence[str]) -> NameMatch:
    """Finds class names in another list; both begin with the background.

    This is the one place where classes are matched.
    """
    place = {name: index for index, name in enumerate(others) if index}
    places = np.array([0, *(place.get(name, -1) for name in names[1:])], np.int32)
    known = set(names[1:])
    return NameMatch(
        places,
        foreign=tuple(name for name in names[1:] if name not in place),
        missing=tuple(name for name in others[1:] if name not in known),
    )


@dataclass(frozen=True, eq=False)
class MatchedSet:
    """A data set as a model sees it.

    Attributes:
        dataset: the set; one without classes of its own (a folder of images) has the model's.
        classes: of the model.
        match: places of the model's classes in the set.
    """

    dataset: Dataset
    classes: Classes
    match: NameMatch

    def detections(self, table: DetectionTable) -> tuple[DetectionTable, dict[str, int]]:
        """Detections with the class indices of the set.

        Args:
            table: with those of the model.

        Returns:
            The table (the same one where nothing changes), and how many detections were left out
            because the set does not have their class, by its name.
        """
        if self.match.is_same:
            return table, {}
        numbers = Counter(table.classes[self.match.places[table.classes] < 0].tolist())
        left_out = {self.classes.names[index]: count for index, count in sorted(numbers.items())}
        if left_out:
            logger.info(
                "%d detections of classes that %s does not have are left out: %s",
                *(sum(left_out.values()), self.dataset.name),
                ", ".join(f"{name} {count}" for name, count in left_out.items()),
            )
        return _renumbered(table, self.match.places), left_out


def match_set(dataset: Dataset, classes: Classes) -> MatchedSet:
    """Matches a set that a model is to detect on with the model's classes, by name.

    Another order and some of the model's classes are right. Where nobody named the classes of the
    model, as in 2018, those of the set are taken in their order.

    Raises:
        ConfigError: nobody named the classes of the model, and there are more or fewer of them.
        DataError: the set has a class that the model does not have.
    """
    count = len(classes.names)
    if len(dataset.class_names) == 1 and not dataset.has_annotations:
        ids = classes.ids or tuple(range(count))
        dataset = replace(dataset, class_names=classes.names, category_ids=ids)
    match = match_names(classes.names, dataset.class_names)
    if match.missing and not classes.are_named:
        check_count(dataset.class_names, count, dataset.annotation_path)
        logger.info(
            "nobody named the classes of the model: they are taken in the order of %s, class 1 for "
            "%s",
            *(dataset.name, dataset.class_names[1]),
        )
        return MatchedSet(dataset, classes, match_names(classes.names, classes.names))
    if match.missing:
        raise DataError(
            f"{dataset.name} has classes that the model does not have",
            where=dataset.annotation_path,
            got=difference(dataset.class_names, dataset.name, classes.names, "the model"),
            expected=f"some of the {count - 1} classes of {classes.where}: "
            f"{_listed(classes.names[1:])}",
            fix="name the same things alike in the annotations, take the others out of "
            "`categories`, or use the model that was trained with them",
        )
    if match.foreign:
        logger.info(
            "%s has %d of the model's %d classes: it is evaluated on them, without %s",
            *(dataset.name, len(dataset.class_names) - 1, count - 1, _listed(match.foreign)),
        )
    elif not match.is_same:
        logger.info("%s lists the model's classes in another order: matched by name", dataset.name)
    return MatchedSet(dataset, classes, match)


def match_training(joined: Classes, run: Classes) -> Classes:
    """The classes of training sets in the order of a run that is resumed.

    Args:
        joined: of the sets.
        run: of the run.

    Raises:
        DataError: they are not the same classes.
    """
    match = match_names(joined.names, run.names)
    if match.foreign and not run.are_named:
        return joined
    if match.foreign or match.missing:
        raise DataError(
            "the classes of the training data are not those of the run",
            where=joined.where,
            got=difference(joined.names, "the data", run.names, "the run"),
            expected=f"the classes of {run.where}: {_listed(run.names[1:])}",
            fix="go on with the annotations that the run began with; or train anew in another "
            "folder, --set output_path DIR",
        )
    if not match.is_same:
        logger.warning(
            "%s lists the classes in another order than %s: matched by name",
            *(joined.where, run.where),
        )
    ids = dict(zip(joined.names, joined.ids or range(len(joined.names))))
    return Classes(run.names, tuple(ids[name] for name in run.names), joined.where)


def join_classes(sets: Sequence[Dataset]) -> Classes:
    """The classes of sets that are trained on together: those of the first, then what others add.

    A class keeps the category id of the first set that has it; where another class has that id
    already, it gets the next free one.

    Raises:
        DataError: names of two sets differ in capitals, spaces or signs only.
    """
    ids = dict(zip(sets[0].class_names, sets[0].category_ids))
    for dataset in sets[1:]:
        alike = {_plain(name): name for name in ids}
        for name, category_id in zip(dataset.class_names[1:], dataset.category_ids[1:]):
            if name in ids:
                continue
            if _plain(name) in alike:
                raise DataError(
                    "two of the joined sets write one class in two ways",
                    where=dataset.annotation_path,
                    got=f"{name!r}; other sets have {alike[_plain(name)]!r}",
                    fix="name it alike in the annotations of all sets",
                )
            used = {id_key(i) for i in list(ids.values())[1:]}  # the background's 0 is no id
            free = 1 + max((key for key in used if isinstance(key, int)), default=0)
            ids[name] = free if id_key(category_id) in used else category_id
    where = ", ".join(dataset.annotation_path for dataset in sets)
    return Classes(tuple(ids), tuple(ids.values()), where)


def lacking_classes(sets: Sequence[Dataset], joined: Classes) -> dict[str, tuple[str, ...]]:
    """Names of joined sets, and the classes of the others that each lacks."""
    missing = {ds.name: match_names(ds.class_names, joined.names).missing for ds in sets}
    return {name: names for name, names in missing.items() if names}


def renumbered_records(records: Sequence[Record], places: np.ndarray) -> Sequence[Record]:
    """Records with other class indices; the same ones where nothing changes.

    Args:
        records: of one set.
        places: (C,) int32, new index of each class; 0 for the background.
    """
    if np.array_equal(places, np.arange(len(places))):
        return records
    return [replace(record, classes=places[record.classes]) for record in records]


def check_count(names: Sequence[str], num_classes: int, where: str | Path) -> None:
    """Compares the number of classes of a data set, with the background, with the network's.

    Raises:
        ConfigError: they differ.
    """
    count = len(names)
    if count == num_classes:
        return
    raise ConfigError(
        "dataset.NUM_CLASSES does not fit the data set",
        where=where,
        got=f"NUM_CLASSES {num_classes}",
        expected=f"{count} ({count - 1} categories + 1): {_listed(names[1:])}",
        fix=f"--set dataset.NUM_CLASSES {count}",
    )


def difference(names: Sequence[str], whose: str, others: Sequence[str], whose_others: str) -> str:
    """What two lists of classes, background in front, do not share."""
    match = match_names(names, others)
    parts = [
        f"{owner} alone has {_listed(only)}"
        for owner, only in ((whose, match.foreign), (whose_others, match.missing))
        if only
    ]
    alike = {_plain(name): name for name in match.missing}
    pairs = [(name, alike[_plain(name)]) for name in match.foreign if _plain(name) in alike]
    if pairs:
        parts.append("only the writing differs: " + ", ".join(f"{a!r} {b!r}" for a, b in pairs))
    return "; ".join(parts)


def _renumbered(table: DetectionTable, places: np.ndarray) -> DetectionTable:
    """The rows with other classes, -1 left out, in the order of image, class and rank."""
    images, classes = table.image_of_row, places[table.classes]
    kept = np.flatnonzero(classes >= 0)
    rows = kept[np.lexsort((classes[kept], images[kept]))]
    counts = np.bincount(images[rows], minlength=len(table))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    changed = DetectionTable(offsets, table.rows[rows], classes[rows].astype(np.int32))
    if not table.has_masks:
        return changed
    return changed.with_masks([table.mask(row) for row in rows.tolist()])


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name).strip().casefold() or name


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
