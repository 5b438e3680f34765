"""The suggestion as a yml file in which every number has its reason."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from sniper.tools.explain.suggest_anchors import STEP
from sniper.tools.explain.suggest_pyramid import InputLimits, Pyramid
from sniper.tools.explain.suggest_test import TestSuggestion

_WIDTH = 100


@dataclass(frozen=True)
class Suggestion:
    """All suggested values.

    Attributes:
        pyramid: levels and valid ranges.
        limits: what the network can work with, chip size included.
        anchor_scales: `network.ANCHOR_SCALES`.
        stride: px per feature cell.
        shared_by: strides of the maps that have a part of the anchor scales each; none: all have
            all.
        max_gt: `TRAIN.MAX_GT`.
        fullest_chip: boxes in the fullest chip that was seen.
        test: the TEST section.
        batch: `TRAIN.BATCH_IMAGES` and `TRAIN.lr` where chips are larger than the config's; None
            keeps the config's.
    """

    pyramid: Pyramid
    limits: InputLimits
    anchor_scales: tuple[float, ...]
    stride: int
    max_gt: int
    fullest_chip: int
    test: TestSuggestion
    batch: tuple[int, float] | None = None
    shared_by: tuple[int, ...] = ()


def fragment(
    suggestion: Suggestion,
    *,
    base: str,
    heading: list[str],
    override_rule: bool,
    resets_sizes: bool,
    with_test: bool,
) -> str:
    """The yml text.

    Args:
        suggestion: the values.
        base: what `_BASE_` names.
        heading: lines of the first comment.
        override_rule: the 2018 rule for COCO would replace the scales, and is switched off.
        resets_sizes: the config has chip ranges or side limits, of another pyramid.
        with_test: write the TEST section as well.
    """
    lines = [f"# {line}".rstrip() for line in heading]
    lines += ["", f"_BASE_: {base}", *_network(suggestion)]
    lines += _train(suggestion, override_rule, resets_sizes)
    if with_test:
        lines += _test(suggestion.test, suggestion.pyramid)
    return "\n".join(lines) + "\n"


def _network(suggestion: Suggestion) -> list[str]:
    scales, stride = suggestion.anchor_scales, suggestion.stride
    squares = ", ".join(f"{scale * stride:g}" for scale in scales)
    reason = (
        f"Squares of {squares} px at a stride of {stride} px, about {STEP:g} times apart: from "
        "small to nearly the largest trained boxes, as the network sees them."
    )
    if suggestion.shared_by:
        strides = ", ".join(map(str, suggestion.shared_by))
        reason = (
            f"Squares of {squares} px, in units of {stride} px: in this order "
            f"{len(scales) // len(suggestion.shared_by)} for each of the strides {strides}, from "
            "small to nearly the largest trained boxes, so that all of them see boxes."
        )
    return [
        "",
        "network:",
        *_comment(reason),
        f"  ANCHOR_SCALES: [{', '.join(f'{scale:g}' for scale in scales)}]",
    ]


def _train(suggestion: Suggestion, override_rule: bool, resets_sizes: bool) -> list[str]:
    pyramid, limits = suggestion.pyramid, suggestion.limits
    lines = [
        "",
        "TRAIN:",
        *_comment(
            f"A chip of {limits.chip_size} px surely holds boxes up to {limits.max_side:.0f} px; "
            f"below {limits.min_side:g} px objects have too few pixels. The levels bring the "
            "boxes of this set between the two."
        ),
        f"  CHIP_SIZE: {limits.chip_size}",
        *_comment(
            "Finest level first: factors"
            + (
                ", the same for images of all sizes."
                if pyramid.long_side is None
                else ", and last the long side in px that every image gets."
            )
        ),
        "  SCALES:",
    ]
    values = [f"{scale:g}" if scale % 1 else f"{scale:.1f}" for scale in pyramid.scales]
    for level, (value, reason) in enumerate(zip(values, pyramid.reasons)):
        is_long_side = level == len(values) - 1 and pyramid.long_side is not None
        median = f"x{pyramid.factors[-1]:.2g} in the median; " if is_long_side else ""
        lines += _item(f"    - {value}", f"level {level}: {median}{reason}")
    if override_rule:
        lines += _item("  COCO_SCALE_OVERRIDE: false", "the scales above count, not those of 2018")
    lines += [
        *_comment(
            "sqrt(area) in image px that each level trains; -1 is open. Ranges overlap, so that "
            "boxes near a border are trained at both levels."
        ),
        "  VALID_RANGES:",
    ]
    for level, (low, high) in enumerate(pyramid.valid_ranges):
        factor = pyramid.factors[level]
        lines += _item(f"    - [{low:g}, {high:g}]", f"level {level}: {_range(low, high, factor)}")
    if resets_sizes:
        lines += _item("  CHIP_RANGES: []", "the ranges above count for chips too")
        lines.append("  SIDE_LIMITS: []")
    lines += _item(
        f"  MAX_GT: {suggestion.max_gt}",
        f"boxes that a chip has room for; the fullest chip seen has {suggestion.fullest_chip}",
    )
    if suggestion.batch is not None:
        images, rate = suggestion.batch
        lines += _item(
            f"  BATCH_IMAGES: {images}", "chips of a device: larger chips, fewer of them"
        )
        lines += _item(f"  lr: {rate:.3g}", "in proportion to the chips of an update")
    return lines


def _range(low: float, high: float, factor: float) -> str:
    """A valid range as the network sees it."""
    if low > 0 and high > 0:
        return f"{low * factor:.0f} to {high * factor:.0f} px at the network's input"
    if high > 0:
        return f"up to {high * factor:.0f} px at the network's input, and all that is smaller"
    if low > 0:
        return f"from {low * factor:.0f} px at the network's input, and all that is larger"
    return "boxes of all sizes"


def _test(test: TestSuggestion, pyramid: Pyramid) -> list[str]:
    lines = [
        "",
        "TEST:",
        *_comment("The same levels at test time: short side, longest long side in px."),
        f"  SCALES: [{_pairs(test.scales)}]",
        *_comment("A little wider than in training: detections of other sizes are dropped."),
        f"  VALID_RANGES: [{_pairs(test.valid_ranges)}]",
    ]
    batches = ", ".join(map(str, test.batch_images))
    lines += _item(f"  BATCH_IMAGES: [{batches}]", "images at once on a GPU, by their size")
    if test.slices:
        lines += _item("  MODE: slice", "for images of all sizes alike, and in little memory")
        if test.slice_with_image:
            lines += _item(
                f"  SINGLE_SCALE: {list(test.scales[-1])}", "of the whole image beside the windows"
            )
    else:
        lines += _comment("For --mode slice (huge images): windows as large as the network saw.")
    lines += _item(
        f"  SLICE_FACTOR: {test.slice_factor:.3g}",
        f"as level 0 of training: x{pyramid.factors[0]:.3g}",
    )
    network_px = test.slice_size * test.slice_factor
    lines += _item(
        f"  SLICE_SIZE: {test.slice_size}", f"image px of a window: {network_px:.0f} network px"
    )
    lines += _item(
        f"  SLICE_OVERLAP: {test.slice_overlap:g}", "so that objects at a border are whole in one"
    )
    seen = "trained as well" if test.slice_with_image else "not trained: no level has whole images"
    lines += _item(
        f"  SLICE_WITH_IMAGE: {str(test.slice_with_image).lower()}", f"whole images were {seen}"
    )
    lines.append(f"  SLICE_BATCH_IMAGES: {test.slice_batch_images}")
    return lines


def _pairs(pairs: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"[{a}, {b}]" for a, b in pairs)


def _item(text: str, comment: str) -> list[str]:
    """A line with its comment behind it; what does not fit goes on below."""
    column = max(len(text) + 2, 26)
    wrapped = textwrap.wrap(comment, _WIDTH - column - 2)
    first = f"{text:<{column}}# {wrapped[0]}"
    return [first, *(f"{'':<{column}}# {line}" for line in wrapped[1:])]


def _comment(text: str) -> list[str]:
    return [f"  # {line}" for line in textwrap.wrap(text, _WIDTH - 4)]
