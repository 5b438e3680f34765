"""`sniper show-chips`: pictures of the chips of some images and of the tensors made of them."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

import numpy as np

from sniper.chips.measures import evenly
from sniper.chips.sampler import make_epoch
from sniper.data.ids import FileId, id_key
from sniper.data.record import Record
from sniper.errors import DataError
from sniper.runs.folders import model_folder
from sniper.runs.resolve import chip_settings
from sniper.tools.arguments import (
    add_cfg_and_set,
    add_chip_epoch_flag,
    add_image_set_flag,
    add_images_flag,
    add_out_flag,
    as_count,
    command_parser,
)
from sniper.tools.cli import run_main
from sniper.tools.explain.chip_sheets import ImageChips, level_sheet, summary, tensor_sheet
from sniper.tools.explain.focus_sheet import focus_levels, focus_sheet, focus_summary
from sniper.tools.explain.training_set import TrainingSet, load_training_set, log_to_stderr
from sniper.vis.figures import save_figure

_DESCRIPTION = """\
Draws the chips of some training images, two or three pictures for each image:

  <id>_levels.png   one panel for each pyramid level: the image with the chips of that level (the
                    rest is dimmed), the boxes that the level trains, those it ignores and those
                    that no level trains; group and crowd regions (hatched); negative chips with
                    the false alarms they were made for
  <id>_tensors.png  what the network gets of each chip, pixel by pixel: de-normalised input, valid
                    and ignored boxes, group and crowd regions, centres of positive and negative
                    anchors, FocusPixels; of SSH, whose modules choose while they train, all
                    anchors that can be positive, counted by their stride
  <id>_focus.png    with TRAIN.AUTO_FOCUS, one panel for each level of the test: FocusPixels and
                    the FocusChips made of them, as if the network marked exactly the labels;
                    needs no weights and shows what TEST.CHIP_HYPERPARAMS can reach at best

Chips are those of training with the same seed and epoch. Which anchors are sampled depends in
training on a chip's place in the epoch; here it depends on the image and the chip.
"""
_EPILOG = """\
examples:
  sniper show-chips --cfg sniper_mobilenetv2_toy
  sniper show-chips --cfg my.yml --ids 100001 100004 --out pictures
  sniper show-chips --cfg my.yml --images 8 --flipped --set TRAIN.USE_NEG_CHIPS False
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Draws the pictures; 0, or 2 for a wrong config and 3 for wrong data."""
    return run_main(_main, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper show-chips", _DESCRIPTION, _EPILOG)
    which = parser.add_mutually_exclusive_group()
    add_images_flag(which, default=4)
    which.add_argument("--ids", type=id_key, nargs="+", metavar="ID", help="draw these image ids")
    parser.add_argument("--flipped", action="store_true", help="draw the mirrored copies")
    add_chip_epoch_flag(parser)
    parser.add_argument(
        "--tensors",
        type=as_count,
        default=9,
        metavar="N",
        help="most chips in a picture of tensors; 0 draws none (default: %(default)s)",
    )
    add_out_flag(parser, "DIR", "folder of the pictures (default: <model folder>/chips)")
    add_image_set_flag(parser)
    add_cfg_and_set(parser)
    return parser


def _main(argv: Sequence[str]) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.images < 1 or args.tensors < 0 or args.epoch < 0:
        parser.error("--images must be positive, --tensors and --epoch not negative")
    log_to_stderr()
    data = load_training_set(args.cfg, args.overrides, args.image_set)
    folder = args.out or model_folder(data.cfg) / "chips"
    for item in pick(data, args.images, args.ids, flipped=args.flipped, epoch=args.epoch):
        path = folder / f"{item.name}_levels.png"
        save_figure(level_sheet(data, item), path)
        print(f"{path}: {summary(item)}", flush=True)
        if item.chips and args.tensors:
            path = folder / f"{item.name}_tensors.png"
            save_figure(tensor_sheet(data, item, args.epoch, args.tensors), path)
            print(path, flush=True)
        if data.cfg.TRAIN.AUTO_FOCUS:
            path = folder / f"{item.name}_focus.png"
            levels = focus_levels(data.cfg, item.record)
            save_figure(focus_sheet(data.cfg, item.record, levels), path)
            print(f"{path}: {focus_summary(item.record, levels)}", flush=True)
    return 0


def pick(
    data: TrainingSet,
    count: int = 4,
    ids: Sequence[FileId] | None = None,
    *,
    flipped: bool = False,
    epoch: int = 0,
) -> list[ImageChips]:
    """Chooses images, always the same for the same arguments, and makes their chips.

    Args:
        data: the training set.
        count: images, evenly spread over the set; not looked at with `ids`.
        ids: image ids.
        flipped: take the mirrored copies.
        epoch: number of the epoch.

    Raises:
        DataError: an id is not in the training set, or there is no mirrored copy.
    """
    candidates = [record for record in data.records if record.flipped == flipped]
    if not candidates:
        raise DataError("there are no mirrored copies", fix="--set TRAIN.FLIP True makes them")
    if ids:
        wanted = set(map(id_key, ids))
        records = [record for record in candidates if id_key(record.original_id) in wanted]
        missing = sorted(wanted - {id_key(record.original_id) for record in records}, key=_order)
        if missing:
            raise DataError(
                "these ids are not among the training images with objects",
                where=data.cfg.dataset.image_set,
                got=", ".join(map(str, missing)),
                expected=f"such as {', '.join(str(r.original_id) for r in candidates[:5])}",
            )
    else:
        chosen = evenly(np.arange(len(candidates)), count).tolist()
        records = [candidates[index] for index in chosen]
    epoch_chips = make_epoch(
        records, chip_settings(data.cfg), seed=data.cfg.seed, epoch=epoch, batch_size=1
    )
    names = _names(records)
    return [
        ImageChips(name, record, list(epoch_chips.chips[index]))
        for index, (name, record) in enumerate(zip(names, records))
    ]


def _order(identity: FileId) -> tuple[bool, int, str]:
    """Numbers by their value, then texts."""
    is_text = isinstance(identity, str)
    return is_text, 0 if is_text else int(identity), str(identity)


def _names(records: Sequence[Record]) -> list[str]:
    """File names without ending: joined sets may use the same ids."""
    names: list[str] = []
    for record in records:
        name = re.sub(r"[^\w.-]", "_", str(record.original_id))
        name += "_flipped" if record.flipped else ""
        same = sum(other == name or other.startswith(f"{name}-") for other in names)
        names.append(f"{name}-{same + 1}" if same else name)
    return names


if __name__ == "__main__":
    sys.exit(main())
