"""What an epoch's chips consist of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LevelStats:
    """Counts of one pyramid level.

    Attributes:
        positive: positive chips.
        negative: negative chips in use.
        images: records with positive chips.
        gt_wanted: ground truth boxes that positive chips were made for.
        gt_covered: ground truth boxes assigned to a positive chip.
    """

    positive: int = 0
    negative: int = 0
    images: int = 0
    gt_wanted: int = 0
    gt_covered: int = 0

    def __add__(self, other: LevelStats) -> LevelStats:
        return LevelStats(
            self.positive + other.positive,
            self.negative + other.negative,
            self.images + other.images,
            self.gt_wanted + other.gt_wanted,
            self.gt_covered + other.gt_covered,
        )


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
        gt_no_level: of these, no level takes a box of this size.
        gt_no_chip: of these, a level takes the size, but no chip holds enough of the box.
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
    gt_no_level: int
    gt_no_chip: int

    def lines(self) -> Sequence[str]:
        """The statistics as lines for the log."""
        head = (
            f"Total number of extracted chips: {self.chips} ({self.samples} samples with padding), "
            f"stride {self.stride}, {self.records_without_chips} of {self.records} records without"
        )
        body = [
            f"level {index}: {level.positive} positive chips in {level.images} records, "
            f"{level.negative} negative; GT wanted {level.gt_wanted}, covered {level.gt_covered}"
            for index, level in enumerate(self.levels)
        ]
        tail = (
            f"GT: {self.gt_covered} of {self.gt} covered; uncovered: {self.gt_no_level} of a size "
            f"that no level takes, {self.gt_no_chip} that no chip holds"
        )
        return [head, *body, tail]
