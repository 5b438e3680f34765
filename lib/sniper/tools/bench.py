"""`sniper bench`: where the time of a detection goes."""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sniper.tools.arguments import (
    add_config_flags,
    add_images_flag,
    add_json_flag,
    add_mode_flag,
    add_weights_flag,
    as_image_size,
    command_parser,
    write_json,
)
from sniper.tools.cli import run_main

_DESCRIPTION = """\
Detects on images of the test set and says what each stage takes: reading and decoding, resizing,
the network on every level, merging, masks. Without trained weights it takes random ones.
"""
_EPILOG = """\
examples: sniper bench --cfg sniper_res18_toy --images 40
          sniper bench --cfg sniper_res50_e2e --generated 800x600 --images 4 --set gpus cpu
          sniper bench --cfg sniper_res18_toy --weights toy_int8.zip
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Returns:
        0 when all is measured, 2 for a bad setting, 3 for missing or unfit weights or data.
    """
    return run_main(_run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper bench", _DESCRIPTION, _EPILOG)
    add_images_flag(parser, default=20)
    parser.add_argument(
        "--generated",
        type=as_image_size,
        metavar="WIDTHxHEIGHT",
        help="pictures of random blobs instead of the test set",
    )
    add_mode_flag(parser, ("single", "pyramid", "focus", "slice"))
    add_json_flag(parser)
    add_weights_flag(parser)
    add_config_flags(parser)
    return parser


def _run(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    from sniper.config import load_config
    from sniper.process import start_logging
    from sniper.runs.resolve import data_source
    from sniper.runs.speed import generated_records, measure_detection, test_records

    start_logging(level=logging.WARNING)
    cfg = load_config(args.cfg, args.overrides)
    with tempfile.TemporaryDirectory(prefix="sniper-bench-") as folder:
        if args.generated:
            records = generated_records(Path(folder), args.images, *args.generated)
        else:
            records = test_records(data_source(cfg), cfg.dataset.test_image_set, args.images)
        speed = measure_detection(
            cfg,
            records,
            weights=args.weights,
            save_prefix=args.save_prefix,
            mode=args.mode,
            threads=os.environ["OMP_NUM_THREADS"],
        )
    # A JSON on the standard output must stand alone.
    if str(args.json) != "-":
        print(speed.table())
    if args.json:
        write_json(args.json, speed.as_dict())
    return 0
