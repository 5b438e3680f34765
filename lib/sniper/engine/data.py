"""Training records from the data sets that a configuration names."""

from __future__ import annotations

import logging
from pathlib import Path

from easydict import EasyDict

from sniper.data import (
    Dataset,
    Record,
    append_flipped,
    attach_proposals,
    filter_trainable,
    load_dataset,
    load_proposals,
)
from sniper.engine.settings import cache_folder
from sniper.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


def open_dataset(cfg: EasyDict, image_set: str) -> Dataset:
    """One data set of the configuration; checks the number of classes.

    Raises:
        ConfigError: `dataset.NUM_CLASSES` is not the number of categories + 1.
        DataError: annotations or images are missing or broken.
    """
    dataset = load_dataset(
        cfg.dataset.dataset,
        cfg.dataset.dataset_path,
        image_set,
        with_masks=bool(cfg.TRAIN.WITH_MASK),
        cache_dir=cache_folder(cfg),
    )
    if len(dataset.class_names) != cfg.dataset.NUM_CLASSES:
        raise ConfigError(
            "dataset.NUM_CLASSES does not fit the data set",
            where=dataset.annotation_path,
            got=f"NUM_CLASSES {cfg.dataset.NUM_CLASSES}",
            expected=f"{len(dataset.class_names)} ({len(dataset.class_names) - 1} categories + 1)",
            fix=f"--set dataset.NUM_CLASSES {len(dataset.class_names)}",
        )
    return dataset


def proposal_file(folder: str | Path, dataset_name: str) -> Path:
    """`<folder>/<NAME>_rpn.npz`: where extraction writes and training reads proposals."""
    return Path(folder) / f"{dataset_name}_rpn.npz"


def training_records(cfg: EasyDict) -> tuple[list[Record], tuple[str, ...]]:
    """Records of all training sets, with proposals and flips, and the class names."""
    records: list[Record] = []
    class_names: tuple[str, ...] = ()
    for image_set in cfg.dataset.image_set.split("+"):
        dataset = open_dataset(cfg, image_set)
        if class_names and dataset.class_names != class_names:
            raise DataError(
                "the joined training sets have different classes",
                where=dataset.annotation_path,
                got=dataset.class_names,
                expected=class_names,
                fix="join only sets with the same categories in the same order",
            )
        class_names = dataset.class_names
        set_records = list(dataset.records)
        if cfg.TRAIN.USE_NEG_CHIPS and not cfg.TRAIN.ONLY_PROPOSAL:
            set_records = _with_proposals(cfg, dataset)
        records.extend(append_flipped(set_records) if cfg.TRAIN.FLIP else set_records)
    kept = filter_trainable(records)
    logger.info("%d training images with flips, %d of them with objects", len(records), len(kept))
    if not kept:
        raise DataError(
            "no training image has a ground-truth object",
            where=f"{cfg.dataset.dataset_path}, sets {cfg.dataset.image_set}",
            fix="check the annotation files; crowd regions alone do not count as objects",
        )
    return kept, class_names


def _with_proposals(cfg: EasyDict, dataset: Dataset) -> list[Record]:
    path = proposal_file(cfg.proposal_path, dataset.name)
    if not path.exists():
        raise DataError(
            "negative chips need proposals, and there is no proposal file",
            where=path,
            fix="make it with scripts/train_neg_props_and_sniper.sh, "
            "or train without negative chips: --set TRAIN.USE_NEG_CHIPS False",
        )
    return attach_proposals(dataset.records, load_proposals(path), set_name=dataset.name)
