"""`sniper export-chips`: the chips of an epoch as a data set for any trainer."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from easydict import EasyDict

from sniper.chips.sampler import make_epoch
from sniper.config.kinds import Int
from sniper.errors import ConfigError, DataError
from sniper.files import atomic_write_text
from sniper.process import usable_cores
from sniper.runs.levels import merge_settings
from sniper.runs.resolve import batch_settings, chip_settings
from sniper.tools.arguments import (
    add_cfg_and_set,
    add_check_flag,
    add_chip_epoch_flag,
    add_image_set_flag,
    add_out_flag,
    as_positive,
    command_parser,
    value_of,
)
from sniper.tools.chip_sets.annotations import ANNOTATIONS, SET_NAME, TRAINED
from sniper.tools.chip_sets.content import CROWD, SIZE, ChipSet
from sniper.tools.chip_sets.pictures import PictureFiles, check_space, format_bytes
from sniper.tools.chip_sets.table import FILE_NAME, MergePlan, write_table
from sniper.tools.cli import run_main
from sniper.tools.explain.training_set import TrainingSet, load_training_set, log_to_stderr

logger = logging.getLogger(__name__)

# Says whose a folder is, and of which chips.
_MARK = ".sniper_export.json"
_OWN = ("images", "labels", "annotations", FILE_NAME, "data.yaml")

_DESCRIPTION = """\
Writes the chips that training would see in one epoch as a data set: pictures cut and resized, to
the pixel, with their boxes in px of the picture. Negative and background chips are there too.

  coco   annotations/instances_chips.json, images/chips/
  yolo   data.yaml, images/chips/, labels/chips/

Boxes that a chip is not trained on (of another level, cut off, crowd regions) must not be learned
as background. COCO files have them with iscrowd 1. YOLO has no place for them: they are left out
and counted; --mask paints them over. chips.json says where each picture comes from; `sniper
merge-detections` brings detections back to the images.

An interrupted export goes on when the same command is given again.
"""
_EPILOG = """\
examples:
  sniper export-chips --cfg sniper_mobilenetv2_toy --out chips/0 --format coco --check
  sniper export-chips --cfg my.yml --out chips/3 --format coco --epoch 3 --jpeg 95
  sniper export-chips --cfg my.yml --out chips/0 --format yolo --mask --set TRAIN.CHIP_SIZE 640
