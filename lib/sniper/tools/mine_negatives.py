"""`sniper mine-negatives`: proposal network, its proposals on the training sets, then the detector.

Negative chips are cut around the false alarms of a proposal network (paper, section 3.2), so that
network comes first. The stages run in one process, one after the other, and each goes on where it
stopped: training resumes, and proposals that are newer than the proposal network's weights stay.
"""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path

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
    from sniper.runs.mining import mine
    from sniper.runs.resolve import MiningPlan
    from sniper.runs.train import train

    cfg = load_config(args.cfg, args.overrides)
    plan = MiningPlan(Path(args.prop_train_path), Path(args.prop_save_path), args.rpn_epochs)
    options = {"display": max(args.display, 1), "save_prefix": args.save_prefix, "resume": True}
    mine(cfg, plan, **options)
    output = cfg.output_path if cfg.TRAIN.USE_NEG_CHIPS else cfg.output_path.rstrip("/") + SUFFIX
    keys = ["TRAIN.USE_NEG_CHIPS", "True", "proposal_path", args.prop_save_path]
    train(load_config(args.cfg, [*args.overrides, *keys, "output_path", output]), **options)
    logger.info(
        "test it with: python main_test.py --cfg %s --set %s",
        args.cfg,
        shlex.join([*args.overrides, "output_path", output]),
    )
    return 0
