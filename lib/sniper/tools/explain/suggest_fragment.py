"""The suggestion as a yml file in which every number has its reason."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import numpy as np

from sniper.tools.explain.suggest_anchors import STEP
from sniper.tools.explain.suggest_pyramid import BoxSizes, InputLimits, Pyramid

_WIDTH = 100
# Feature maps of larger images take gigabytes.
_LARGE_PX = 3000


@dataclass(frozen=True)
class Suggestion:
    """All suggested values.

    Attributes:
        pyramid: levels and valid ranges.
        limits: what the network can work with, chip size included.
        anchor_scales: `network.ANCHOR_SCALES`.
        stride: px per feature cell.
        max_gt: `TRAIN.MAX_GT`.
        fullest_chip: boxes in the fullest chip that was seen.
    """

    pyramid: Pyramid
    limits: InputLimits
    anchor_scales: tuple[float, ...]
    stride: int
    max_gt: int
    fullest_chip: int


def fragment(
    suggestion: Suggestion,
    sizes: BoxSizes,
    *,
    base: str,
    heading: list[str],
    override_rule: bool,
    test_levels: int | None,
) -> str:
    """The yml text.

    Args:
        suggestion: the values.
        sizes: what they were derived from.
        base: what `_BASE_` names.
        heading: lines of the first comment.
        override_rule: the 2018 rule for COCO would replace the scales, and is switched off.
        test_levels: levels that the base has at test time; None leaves the TEST section out.
    """
    lines = [f"# {line}".rstrip() for line in heading]
    lines += ["", f"_BASE_: {base}", *_network(suggestion)]
    lines += _train(suggestion, override_rule)
    if test_levels is not None:
        lines += _test(suggestion, sizes, test_levels)
    return "\n".join(lines) + "\n"


def _network(suggestion: Suggestion) -> list[str]:
    scales, stride = suggestion.anchor_scales, suggestion.stride
    squares = ", ".join(f"{scale * stride:g}" for scale in scales)
    return [
        "",
        "network:",
        *_comment(
            f"Squares of {squares} px at a stride of {stride} px, about {STEP:g} times apart: from "
            "small to nearly the largest trained boxes, as the network sees them."
        ),
        f"  ANCHOR_SCALES: [{', '.join(f'{scale:g}' for scale in scales)}]",
    ]


def _train(suggestion: Suggestion, override_rule: bool) -> list[str]:
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
            "Finest level first: factors, and last the long side in px that every image gets."
        ),
        "  SCALES:",
    ]
    values = [*(f"{factor:g}" for factor in pyramid.factors[:-1]), f"{pyramid.long_side}.0"]
    for level, (value, reason) in enumerate(zip(values, pyramid.reasons)):
        median = "" if level < len(values) - 1 else f"x{pyramid.factors[-1]:.2g} in the median; "
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
    lines += _item(
        f"  MAX_GT: {suggestion.max_gt}",
        f"boxes that a chip has room for; the fullest chip seen has {suggestion.fullest_chip}",
    )
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


def _test(suggestion: Suggestion, sizes: BoxSizes, levels: int) -> list[str]:
    """The same pyramid at test time: pairs of short side and longest long side."""
    pyramid = suggestion.pyramid
    short, long = float(np.median(sizes.image_short)), float(np.median(sizes.image_long))
    pairs = [_pair(factor * short, 1.15 * factor * long) for factor in pyramid.factors[:-1]]
    last = pyramid.factors[-1]
    low, high = _pair(1.2 * last * short, 0)[0], pyramid.long_side
    pairs.append((min(low, high), high))
    # Wider than in training, as in 2018: two levels may see an object at the border of a range.
    ranges = [
        (round(0.75 * low) if low > 0 else -1, round(1.15 * high) if high > 0 else -1)
        for low, high in pyramid.valid_ranges
    ]
    lines = [
        "",
        "TEST:",
        *_comment("The same levels at test time: short side, longest long side in px."),
        f"  SCALES: [{', '.join(f'[{a}, {b}]' for a, b in pairs)}]",
        *_comment("A little wider than in training: detections of other sizes are dropped."),
        f"  VALID_RANGES: [{', '.join(f'[{a}, {b}]' for a, b in ranges)}]",
    ]
    if max(pairs[0]) > _LARGE_PX:
        lines += _comment(
            "These levels are large and need much memory at test time: cut large images into "
            "tiles, or train AutoFocus."
        )
    if levels != len(pairs):
        ones = ", ".join("1" for _ in pairs)
        lines += _item(f"  BATCH_IMAGES: [{ones}]", "one entry for each level")
    return lines


def _pair(short: float, long: float) -> tuple[int, int]:
    """Sides in multiples of 16 px."""
    a, b = (max(16, round(side / 16) * 16) for side in (short, long))
    return a, max(a, b)


def _item(text: str, comment: str) -> list[str]:
    """A line with its comment behind it; what does not fit goes on below."""
    column = max(len(text) + 2, 26)
    wrapped = textwrap.wrap(comment, _WIDTH - column - 2)
    first = f"{text:<{column}}# {wrapped[0]}"
    return [first, *(f"{'':<{column}}# {line}" for line in wrapped[1:])]


def _comment(text: str) -> list[str]:
    return [f"  # {line}" for line in textwrap.wrap(text, _WIDTH - 4)]
