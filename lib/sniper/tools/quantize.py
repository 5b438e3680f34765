"""`sniper quantize`: a detector that computes in INT8, for faster detection on CPUs."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from sniper.tools.arguments import (
    add_config_flags,
    add_engine_format_flag,
    add_out_flag,
    add_weights_flag,
    as_count,
    as_positive,
    command_parser,
)
from sniper.tools.cli import run_main

_DESCRIPTION = """\
Writes an archive like that of `sniper export` whose detector computes in INT8. Images of the
training set, seen on all levels of the test, decide the range of every map. Proposals, the samples
of deformable convolutions (with --format onnx the whole layers) and the mask head stay in fp32. The
file is no smaller: weights are packed when it is loaded.
"""
_EPILOG = """\
example: sniper quantize --cfg sniper_res18_toy --calib 32 --eval 80 --out toy_int8.zip
         python main_test.py --cfg sniper_res18_toy --weights toy_int8.zip
         sniper quantize --cfg sniper_res18_toy --format onnx --out int8.onnx.zip

It is meant for processors with AVX-512 VNNI. Others are no faster with INT8 than with fp32, and
MXNet adds products in 16 bits there and cuts off what does not fit; so they make the archive with
--any-cpu only, for other machines: the file does not depend on the processor (`sniper doctor` tells
what this one has). ONNX Runtime gets weights of 7 bits, which are exact on every processor.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Returns:
        0 when the archive is written, 1 when it cannot be, 2 for a bad setting, 3 for missing or
        unfit weights or data.
    """
    return run_main(_run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper quantize", _DESCRIPTION, _EPILOG)
    add_out_flag(parser, "MODEL.zip", "the archive", required=True)
    add_engine_format_flag(parser)
    parser.add_argument(
        "--calib", type=as_positive, default=32, metavar="N", help="training images (default: 32)"
    )
    parser.add_argument(
        "--calibration",
        default="naive",
        metavar="METHOD",
        help="naive: ranges are the extremes seen (default); entropy: clip rare values, slower",
    )
    parser.add_argument(
        "--fp32",
        nargs="+",
        default=[],
        metavar="LAYER",
        help="layers that stay in fp32, e.g. conv0; a wrong name lists all",
    )
    parser.add_argument(
        "--eval",
        type=as_count,
        default=0,
        metavar="N",
        help="then compare accuracy and speed on N test images (default: 0, do not)",
    )
    parser.add_argument(
        "--any-cpu", action="store_true", help="also on a processor without AVX-512 VNNI"
    )
    add_weights_flag(parser)
    add_config_flags(parser)
    return parser


def _run(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    from sniper.config import load_config
    from sniper.process import start_logging
    from sniper.runs.find_weights import weights_path
    from sniper.runs.int8 import QuantizeSettings, quantize_model
    from sniper.runs.plan import test_plan

    start_logging(level=logging.WARNING)
    cfg = load_config(args.cfg, args.overrides)
    plan = test_plan(cfg)
    weights = args.weights or weights_path(plan.model_dir, plan.epoch, args.save_prefix)
    settings = QuantizeSettings(
        args.calib, args.calibration, tuple(args.fp32), args.eval, args.any_cpu, args.format
    )
    comparison = quantize_model(cfg, weights, args.out, settings)
    size, before = (path.stat().st_size / 2**20 for path in (args.out, weights))
    print(f"wrote {args.out} ({size:.1f} MiB; {size / before:.2f} of {weights})")
    if comparison is not None:
        print(comparison.table())
    return 0