"""
_REASONS = {
    SIZE: "boxes of other levels or cut off, which are not trained",
    CROWD: "crowd regions, whose class is not kept",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; 0, 1 when a disk is full, 2 for a wrong config, 3 for wrong data."""
    return run_main(_main, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper export-chips", _DESCRIPTION, _EPILOG)
    add_out_flag(parser, "DIR", "folder of this epoch's chips", required=True)
    parser.add_argument(
        "--format", choices=tuple(ANNOTATIONS), required=True, help="format of the annotations"
    )
    add_chip_epoch_flag(parser)
    add_image_set_flag(parser)
    parser.add_argument(
        "--jpeg",
        type=value_of(Int(minimum=1, maximum=100)),
        default=0,
        metavar="QUALITY",
        help="JPEG files of this quality (default: PNG, which keeps every pixel)",
    )
    parser.add_argument(
        "--mask", action="store_true", help="paint what is not trained over with the mean colour"
    )
    parser.add_argument(
        "--threads",
        type=as_positive,
        default=usable_cores(),
        metavar="N",
        help="that decode and cut (default: the cores, %(default)s)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="also into a folder with other things, or in place of another export",
    )
    add_check_flag(parser)
    add_cfg_and_set(parser)
    return parser


def _main(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    log_to_stderr()
    data = load_training_set(args.cfg, args.overrides, args.image_set)
    chips = chip_set(data, args.epoch)
    mask = _mean_colour(data.cfg) if args.mask else None
    files = PictureFiles(chips, args.out / "images" / SET_NAME, args.jpeg, mask)
    mark = json.dumps({"chips": chips.fingerprint(args.format, args.jpeg, mask)}) + "\n"
    goes_on = _check_folder(args.out, mark, force=args.force)
    expected = files.estimated_bytes()
    free = check_space(args.out, expected, _bytes_in(files.folder) if goes_on else 0)
    print(
        f"{len(chips)} chips of epoch {args.epoch}, about {format_bytes(expected)} "
        f"({format_bytes(expected / len(chips))} each); {format_bytes(free)} are free",
        flush=True,
    )
    if args.check:
        return 0
    _take_folder(args.out, mark, goes_on=goes_on)
    sizes = files.write(args.threads, keep=goes_on)
    counts = ANNOTATIONS[args.format](args.out, files, sizes)
    head = {"config": str(args.cfg), "epoch": args.epoch, "seed": data.cfg.seed}
    # YOLO programs know the classes by their order, and number them from 1 in COCO results.
    numbers = range(len(chips.class_names)) if args.format == "yolo" else chips.category_ids
    write_table(args.out, files, sizes, merge_plan(data.cfg), numbers, head)
    _tell(args, chips, counts, _bytes_in(files.folder))
    return 0


def chip_set(data: TrainingSet, epoch: int) -> ChipSet:
    """The chips that training of an epoch sees.

    Raises:
        DataError: there are none.
    """
    # Whole batches repeat some chips; with batches of one nothing is filled up, and what still
    # stands there several times is meant.
    made = make_epoch(
        data.records,
        chip_settings(data.cfg),
        seed=data.cfg.seed,
        epoch=epoch,
        batch_size=1,
        gt_rows_only=True,
    )
    if not made.chips.num_chips:
        raise DataError(
            "no chip can be made from these images",
            where=f"{len(data.records)} records",
            got=made.stats.lines()[-1],
            fix="compare TRAIN.SCALES and TRAIN.VALID_RANGES with the sizes of the boxes",
        )
    numbers = made.chips.offsets[made.samples[:, 0]] + made.samples[:, 1]
    return ChipSet(
        data.records,
        made.chips,
        np.bincount(numbers, minlength=made.chips.num_chips),
        batch_settings(data.cfg),
        data.class_names,
        data.category_ids or tuple(range(len(data.class_names))),
    )


def merge_plan(cfg: EasyDict) -> MergePlan:
    """How a configuration merges detections on its chips.

    The valid ranges are those of testing where it has as many levels as training: they are a little
    wider. Else those of training.
    """
    ranges = cfg.TEST.VALID_RANGES
    if len(ranges) != len(cfg.TRAIN.SCALES):
        ranges = cfg.TRAIN.VALID_RANGES
    return MergePlan(tuple((float(low), float(high)) for low, high in ranges), merge_settings(cfg))


def _mean_colour(cfg: EasyDict) -> tuple[int, int, int]:
    """What the network takes for nothing: BGR."""
    blue, green, red = (round(float(mean)) for mean in cfg.network.PIXEL_MEANS)
    return blue, green, red


def _check_folder(out: Path, mark: str, *, force: bool) -> bool:
    """Whether an export of the same chips was begun there."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not out.is_dir():
        raise ConfigError("--out is a file", got=out, fix="name a folder")
    path = out / _MARK
    if not path.is_file():
        if force:
            return False
        raise ConfigError(
            "--out holds other things",
            got=out,
            fix="name a new folder, or write beside them with --force",
        )
    if path.read_text(encoding="utf-8") == mark:
        return True
    if force:
        return False
    raise ConfigError(
        "--out holds other chips: of another epoch, configuration, data set or format",
        got=out,
        fix="name another folder for each epoch, or replace them with --force",
    )


def _take_folder(out: Path, mark: str, *, goes_on: bool) -> None:
    path = out / _MARK
    if path.is_file() and not goes_on:
        # What an export has made, and nothing else.
        for name in _OWN:
            place = out / name
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)
    atomic_write_text(path, mark)


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _tell(args: argparse.Namespace, chips: ChipSet, counts: Counter[str], num_bytes: int) -> None:
    negative = int(np.count_nonzero(chips.chips.negative))
    print(
        f"{args.out}: {len(chips)} chips ({negative} negative), {format_bytes(num_bytes)}, "
        f"{counts[TRAINED]} trained boxes"
    )
    what = "iscrowd 1" if args.format == "coco" else "painted over" if args.mask else "left out"
    for reason, text in _REASONS.items():
        if counts[reason]:
            print(f"  {counts[reason]} {text}: {what}")
    repeated = int(chips.times.sum()) - len(chips)
    if repeated:
        print(f"  training repeats {repeated} of them (times in {FILE_NAME})")


if __name__ == "__main__":
    sys.exit(main())
