"""The chips of an epoch and the order in which they are trained."""

from __future__ import annotations

import logging
import math
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Union

import numpy as np

from sniper.chips.box_table import BoxTable, box_table
from sniper.chips.checks import check_positive
from sniper.chips.chip_settings import ChipSettings
from sniper.chips.chip_table import ChipTable, join_chips
from sniper.chips.class_balance import repeat_factors
from sniper.chips.stats import EpochStats, GtFate, LevelStats
from sniper.chips.streams import ORDER, REPEATS, STRIDE, stream_seeds
from sniper.data.record import Record
from sniper.errors import OpsError, TrainingError
from sniper.native._native import epoch_chips
from sniper.targets.gt import MIN_SIDE_PX

logger = logging.getLogger(__name__)

_PROGRESS_EVERY_S = 10.0
# One call of the compiled code: this many records, or fewer when the time is up. In between Python
# looks at signals (Ctrl-C) and at `cancelled`.
_BLOCK_RECORDS = 8192
_BLOCK_S = 0.5

# What makes a negative chip in 2018: more false alarms than these, at the finest level and at the
# others, out of this many proposals of an image. The chips of a COCO image (640x480 px at factor
# 3 or 1.667) were these shares of their levels.
MIN_FALSE_ALARMS_2018 = (25, 10)
PROPOSALS_2018 = 900
CHIP_SHARES_2018 = (0.095, 0.307)


@dataclass(frozen=True, eq=False)
class Epoch:
    """The chips of one epoch.

    Attributes:
        chips: per record its chips: positive ones level by level, then negative ones.
        samples: (S, 2) int32 rows of (record index, chip index) in training order. Every chip is
            there once; chips drawn by chance fill it up to a multiple of the batch size.
        stride: step of the candidate lattice, scaled px.
        stats: counts for the log.
        gt_fate: (G,) uint8, a `GtFate` for every ground truth box, record by record
            (`BoxTable.gt_offsets`).
    """

    chips: ChipTable
    samples: np.ndarray
    stride: int
    stats: EpochStats
    gt_fate: np.ndarray

    def chips_over(self, max_gt: int) -> int:
        """Number of chips with more ground truth boxes inside than a sample has room for."""
        return int(np.count_nonzero(self.chips.num_gt > max_gt))


def make_epoch(
    records: Union[Sequence[Record], BoxTable],
    settings: ChipSettings,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    window: int = 0,
    gt_rows_only: bool = False,
    cancelled: Callable[[], bool] | None = None,
) -> Epoch:
    """Makes the chips of an epoch (paper section 3; 2018 behaviour but for two defects).

    Results depend on `seed`, `epoch` and each record alone: not on its position, on the other
    records or on the number of threads (OMP_NUM_THREADS). Unlike in 2018 every chip is used, even
    when a record occurs twice in a batch, and the padding draws from all chips instead of the first
    records. A line of progress is logged every 10 s; Ctrl-C ends it within a second.

    Args:
        records: images with boxes, or the table of them (`sniper.chips.box_table.box_table`), which
            is worth keeping for the next epoch. Records without ground truth can only have negative
            chips. Boxes that are not finite are left out.
        settings: how chips are made.
        seed: any whole number.
        epoch: number of the epoch.
        batch_size: samples of a batch, all devices together.
        window: records whose chips are shuffled together, see `training_order`; 0: all
            (2018 behaviour).
        gt_rows_only: leave proposals out of the chips' rows: training needs only the others, and
            with 900 proposals an image the rows of all take several gigabytes for COCO.
        cancelled: asked about twice a second; True gives the epoch up.

    Returns:
        The epoch; it has no samples if there is no chip at all.

    Raises:
        OpsError: an image or a scale factor is so large that its candidates do not fit in memory.
        TrainingError: it was cancelled.
    """
    check_positive("make_epoch", batch_size=batch_size)
    table = records if isinstance(records, BoxTable) else box_table(records)
    stride = draw_stride(settings.chip_size, seed, epoch)
    factors = table.factors(settings.scales)
    options = {
        "chip_size": settings.chip_size,
        "stride": stride,
        "seed": seed,
        "epoch": epoch,
        "use_negatives": settings.use_neg_chips,
        "max_negatives": settings.max_neg_chips,
        "min_alarms": settings.min_false_alarms or MIN_FALSE_ALARMS_2018,
        "alarms_per_proposals": 0 if settings.min_false_alarms else PROPOSALS_2018,
        "alarms_shares": CHIP_SHARES_2018,
        "background": settings.background_chips,
        "crops": settings.random_crops,
        "gt_rows_only": gt_rows_only,
        "min_gt_side": MIN_SIDE_PX,
        "legacy_boxes": settings.legacy_boxes,
    }
    blocks = list(_blocks(table, factors, settings, options, cancelled))
    crops = settings.random_crops > 0
    chips = join_chips(blocks, table, factors, settings.chip_size, random_crops=crops)
    counts = np.diff(chips.offsets)
    order = {"seed": seed, "epoch": epoch, "batch_size": batch_size, "window": window}
    samples = training_order(counts, **order, repeats=_repeats(table, settings, seed, epoch))
    fates = np.concatenate([np.zeros(0, np.uint8), *(block["fates"] for block in blocks)])
    stats = _statistics(blocks, chips, fates, len(settings.scales), len(samples), stride)
    return Epoch(chips, samples, stride, stats, fates)


def draw_stride(chip_size: int, seed: int, epoch: int) -> int:
    """Step of the candidate lattice: 56 ... 59 px at a chip size of 512, in proportion else."""
    # 2018 behaviour: drawn anew for every epoch, and the same for all images and levels.
    smallest = max(1, round(56 * chip_size / 512))
    return smallest + int(stream_seeds(seed, epoch, STRIDE)) % 4


