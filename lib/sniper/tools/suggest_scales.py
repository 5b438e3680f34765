"""`sniper suggest-scales`: a pyramid, anchors and limits that fit the sizes of your objects."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sniper.config import check_is_no_base, load_config
from sniper.config.rules import is_full_coco
from sniper.config.yaml_files import base_name
from sniper.errors import ConfigError, SniperError
from sniper.files import atomic_write_text
from sniper.progress import format_time
from sniper.tools.arguments import (
    add_cfg_and_set,
    add_data_flags,
    add_out_flag,
    add_plot_flag,
    as_positive,
    as_positive_number,
    command_parser,
    write_json,
)
from sniper.tools.cli import run_main
from sniper.tools.explain.suggest_advice import MAX_LEVELS, Advice, advise, box_sides
from sniper.tools.explain.suggest_fragment import fragment
from sniper.tools.explain.suggest_pyramid import (
    InputLimits,
    box_sizes,
    chip_size_for_candidates,
    default_limits,
    fitting_chip_size,
)
from sniper.tools.explain.training_set import (
    TrainingSet,
    load_training_set,
    log_to_stderr,
)
from sniper.vis.figures import save_figure
from sniper.vis.plots import PyramidView, plot_pyramid

_DESCRIPTION = """\
Proposes pyramid, valid ranges, anchors, chip size and GT limit for the box sizes of a training
set, as a yml file that extends your config and says why each number is what it is.

The rule (of the 2018 authors): at the network's input objects should be between about 32 and
450 px. The finest level brings the smallest objects up to that, the coarsest brings the largest
ones down to it, others lie between in equal steps. For COCO this comes out near the paper's
scales (3, 1.667, long side 512) and ranges (0, 80), (32, 150), (120, inf).
"""
_EPILOG = """\
examples:
  sniper suggest-scales --cfg my.yml                              # print it
  sniper suggest-scales --cfg my.yml --out my_scales.yml --plot sizes.png
  sniper train --cfg my_scales.yml
"""
_PERCENTS = (5, 25, 50, 75, 95)

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the yml file; 0, or 2 for a wrong config and 3 for wrong data."""
    return run_main(_main, argv)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper suggest-scales", _DESCRIPTION, _EPILOG)
    add_out_flag(parser, "FILE", "also write the yml to a file")
    add_plot_flag(parser)
    parser.add_argument(
        "--levels", type=as_positive, metavar="N", help=f"number of levels, 1 to {MAX_LEVELS}"
    )
    parser.add_argument(
        "--chip-size",
        type=as_positive,
        metavar="PX",
        help="side of a chip (default: TRAIN.CHIP_SIZE)",
    )
    parser.add_argument(
        "--min-side",
        type=as_positive_number,
        metavar="PX",
        help="least size at the network's input (default: 32, less for chips below 128 px)",
    )
    parser.add_argument(
        "--max-side",
        type=as_positive_number,
        metavar="PX",
        help="largest size at the network's input (default: 450 for 512 px chips)",
    )
    parser.add_argument(
        "--no-estimate",
        action="store_true",
        help="do not measure memory and time of training and testing, which takes some seconds",
    )
    add_data_flags(parser)
    add_cfg_and_set(parser)
    return parser


def _main(argv: Sequence[str]) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.levels is not None and not 1 <= args.levels <= MAX_LEVELS:
        parser.error(f"--levels must be 1 to {MAX_LEVELS}")
    log_to_stderr()
    if args.out is not None:
        check_is_no_base(args.out, args.cfg)
    forced = ["TRAIN.FLIP", "False", "TRAIN.USE_NEG_CHIPS", "False"]
    data = load_training_set(args.cfg, args.overrides, args.image_set, forced)
    limits = _limits(data, args.chip_size, args.min_side, args.max_side)
    limits = _enough(data, limits, args)
    advice = advise(data, limits, args.levels)
    text = yml_text(advice, data, args.cfg, args.out)
    if args.out is not None:
        atomic_write_text(args.out, text)
        print(f"written: {args.out}", file=sys.stderr)
    if str(args.json) != "-":
        print(text, end="")
    estimate = None if args.no_estimate else _estimate(args, advice, data)
    if estimate is not None:
        print("\n".join(estimate_lines(estimate)), file=sys.stderr)
    if args.json is not None:
        write_json(args.json, {**to_json(advice, data), "estimate": estimate})
    if args.plot is not None:
        save_figure(plot_pyramid(_view(advice, data)), args.plot)
        print(f"plot: {args.plot}", file=sys.stderr)
    return 0


