"""What the chips of an epoch hold: boxes with their fates, and pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sniper import boxes as box_ops
from sniper.chips.box_levels import BoxLevels, box_levels
from sniper.chips.chip_settings import ChipSettings
from sniper.chips.pyramid import level_size
from sniper.chips.sampler import Epoch, make_epoch
from sniper.chips.stats import GtFate
from sniper.chips.unseen import Unseen, unseen
from sniper.data.record import Record
from sniper.errors import ConfigError
from sniper.targets.gt import MIN_SIDE_PX

# The usual single scale of 2018: short side, longest long side.
SINGLE_SCALE_PX = (800, 1333)

TRAINED = "trained"
TOO_SMALL = "too_small"
_RANGES = "TRAIN.VALID_RANGES (or CHIP_RANGES, if given)"
_FIXES = {
    TOO_SMALL: "a larger first factor in TRAIN.SCALES makes them larger",
    GtFate.NO_RANGE.name: f"let neighbouring {_RANGES} overlap",
    GtFate.TOO_LONG.name: f"set TRAIN.SIDE_LIMITS, lower the high ends of {_RANGES}, or add a "
    "coarser level",
    GtFate.NO_CANDIDATE.name: f"lower the high ends of {_RANGES}",
    GtFate.NOT_HELD.name: f"lower the low end of the last of {_RANGES}",
    GtFate.NOT_DRAWN.name: "raise TRAIN.RANDOM_CROPS, or train for more epochs",
}


@dataclass(frozen=True, eq=False)
class Measures:
    """An epoch and what can be said about it.

    Attributes:
        levels: the ground truth against the pyramid.
        epoch: the chips.
        pairs: which chip trains which box.
        fates: what becomes of the ground truth.
        pixels: chips against whole images.
        unseen: what no chip shows, level by level.
    """

    levels: BoxLevels
    epoch: Epoch
    pairs: Assignments
    fates: tuple[Fate, ...]
    pixels: Pixels
    unseen: tuple[Unseen, ...]

    def fate(self, name: str) -> Fate:
        """The fate of this name."""
        return next(fate for fate in self.fates if fate.name == name)

    @property
    def trained_share(self) -> float:
        """Share of the boxes that are trained; 1 without boxes."""
        total = len(self.levels.boxes)
        return len(self.fate(TRAINED).boxes) / total if total else 1.0

    @property
    def trained_boxes_chip(self) -> np.ndarray:
        """(n, 4) float32: every box in each chip that it is trained in, chip px."""
        return self.pairs.boxes_chip[self.pairs.survives]


def measure(
    records: Sequence[Record], settings: ChipSettings, *, seed: int, epoch: int
) -> Measures:
    """Makes the chips of an epoch, as training does, and measures them.

    Raises:
        ConfigError: there is no record.
    """
    if not records:
        raise ConfigError("records is empty: there is nothing to measure", where="measure")
    chips_of_epoch = make_epoch(records, settings, seed=seed, epoch=epoch, batch_size=1)
    levels = box_levels(records, settings)
    legacy = settings.legacy_boxes
    pairs = assignments(chips_of_epoch, levels, settings.chip_size, legacy=legacy)
    pixels = count_pixels(records, levels, chips_of_epoch.chips.num_chips, settings.chip_size)
    hidden = unseen(records, levels, chips_of_epoch.chips, settings.chip_size)
    return Measures(levels, chips_of_epoch, pairs, fates(chips_of_epoch, pairs), pixels, hidden)


@dataclass(frozen=True, eq=False)
class Assignments:
    """Ground truth that chips are trained on: M pairs of a chip and a box.

    Negative chips take the boxes that no positive chip of their level is assigned to.

    Attributes:
        chip: (M,) int64, row of the epoch's chip table.
        box: (M,) int64, row of `BoxLevels`.
        boxes_chip: (M, 4) float32, the box in chip px, rounded and clipped as in training.
    """

    chip: np.ndarray
    box: np.ndarray
    boxes_chip: np.ndarray

    @property
    def survives(self) -> np.ndarray:
        """(M,) bool: the box is large enough in its chip to be trained."""
        sides = self.boxes_chip[:, 2:] - self.boxes_chip[:, :2] + 1
        return (sides >= MIN_SIDE_PX).all(axis=1)


def assignments(
    epoch: Epoch, levels: BoxLevels, chip_size: int, *, legacy: bool = False
) -> Assignments:
    """The pairs of chips and ground truth of an epoch.

    Args:
        epoch: chips of the records that `levels` was made of.
        levels: the ground truth of these records.
        chip_size: side of a chip in px.
        legacy: boxes in chips as in 2018 (`ChipSettings.legacy_boxes`).
    """
    chips = epoch.chips
    chip = np.repeat(np.arange(chips.num_chips), np.diff(chips.row_offsets))
    record = chips.record_of_chip[chip]
    # Ground truth comes first in a record: its rows are those below the number of boxes.
    kept = chips.rows < np.diff(levels.starts)[record]
    chip, box = chip[kept], levels.starts[record[kept]] + chips.rows[kept]
    return Assignments(
        chip=chip,
        box=box,
        boxes_chip=_in_chips(
            *(levels.boxes[box], chips.rects[chip], chips.factor[chip], chip_size), legacy
        ),
    )


def _in_chips(
    boxes: np.ndarray, rects: np.ndarray, factors: np.ndarray, chip_size: int, legacy: bool
) -> np.ndarray:
    """`sniper.targets.gt.boxes_in_chip` for boxes of many chips: (M, 4) float32."""
    origin = rects[:, [0, 1, 0, 1]].astype(np.float32)
    end = np.zeros(4, np.float32) if legacy else box_ops.LAST_PX
    scaled = (boxes + end - origin) * factors.astype(np.float32)[:, None] - end
    return box_ops.clip(np.rint(scaled), chip_size, chip_size)


@dataclass(frozen=True)
class Fate:
    """One thing that may become of ground truth in an epoch.

    Attributes:
        name: `trained`, `too_small`, or the name of a `GtFate` in small letters.
        text: the same in words.
        boxes: (n,) int64, the rows of `BoxLevels` concerned.
    """

    name: str
    text: str
    boxes: np.ndarray

    @property
    def fix(self) -> str:
        """What to change when many boxes share this fate; may be empty."""
        return _FIXES.get(self.name, _FIXES.get(self.name.upper(), ""))


def fates(epoch: Epoch, pairs: Assignments) -> tuple[Fate, ...]:
    """All ground truth of an epoch by what becomes of it; the trained boxes come first.

    The sampler calls a box covered when a positive chip is assigned to it; of these the ones that
    are below 10 px in all their chips are not trained, while a negative chip may train a box that
    is not covered (2018 behaviour).
    """
    trained = np.zeros(len(epoch.gt_fate), bool)
    trained[pairs.box[pairs.survives]] = True
    covered = epoch.gt_fate == GtFate.COVERED
    small = f"below {MIN_SIDE_PX} px in every chip"
    return (
        Fate(TRAINED, TRAINED, np.flatnonzero(trained)),
        Fate(TOO_SMALL, small, np.flatnonzero(covered & ~trained)),
        *(
            Fate(fate.name.lower(), fate.text, np.flatnonzero((epoch.gt_fate == fate) & ~trained))
            for fate in GtFate
            if fate != GtFate.COVERED
        ),
    )


@dataclass(frozen=True)
class Pixels:
    """Pixels of an epoch, in millions per image.

    Attributes:
        chips: what the network sees: every chip is a full square for it.
        pyramid: all levels of every image in full.
        single_scale: every image once at a short side of 800 px, at most 1333 px long.
    """

    chips: float
    pyramid: float
    single_scale: float

    @property
    def share_of_pyramid(self) -> float:
        """Chips' share of the full pyramid."""
        return self.chips / self.pyramid

    @property
    def times_single_scale(self) -> float:
        """Chips in multiples of the single scale."""
        return self.chips / self.single_scale


def count_pixels(
    records: Sequence[Record], levels: BoxLevels, num_chips: int, chip_size: int
) -> Pixels:
    """Compares the pixels of chips with those of whole images (at least one record)."""
    pyramid, single = 0, 0.0
    short_px, long_px = SINGLE_SCALE_PX
    for record, factors in zip(records, levels.factors.tolist()):
        for factor in factors:
            width, height = level_size(record.width, record.height, factor)
            pyramid += width * height
        short, long = sorted((record.width, record.height))
        single += short * long * min(short_px / short, long_px / long) ** 2
    million = 1e6 * len(records)
    return Pixels(num_chips * chip_size**2 / million, pyramid / million, single / million)


def evenly(items: np.ndarray, count: int) -> np.ndarray:
    """At most `count` rows of an array, evenly spread over it, in order."""
    if len(items) <= count:
        return items
    return items[np.linspace(0, len(items) - 1, count).round().astype(np.int64)]
