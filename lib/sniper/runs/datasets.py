"""Training records from the data sets that a configuration names."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

from easydict import EasyDict

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
from sniper.runs.plan import cache_folder, model_folder

logger = logging.getLogger(__name__)


def open_dataset(cfg: EasyDict, image_set: str, *, with_masks: bool = False) -> Dataset:
    """One data set of the configuration; checks the number of classes.

    A set without classes of its own (a folder of images) gets those of the model.

    Args:
        cfg: the configuration.
        image_set: the set's name.
        with_masks: also read the polygons.

    Raises:
        ConfigError: `dataset.NUM_CLASSES` is not the number of categories + 1.
        DataError: annotations or images are missing or broken.
    """
    dataset = load_dataset(
        cfg.dataset.dataset,
        cfg.dataset.dataset_path,
        image_set,
        with_masks=with_masks,
        cache_dir=cache_folder(cfg),
    )
    if len(dataset.class_names) == 1 and not dataset.has_annotations:
        dataset = _with_classes_of_model(dataset, cfg)
    if len(dataset.class_names) != cfg.dataset.NUM_CLASSES:
        raise ConfigError(
            "dataset.NUM_CLASSES does not fit the data set",
            where=dataset.annotation_path,
            got=f"NUM_CLASSES {cfg.dataset.NUM_CLASSES}",
            expected=f"{len(dataset.class_names)} ({len(dataset.class_names) - 1} categories + 1)",
            fix=f"--set dataset.NUM_CLASSES {len(dataset.class_names)}",
        )
    return dataset


def _with_classes_of_model(dataset: Dataset, cfg: EasyDict) -> Dataset:
    names = read_class_names(model_folder(cfg)) or numbered_class_names(cfg.dataset.NUM_CLASSES)
    return replace(dataset, class_names=names, category_ids=tuple(range(len(names))))


def proposal_file(folder: str | Path, dataset_name: str) -> Path:
    """`<folder>/<NAME>_rpn.npz`: where extraction writes and training reads proposals."""
    return Path(folder) / f"{dataset_name}_rpn.npz"


def training_sets(cfg: EasyDict) -> list[str]:
    """Names of the training sets, which `dataset.image_set` joins with `+`.

    Raises:
        ConfigError: a name is empty or stands there twice.
    """
    names = [name.strip() for name in cfg.dataset.image_set.split("+")]
    problem = None
    if not all(names):
        problem = "a set without a name"
    elif len(set(names)) < len(names):
        problem = f"{next(name for name in names if names.count(name) > 1)!r} twice"
    if problem is not None:
        raise ConfigError(
            f"dataset.image_set names {problem}",
            got=repr(cfg.dataset.image_set),
            expected="one set, or different sets joined by '+': train2014+val2014",
        )
    return names


def training_records(cfg: EasyDict) -> tuple[list[Record], tuple[str, ...]]:
    """Records of all training sets, with proposals and flips, and the class names.

    Raises:
        ConfigError: the configuration does not fit the data.
        DataError: annotations, images or proposals are missing or broken, the sets have different
            classes, or there is nothing to train on.
    """
    train = cfg.TRAIN
    with_negatives = bool(train.USE_NEG_CHIPS) and not train.ONLY_PROPOSAL
    records: list[Record] = []
    first: Dataset | None = None
    for image_set in training_sets(cfg):
        dataset = open_dataset(
            cfg, image_set, with_masks=bool(train.WITH_MASK) and not train.ONLY_PROPOSAL
        )
        first = first or dataset
        _check_same_classes(first, dataset)
        set_records = list(dataset.records)
        if with_negatives:
            proposals = _proposals(cfg, dataset)
            set_records = attach_proposals(dataset.records, proposals, set_name=dataset.name)
        records.extend(append_flipped(set_records) if train.FLIP else set_records)
    _tell_repeated_images(records)
    keep_empty = bool(train.NEG_CHIPS_WITHOUT_OBJECTS)
    if keep_empty and not with_negatives:
        logger.info("TRAIN.NEG_CHIPS_WITHOUT_OBJECTS has no effect without negative chips")
    kept = filter_trainable(records, keep_without_objects=keep_empty and with_negatives)
    with_objects = sum(record.num_gt > 0 for record in kept)
    logger.info("%d training images with flips, %d with objects", len(records), with_objects)
    if not with_objects:
        raise DataError(
            "no training image has a ground-truth object",
            where=f"{cfg.dataset.dataset_path}, sets {cfg.dataset.image_set}",
            fix="check the annotation files; crowd regions and difficult objects alone do not "
            "count as objects",
        )
    return kept, first.class_names


def _check_same_classes(first: Dataset, dataset: Dataset) -> None:
    ours, theirs = dataset.class_names[1:], first.class_names[1:]
    if ours == theirs:
        return
    if set(ours) == set(theirs):
        difference = "the same classes in another order"
    else:
        only = [
            f"{other.name} alone has {', '.join(sorted(names)[:5])}"
            for other, names in (
                (dataset, set(ours) - set(theirs)),
                (first, set(theirs) - set(ours)),
            )
            if names
        ]
        difference = "; ".join(only)
    raise DataError(
        f"the joined training sets {first.name} and {dataset.name} have different classes",
        where=dataset.annotation_path,
        got=difference,
        expected=f"the {len(theirs)} classes of {first.annotation_path} in their order",
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


def _proposals(cfg: EasyDict, dataset: Dataset) -> ProposalSet:
    """The proposals of a set: our file, or that of 2018 in the same folder."""
    path = proposal_file(cfg.proposal_path, dataset.name)
    if path.exists():
        return load_proposals(path)
    legacy = find_legacy_file(cfg.proposal_path, dataset.name)
    if legacy is None:
        raise DataError(
            "negative chips need proposals, and there is no proposal file",
            where=path,
            fix="make it with scripts/train_neg_props_and_sniper.sh, "
            "or train without negative chips: --set TRAIN.USE_NEG_CHIPS False",
        )
    logger.info(
        "no %s: reading the 2018 file %s (`sniper convert-proposals` makes this quicker)",
        *(path.name, legacy),
    )
    return load_legacy_proposals(legacy, dataset)
