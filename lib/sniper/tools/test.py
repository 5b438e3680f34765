"""`main_test.py` and `sniper-test`: test a detector, or extract proposals."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sniper.tools.arguments import (
    add_config_flags,
    add_weights_flag,
    command_parser,
)
from sniper.tools.cli import run_main

_DESCRIPTION = """\
Tests a trained detector on the images of dataset.test_image_set, as TEST.MODE says. Writes a result
file and, where there are annotations, evaluates it and prints the numbers. With
--set TEST.EXTRACT_PROPOSALS True it writes proposals for negative chips instead.
"""
_EPILOG = "example: python main_test.py --cfg sniper_res18_toy --set gpus cpu"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    return run_main(_run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("main_test.py", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "--vis",
        action="store_true",
        help="draw the detections of every image below <output_path>/visualization",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="then make the page of `sniper report`, `report_<set>.html` beside the results",
    )
    add_weights_flag(parser)
    add_config_flags(parser)
    return parser


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    from sniper.config import load_config

    cfg = load_config(args.cfg, args.overrides)
    if args.report and cfg.TEST.EXTRACT_PROPOSALS:
        parser.error("--report is about detections, and TEST.EXTRACT_PROPOSALS writes proposals")
    from sniper.runs.test import test

    test(cfg, save_prefix=args.save_prefix, weights=args.weights, visualise=args.vis)
    if args.report:
        from sniper.tools.report import write_page

        print(write_page(cfg, args.cfg, args.overrides))
    return 0
