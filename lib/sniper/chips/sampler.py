"""The chips of an epoch and the order in which they are trained."""

from __future__ import annotations

import logging
import math
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sniper.chips.assign import assign, false_alarm_chips
from sniper.chips.chip import NEGATIVE, POSITIVE, Chip
from sniper.chips.cover import ChipSet, Level, cover, eligible, needs_chip
from sniper.chips.pyramid import Scale, level_factors, level_size
from sniper.chips.stats import EpochStats, LevelStats
from sniper.chips.streams import stream_seeds
from sniper.chips.table import BoxTable, box_table, record_blocks
from sniper.data.record import Record
from sniper.errors import ConfigError

logger = logging.getLogger(__name__)

# Kinds of random streams: what is drawn.
_STRIDE, _ORDER, _POSITIVE_COVER, _NEGATIVE_COVER, _NEGATIVE_PICK = range(5)
_PROGRESS_EVERY_S = 10.0


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

    Raises:
        ConfigError: the levels do not fit together.
    """

    scales: Sequence[Scale]
    valid_ranges: Sequence[Sequence[float]]
    chip_size: int = 512
    use_neg_chips: bool = False
    max_neg_chips: int = 2

    def __post_init__(self) -> None:
        if len(self.scales) != len(self.valid_ranges):
            raise ConfigError(
                "every pyramid level needs a valid range",
                where="TRAIN.SCALES, TRAIN.VALID_RANGES",
                got=f"{len(self.scales)} scales, {len(self.valid_ranges)} ranges",
            )
        level_factors(100, 100, self.scales)  # raises when they are wrong
        for low, high in self.valid_ranges[:-1]:
            if high <= 0 or high <= low:
                raise ConfigError(
                    "only the last (coarsest) level may have a valid range without upper end",
                    where="TRAIN.VALID_RANGES",
                    got=[list(pair) for pair in self.valid_ranges],
                    expected="like [[-1, 80], [32, 150], [120, -1]]",
                )
        if self.chip_size < 1 or self.max_neg_chips < 0:
            raise ConfigError(
                "the chip size must be positive, the number of negative chips not negative",
                where="TRAIN.CHIP_SIZE, TRAIN.MAX_NEG_CHIPS",
                got=f"{self.chip_size}, {self.max_neg_chips}",
            )


@dataclass(frozen=True, eq=False)
class Epoch:
    """The chips of one epoch.

    Attributes:
        chips: per record its chips: positive ones level by level, then negative ones.
        samples: (S, 2) int32 rows of (record index, chip index) in training order. Every chip is
            there once; chips drawn by chance fill it up to a multiple of the batch size.
        stride: step of the candidate lattice, scaled px.
        stats: counts for the log.
    """

    chips: list[list[Chip]]
    samples: np.ndarray
    stride: int
    stats: EpochStats


def make_epoch(
    records: Sequence[Record], settings: ChipSettings, *, seed: int, epoch: int, batch_size: int
) -> Epoch:
    """Makes the chips of an epoch (paper section 3; 2018 behaviour but for two defects).

    Results depend on `seed`, `epoch` and each record alone: not on its position, on the other
    records or on the number of processes. Unlike in 2018 every chip is used, even when a record
    occurs twice in a batch, and the padding draws from all chips instead of the first records.
    A line of progress is logged every 10 s.

    Args:
        records: images with boxes; records without ground truth can have negative chips only.
        settings: how chips are made.
        seed: any whole number.
        epoch: number of the epoch.
        batch_size: samples of a batch, all devices together.

    Returns:
        The epoch; it has no samples if there is no chip at all.
    """
    stride = draw_stride(settings.chip_size, seed, epoch)
    parts = []
    progress = _Progress(len(records))
    for block in record_blocks(records):
        maker = _BlockMaker([records[i] for i in block], settings, seed, epoch, stride)
        parts.append(maker.make())
        progress.tell(block.stop, parts[-1].num_chips)
    chips = [of_record for part in parts for of_record in part.chips]
    samples = _training_order(chips, seed, epoch, batch_size)
    return Epoch(chips, samples, stride, _join_stats(parts, settings, chips, len(samples), stride))


def draw_stride(chip_size: int, seed: int, epoch: int) -> int:
    """Step of the candidate lattice: 56 ... 59 px at a chip size of 512, in proportion else."""
    smallest = max(1, round(56 * chip_size / 512))
    return smallest + int(stream_seeds(seed, epoch, _STRIDE)) % 4


@dataclass
class _Part:
    """Chips and counts of one block of records."""

    chips: list[list[Chip]]
    levels: list[LevelStats]
    num_chips: int
    negative_candidates: int
    gt: int
    gt_covered: int
    gt_no_level: int


class _BlockMaker:
    """Makes the chips of one block of records."""

    def __init__(
        self, records: Sequence[Record], settings: ChipSettings, seed: int, epoch: int, stride: int
    ) -> None:
        self.settings = settings
        self.table = box_table(records)
        self.keys = (
            seed,
            epoch,
            np.array([record.image_id for record in records], np.int64),
            np.array([record.flipped for record in records], np.int64),
        )
        self.levels = _levels(self.table, settings, stride)
        self.chips: list[list[Chip]] = [[] for _ in records]
        self.negatives: list[list[Chip]] = [[] for _ in records]

    def make(self) -> _Part:
        covered = np.zeros(len(self.table.boxes), bool)
        takeable = np.zeros(len(self.table.boxes), bool)
        levels = []
        for level in self.levels:
            candidates = eligible(self.table, level)
            wanted = needs_chip(self.table, level)
            chips = cover(self.table, wanted, level, self._seeds(_POSITIVE_COVER, level))
            assigned = assign(self.table, candidates, chips, level, POSITIVE)
            keep = np.ones(len(chips.rects), bool)
            self._append(self.chips, chips, keep, assigned, level, POSITIVE)
            if self.settings.use_neg_chips:
                self._add_negatives(candidates & (assigned < 0), level)
            covered |= assigned >= 0
            takeable |= candidates
            levels.append(self._level_stats(chips, wanted, assigned))
        candidates_of_record = [len(chips) for chips in self.negatives]
        self._append_picked_negatives(levels)
        is_gt = self.table.is_gt
        return _Part(
            chips=self.chips,
            levels=levels,
            num_chips=sum(map(len, self.chips)),
            negative_candidates=sum(candidates_of_record),
            gt=int(is_gt.sum()),
            gt_covered=int((is_gt & covered).sum()),
            gt_no_level=int((is_gt & ~takeable).sum()),
        )

    def _seeds(self, kind: int, level: Level) -> np.ndarray:
        return stream_seeds(*self.keys, kind, level.index)

    def _add_negatives(self, uncovered: np.ndarray, level: Level) -> None:
        chips = cover(self.table, uncovered, level, self._seeds(_NEGATIVE_COVER, level))
        assigned = assign(self.table, uncovered, chips, level, NEGATIVE)
        keep = false_alarm_chips(assigned, len(chips.rects), level)
        self._append(self.negatives, chips, keep, assigned, level, NEGATIVE)

    def _append(
        self,
        target: list[list[Chip]],
        chips: ChipSet,
        keep: np.ndarray,
        assigned: np.ndarray,
        level: Level,
        kind: str,
    ) -> None:
        """Appends the chips to keep to the lists of their records."""
        boxes = np.flatnonzero(assigned >= 0)
        boxes = boxes[np.argsort(assigned[boxes], kind="stable")]
        rows = self.table.row[boxes]
        ends = np.searchsorted(assigned[boxes], np.arange(len(chips.rects) + 1)).tolist()
        rects = chips.rects.tolist()
        owners = chips.record.tolist()
        for index in np.flatnonzero(keep).tolist():
            owner = owners[index]
            factor = float(level.factors[owner])
            width = height = level.chip_size
            if level.coarsest:
                width, height = level_size(
                    int(self.table.image_width[owner]), int(self.table.image_height[owner]), factor
                )
            rows_of_chip = rows[ends[index] : ends[index + 1]]
            target[owner].append(
                Chip(tuple(rects[index]), factor, height, width, level.index, rows_of_chip, kind)
            )

    def _level_stats(self, chips: ChipSet, wanted: np.ndarray, assigned: np.ndarray) -> LevelStats:
        return LevelStats(
            positive=len(chips.rects),
            images=len(np.unique(chips.record)),
            gt_wanted=int(wanted.sum()),
            gt_covered=int((self.table.is_gt & (assigned >= 0)).sum()),
        )

    def _append_picked_negatives(self, levels: list[LevelStats]) -> None:
        """Draws at most `max_neg_chips` negatives per record and appends them, in place."""
        for index, candidates in enumerate(self.negatives):
            picked = candidates
            if len(candidates) > self.settings.max_neg_chips:
                # The smallest of independent random numbers are a draw without replacement.
                keys = [
                    int(key[index]) if isinstance(key, np.ndarray) else key for key in self.keys
                ]
                draws = stream_seeds(*keys, _NEGATIVE_PICK, np.arange(len(candidates)))
                order = np.argsort(draws)[: self.settings.max_neg_chips]
                picked = [candidates[i] for i in order]
            self.chips[index].extend(picked)
            for chip in picked:
                levels[chip.level] += LevelStats(negative=1)


def _levels(table: BoxTable, settings: ChipSettings, stride: int) -> list[Level]:
    sizes = zip(table.image_width.tolist(), table.image_height.tolist())
    factors = np.array([level_factors(w, h, settings.scales) for w, h in sizes], np.float64)
    factors = factors.reshape(-1, len(settings.scales))
    last = len(settings.scales) - 1
    return [
        Level(i, i == last, low, high, factors[:, i], settings.chip_size, stride)
        for i, (low, high) in enumerate(settings.valid_ranges)
    ]


def _training_order(
    chips: Sequence[Sequence[Chip]], seed: int, epoch: int, batch_size: int
) -> np.ndarray:
    """Every chip once, padded to a multiple of the batch size, in random order: (S, 2) int32."""
    counts = np.array([len(of_record) for of_record in chips], np.int64)
    total = int(counts.sum())
    record = np.repeat(np.arange(len(chips)), counts)
    chip = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    samples = np.stack([record, chip], axis=1).astype(np.int32)
    if not total:
        return samples
    rng = np.random.default_rng(int(stream_seeds(seed, epoch, _ORDER)))
    surplus = math.ceil(total / batch_size) * batch_size - total
    padding = rng.choice(total, surplus, replace=surplus > total)
    return rng.permutation(np.concatenate([samples, samples[padding]]))


def _join_stats(
    parts: Sequence[_Part],
    settings: ChipSettings,
    chips: Sequence[Sequence[Chip]],
    num_samples: int,
    stride: int,
) -> EpochStats:
    levels = [LevelStats() for _ in settings.scales]
    for part in parts:
        levels = [total + more for total, more in zip(levels, part.levels)]
    gt = sum(part.gt for part in parts)
    gt_covered = sum(part.gt_covered for part in parts)
    gt_no_level = sum(part.gt_no_level for part in parts)
    return EpochStats(
        levels=tuple(levels),
        records=len(chips),
        records_without_chips=sum(not of_record for of_record in chips),
        chips=sum(len(of_record) for of_record in chips),
        samples=num_samples,
        stride=stride,
        negative_candidates=sum(part.negative_candidates for part in parts),
        gt=gt,
        gt_covered=gt_covered,
        gt_no_level=gt_no_level,
        gt_no_chip=gt - gt_covered - gt_no_level,
    )


class _Progress:
    """Logs how far chip generation is, at most every 10 s: silence looks like a hang."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.num_chips = 0
        self.last_s = time.monotonic()

    def tell(self, done: int, new_chips: int) -> None:
        self.num_chips += new_chips
        now = time.monotonic()
        if now - self.last_s >= _PROGRESS_EVERY_S:
            self.last_s = now
            peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            logger.info(
                "chips: %d of %d records, %d chips so far, peak memory %d MiB",
                done,
                self.total,
                self.num_chips,
                peak_mib,
            )
