"""The records that training would use, for the tools that look at them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from easydict import EasyDict

from sniper.config import load_config
from sniper.data.ids import FileId
from sniper.data.record import Record
from sniper.runs.datasets import TrainingSets, read_training_sets
from sniper.runs.folders import mining_folder
from sniper.runs.resolve import mines, training_data

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """A configuration and the records that it trains on.

    Attributes:
        cfg: the resolved configuration.
        records: training images, flipped copies behind their originals when FLIP is on.
        class_names: index 0 is the background.
        category_ids: of each class in its annotation file; empty where the sets share none.
    """

    cfg: EasyDict
    records: list[Record]
    class_names: tuple[str, ...]
    category_ids: tuple[FileId, ...] = ()


def log_to_stderr() -> None:
    """Shows what takes long; the standard output is for results."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)


def load_training_set(
    cfg_name: str,
    overrides: Sequence[str],
    image_set: str | None = None,
    forced: Sequence[str] = (),
) -> TrainingSet:
    """Reads a configuration and its training images.

    Args:
        cfg_name: file or recipe.
        overrides: the items of `--set`.
        image_set: sets to read instead of `dataset.image_set`.
        forced: further items of `--set`, stronger than `overrides`.

    Raises:
        ConfigError, DataError: as a training run would.
    """
    extra = ["dataset.image_set", image_set] if image_set else []
    cfg = load_config(cfg_name, [*overrides, *extra, *forced])
    sets = read_sets(cfg)
    return TrainingSet(cfg, sets.records, sets.classes.names, sets.classes.ids or ())


def read_sets(cfg: EasyDict) -> TrainingSets:
    """What a run of a configuration trains on; negative chips that are not mined yet are left out.

    Raises:
        ConfigError, DataError: as a training run would.
    """
    if mines(cfg) and not any(mining_folder(cfg).glob("*_rpn.npz")):
        logger.info("nothing is mined yet: main_train.py will add negative chips to these")
        cfg.TRAIN.USE_NEG_CHIPS = False
    return read_training_sets(training_data(cfg))
