"""Negative mining: a proposal network is trained, and its proposals on the training sets extracted.

Negative chips are cut around the false alarms of a proposal network (paper, section 3.2), so that
network comes first. Both stages go on where they stopped when they are asked to.
"""

from __future__ import annotations

import copy
import logging
from pathlib import Path

from easydict import EasyDict

from sniper.data.cache import file_sha256
from sniper.errors import TrainingError
from sniper.files import atomic_write_text
from sniper.runs.datasets import open_dataset, proposal_file
from sniper.runs.resolve import MiningPlan, data_source, mines, mining_plan, training_sets
from sniper.runs.test import test
from sniper.runs.train import train
from sniper.training.checkpoint import CheckpointFolder

logger = logging.getLogger(__name__)


def mine_and_train(
    cfg: EasyDict,
    *,
    display: int = 100,
    save_prefix: str = "SNIPER",
    resume: bool = False,
    verbose: bool = False,
    auto_scale_lr: bool = False,
) -> Path:
    """`sniper.runs.train.train`, after mining where `TRAIN.USE_NEG_CHIPS` is `mine`.

    Args:
        cfg: a checked configuration (`sniper.config.load_config`).
        display: batches between progress lines.
        save_prefix: stem of the checkpoint files.
        resume: go on where an earlier run stopped, in mining, too.
        verbose: print the details of the start, too.
        auto_scale_lr: see `sniper.runs.train.train`; for the network that mines, too.

    Raises:
        ConfigError, DataError, TrainingError: see `mine`.
    """
    if mines(cfg):
        plan = mining_plan(cfg)
        flags = {"resume": resume, "auto_scale_lr": auto_scale_lr}
        mine(cfg, plan, display=display, save_prefix=save_prefix, **flags)
        logger.info("mining is done: the detector is trained with negative chips")
    return train(
        cfg,
        display=display,
        save_prefix=save_prefix,
        resume=resume,
        verbose=verbose,
        auto_scale_lr=auto_scale_lr,
    )


def mine(
    cfg: EasyDict,
    plan: MiningPlan,
    *,
    display: int,
    save_prefix: str,
    resume: bool,
    auto_scale_lr: bool = False,
) -> None:
    """Trains the proposal network of a detector and writes its proposals on every training set.

    Args:
        cfg: the detector's configuration.
        plan: where the results go.
        display: batches between progress lines.
        save_prefix: stem of the checkpoint files.
        resume: go on where an earlier call stopped; what it finished stays as it is.
        auto_scale_lr: see `sniper.runs.train.train`.

    Raises:
        ConfigError, DataError, TrainingError: see `sniper.runs.train.train` and
            `sniper.runs.test.test`.
    """
    network = _network_config(cfg, plan)
    logger.info(
        "mining 1 of 2: a proposal network, %d epochs, in %s", plan.epochs, plan.network_dir
    )
    flags = {"resume": resume, "auto_scale_lr": auto_scale_lr}
    folder = train(network, display=display, save_prefix=save_prefix, **flags)
    newest = CheckpointFolder(folder, save_prefix).newest()
    if newest is None:
        raise TrainingError("the proposal network left no checkpoint", where=folder)
    weights = newest.path(".params")
    network.TEST.TEST_EPOCH = newest.state.epoch
    logger.info("mining 2 of 2: its proposals on the training images, in %s", plan.proposal_dir)
    extract_proposals(network, weights, resume=resume)


def extract_proposals(network: EasyDict, weights: Path, *, resume: bool) -> None:
    """Writes proposals on every training set, see `TEST.EXTRACT_PROPOSALS`.

    Args:
        network: its configuration; its test set changes.
        weights: the network's.
        resume: files that an earlier call made with the same weights stay as they are.

    Raises:
        ConfigError, DataError, TrainingError: see `sniper.runs.test.test`.
    """
    for image_set in training_sets(network):
        # The model folder is named after the training sets: only the test set changes here.
        network.dataset.test_image_set = image_set
        name = open_dataset(data_source(network), image_set).name
        path = proposal_file(Path(network.TEST.PROPOSAL_SAVE_PATH), name)
        made_with = path.with_suffix(".made_with")
        if resume and _content(made_with) == _digests(weights, path):
            logger.info("the proposals of %s are there: %s", image_set, path)
        else:
            test(network, weights=weights)
            # Not by time: clocks go back.
            atomic_write_text(made_with, _digests(weights, path))


def _network_config(cfg: EasyDict, plan: MiningPlan) -> EasyDict:
    """The configuration of the proposal network: plain chips, no heads of a detector."""
    network = copy.deepcopy(cfg)
    network.output_path = str(plan.network_dir)
    train_keys, test_keys = network.TRAIN, network.TEST
    train_keys.update(
        ONLY_PROPOSAL=True,
        USE_NEG_CHIPS=False,
        # What it has not learned are the false alarms that are looked for.
        BACKGROUND_CHIPS=0.0,
        AUTO_FOCUS=False,
        WITH_MASK=False,
        end_epoch=plan.epochs,
    )
    test_keys.update(EXTRACT_PROPOSALS=True, PROPOSAL_SAVE_PATH=str(plan.proposal_dir))
    return network


def _digests(weights: Path, proposals: Path) -> str:
    """What tells these weights and the proposals that they gave from others; empty if missing."""
    if not proposals.exists():
        return ""
    return f"weights {file_sha256(weights)}\nproposals {file_sha256(proposals)}\n"


def _content(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None
