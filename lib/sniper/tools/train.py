"""`main_train.py` and `sniper-train`: train a detector."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sniper.tools.arguments import (
    add_config_flags,
    add_display_flag,
    add_verbose_flag,
    as_ratio,
    command_parser,
)
from sniper.tools.cli import run_main

_DESCRIPTION = """\
Trains a SNIPER detector on chips. Checkpoints, the log and the resolved configuration go to
<output_path>/<recipe>/<training sets>/.
"""
_EPILOG = "example: python main_train.py --cfg sniper_res18_toy --set gpus cpu"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    return run_main(_run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("main_train.py", _DESCRIPTION, _EPILOG)
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    add_display_flag(parser)
    add_verbose_flag(parser)
    parser.add_argument(
        "--momentum",
        type=as_ratio,
        metavar="M",
        help="momentum of the batch-norm averages (default: network.BN_MOMENTUM, 0.995)",
    )
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale TRAIN.lr and warmup_lr by the linear rule from TRAIN.REFERENCE_IMAGES and "
        "REFERENCE_REPLICAS to the chips, devices and workers of this run",
    )
    add_config_flags(parser)
    return parser


def _run(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    from sniper.config import load_config

    overrides = list(args.overrides)
    if args.momentum is not None:
        overrides += ["network.BN_MOMENTUM", str(args.momentum)]
    cfg = load_config(args.cfg, overrides)
    from sniper.runs.mining import mine_and_train

    mine_and_train(
        cfg,
        display=max(args.display, 1),
        save_prefix=args.save_prefix,
        resume=args.resume,
        verbose=args.verbose,
        auto_scale_lr=args.auto_scale_lr,
    )
    return 0