def _enough(data: TrainingSet, limits: InputLimits, args: argparse.Namespace) -> InputLimits:
    """Larger chips where those of the config would be too many to choose from."""
    sizes, stride = box_sizes(data.records), data.cfg.network.RPN_FEAT_STRIDE
    size = chip_size_for_candidates(sizes, limits.chip_size, stride, args.levels)
    if size == limits.chip_size:
        return limits
    if args.chip_size is not None:
        raise ConfigError(
            "the largest image would have too many candidate chips",
            where="--chip-size",
            got=args.chip_size,
            fix=f"--chip-size {size}, or cut the images into tiles",
        )
    logger.warning(
        "TRAIN.CHIP_SIZE %d instead of %d: the largest image would have too many candidate chips",
        *(size, limits.chip_size),
    )
    return _limits(data, size, args.min_side, args.max_side)


def _estimate(args: argparse.Namespace, advice: Advice, data: TrainingSet) -> dict[str, Any] | None:
    """Memory and time of training and testing with the suggestion; None where it cannot be said."""
    try:
        # It needs MXNet, which the suggestion does not.
        import mxnet as mx

        from sniper.tools.explain.suggest_cost import measure_costs
    except ImportError as error:
        logger.warning("memory and time are not estimated: %s", error)
        return None
    values = _values(advice, data)
    pairs = [text for key, value in values.items() for text in (key, str(value))]
    try:
        cfg = load_config(args.cfg, [*args.overrides, *pairs, "gpus", "cpu"])
        costs = measure_costs(cfg, _largest_image(advice))
    except (SniperError, mx.MXNetError) as error:
        logger.warning("memory and time are not estimated: %s", str(error).splitlines()[0])
        return None
    train, sizes, test = cfg.TRAIN, advice.sizes, advice.suggestion.test
    flips = 2 if load_config(args.cfg, args.overrides).TRAIN.FLIP else 1
    chips = advice.suggested.chips_per_image * len(sizes.image_long) * flips
    epochs = train.end_epoch
    if train.MAX_UPDATES and chips:
        batch = train.BATCH_IMAGES * train.ACCUMULATION_STEPS
        epochs = min(epochs, train.MAX_UPDATES * batch / chips)
    median = test.pixels(float(np.median(sizes.image_long)), float(np.median(sizes.image_short)))
    largest = max(map(test.pixels, sizes.image_long.tolist(), sizes.image_short.tolist()))
    return {
        "cores": costs.cores,
        "train_gb": costs.train_gb,
        "epochs": epochs,
        "epoch_s": chips * costs.train_chip_s,
        "test_gb": costs.test_gb,
        "test_image_s": median / 1e6 * costs.test_mpx_s,
        "test_largest_image_s": largest / 1e6 * costs.test_mpx_s,
        "asks_for_gpus": str(data.cfg.gpus) not in ("", "cpu"),
    }


def _largest_image(advice: Advice) -> tuple[int, int]:
    """Sides of the image of most pixels, px."""
    sides = zip(advice.sizes.image_long.tolist(), advice.sizes.image_short.tolist())
    long, short = max(sides, key=lambda pair: pair[0] * pair[1])
    return round(long), round(short)


