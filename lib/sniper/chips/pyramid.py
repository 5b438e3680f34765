"""Scale factors of the image pyramid, in training and at test time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

from sniper.chips.checks import check_finite, check_positive
from sniper.errors import ConfigError

# A last entry of SCALES from here on is a long side in px; what is smaller can be a factor only.
LEAST_LONG_SIDE_PX = 16

# One entry of SCALES: a factor, or (short side, long side) in px.
Scale = Union[float, Sequence[float]]


def level_factors(width: int, height: int, scales: Sequence[Scale]) -> tuple[float, ...]:
    """Factors image px -> scaled px of the training pyramid (2018 behaviour).

    Args:
        width: image width in px.
        height: image height in px.
        scales: finest level first. Either pairs (short side, long side) in px: the short side is
            scaled to its target unless the long side would become too long; a target that is not
            positive is no limit. Or numbers: factors, of which the last may be a target long side
            (`is_long_side`).

    Raises:
        ConfigError: the two kinds are mixed, a level has no target at all, or a number is none.
    """
    check_positive("level_factors", width=width, height=height)
    pairs = [scale for scale in scales if isinstance(scale, Sequence)]
    factors = [scale for scale in scales if not isinstance(scale, Sequence)]
    if bool(pairs) == bool(factors):
        raise ConfigError(
            "the pyramid must be all pairs of px or all numbers",
            where="TRAIN.SCALES",
            got=list(scales),
            expected="like [[1400, 2000], [800, 1280], [-1, 512]] or [3.0, 1.667, 512.0]",
        )
    check_finite("TRAIN.SCALES", "the pyramid", [*factors, *(side for p in pairs for side in p)])
    if pairs:
        return tuple(_pair_factor(width, height, pair) for pair in pairs)
    if min(factors) <= 0:
        raise ConfigError(
            "pyramid factors must be positive", where="TRAIN.SCALES", got=list(scales)
        )
    last = float(factors[-1])
    return (*map(float, factors[:-1]), last / max(width, height) if is_long_side(last) else last)


def is_long_side(last: float) -> bool:
    """Whether the last number of a pyramid is a long side in px (as in 2018), not a factor."""
    return last >= LEAST_LONG_SIDE_PX


def level_size(width: int, height: int, factor: float) -> tuple[int, int]:
    """Width and height of a level in scaled px (truncated, 2018 behaviour)."""
    check_positive("level_size", width=width, height=height, factor=factor)
    return int(width * factor), int(height * factor)


def test_factor(width: int, height: int, scale: Sequence[float]) -> float:
    """Factor image px -> network px at test time for one (short side, long side) in px.

    Args:
        width: image width in px; always that of the whole image, also for chips.
        height: image height in px.
        scale: targets of the short and of the long side, both positive.

    Raises:
        ConfigError: a target or side is not positive (2018 had no "no limit" at test time).
    """
    check_positive("test_factor", width=width, height=height)
    check_finite("TEST.SCALES", "a test scale", scale)
    if len(scale) != 2 or min(scale) <= 0:
        raise ConfigError(
            "a test scale is a pair of positive px: short side, longest long side",
            where="TEST.SCALES",
            got=list(scale),
        )
    return _pair_factor(width, height, scale)


def _pair_factor(width: int, height: int, scale: Sequence[float]) -> float:
    short, long = min(width, height), max(width, height)
    if len(scale) != 2 or max(scale) <= 0:
        raise ConfigError(
            "a pyramid level needs a target for its short or its long side",
            where="TRAIN.SCALES",
            got=list(scale),
        )
    low, high = scale
    if low <= 0:
        return high / long
    factor = low / short
    if high > 0 and round(factor * long) > high:
        factor = high / long
    return factor
