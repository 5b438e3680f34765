"""`sniper mine-negatives`: proposal network, its proposals on the training sets, then the detector.

Negative chips are cut around the false alarms of a proposal network (paper, section 3.2), so that
network comes first. The stages run in one process, one after the other, and each goes on where it
stopped: training resumes, and proposals that are newer than the proposal network's weights stay.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from easydict import EasyDict

from sniper.errors import ConfigError
from sniper.tools.arguments import (
    add_config_flags,
    add_display_flag,
    as_positive,
    command_parser,
)
from sniper.tools.cli import run_main

logger = logging.getLogger(__name__)

SUFFIX = "_neg"

_DESCRIPTION = """\
Trains a proposal network, extracts its proposals on every training set, and trains the detector
with negative chips around false alarms. The same command again goes on where it stopped.
"""
_EPILOG = f"""\
example: sniper mine-negatives --cfg sniper_mobilenetv2_toy --set gpus cpu

A recipe that trains without negative chips gets <output_path>{SUFFIX} for the detector, so that the
one trained without them stays as it is.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    return run_main(_run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper mine-negatives", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "--prop_save_path",
        default="data/computed_proposals",
        metavar="DIR",
        help="where the proposals go (default: %(default)s)",
    )
    parser.add_argument(
        "--prop_train_path",
        default="output/sniper_neg_proposals",
        metavar="DIR",
        help="output of the proposal network (default: %(default)s)",
    )
    parser.add_argument(
        "--rpn_epochs",
        type=as_positive,
        default=2,
        metavar="N",
        help="its epochs (default: %(default)s)",
    )
    add_display_flag(parser)
    add_config_flags(parser)
    return parser


def _run(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    if args.rpn_epochs < 1:
        raise ConfigError("--rpn_epochs must be positive", got=args.rpn_epochs)
    from sniper.config import load_config

    own = load_config(args.cfg, args.overrides)
    _train_proposal_network(args)
    _extract_proposals(args)
    output = own.output_path if own.TRAIN.USE_NEG_CHIPS else own.output_path.rstrip("/") + SUFFIX
    _train_detector(args, output)
    logger.info(
        "test it with: python main_test.py --cfg %s --set %s",
        args.cfg,
        " ".join([*args.overrides, "output_path", output]),
    )
    return 0


def _train_proposal_network(args: argparse.Namespace) -> None:
    from sniper.runs.train import train

    cfg = _stage(args, *_proposal_keys(args))
    train(cfg, display=max(args.display, 1), save_prefix=args.save_prefix, resume=True)


def _extract_proposals(args: argparse.Namespace) -> None:
    from sniper.runs.datasets import open_dataset, proposal_file
    from sniper.runs.load_model import weights_path
    from sniper.runs.plan import test_plan
    from sniper.runs.resolve import data_source, training_sets
    from sniper.runs.test import test

    keys = [*_proposal_keys(args), "TEST.TEST_EPOCH", str(args.rpn_epochs)]
    keys += ["TEST.EXTRACT_PROPOSALS", "True", "TEST.PROPOSAL_SAVE_PATH", args.prop_save_path]
    plan = test_plan(_stage(args, *keys), rpn_only=True)
    weights = weights_path(plan.model_dir, plan.epoch, args.save_prefix)
    for image_set in training_sets(_stage(args)):
        # The model folder is named after the training sets: only the test set changes here.
        cfg = _stage(args, *keys, "dataset.test_image_set", image_set)
        path = proposal_file(args.prop_save_path, open_dataset(data_source(cfg), image_set).name)
        if _is_newer(path, weights):
            logger.info("the proposals of %s are there: %s", image_set, path)
        else:
            test(cfg, save_prefix=args.save_prefix)


def _train_detector(args: argparse.Namespace, output: str) -> None:
    from sniper.runs.train import train

    keys = ("TRAIN.USE_NEG_CHIPS", "True", "proposal_path", args.prop_save_path)
    cfg = _stage(args, *keys, "output_path", output)
    train(cfg, display=max(args.display, 1), save_prefix=args.save_prefix, resume=True)


def _proposal_keys(args: argparse.Namespace) -> list[str]:
    return [
        *("TRAIN.ONLY_PROPOSAL", "True"),
        *("TRAIN.USE_NEG_CHIPS", "False"),
        *("TRAIN.end_epoch", str(args.rpn_epochs)),
        *("output_path", args.prop_train_path),
    ]


def _stage(args: argparse.Namespace, *keys: str) -> EasyDict:
    """The recipe with the user's overrides, and then those of a stage."""
    from sniper.config import load_config

    return load_config(args.cfg, [*args.overrides, *keys])


def _is_newer(path: Path, than: Path) -> bool:
    return path.exists() and path.stat().st_mtime > than.stat().st_mtime