def _blocks(
    table: BoxTable,
    factors: np.ndarray,
    settings: ChipSettings,
    options: dict[str, Any],
    cancelled: Callable[[], bool] | None,
) -> Iterator[dict[str, Any]]:
    """The compiled code's results for consecutive records."""
    ranges = np.array(settings.size_ranges, np.float64)
    limits = np.array(settings.upper_sides, np.float64)
    progress = _Progress(len(table))
    first = 0
    while first < len(table):
        if cancelled is not None and cancelled():
            raise TrainingError(f"chip generation was cancelled after {first} records")
        try:
            block = epoch_chips(
                table.boxes,
                table.num_gt,
                table.width,
                table.height,
                table.image_id,
                table.flipped,
                factors,
                ranges,
                limits,
                first=first,
                last=min(first + _BLOCK_RECORDS, len(table)),
                budget_s=_BLOCK_S,
                **options,
            )
        except OpsError as error:
            raise _with_cure(error) from error
        first += len(block["chip_counts"])
        progress.tell(first, len(block["levels"]))
        yield block


def _with_cure(error: OpsError) -> OpsError:
    """What to change when an image gives more candidate chips than can be counted."""
    if "number of candidate chips" not in str(error):
        return error
    return OpsError(
        "an image is too large for the chips of one of its levels",
        where="TRAIN.SCALES, TRAIN.CHIP_SIZE",
        got=str(error).replace(": use a larger stride", ""),
        fix="take a larger TRAIN.CHIP_SIZE or smaller TRAIN.SCALES (sniper suggest-scales "
        "proposes both), or cut the image into tiles",
    )


def _statistics(
    blocks: Sequence[dict[str, Any]],
    chips: ChipTable,
    fates: np.ndarray,
    num_levels: int,
    num_samples: int,
    stride: int,
) -> EpochStats:
    # The columns are the fields of `LevelStats`.
    counts = sum((block["level_counts"] for block in blocks), np.zeros((num_levels, 8), np.int64))
    by_fate = np.bincount(fates, minlength=len(GtFate)).tolist()
    return EpochStats(
        levels=tuple(LevelStats(*row) for row in counts.tolist()),
        records=len(chips),
        records_without_chips=int(np.count_nonzero(np.diff(chips.offsets) == 0)),
        chips=chips.num_chips,
        samples=num_samples,
        stride=stride,
        negative_candidates=sum(block["negative_candidates"] for block in blocks),
        gt=len(fates),
        gt_covered=by_fate[GtFate.COVERED],
        gt_uncovered={fate: by_fate[fate] for fate in GtFate if fate != GtFate.COVERED},
        most_gt=int(chips.num_gt.max(initial=0)),
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
            logger.info(
                "chips: %d of %d images, %d chips so far, %d MiB of memory in use",
                done,
                self.total,
                self.num_chips,
                _resident_mib(),
            )


def _resident_mib() -> int:
    """Memory of this process that is in use; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * resource.getpagesize() >> 20


def _repeats(table: BoxTable, settings: ChipSettings, seed: int, epoch: int) -> np.ndarray | None:
    """(R,) how often the chips of each record stand in the epoch; None: once."""
    if not settings.class_balance:
        return None
    factors = repeat_factors(table, settings.class_balance)
    rng = np.random.default_rng(int(stream_seeds(seed, epoch, REPEATS)))
    return np.floor(factors + rng.random(len(factors))).astype(np.int64)


def training_order(
    counts: np.ndarray,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    window: int = 0,
    repeats: np.ndarray | None = None,
) -> np.ndarray:
    """Every chip once, padded to a multiple of the batch size, in random order.

    The padding is drawn from all chips alike, without replacement where there are enough of them.

    With a window the records, in random order, are cut into groups of `window` records; the samples
    of a group (padding included) stand together, in random order. An image is then read once while
    its group is trained instead of once per chip. Every epoch has new groups, every chip still
    occurs once, and every place of the epoch is equally likely for every record, so the expected
    gradient of a batch is that of the full shuffle. What grows is its variance: with k chips a
    record and B samples a batch, about B (B - 1) / 2 * (k - 1) / (window * k) pairs of a batch show
    the same image, which is one pair in ten batches for B = 16, k = 5 and window = 1000, and one in
    some thousand batches for the full shuffle of a large data set. Keep the window well above the
    batch size.

    Args:
        counts: (R,) number of chips of each record.
        seed: any whole number; with `epoch` it decides the order.
        epoch: number of the epoch.
        batch_size: samples of a batch.
        window: records whose chips are shuffled together; 0: all of them (2018 behaviour).
        repeats: (R,) how often all chips of each record occur; None: once.

    Returns:
        (S, 2) int32 rows of (record index, chip index); S = 0 without chips.
    """
    turns = np.arange(len(counts))
    if repeats is not None:
        turns = np.repeat(turns, repeats)
    of_turn = counts[turns]
    total = int(of_turn.sum())
    record = np.repeat(turns, of_turn)
    chip = np.arange(total) - np.repeat(np.cumsum(of_turn) - of_turn, of_turn)
    samples = np.stack([record, chip], axis=1).astype(np.int32)
    if not total:
        return samples
    rng = np.random.default_rng(int(stream_seeds(seed, epoch, ORDER)))
    surplus = math.ceil(total / batch_size) * batch_size - total
    padding = rng.choice(total, surplus, replace=surplus > total)
    samples = rng.permutation(np.concatenate([samples, samples[padding]]))
    if window:
        # A stable sort keeps the random order within each group.
        group = rng.permutation(len(counts)) // window
        samples = samples[np.argsort(group[samples[:, 0]], kind="stable")]
    return samples
