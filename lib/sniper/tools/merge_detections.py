"""`sniper merge-detections`: detections on exported chips as detections on their images."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from sniper.config import load_config
from sniper.errors import ConfigError
from sniper.evaluation.coco_files import read_coco_results, write_coco_results
from sniper.tools.arguments import add_overwrite_flag, add_set_flag, command_parser
from sniper.tools.chip_sets.merge import chips_as_set, images_as_set, merge_chips
from sniper.tools.chip_sets.table import FILE_NAME, ChipFiles, read_table
from sniper.tools.cli import run_main
from sniper.tools.explain.training_set import log_to_stderr
from sniper.tools.export_chips import merge_plan

_DESCRIPTION = """\
Takes what any detector found on exported chips, a JSON list with image_id, category_id, bbox and
score, and writes what it found in the images, as such a list with their ids. image_id is the id of
the chip in the annotations, which is also the number that its picture is named with.

As in this project's tests each level counts for objects of its sizes only, and (soft) NMS joins the
rest: TEST.VALID_RANGES (TRAIN.VALID_RANGES where the numbers of levels differ), TEST.NMS,
TEST.NMS_SIGMA, TEST.BOX_VOTING and TEST.MAX_PER_IMAGE of the recipe that exported the chips.
"""
_EPILOG = """\
examples:
  sniper merge-detections --chips chips/0 --results results.json --out merged.json
  sniper merge-detections --chips chips/0 --results results.json --out pruned.json --prune \
--recipe my.yml --set TEST.NMS 0.5
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; 0, 2 for a wrong config or flag, 3 for wrong data."""
    return run_main(_main, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper merge-detections", _DESCRIPTION, _EPILOG)
    parser.add_argument(
        "--chips", type=Path, required=True, metavar="DIR", help="folder of `sniper export-chips`"
    )
    parser.add_argument(
        "--results", type=Path, required=True, metavar="FILE", help="COCO results on its chips"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="COCO results on the images"
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="drop boxes that end within 10 px of a border of their chip inside the image",
    )
    add_overwrite_flag(parser)
    parser.add_argument(
        "--recipe",
        metavar="FILE",
        help="how to merge (default: the recipe that exported the chips)",
    )
    add_set_flag(parser)
    return parser


def _main(argv: Sequence[str]) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.overrides and not args.recipe:
        parser.error("--set changes keys of --recipe: name one")
    log_to_stderr()
    if args.out.exists() and not args.overwrite:
        raise ConfigError(
            "--out is there already", got=args.out, fix="name another file, or --overwrite"
        )
    table = read_table(args.chips)
    if args.recipe:
        table = _with_plan_of(table, args.recipe, args.overrides)
    where = str(args.chips / FILE_NAME)
    found = read_coco_results(args.results, chips_as_set(table, where))
    merged = merge_chips(table, found, prune=args.prune)
    write_coco_results(args.out, images_as_set(table, where), merged, compact=True)
    print(
        f"{args.out}: {merged.num_detections} detections in {len(table.images)} images, from "
        f"{found.num_detections} on {len(table.names)} chips"
    )
    return 0


def _with_plan_of(table: ChipFiles, recipe: str, overrides: Sequence[str]) -> ChipFiles:
    plan = merge_plan(load_config(recipe, overrides))
    levels = len(table.plan.valid_ranges)
    if len(plan.valid_ranges) != levels:
        raise ConfigError(
            "the recipe has another number of levels than the chips",
            where=recipe,
            got=len(plan.valid_ranges),
            expected=levels,
        )
    return dataclasses.replace(table, plan=plan)


if __name__ == "__main__":
    sys.exit(main())