def estimate_lines(estimate: dict[str, Any]) -> list[str]:
    """The estimate in words."""
    epochs, epoch_s = estimate["epochs"], estimate["epoch_s"]
    asks = " (the config asks for GPUs, which are faster)" if estimate["asks_for_gpus"] else ""
    return [
        f"estimated on {estimate['cores']} core(s) of this machine{asks}, with the values above:",
        f"  training: {estimate['train_gb']:.1f} GB; {format_time(epoch_s)} an epoch, "
        f"{format_time(epochs * epoch_s)} for {epochs:.3g} epoch(s)",
        f"  testing:  {estimate['test_gb']:.1f} GB; {estimate['test_image_s']:.1f} s an image of "
        f"median size, {estimate['test_largest_image_s']:.1f} s for the largest",
    ]


def _limits(
    data: TrainingSet, chip_size: int | None, min_side: float | None, max_side: float | None
) -> InputLimits:
    stride = data.cfg.network.RPN_FEAT_STRIDE
    if chip_size is None:
        fitting = fitting_chip_size(box_sizes(data.records), data.cfg.TRAIN.CHIP_SIZE)
        chip_size = -(-fitting // stride) * stride
    if chip_size < 32 or chip_size % stride:
        raise ConfigError(
            "the chip size does not fit the network",
            where="--chip-size",
            got=chip_size,
            expected=f"a multiple of network.RPN_FEAT_STRIDE {stride}, at least 32",
        )
    limits = default_limits(chip_size, min_side, max_side)
    if not 0 < 2 * limits.min_side <= limits.max_side <= chip_size:
        raise ConfigError(
            "the sizes at the network's input leave no room",
            where="--min-side, --max-side",
            got=f"{limits.min_side:g} and {limits.max_side:g} px",
            expected=f"0 < 2 x min-side <= max-side <= chip size {chip_size}",
        )
    return limits


def yml_text(advice: Advice, data: TrainingSet, cfg_name: str, out: Path | None = None) -> str:
    """The suggestion as a yml file that extends the config.

    Args:
        advice: the suggestion.
        data: what it was made for.
        cfg_name: the config, a file or a recipe.
        out: where the text will be stored; None for the working directory.
    """
    cfg = data.cfg
    is_coco = is_full_coco(cfg.dataset.dataset, cfg.dataset.NUM_CLASSES)
    return fragment(
        advice.suggestion,
        base=base_name(cfg_name, out.parent if out is not None else Path()),
        heading=_heading(advice, data, cfg_name),
        override_rule=is_coco,
        resets_sizes=_has_own_sizes(data),
        with_test=advice.writes_test,
    )


def _has_own_sizes(data: TrainingSet) -> bool:
    """Whether the config says which boxes get chips: for its own pyramid, not for another."""
    return bool(data.cfg.TRAIN.CHIP_RANGES or data.cfg.TRAIN.SIDE_LIMITS)


def _heading(advice: Advice, data: TrainingSet, cfg_name: str) -> list[str]:
    sizes, old, new = advice.sizes, advice.current, advice.suggested
    percents = ", ".join(f"{p} % {sizes.percentile(p):.0f}" for p in _PERCENTS)
    short, long = (float(np.median(side)) for side in (sizes.image_short, sizes.image_long))
    lines = [
        f"Suggested by `sniper suggest-scales --cfg {cfg_name}` for "
        f"{data.cfg.dataset.image_set} of {data.cfg.dataset.dataset_path}.",
        f"{len(sizes.side)} boxes in {len(sizes.image_long)} images of {long:.0f}x{short:.0f} px "
        "in the median; sqrt(area) in px is",
        f"at most: {percents}.",
        "",
        f"{'':<46} {'now':>8} {'suggested':>10}",
    ]
    low, high = advice.suggestion.limits.min_side, advice.suggestion.limits.max_side
    rows = (
        ("boxes trained", "trained", ".1%"),
        (f"of these {low:g} to {high:.0f} px at the input", "comfortable", ".1%"),
        ("of these with an anchor of IoU >= 0.5", "anchors", ".1%"),
        ("chips per image", "chips_per_image", ".2f"),
        ("share of the full pyramid's pixels", "pixels_of_pyramid", ".0%"),
    )
    for text, field, how in rows:
        before = "-" if old is None else format(getattr(old, field), how)
        lines.append(f"{text:<46} {before:>8} {format(getattr(new, field), how):>10}")
    return lines


def to_json(advice: Advice, data: TrainingSet) -> dict[str, Any]:
    """The suggestion as plain types."""
    suggestion, sizes = advice.suggestion, advice.sizes
    return {
        "tool": "suggest-scales",
        "version": 1,
        "config": data.cfg.name,
        "image_set": data.cfg.dataset.image_set,
        "boxes": len(sizes.side),
        "images": len(sizes.image_long),
        "percentiles_px": {str(p): sizes.percentile(p) for p in _PERCENTS},
        "suggestion": _values(advice, data),
        "reasons": list(suggestion.pyramid.reasons),
        "now": None if advice.current is None else asdict(advice.current),
        "suggested": asdict(advice.suggested),
    }


def _values(advice: Advice, data: TrainingSet) -> dict[str, Any]:
    """The suggested values by key; those of testing are for recipes without AutoFocus."""
    suggestion = advice.suggestion
    test = suggestion.test
    values: dict[str, Any] = {
        "network.ANCHOR_SCALES": list(suggestion.anchor_scales),
        "TRAIN.CHIP_SIZE": suggestion.limits.chip_size,
        "TRAIN.SCALES": list(suggestion.pyramid.scales),
        "TRAIN.VALID_RANGES": [list(pair) for pair in suggestion.pyramid.valid_ranges],
        "TRAIN.MAX_GT": suggestion.max_gt,
    }
    if _has_own_sizes(data):
        values |= {"TRAIN.CHIP_RANGES": [], "TRAIN.SIDE_LIMITS": []}
    if suggestion.batch is not None:
        values["TRAIN.BATCH_IMAGES"], values["TRAIN.lr"] = suggestion.batch
    if advice.writes_test:
        values |= {
            "TEST.SCALES": [list(pair) for pair in test.scales],
            "TEST.VALID_RANGES": [list(pair) for pair in test.valid_ranges],
            "TEST.BATCH_IMAGES": list(test.batch_images),
            "TEST.SLICE_FACTOR": test.slice_factor,
            "TEST.SLICE_SIZE": test.slice_size,
            "TEST.SLICE_OVERLAP": test.slice_overlap,
            "TEST.SLICE_WITH_IMAGE": test.slice_with_image,
            "TEST.SLICE_BATCH_IMAGES": test.slice_batch_images,
        }
        if test.slices:
            values["TEST.MODE"] = "slice"
            if test.slice_with_image:
                values["TEST.SINGLE_SCALE"] = list(test.scales[-1])
    return values


def _view(advice: Advice, data: TrainingSet) -> PyramidView:
    suggestion, measures = advice.suggestion, advice.measures
    pyramid, pairs = suggestion.pyramid, measures.pairs
    level = measures.epoch.chips.level[pairs.chip[pairs.survives]]
    sides = box_sides(measures.trained_boxes_chip)
    names = [f"x{factor:.3g}" for factor in pyramid.factors]
    if pyramid.long_side is not None:
        names[-1] = f"long side {pyramid.long_side} ({names[-1]})"
    return PyramidView(
        heading=f"{data.cfg.dataset.image_set}: suggested pyramid for {len(advice.sizes.side)} "
        f"boxes in {len(advice.sizes.image_long)} images",
        sides=advice.sizes.side,
        level_names=names,
        ranges=pyramid.valid_ranges,
        shares=measures.levels.in_range.mean(axis=0).tolist(),
        input_sides=[sides[level == index] for index in range(len(pyramid.factors))],
        comfort=(suggestion.limits.min_side, suggestion.limits.max_side),
        anchor_sides=[scale * suggestion.stride for scale in suggestion.anchor_scales],
    )


if __name__ == "__main__":
    sys.exit(main())
