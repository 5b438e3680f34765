"""A pyramid for a distribution of box sizes.

The rule of thumb of the 2018 authors: at the network's input objects should be between about 32 px
and 450 px, the latter being what a 512 px chip surely holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sniper.chips.chip_settings import ChipSettings
from sniper.data.record import Record
from sniper.errors import DataError

# Who is to reach the least and the largest size: a few stragglers must not decide.
SMALL_PERCENT, LARGE_PERCENT = 5, 99
# Upsampling further adds no detail to an image.
MAX_UPSCALE = 3.0
# Neighbouring levels are at most this factor apart (2018: 1.8 and 2.1).
MAX_STEP = 2.3
# A second level has to be worth its cost.
MIN_STEP = 1.4
# Up to this multiple of the factor that puts a whole image into a chip, whole images are taken.
WHOLE_IMAGE_SLACK = 1.5
# 2018's finest test level has a long side of 2000 px; larger ones need a reason.
COMFORTABLE_LONG_PX = 2000
# 240 px of 450: boxes up to 3.5 times as long as wide still fit into a chip. Small chips, which
# could not keep the least size then, take up to the second share.
HIGH_SHARE, HIGHEST_SHARE = 240 / 450, 0.85
# Ranges overlap, so that boxes near a border are trained at both levels (2018: 0.4 and 0.8).
OVERLAP = 0.55
_LONG_SIDE_STEP_PX = 32
# What chip generation takes for an image and level, and a chip size beyond which none grows.
MOST_CANDIDATES = 1 << 24
LARGEST_CHIP = 1024


@dataclass(frozen=True, eq=False)
class BoxSizes:
    """Sizes of objects and images.

    Attributes:
        side: (N,) square roots of areas, px.
        long_side: (N,) px.
        image_long: (R,) px.
        image_short: (R,) px.
    """

    side: np.ndarray
    long_side: np.ndarray
    image_long: np.ndarray
    image_short: np.ndarray

    def percentile(self, percent: float) -> float:
        """Size that so many percent of the boxes do not exceed, px."""
        return float(np.percentile(self.side, percent))


@dataclass(frozen=True)
class InputLimits:
    """What the network can work with.

    Attributes:
        chip_size: side of a chip, px.
        min_side: smallest sqrt(area) at the input that is learned well, px.
        max_side: longest box that a chip surely holds, px.
    """

    chip_size: int
    min_side: float
    max_side: float


@dataclass(frozen=True)
class Pyramid:
    """A suggested pyramid.

    Attributes:
        factors: image px -> input px of each level, finest first; the last one for an image of
            median size.
        long_side: target long side of the last level, px: whole images in a chip. None: the last
            level has a factor, so that objects of one size stay of one size in images of any size.
        valid_ranges: (low, high) of sqrt(area), image px; -1 is open.
        reasons: why each level is there.
    """

    factors: tuple[float, ...]
    long_side: int | None
    valid_ranges: tuple[tuple[float, float], ...]
    reasons: tuple[str, ...]

    @property
    def scales(self) -> tuple[float, ...]:
        """`TRAIN.SCALES`: factors, then the long side of the coarsest level or its factor."""
        last = self.factors[-1] if self.long_side is None else float(self.long_side)
        return (*self.factors[:-1], last)

    def chip_settings(self, chip_size: int) -> ChipSettings:
        """How chips would be made (without negatives)."""
        return ChipSettings(self.scales, self.valid_ranges, chip_size)


def box_sizes(records: Sequence[Record]) -> BoxSizes:
    """Sizes of the ground truth of `records`.

    Raises:
        DataError: there is no ground truth.
    """
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(r.gt_boxes for r in records)])
    if not len(boxes):
        raise DataError("there are no boxes to suggest a pyramid for")
    sides = (boxes[:, 2:] - boxes[:, :2] + 1).astype(np.float64)
    images = np.array([(record.width, record.height) for record in records], np.float64)
    return BoxSizes(
        side=np.sqrt(sides[:, 0] * sides[:, 1]),
        long_side=sides.max(axis=1),
        image_long=images.max(axis=1),
        image_short=images.min(axis=1),
    )


def default_limits(
    chip_size: int, min_side: float | None = None, max_side: float | None = None
) -> InputLimits:
    """The rule of thumb for a chip size: 32 to 450 px at 512 px."""
    return InputLimits(
        chip_size,
        # Smaller chips cannot ask for so much: the range would close.
        min_side=min(32.0, chip_size / 4) if min_side is None else min_side,
        # Neighbouring chips are up to 60 px of 512 apart.
        max_side=chip_size * 452 / 512 if max_side is None else max_side,
    )


def fitting_chip_size(sizes: BoxSizes, chip_size: int) -> int:
    """The chip size, or less where even the finest level of most images is smaller."""
    largest = float(np.percentile(sizes.image_long, 95)) * MAX_UPSCALE
    needed = math.ceil(largest / _LONG_SIDE_STEP_PX) * _LONG_SIDE_STEP_PX
    return min(chip_size, needed)


def suggest_pyramid(sizes: BoxSizes, limits: InputLimits, levels: int | None = None) -> Pyramid:
    """The levels that bring the objects to sizes that the network learns well.

    Args:
        sizes: objects and images.
        limits: what the network can work with.
        levels: number of levels; None chooses.
    """
    long_px = float(np.median(sizes.image_long))
    whole = limits.chip_size / long_px
    small = sizes.percentile(SMALL_PERCENT)
    large = float(np.percentile(sizes.long_side, LARGE_PERCENT))
    finest = min(limits.min_side / small, MAX_UPSCALE)
    fits = limits.max_side / large
    takes_whole = fits <= WHOLE_IMAGE_SLACK * whole
    coarsest = whole if takes_whole else fits
    number = _number_of_levels(finest, coarsest) if levels is None else levels
    if number == 1:
        factors = [_single_factor(finest, coarsest, whole, long_px)]
        takes_whole = factors[0] <= whole * 1.05
    elif finest <= coarsest:  # more levels are asked for than the sizes need
        factors = _around(_single_factor(finest, coarsest, whole, long_px), whole, number)
        takes_whole = factors[-1] <= whole * 1.05
    else:
        factors = np.geomspace(finest, coarsest, number).tolist()
    last = whole if takes_whole else _friendly(factors[-1])
    factors = [*(_friendly(factor) for factor in factors[:-1]), last]
    return Pyramid(
        factors=tuple(factors),
        long_side=limits.chip_size if takes_whole else None,
        valid_ranges=_valid_ranges(factors, limits),
        reasons=_reasons(factors, sizes, limits, takes_whole),
    )


def most_candidates(sizes: BoxSizes, factor: float, chip_size: int) -> int:
    """Candidate chips of the largest image at a level, with the densest lattice (2018)."""
    stride = max(1, round(56 * chip_size / 512))
    long, short = sizes.image_long * factor, sizes.image_short * factor
    return int(((long // stride + 2) * (short // stride + 2)).max())


def chip_size_for_candidates(
    sizes: BoxSizes, chip_size: int, step: int, levels: int | None = None
) -> int:
    """The chip size, or more where an image would have more candidate chips than can be made.

    Args:
        sizes: objects and images.
        chip_size: side of a chip, px.
        step: chip sizes are multiples of it.
        levels: number of levels; None chooses.
    """
    while chip_size < LARGEST_CHIP:
        finest = suggest_pyramid(sizes, default_limits(chip_size), levels).factors[0]
        if most_candidates(sizes, finest, chip_size) <= MOST_CANDIDATES:
            break
        chip_size = -(-int(chip_size * 1.25) // step) * step
    return chip_size


def _number_of_levels(finest: float, coarsest: float) -> int:
    if finest < coarsest * MIN_STEP:
        return 1
    return 1 + max(1, math.ceil(math.log(finest / coarsest) / math.log(MAX_STEP) - 1e-9))


def _single_factor(finest: float, coarsest: float, whole: float, long_px: float) -> float:
    """One level for all: any factor between the two ends does; their middle has most slack."""
    low, high = min(finest, coarsest), max(finest, coarsest)
    if finest >= coarsest:
        return coarsest
    # Large levels cost much at test time: beyond this only what the small objects need.
    upper = max(low, min(MAX_UPSCALE, COMFORTABLE_LONG_PX / long_px))
    return max(whole, min(math.sqrt(low * high), upper))


def _around(middle: float, whole: float, number: int) -> list[float]:
    """Factors in small steps around one that would do alone, none below a whole image in a chip."""
    lowest = min(middle / MIN_STEP ** ((number - 1) / 2), MAX_UPSCALE / MIN_STEP ** (number - 1))
    lowest = max(lowest, whole)
    return [lowest * MIN_STEP**power for power in reversed(range(number))]


def _valid_ranges(factors: Sequence[float], limits: InputLimits) -> tuple[tuple[float, float], ...]:
    step = max((a / b for a, b in zip(factors, factors[1:])), default=1.0)
    at_input = max(HIGH_SHARE * limits.max_side, limits.min_side * step / OVERLAP)
    at_input = min(at_input, HIGHEST_SHARE * limits.max_side)
    highs = [_friendly(at_input / factor) for factor in factors[:-1]]
    lows = [_friendly(OVERLAP * high) for high in highs]
    return tuple(zip([-1.0, *lows], [*highs, -1.0]))


def _reasons(
    factors: Sequence[float], sizes: BoxSizes, limits: InputLimits, takes_whole: bool
) -> tuple[str, ...]:
    small = sizes.percentile(SMALL_PERCENT)
    large = float(np.percentile(sizes.long_side, LARGE_PERCENT))
    if len(factors) == 1:
        low, high = small * factors[0], large * factors[0]
        return (
            f"one level: boxes from {small:.0f} to {large:.0f} px ({SMALL_PERCENT} % are smaller, "
            f"{100 - LARGE_PERCENT} % longer) come to {low:.0f} to {high:.0f} px",
        )
    finest = (
        f"the smallest {SMALL_PERCENT} % of the boxes (below {small:.0f} px) come to at most "
        f"{small * factors[0]:.0f} px"
    )
    if factors[0] >= MAX_UPSCALE * 0.99:
        finest += "; enlarging more adds no detail"
    coarsest = (
        "whole images in one chip, for the large objects"
        if takes_whole
        else f"{LARGE_PERCENT} % of the boxes are at most {large:.0f} px long and come to at most "
        f"{large * factors[-1]:.0f} px, which fits into a chip of {limits.chip_size} px"
    )
    steps = [a / b for a, b in zip(factors, factors[1:])]
    between = [f"in equal steps between the two: {step:.2f} times smaller" for step in steps]
    return (finest, *between[:-1], coarsest)


def _friendly(value: float) -> float:
    """Two significant digits."""
    return float(f"{value:.2g}")
