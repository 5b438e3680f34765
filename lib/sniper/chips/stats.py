"""What an epoch's chips consist of, and why ground truth was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum


class GtFate(IntEnum):
    """What became of a ground truth box in an epoch: covered, or the first reason that applies.

    Attributes:
        COVERED: a positive chip of at least one level is trained on it.
        NO_RANGE: its size belongs to no level.
        TOO_THIN: it has less than 2 px on a side, which only the coarsest levels take.
        TOO_LONG: where its size belongs, it is longer than what fits into a chip.
        NO_CANDIDATE: it would fit, but no candidate chip of its levels contains all of it.
        NOT_HELD: a candidate contains it, but the part inside its best chip is out of range.
        NOT_DRAWN: random crops, drawn anew in every epoch, do not show its centre.
    """

    COVERED = 0
    NO_RANGE = 1
    TOO_THIN = 2
    TOO_LONG = 3
    NO_CANDIDATE = 4
    NOT_HELD = 5
    NOT_DRAWN = 6

    @property
    def text(self) -> str:
        """The fate in some words, for tables and logs."""
        return _TEXTS[self]


_TEXTS = {
    GtFate.COVERED: "covered",
    GtFate.NO_RANGE: "of a size that is valid at no level",
    GtFate.TOO_THIN: "thinner than 2 px",
    GtFate.TOO_LONG: "longer than a chip",
    GtFate.NO_CANDIDATE: "inside no candidate chip",
    GtFate.NOT_HELD: "cut off by its chip",
    GtFate.NOT_DRAWN: "in no random crop of this epoch",
}


@dataclass(frozen=True)
class LevelStats:
    """Counts of one pyramid level.

    Attributes:
        positive: positive chips.
        negative: negative chips in use.
        images: records with positive chips.
        gt_in_range: ground truth boxes whose size belongs to the level: in the range that chips
            are made for, its longer side below the level's limit or at that of the finer one.
        gt_too_long: of these, longer than what surely fits into a chip of the level.
        gt_wanted: ground truth boxes that positive chips were made for.
        gt_covered: ground truth boxes assigned to a positive chip, also smaller ones than the
            range asks for.
        background: of the negative chips, those at random places.
    """

    positive: int = 0
    negative: int = 0
    images: int = 0
    gt_in_range: int = 0
    gt_too_long: int = 0
    gt_wanted: int = 0
    gt_covered: int = 0
    background: int = 0


@dataclass(frozen=True)
class EpochStats:
    """Counts of one epoch.

    Attributes:
        levels: finest first.
        records: all records, flipped copies included.
        records_without_chips: records that are not trained in this epoch.
        chips: all chips.
        samples: chips plus the draws that fill the last batch.
        stride: step of the candidate lattice, scaled px.
        negative_candidates: negative chips from which at most a few per record were drawn.
        gt: ground truth boxes.
        gt_covered: of these, assigned to a positive chip of at least one level.
        gt_uncovered: all others by reason: `gt - gt_covered` together.
        most_gt: largest number of ground truth boxes inside one chip (`ChipTable.num_gt`).
    """

    levels: tuple[LevelStats, ...]
    records: int
    records_without_chips: int
    chips: int
    samples: int
    stride: int
    negative_candidates: int
    gt: int
    gt_covered: int
    gt_uncovered: Mapping[GtFate, int] = field(default_factory=dict)
    most_gt: int = 0

    def lines(self) -> Sequence[str]:
        """The statistics as lines for the log."""
        head = (
            f"Total number of extracted chips: {self.chips} ({self.samples} with those that fill "
            f"the last batch), lattice step {self.stride} px; {self.records_without_chips} of "
            f"{self.records} images (flips included) give no chip"
        )
        body = [
            f"level {index}: {level.positive} positive chips in {level.images} images, "
            f"{level.negative} negative; GT boxes: {level.gt_in_range} in the valid range, "
            f"{level.gt_wanted} that chips were made for, {level.gt_covered} assigned to them "
            "(smaller ones included)"
            for index, level in enumerate(self.levels)
        ]
        reasons = [f"{count} {fate.text}" for fate, count in self.gt_uncovered.items() if count]
        tail = (
            f"GT: {self.gt_covered} of {self.gt} boxes covered by a positive chip; the others: "
            f"{', '.join(reasons) or 'none'}"
        )
        return [head, *body, tail]
