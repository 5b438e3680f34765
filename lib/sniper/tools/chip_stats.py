"""`sniper chip-stats`: chips, pixels and coverage of a training set in numbers and a plot."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from sniper.chips.measures import Measures, evenly, measure
from sniper.runs.resolve import chip_settings
from sniper.tools.arguments import (
    add_cfg_and_set,
    add_chip_epoch_flag,
    add_data_flags,
    add_images_flag,
    add_plot_flag,
    command_parser,
    write_json,
)
from sniper.tools.cli import run_main
from sniper.tools.explain.chip_numbers import ChipStatistics, chips_per_image, statistics, table
from sniper.tools.explain.training_set import (
    TrainingSet,
    load_training_set,
    log_to_stderr,
)
from sniper.vis.figures import save_figure
from sniper.vis.plots import ChipStatsView, plot_chip_stats

_DESCRIPTION = """\
Makes the chips of one epoch, as training would, and says what they consist of:

  per level      boxes in the valid range, boxes trained, positive and negative chips
  coverage       how many boxes are trained, and why the others are not
  pixels         what the network sees, against the full pyramid and one 800x1333 image
  chips          per image, the share of negative ones, the fullest chip
"""
_EPILOG = """\
examples:
  sniper chip-stats --cfg sniper_mobilenetv2_toy
  sniper chip-stats --cfg my.yml --plot chips.png --json chips.json
  sniper chip-stats --cfg my.yml --set TRAIN.USE_NEG_CHIPS False TRAIN.SCALES "[2.0, 1.0, 320.0]"
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the numbers; 0, or 2 for a wrong config and 3 for wrong data."""
    return run_main(_main, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper chip-stats", _DESCRIPTION, _EPILOG)
    add_images_flag(parser, default=0)
    add_chip_epoch_flag(parser)
    add_plot_flag(parser)
    add_data_flags(parser)
    add_cfg_and_set(parser)
    return parser


def _main(argv: Sequence[str]) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.images < 0 or args.epoch < 0:
        parser.error("--images and --epoch must not be negative")
    log_to_stderr()
    data = load_training_set(args.cfg, args.overrides, args.image_set)
    if args.images:
        picked = evenly(np.arange(len(data.records)), args.images).tolist()
        records = [data.records[index] for index in picked]
        data = TrainingSet(data.cfg, records, data.class_names)
    measures = measure(data.records, chip_settings(data.cfg), seed=data.cfg.seed, epoch=args.epoch)
    numbers = statistics(data, measures, args.epoch)
    # A JSON on the standard output must stand alone.
    if str(args.json) != "-":
        print("\n".join(table(numbers)))
    if args.json is not None:
        write_json(args.json, numbers.to_json())
    if args.plot is not None:
        save_figure(plot_chip_stats(_view(numbers, measures)), args.plot)
        print(f"plot: {args.plot}", file=sys.stderr)
    return 0


def _view(numbers: ChipStatistics, measures: Measures) -> ChipStatsView:
    return ChipStatsView(
        heading=f"{numbers.config}, {numbers.image_set}: {numbers.images} images, "
        f"{numbers.boxes} boxes, {numbers.chips} chips",
        level_names=[f"{row.level}: {row.scale}\n{row.valid_range} px" for row in numbers.levels],
        positive=[row.positive for row in numbers.levels],
        negative=[row.negative for row in numbers.levels],
        chips_per_image=chips_per_image(measures),
        pixels={
            "chips": numbers.pixels.chips,
            "full pyramid": numbers.pixels.pyramid,
            "800x1333": numbers.pixels.single_scale,
        },
        box_sides={fate.text: measures.levels.side[fate.boxes] for fate in measures.fates},
    )


if __name__ == "__main__":
    sys.exit(main())
