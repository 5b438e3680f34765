"""`sniper export`: a trained detector in one file, for any process with MXNet and our operators."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sniper.tools.arguments import (
    add_config_flags,
    add_engine_format_flag,
    add_out_flag,
    add_test_epoch_flag,
    add_weights_flag,
    command_parser,
)
from sniper.tools.cli import run_main

_DESCRIPTION = """\
Writes one archive with the test network (any image size, fp32), its parameters, the class names,
the resolved configuration and a card (data, settings, figures of tests, hashes). Networks with
masks bring their mask head along. The same weights and configuration give the same bytes.
"""
_EPILOG = """\
examples: sniper export --cfg sniper_res18_toy --out toy.zip
          sniper export --cfg sniper_res18_toy --out toy.onnx.zip --format onnx
          sniper export --show toy.zip                  (what it is: network, data, figures, hashes)

Predictor, `sniper detect`, `sniper test` and `sniper bench` take either archive; for one of ONNX
graphs MXNet need not be installed. Reading an archive for MXNet yourself takes MXNet and our
operator library only:

  import json, zipfile
  from sniper.ops import load_library         # before mxnet: it prepares the process
  import mxnet as mx
  load_library()
  files = zipfile.ZipFile("toy.zip")
  symbol = mx.sym.load_json(files.read("model-symbol.json").decode())
  params = mx.nd.load_frombuffer(files.read("model-0000.params"))     # arg:... and aux:...
  classes = json.loads(files.read("meta.json"))["classes"]
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Returns:
        0 when the archive is written, 1 when it cannot be, 2 for a bad setting, 3 for missing or
        unfit weights.
    """
    return run_main(_run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper export", _DESCRIPTION, _EPILOG)
    add_out_flag(parser, "MODEL.zip", "the archive")
    parser.add_argument(
        "--show", type=Path, metavar="FILE.zip", help="print what an archive is, and write nothing"
    )
    add_engine_format_flag(parser)
    which = parser.add_mutually_exclusive_group()
    add_test_epoch_flag(which)
    add_weights_flag(which)
    add_config_flags(parser)
    return parser


def _run(argv: Sequence[str]) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if (args.show is None) == (args.out is None):
        parser.error("either --out, to write an archive, or --show, to look at one")
    if args.show is not None:
        from sniper.runs.model_card import card_text

        print(card_text(args.show))
        return 0
    from sniper.config import load_config
    from sniper.runs.export import export_model
    from sniper.runs.find_weights import weights_path
    from sniper.runs.plan import test_plan

    cfg = load_config(args.cfg, args.overrides)
    plan = test_plan(cfg, devices="cpu")
    # Not through the configuration: the archive keeps it, and would differ with the flag.
    epoch = plan.epoch if args.epoch is None else args.epoch
    weights = args.weights or weights_path(plan.model_dir, epoch, args.save_prefix)
    export_model(plan, weights, args.out, args.format)
    print(f"wrote {args.out} ({args.out.stat().st_size / 2**20:.1f} MiB), weights of {weights}")
    return 0
