"""`sniper convert-proposals`: a 2018 proposal pickle becomes an NPZ file with image ids."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sniper.data.legacy_proposals import ORDERS, load_legacy_proposals
from sniper.data.proposals import save_proposals
from sniper.errors import ConfigError
from sniper.tools.arguments import (
    add_config_flags,
    add_out_flag,
    command_parser,
)
from sniper.tools.cli import run_main

_DESCRIPTION = """\
Reads a 2018 list of proposals (COCO_train2014_rpn.pkl and the like), gives every entry the id of
its image, compares the boxes with the images and their ground truth, and writes the NPZ file that
training reads. The pickle can name NumPy arrays and nothing else; any other content is refused.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool.

    Returns:
        0 when the file is written, 2 for a bad setting, 3 for a pickle that is broken, refused
        or of another set.
    """
    return run_main(_run, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "sniper convert-proposals",
        _DESCRIPTION,
        epilog="example: sniper convert-proposals data/proposals/COCO_train2014_rpn.pkl "
        "--cfg sniper_res101_e2e --image_set train2014",
    )
    parser.add_argument("source", type=Path, metavar="SRC.pkl", help="the 2018 file")
    parser.add_argument(
        "--image_set", metavar="SET", help="the set (default: the one that the file's name ends in)"
    )
    parser.add_argument(
        "--order",
        choices=ORDERS,
        help="order of the entries: that of a Python 2 dict of the ids (default for COCO), or that "
        "of the annotation file (default for Pascal VOC)",
    )
    add_out_flag(parser, "DST.npz", "the new file (default: <NAME>_rpn.npz beside the source)")
    add_config_flags(parser)
    return parser


def _run(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    from sniper.config import load_config
    from sniper.runs.datasets import open_dataset, proposal_file
    from sniper.runs.resolve import data_source

    cfg = load_config(args.cfg, args.overrides)
    image_set = args.image_set or _set_of(args.source, cfg.dataset.image_set.split("+"))
    dataset = open_dataset(data_source(cfg), image_set)
    proposals = load_legacy_proposals(args.source, dataset, order=args.order)
    out = args.out or proposal_file(args.source.parent, dataset.name)
    save_proposals(out, proposals)
    print(f"{out}: {len(proposals.boxes)} proposals of {len(proposals.image_ids)} images")
    return 0


def _set_of(source: Path, image_sets: list[str]) -> str:
    """The training set whose name is in the file's name; the only set, if there is one."""
    named = [name for name in image_sets if f"_{name}_rpn" in source.name]
    if named or len(image_sets) == 1:
        return max(named, key=len, default=image_sets[0])
    raise ConfigError(
        "the file's name says none of the training sets",
        where=source,
        expected=" or ".join(image_sets),
        fix="--image_set SET",
    )
