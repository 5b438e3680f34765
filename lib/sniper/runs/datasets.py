"""Data sets and training records of a plan."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

from sniper.data import (
    Dataset,
    ProposalSet,
    Record,
    append_flipped,
    attach_proposals,
    filter_trainable,
    load_dataset,
    load_proposals,
)
from sniper.data.class_names import numbered_class_names, read_class_names
from sniper.data.legacy_proposals import find_legacy_file, load_legacy_proposals
from sniper.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataSource:
    """Where the data sets of a run are.

    Attributes:
        format: name of the data format.
        path: root folder of the sets.
        cache_dir: where parsed annotations are kept.
        num_classes: classes with background that every set must have.
        names_dir: folder with the class names of the model, for sets that have none of their own.
        legacy_boxes: boxes by the rules of 2018.
    """

    format: str
    path: Path
    cache_dir: Path
    num_classes: int
    names_dir: Path
    legacy_boxes: bool


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on.

    Attributes:
        source: where the sets are.
        sets: their names, each once.
        with_masks: also read the polygons.
        with_negatives: also read the proposals, which become negative chips.
        keep_without_objects: images without objects may give negative chips.
        flip: add a mirrored copy of every image.
        proposal_dir: folder of the proposal files.
        background_chips: chips are cut at random places, too.
    """

    source: DataSource
    sets: tuple[str, ...]
    with_masks: bool
    with_negatives: bool
    keep_without_objects: bool
    flip: bool
    proposal_dir: Path
    background_chips: bool = False


def open_dataset(source: DataSource, image_set: str, *, with_masks: bool = False) -> Dataset:
    """One data set; checks the number of classes.

    A set without classes of its own (a folder of images) gets those of the model.

    Args:
        source: where the sets are (`sniper.runs.resolve.data_source`).
        image_set: the set's name.
        with_masks: also read the polygons.

    Raises:
        ConfigError: `dataset.NUM_CLASSES` is not the number of categories + 1.
        DataError: annotations or images are missing or broken.
    """
    dataset = load_dataset(
        source.format,
        source.path,
        image_set,
        with_masks=with_masks,
        legacy_boxes=source.legacy_boxes,
        cache_dir=source.cache_dir,
    )
    if len(dataset.class_names) == 1 and not dataset.has_annotations:
        dataset = _with_classes_of_model(dataset, source)
    if len(dataset.class_names) != source.num_classes:
        raise ConfigError(
            "dataset.NUM_CLASSES does not fit the data set",
            where=dataset.annotation_path,
            got=f"NUM_CLASSES {source.num_classes}",
            expected=f"{len(dataset.class_names)} ({len(dataset.class_names) - 1} categories + 1)",
            fix=f"--set dataset.NUM_CLASSES {len(dataset.class_names)}",
        )
    return dataset


def _with_classes_of_model(dataset: Dataset, source: DataSource) -> Dataset:
    names = read_class_names(source.names_dir) or numbered_class_names(source.num_classes)
    return replace(dataset, class_names=names, category_ids=tuple(range(len(names))))


def proposal_file(folder: str | Path, dataset_name: str) -> Path:
    """`<folder>/<NAME>_rpn.npz`: where extraction writes and training reads proposals."""
    return Path(folder) / f"{dataset_name}_rpn.npz"


def training_records(data: TrainingData) -> tuple[list[Record], tuple[str, ...]]:
    """Records of all training sets, with proposals and flips, and the class names.

    Args:
        data: what to train on (`sniper.runs.resolve.training_data`).

    Raises:
        ConfigError: the configuration does not fit the data.
        DataError: annotations, images or proposals are missing or broken, the sets have different
            classes, or there is nothing to train on.
    """
    records: list[Record] = []
    first: Dataset | None = None
    for image_set in data.sets:
        dataset = open_dataset(data.source, image_set, with_masks=data.with_masks)
        first = first or dataset
        _check_same_classes(first, dataset)
        set_records = list(dataset.records)
        if data.with_negatives:
            proposals = _proposals(data.proposal_dir, dataset)
            set_records = attach_proposals(dataset.records, proposals, set_name=dataset.name)
        if data.flip:
            set_records = append_flipped(set_records, legacy=data.source.legacy_boxes)
        records.extend(set_records)
    _tell_repeated_images(records)
    keep_empty, can_use = data.keep_without_objects, data.with_negatives or data.background_chips
    if keep_empty and not can_use:
        logger.info("TRAIN.NEG_CHIPS_WITHOUT_OBJECTS has no effect without negative chips")
    kept = filter_trainable(records, keep_without_objects=keep_empty and can_use)
    with_objects = sum(record.num_gt > 0 for record in kept)
    logger.info("%d training images with flips, %d with objects", len(records), with_objects)
    if first is None or not with_objects:
        raise DataError(
            "no training image has a ground-truth object",
            where=f"{data.source.path}, sets {'+'.join(data.sets)}",
            fix="check the annotation files; crowd regions and difficult objects alone do not "
            "count as objects",
        )
    return kept, first.class_names


def _check_same_classes(first: Dataset, dataset: Dataset) -> None:
    classes, first_classes = dataset.class_names[1:], first.class_names[1:]
    if classes == first_classes:
        return
    if set(classes) == set(first_classes):
        difference = "the same classes in another order"
    else:
        only = [
            f"{other.name} alone has {', '.join(sorted(names)[:5])}"
            for other, names in (
                (dataset, set(classes) - set(first_classes)),
                (first, set(first_classes) - set(classes)),
            )
            if names
        ]
        difference = "; ".join(only)
    raise DataError(
        f"the joined training sets {first.name} and {dataset.name} have different classes",
        where=dataset.annotation_path,
        got=difference,
        expected=f"the {len(first_classes)} classes of {first.annotation_path} in their order",
        fix="join only sets with the same categories in the same order",
    )


def _tell_repeated_images(records: list[Record]) -> None:
    # Links may lead to one image in two ways; they are followed once per folder.
    folders: dict[str, str] = {}
    images = set()
    count = 0
    for record in records:
        if not record.flipped:
            folder, name = os.path.split(record.image_path)
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            images.add((folders[folder], name))
            count += 1
    if len(images) < count:
        logger.warning("%d images belong to more than one of the sets", count - len(images))


def _proposals(folder: Path, dataset: Dataset) -> ProposalSet:
    """The proposals of a set: our file, or that of 2018 in the same folder."""
    path = proposal_file(folder, dataset.name)
    if path.exists():
        return load_proposals(path)
    legacy = find_legacy_file(folder, dataset.name)
    if legacy is None:
        raise DataError(
            "negative chips need proposals, and there is no proposal file",
            where=path,
            fix="main_train.py makes it with --set TRAIN.USE_NEG_CHIPS mine, and so does sniper "
            "mine-negatives; or train without negative chips: --set TRAIN.USE_NEG_CHIPS False",
        )
    logger.info(
        "no %s: reading the 2018 file %s (`sniper convert-proposals` makes this quicker)",
        *(path.name, legacy),
    )
    return load_legacy_proposals(legacy, dataset)
