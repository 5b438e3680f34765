"""Data sets whose objects are all of one class: what class-agnostic detection is evaluated on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sniper.data.classes import Classes, MatchedSet, match_set
from sniper.data.dataset import BACKGROUND, FROM_RECORDS, Dataset
from sniper.data.ids import FileId
from sniper.data.ilsvrc import IlsvrcTruth
from sniper.data.voc import VocTruth

OBJECT_CLASSES = Classes((BACKGROUND, "object"), (0, 1), "class-agnostic detection")


@dataclass(frozen=True)
class OneClassTruth:
    """For `Dataset.truth`: the objects of the set's COCO file are taken for objects of class 1.

    Attributes:
        category_ids: of the set before; objects of other categories are none.
    """

    category_ids: tuple[FileId, ...]


def as_one_class(dataset: Dataset) -> Dataset:
    """The set with all objects of the class `object`, whatever they were.

    Sets of COCO, Pascal VOC and ILSVRC keep their way of evaluation, crowd regions and difficult
    objects included, but no blacklist; objects of other formats are evaluated as in COCO.
    """
    truth, protocol = dataset.truth, dataset.protocol
    if truth is None:
        truth = OneClassTruth(dataset.category_ids)
    elif isinstance(truth, VocTruth):
        truth = replace(truth, classes=np.ones_like(truth.classes))
    elif isinstance(truth, IlsvrcTruth):
        truth = replace(
            truth,
            class_names=OBJECT_CLASSES.names[1:],
            class_numbers=np.ones(1, np.int64),
            evaluated_as=np.arange(2, dtype=np.int32),
            classes=np.ones_like(truth.classes),
            blacklist=truth.blacklist[:0],
        )
    elif truth != FROM_RECORDS:
        truth, protocol = FROM_RECORDS, "coco"
    records = tuple(
        # Proposals keep their 0.
        replace(record, classes=np.minimum(record.classes, np.int32(1)))
        for record in dataset.records
    )
    return replace(
        dataset,
        class_names=OBJECT_CLASSES.names,
        category_ids=OBJECT_CLASSES.ids or (),
        records=records,
        truth=truth,
        protocol=protocol,
    )


def match_detected(dataset: Dataset, classes: Classes, *, class_agnostic: bool) -> MatchedSet:
    """A set that is detected on, matched with the classes that detections have.

    Args:
        dataset: the set.
        classes: of the model.
        class_agnostic: detections are of one class, `object`.

    Raises:
        ConfigError, DataError: see `match_set`.
    """
    if class_agnostic:
        return match_set(as_one_class(dataset), OBJECT_CLASSES)
    return match_set(dataset, classes)
