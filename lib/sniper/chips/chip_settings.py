"""How chips are made, and which sizes of boxes belong to which level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sniper.chips.checks import check_finite, check_positive
from sniper.chips.pyramid import Scale, level_factors
from sniper.errors import ConfigError


@dataclass(frozen=True)
class ChipSettings:
    """How chips are made.

    Attributes:
        scales: training pyramid, finest level first; see `sniper.chips.pyramid.level_factors`.
        valid_ranges: (low, high) of the square root of a box's area in image px, one pair per
            level; a low end that is not positive and the high end of the last level are no bounds.
        chip_size: side of a chip in px.
        use_neg_chips: add chips around false alarms; needs records with proposals.
        max_neg_chips: most negative chips of a record in an epoch.
        legacy_boxes: as in 2018: to find the chips that hold a box, boxes end one px before the
            border of their level, and in a chip before their last px does. False: exact.
        min_false_alarms: a negative chip holds more proposals than these, at the finest level and
            at the others; None: 25 and 10 (2018) for 900 proposals of an image, in proportion to
            their number, and to the share of the level that a chip shows where that is smaller than
            it was for COCO in 2018.
        background_chips: negative chips at random places that other chips leave out, per positive
            chip of a record; they need no proposals.
        random_crops: instead of chips, so many windows of an image, each at a level and place drawn
            by chance; of 25 the first with the centre of an object inside, or else the last. 0:
            chips.
        class_balance: an image is trained more often than once an epoch where it has a class that
            fewer images have than this share, see `repeat_factors`; 0: never (2018 behaviour).
        chip_ranges: like `valid_ranges`: the boxes that chips of a level are made for, where they
            are not those that its box head trains; empty: `valid_ranges`.
        side_limits: of each level, image px, negative for none, as for the last level: a box whose
            longer side reaches it does not belong to the level but to the next coarser one, however
            small its area (2018 behaviour for Open Images: 450 px). Empty: none.

    Raises:
        ConfigError: the levels do not fit together.
    """

    scales: Sequence[Scale]
    valid_ranges: Sequence[Sequence[float]]
    chip_size: int = 512
    use_neg_chips: bool = False
    max_neg_chips: int = 2
    legacy_boxes: bool = False
    min_false_alarms: Sequence[float] | None = None
    background_chips: float = 0.0
    random_crops: int = 0
    class_balance: float = 0.0
    chip_ranges: Sequence[Sequence[float]] = ()
    side_limits: Sequence[float] = ()

    @property
    def size_ranges(self) -> Sequence[Sequence[float]]:
        """(low, high) per level of the boxes that chips are made for; as `valid_ranges`."""
        return self.chip_ranges or self.valid_ranges

    @property
    def upper_sides(self) -> tuple[float, ...]:
        """`side_limits` of all levels; infinity where there is none."""
        limits = self.side_limits or (-1.0,) * len(self.scales)
        return tuple(float(limit) if limit >= 0 else math.inf for limit in limits)

    def __post_init__(self) -> None:
        if len(self.scales) != len(self.valid_ranges):
            raise ConfigError(
                "every pyramid level needs a valid range",
                where="TRAIN.SCALES, TRAIN.VALID_RANGES",
                got=f"{len(self.scales)} scales, {len(self.valid_ranges)} ranges",
            )
        level_factors(100, 100, self.scales)  # raises when they are wrong
        _check_ranges("TRAIN.VALID_RANGES", self.valid_ranges)
        if self.chip_ranges:
            self._check_count("TRAIN.CHIP_RANGES", self.chip_ranges)
            _check_ranges("TRAIN.CHIP_RANGES", self.chip_ranges)
        if self.side_limits:
            self._check_count("TRAIN.SIDE_LIMITS", self.side_limits)
            self._check_side_limits()
        check_positive("ChipSettings", chip_size=self.chip_size)
        check_finite(
            "ChipSettings",
            "max_neg_chips, background_chips or min_false_alarms",
            [self.max_neg_chips, self.background_chips, *(self.min_false_alarms or ())],
        )
        others = self.use_neg_chips or self.background_chips
        if self.random_crops < 0 or (self.random_crops and others):
            raise ConfigError(
                "random crops take the place of all chips, negative and background ones included",
                where="TRAIN.RANDOM_CROPS, TRAIN.USE_NEG_CHIPS, TRAIN.BACKGROUND_CHIPS",
                got=f"{self.random_crops}, {self.use_neg_chips}, {self.background_chips:g}",
            )
        if self.chip_size < 1 or self.max_neg_chips < 0:
            raise ConfigError(
                "the chip size must be positive, the number of negative chips not negative",
                where="TRAIN.CHIP_SIZE, TRAIN.MAX_NEG_CHIPS",
                got=f"{self.chip_size}, {self.max_neg_chips}",
            )

    def _check_count(self, key: str, entries: Sequence[object]) -> None:
        if len(entries) != len(self.scales):
            raise ConfigError(
                "it needs one entry per pyramid level, or none at all",
                where=key,
                got=f"{len(entries)} entries for {len(self.scales)} TRAIN.SCALES",
            )

    def _check_side_limits(self) -> None:
        check_finite("TRAIN.SIDE_LIMITS", "a side limit", self.side_limits)
        problem = bad_side_limits(self.side_limits, self.size_ranges)
        if problem is not None:
            raise ConfigError(
                problem,
                where="TRAIN.SIDE_LIMITS",
                got=list(self.side_limits),
                expected="like [450, -1] for boxes of [[-1, 300], [300, -1]] px",
            )


def bad_side_limits(
    side_limits: Sequence[float], size_ranges: Sequence[Sequence[float]]
) -> str | None:
    """What makes limits of longer sides useless, in words; None where they are good.

    Args:
        side_limits: of each level, image px; negative: none.
        size_ranges: (low, high) per level, of the same length.
    """
    if side_limits[-1] >= 0:
        return (
            f"the last level must have no limit (-1): boxes with a side of {side_limits[-1]:g} px "
            "or more would belong to no level"
        )
    finer = math.inf
    for level, (limit, (low, _)) in enumerate(zip(side_limits, size_ranges)):
        # No box is shorter than the root of its area; level 0 has no lower end.
        least = min(max(low, 0) if level else 0, finer)
        if 0 <= limit <= least:
            return f"level {level} holds no box: its boxes have sides of {least:g} px or more"
        finer = limit if limit >= 0 else math.inf
    return None


def _check_ranges(key: str, ranges: Sequence[Sequence[float]]) -> None:
    for pair in ranges:
        if len(pair) != 2 or any(math.isnan(end) for end in pair):
            raise ConfigError("a range of sizes is a pair of numbers", where=key, got=pair)
    for low, high in ranges[:-1]:
        if high <= 0 or high <= low:
            raise ConfigError(
                "only the last (coarsest) level may have a range of sizes without upper end",
                where=key,
                got=[list(pair) for pair in ranges],
                expected="like [[-1, 80], [32, 150], [120, -1]]",
            )
