"""Anchor scales and the limit of boxes in a chip, from the chips that a pyramid gives."""

from __future__ import annotations

import math

import numpy as np

from sniper.tools.explain.suggest_pyramid import InputLimits

# Squares next to each other: a box between two of them has an IoU of at least 1 / 1.5 with one.
STEP = 1.5
MOST_SCALES = 8
# Of maps that share the scales, as in the paper of SSH.
_OF_EACH_MAP = 2
_LEAST_STEP = 1.15
_LOW_PERCENT, _HIGH_PERCENT = 5, 98
# Some boxes stay below the least size that is learned well.
_BELOW_LEAST = 0.75

LEAST_MAX_GT = 100  # 2018
_MAX_GT_STEP = 50
_MAX_GT_RESERVE = 1.25


def suggest_anchor_scales(
    sides_chip: np.ndarray, stride: int, limits: InputLimits, shared_by: int = 1
) -> tuple[float, ...]:
    """Sides of square anchors in units of the stride.

    Args:
        sides_chip: square roots of the areas of trained boxes, chip px; none give one anchor.
        stride: px per feature cell.
        limits: the least size that is learned well; anchors go a little below it.
        shared_by: maps that have an equal part of the scales each (SSH), two at least.
    """
    least = max(_BELOW_LEAST * limits.min_side, stride)
    low = high = least
    if len(sides_chip):
        low = max(least, float(np.percentile(sides_chip, _LOW_PERCENT)))
        high = max(low, float(np.percentile(sides_chip, _HIGH_PERCENT)))
    if shared_by > 1:
        # All maps must see boxes: steps may be smaller than needed, or larger.
        number = _OF_EACH_MAP * shared_by
        high = max(high, low * _LEAST_STEP ** (number - 1))
        return tuple(float(f"{side / stride:.2g}") for side in np.geomspace(low, high, number))
    number = 1 + math.ceil(math.log(high / low) / math.log(STEP) - 0.25)
    if number <= 1:
        return (_half_steps(math.sqrt(low * high) / stride),)
    sides = np.geomspace(low, high, min(number, MOST_SCALES)) / stride
    return tuple(dict.fromkeys(_half_steps(side) for side in sides.tolist()))


def suggest_max_gt(fullest_chip: int) -> int:
    """Boxes that a chip must have room for: 100 as in 2018, or more with a reserve."""
    if fullest_chip <= LEAST_MAX_GT:
        return LEAST_MAX_GT
    return math.ceil(fullest_chip * _MAX_GT_RESERVE / _MAX_GT_STEP) * _MAX_GT_STEP


def _half_steps(scale: float) -> float:
    """Halves below 8 cells, whole numbers above."""
    return max(0.5, round(2 * scale) / 2) if scale < 8 else float(round(scale))
