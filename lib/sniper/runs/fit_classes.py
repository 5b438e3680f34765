"""Learns classes from folders of pictures, and measures on those that are held out."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from sniper.data.picture_folders import HoldOut
from sniper.data.sources import Skipped
from sniper.errors import ConfigError, DataError
from sniper.evaluation.classification import ClassificationReport, classification_report
from sniper.inference.picture_classes import BACKGROUND, PictureClasses, learn_classes
from sniper.inference.softmax_fit import Schedule2018
from sniper.runs.picture_features import PictureFeatures, Pictures

logger = logging.getLogger(__name__)

# What pictures of `--background` are called in tables.
NONE_OF_THEM = "(none of them)"


@dataclass(frozen=True)
class FitOptions:
    """How classes are learnt.

    Attributes:
        hold_out: which pictures measure.
        normalise: rows of features are divided by their lengths.
        schedule: as in 2018; None: the best fit.
        decay: of the best fit.
    """

    hold_out: HoldOut = field(default_factory=HoldOut)
    normalise: bool = False
    schedule: Schedule2018 | None = None
    decay: float = 1e-3


@dataclass(frozen=True, eq=False)
class FitResult:
    """What was learnt, and how well it does.

    Attributes:
        classes: to be saved.
        report: on the pictures held out, of the classes that were learnt now.
        held_out: these pictures.
        skipped: pictures that could not be read.
        fit_s: seconds that the fit took, without the features.
    """

    classes: PictureClasses
    report: ClassificationReport
    held_out: tuple[Path, ...]
    skipped: tuple[Skipped, ...]
    fit_s: float


def fit_classes(
    folders: Mapping[str, Sequence[Path]],
    features: PictureFeatures,
    options: FitOptions,
    *,
    background: Sequence[Path] = (),
    add_to: PictureClasses | None = None,
) -> FitResult:
    """Learns the classes of folders.

    Args:
        folders: pictures by class, see `sniper.data.picture_folders.class_folders`.
        features: of the detector that the classes are for.
        options: how.
        background: pictures that show none of the classes; they are held out alike.
        add_to: classes that were learnt before, whose pictures are learnt again with the new ones.

    Raises:
        ConfigError: a class is there already, other features are asked for than `add_to` has, or
            there is only one class.
        DataError: a class has no picture to learn from.
    """
    spec = replace(features.spec, normalise=options.normalise)
    if add_to is not None:
        _check_addition(add_to, folders, spec)
    old_names = add_to.names if add_to else ()
    names = (*old_names, *folders)
    sets = [(len(old_names) + k, files) for k, files in enumerate(folders.values())]
    if background:
        sets.append((BACKGROUND, background))
    teach, measure = _split(sets, options.hold_out)
    pictures = features.read([file for _, file in (*teach, *measure)])
    rows = {file: row for row, file in enumerate(pictures.files)}
    teach = [item for item in teach if item[1] in rows]
    measure = _unseen([item for item in measure if item[1] in rows], teach, pictures, rows)
    learnt = _Set.of(teach, pictures, rows)
    if add_to is not None:
        learnt = learnt.behind(add_to)
    started_s = time.perf_counter()
    classes = learn_classes(
        *(names, spec, learnt.features, learnt.labels, learnt.files),
        schedule=options.schedule,
        decay=options.decay,
    )
    fit_s = time.perf_counter() - started_s
    held_out = _Set.of(measure, pictures, rows)
    return FitResult(
        classes,
        _report(classes, held_out),
        tuple(file for _, file in measure),
        pictures.skipped,
        fit_s,
    )


@dataclass(frozen=True, eq=False)
class _Set:
    features: np.ndarray
    labels: np.ndarray
    files: tuple[str, ...]

    @classmethod
    def of(
        cls, items: Sequence[tuple[int, Path]], pictures: Pictures, rows: Mapping[Path, int]
    ) -> _Set:
        return cls(
            pictures.features[[rows[file] for _, file in items]],
            np.array([label for label, _ in items], np.int32),
            tuple(f"{file.parent.name}/{file.name}" for _, file in items),
        )

    def behind(self, before: PictureClasses) -> _Set:
        return _Set(
            np.concatenate([before.features, self.features]),
            np.concatenate([before.labels, self.labels]),
            (*before.files, *self.files),
        )


def _check_addition(add_to: PictureClasses, folders: Mapping[str, object], spec: object) -> None:
    if add_to.spec != spec:
        raise ConfigError(
            "classes can be added to those of the same features only",
            got=spec,
            expected=add_to.spec,
            fix="take the same weights, --size, --pooling and --normalise, or fit all classes anew",
        )
    again = [name for name in folders if name in add_to.names]
    if again:
        raise ConfigError(
            "there are classes of these names already",
            got=", ".join(again),
            fix="rename their folders, or fit all classes anew",
        )


def _split(
    sets: Sequence[tuple[int, Sequence[Path]]], hold_out: HoldOut
) -> tuple[list[tuple[int, Path]], list[tuple[int, Path]]]:
    """(label, file) of what teaches and what measures: class by class, whatever their sizes."""
    teach: list[tuple[int, Path]] = []
    measure: list[tuple[int, Path]] = []
    for label, files in sets:
        # Few pictures of each class are no reason for few of everything else.
        rule = replace(hold_out, learn_from=None) if label == BACKGROUND else hold_out
        for items, part in zip((teach, measure), rule.split(files)):
            items.extend((label, file) for file in part)
    return teach, measure


def _unseen(
    measure: list[tuple[int, Path]],
    teach: Sequence[tuple[int, Path]],
    pictures: Pictures,
    rows: Mapping[Path, int],
) -> list[tuple[int, Path]]:
    """Without copies of pictures that teach: those would be known by heart."""
    taught = {pictures.digests[rows[file]] for _, file in teach}
    unseen = [item for item in measure if pictures.digests[rows[item[1]]] not in taught]
    if len(unseen) < len(measure):
        logger.warning(
            "%d pictures held out are copies of pictures to learn from: they measure nothing",
            len(measure) - len(unseen),
        )
    return unseen


def _report(classes: PictureClasses, held_out: _Set) -> ClassificationReport:
    """Pictures of no class count as one more class, if they were learnt from."""
    probabilities = classes.probabilities(held_out.features)
    names, labels = classes.names, held_out.labels
    if len(classes.weights) > len(names):
        rest = 1 - probabilities.sum(axis=1, keepdims=True)
        probabilities = np.concatenate([probabilities, rest], axis=1)
        labels = np.where(labels == BACKGROUND, len(names), labels)
        names = (*names, NONE_OF_THEM)
    known = labels >= 0
    if not known.all():
        raise DataError("all pictures of --background are held out", fix="give more of them")
    return classification_report(names, probabilities, labels)
