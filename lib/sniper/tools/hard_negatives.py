"""`sniper hard-negatives`: a trained detector learns from what it takes for objects."""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Sequence

from sniper.tools.arguments import (
    add_config_flags,
    add_display_flag,
    as_positive,
    command_parser,
)
from sniper.tools.cli import run_main

logger = logging.getLogger(__name__)

_DESCRIPTION = """\
Hard negative mining, against confident false alarms: the trained detector of a recipe looks at its
training images, and is then trained for some more epochs with negative chips around all that it
takes for objects, at a third of its learning rate. The new detector goes into <output_path>_hard;
the old one stays as it is. The same command again goes on where it stopped.
"""
_EPILOG = """\
examples:
  sniper hard-negatives --cfg my.yml
  sniper hard-negatives --cfg sniper_res18_toy --epochs 2 --set gpus cpu

Chips show what lies around objects, and TRAIN.USE_NEG_CHIPS mine what a proposal network takes for
objects. What is left after that are the errors of the detector itself: this is for them. It prints
the command of a second round, which takes the new detector's errors.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    return run_main(_run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper hard-negatives", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "--epochs",
        type=as_positive,
        default=4,
        metavar="N",
        help="of the training that follows, the second half with a tenth of its learning rate "
        "(default: %(default)s)",
    )
    add_display_flag(parser)
    add_config_flags(parser)
    return parser


def _run(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    from sniper.config import load_config
    from sniper.runs.hard_negatives import hard_config, train_on_errors

    cfg = load_config(args.cfg, args.overrides)
    hard = hard_config(cfg, args.epochs, args.save_prefix)
    train_on_errors(cfg, hard, display=max(args.display, 1), save_prefix=args.save_prefix)
    keys = [*args.overrides, "output_path", hard.output_path, "TEST.TEST_EPOCH", str(args.epochs)]
    for what, command in (
        ("test it", "main_test.py"),
        ("a second round", "-m sniper hard-negatives"),
    ):
        logger.info("%s: python %s --cfg %s --set %s", what, command, args.cfg, shlex.join(keys))
    return 0
