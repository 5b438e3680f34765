"""`demo.py` and `sniper-demo`: detect objects in a picture, a folder or a video."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sniper.tools.arguments import (
    DEFAULT_CFG,
    add_config_flags,
    add_out_flag,
    add_weights_flag,
    as_ratio,
    command_parser,
)
from sniper.tools.cli import run_main

DEFAULT_IMAGE = "data/demo/demo.jpg"

_DESCRIPTION = """\
Detects objects in a picture, a folder of pictures or a video, and writes a copy with boxes and a
JSON file. Without --cfg the ResNet-101 model is used or, where its weights are missing, the newest
model under output/ (the one of the quickstart, for example). `sniper detect` has more options.
"""
_EPILOG = "example: python demo.py --im_path holiday.jpg"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    return run_main(_run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("demo.py", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "--im_path",
        type=Path,
        default=Path(DEFAULT_IMAGE),
        metavar="PATH",
        help="picture, folder or video (default: %(default)s)",
    )
    add_out_flag(
        parser,
        "PATH",
        "the drawing; its ending chooses jpg, png or pdf; for a folder the folder of drawings "
        "(default: <output_path>/demo/<name>_detections with the picture's ending)",
    )
    parser.add_argument(
        "--threshold",
        type=_threshold,
        default=0.5,
        metavar="S",
        help="least score of an object; best: that of the best F1, which `sniper analyze` has "
        "found (default: %(default)s)",
    )
    add_weights_flag(parser)
    add_config_flags(parser)
    return parser


def _threshold(text: str) -> float | None:
    return None if text == "best" else as_ratio(text)


def _run(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    from sniper.config import load_config

    is_default = args.cfg == DEFAULT_CFG
    cfg = load_config(args.cfg, args.overrides)
    from sniper.runs.demo import demo

    demo(
        cfg,
        args.im_path,
        weights=args.weights,
        save_prefix=args.save_prefix,
        output_path=args.out,
        fall_back=args.overrides if is_default else None,
        threshold=args.threshold,
    )
    return 0
