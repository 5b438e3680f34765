"""`sniper convert-proposals`: 2018 pickles and result files become proposals for negative chips."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from sniper.data.dataset import Dataset
from sniper.data.legacy_proposals import ORDERS, load_legacy_proposals
from sniper.data.proposals import LEAST_SCORE, ProposalSet, proposals_of_detections, save_proposals
from sniper.errors import ConfigError
from sniper.evaluation.coco_files import read_coco_results
from sniper.tools.arguments import (
    add_config_flags,
    add_out_flag,
    as_ratio,
    command_parser,
)
from sniper.tools.cli import run_main

_DESCRIPTION = """\
Writes the NPZ file of proposals that training cuts negative chips around (TRAIN.USE_NEG_CHIPS true,
proposal_path FOLDER), from one of:

  SRC.json  detections of any detector on the training images, in COCO's result format: chips show
            what it took for objects
  SRC.pkl   a 2018 list of proposals (COCO_train2014_rpn.pkl and the like): gives every entry the id
            of its image, and compares the boxes with the images and their ground truth. The pickle
            can name NumPy arrays and nothing else; any other content is refused
"""
_EPILOG = """\
examples:
  sniper convert-proposals data/proposals/COCO_train2014_rpn.pkl --cfg sniper_res101_e2e \\
      --image_set train2014
  python main_test.py --cfg my.yml --set dataset.test_image_set train
  sniper convert-proposals output/mine/results/detections_train_results.json --cfg my.yml
  python main_train.py --cfg my.yml --set TRAIN.USE_NEG_CHIPS True \\
      proposal_path output/mine/results TRAIN.MIN_FALSE_ALARMS "[0.5, 0.5]"
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
        _EPILOG,
    )
    parser.add_argument("source", type=Path, metavar="SRC", help="the file: .json or .pkl")
    parser.add_argument(
        "--image_set", metavar="SET", help="the set (default: the one that the file's name ends in)"
    )
    parser.add_argument(
        "--order",
        choices=ORDERS,
        help="order of the entries: that of a Python 2 dict of the ids (default for COCO), or that "
        "of the annotation file (default for Pascal VOC)",
    )
    parser.add_argument(
        "--min-score",
        type=as_ratio,
        metavar="S",
        help=f"of a .json: leaves out detections with less (default: {LEAST_SCORE})",
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
    proposals = _proposals(args, dataset)
    out = args.out or proposal_file(args.source.parent, dataset.name)
    save_proposals(out, proposals)
    print(f"{out}: {len(proposals.boxes)} proposals of {len(proposals.image_ids)} images")
    return 0


def _proposals(args: argparse.Namespace, dataset: Dataset) -> ProposalSet:
    is_results = args.source.suffix == ".json"
    flag = ("--order", args.order) if is_results else ("--min-score", args.min_score)
    if flag[1] is not None:
        raise ConfigError(f"{flag[0]} is not for such a file", where=args.source, got=flag[1])
    if not is_results:
        return load_legacy_proposals(args.source, dataset, order=args.order)
    least = LEAST_SCORE if args.min_score is None else args.min_score
    return proposals_of_detections(dataset, read_coco_results(args.source, dataset), least)


def _set_of(source: Path, image_sets: list[str]) -> str:
    """The training set whose name is in the file's name; the only set, if there is one."""
    named = [name for name in image_sets if f"_{name}_" in source.name]
    if named or len(image_sets) == 1:
        return max(named, key=len, default=image_sets[0])
    raise ConfigError(
        "the file's name says none of the training sets",
        where=source,
        expected=" or ".join(image_sets),
        fix="--image_set SET",
    )
