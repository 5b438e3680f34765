"""Training batches: records and chips in, NumPy arrays out."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess

from sniper.chips.box_table import BoxTable, box_table
from sniper.chips.chip_settings import ChipSettings
from sniper.chips.sampler import Epoch, make_epoch
from sniper.chips.stats import EpochStats
from sniper.data.record import Record
from sniper.errors import ConfigError, DataError, SniperError, TrainingError
from sniper.loader.batch_settings import BatchSettings
from sniper.loader.epochs import EpochsAhead, IsCancelled
from sniper.loader.sample import make_sample
from sniper.loader.stream import Batch, BatchStream

__all__ = ["Batch", "BatchSettings", "LoaderStats", "TrainLoader", "make_sample"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoaderStats:
    """Counts of the running epoch; with a shard the surplus is that of its own samples.

    Attributes:
        chips: what the chips consist of.
        surplus_gt: boxes that had no room in `gt_boxes`, in the batches handed out so far.
        chips_with_surplus: samples with such boxes.
    """

    chips: EpochStats
    surplus_gt: int
    chips_with_surplus: int


class TrainLoader:
    """Makes the batches of one epoch after the other.

    The content of a batch depends on the seed, the epoch and the position of its samples alone:
    not on the number of workers, nor on the batch an epoch was started with.

    Several training processes divide the batches with `shard`: each makes the same chips, and loads
    its own rows of every batch. All rows together, in the order of the ranks, are the batch of a
    single process with the same `batch_size`.

    Usage::

        with TrainLoader(..., end_epoch=end) as loader:
            for epoch in range(begin, end):
                loader.start_epoch(epoch)
                for batch in loader:
                    ...

    Make it early: workers are forked here, and forking is safest before MXNet starts threads.

    Args:
        records: images with boxes (and proposals, for negative chips).
        chip_settings: how chips are made.
        batch_settings: what the arrays look like.
        batch_size: samples of a batch, all devices of all training processes together.
        num_workers: processes; 0 makes the batches in this process.
        seed: any whole number.
        shard: (rank, count) of this training process; the batches have batch_size / count rows.
        end_epoch: while an epoch runs the chips of the next one are made in the background, unless
            it is this one; None: never.
        shuffle_window: records whose chips are shuffled together, see `make_epoch`; 0: all.
        image_cache_mb: decoded images that all workers together keep; each keeps at least one.
        prefetch: batches that are made ahead.
        stall_timeout_s: waiting for a batch fails when no worker answered for so long.

    Raises:
        ConfigError: a number is out of range, or the batch cannot be divided by the shards.
    """

    def __init__(
        self,
        records: Sequence[Record],
        chip_settings: ChipSettings,
        batch_settings: BatchSettings,
        *,
        batch_size: int,
        num_workers: int,
        seed: int,
        shard: tuple[int, int] = (0, 1),
        end_epoch: int | None = None,
        shuffle_window: int = 0,
        image_cache_mb: int = 512,
        prefetch: int = 4,
        stall_timeout_s: float = 120.0,
    ) -> None:
        if batch_size < 1 or num_workers < 0 or prefetch < 1 or image_cache_mb < 0:
            raise ConfigError(
                "batch size and prefetch must be positive, workers and image cache not negative",
                got=f"{batch_size}, {prefetch}, {num_workers}, {image_cache_mb}",
            )
        if chip_settings.chip_size != batch_settings.contract.chip_size:
            raise ConfigError(
                "chips and batches must have the same chip size",
                got=f"{chip_settings.chip_size} and {batch_settings.contract.chip_size}",
            )
        _check_shard(shard, batch_size)
        self.records = records
        self.chip_settings = chip_settings
        self.batch_settings = batch_settings
        self.batch_size = batch_size
        self.seed = seed
        self.end_epoch = end_epoch
        self.wait_time_s = 0.0
        self._epoch: Epoch | None = None
        self._epoch_number = 0
        self._surplus: list[int] = []
        self._closed = False
        # Not a method: a thread at work must not keep the loader from being collected.
        self._epochs = EpochsAhead(
            partial(
                _make_epoch, box_table(records), chip_settings, seed, batch_size, shuffle_window
            )
        )
        self._stream = BatchStream(
            records,
            batch_settings,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            shard=shard,
            prefetch=prefetch,
            cache_bytes=image_cache_mb << 20,
            stall_timeout_s=stall_timeout_s,
        )

    def start_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Makes the chips of an epoch, unless they are there, and starts on its batches.

        A running epoch is given up. `wait_time_s` and the statistics start anew.

        Args:
            epoch: number of the epoch.
            first_batch: first batch to be handed out: an interrupted epoch goes on exactly there.

        Raises:
            DataError: not a single chip can be made.
            ConfigError: the epoch has no such batch.
        """
        self._check_open()
        self._stream.stop()
        self._epoch = None
        chips = self._epochs.take(epoch)
        self._check_epoch(chips, first_batch)
        self._epoch, self._epoch_number = chips, epoch
        self._surplus = []
        self.wait_time_s = 0.0
        self._stream.start(chips.chips.chip, chips.samples, epoch, first_batch)
        if self.end_epoch is not None and epoch + 1 < self.end_epoch:
            self._epochs.prepare(epoch + 1)

    @property
    def batches_per_epoch(self) -> int:
        """Batches of the running epoch, also those before `first_batch`."""
        return len(self._running().samples) // self.batch_size

    @property
    def epoch(self) -> Epoch:
        """The running epoch: all its chips."""
        return self._running()

    @property
    def epoch_stats(self) -> LoaderStats:
        """Counts of the running epoch."""
        return LoaderStats(self._running().stats, sum(self._surplus), len(self._surplus))

    def __iter__(self) -> TrainLoader:
        return self

    def __next__(self) -> Batch:
        self._check_open()
        batches = self.batches_per_epoch
        start_s = time.monotonic()
        batch = next(self._stream)
        self.wait_time_s += time.monotonic() - start_s
        self._surplus += [surplus for surplus in batch.surplus_gt if surplus]
        if batch.index + 1 == batches:
            self._report_surplus()
        return batch

    @property
    def processes(self) -> list[BaseProcess]:
        """The worker processes; none when batches are made in this process."""
        return self._stream.processes

    def close(self) -> None:
        """Ends the workers and the background thread. Idempotent; batches stay valid."""
        self._closed = True
        self._stream.close()
        self._epochs.close()

    def __enter__(self) -> TrainLoader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _check_epoch(self, chips: Epoch, first_batch: int) -> None:
        if not len(chips.samples):
            raise DataError(
                "no chip can be made from these images",
                where=f"{len(self.records)} records",
                got=chips.stats.lines()[-1],
                fix="compare TRAIN.SCALES and TRAIN.VALID_RANGES with the sizes of the boxes",
            )
        batches = len(chips.samples) // self.batch_size
        if not 0 <= first_batch <= batches:
            raise ConfigError(
                "the epoch has no such batch", got=first_batch, expected=f"0 ... {batches}"
            )

    def _running(self) -> Epoch:
        if self._epoch is None:
            raise TrainingError("no epoch has been started", fix="call start_epoch first")
        return self._epoch

    def _check_open(self) -> None:
        if self._closed:
            raise TrainingError("the loader is already closed")

    def _report_surplus(self) -> None:
        """Says once per epoch that boxes were left out."""
        if self._surplus:
            logger.warning(
                "epoch %d: %d boxes in %d chips had no room in their batch (TRAIN.MAX_GT or "
                "MAX_CROWD is too small); boxes that the chip's level is responsible for were kept "
                "first",
                self._epoch_number,
                sum(self._surplus),
                len(self._surplus),
            )


def _check_shard(shard: tuple[int, int], batch_size: int) -> None:
    rank, count = shard
    if not 0 <= rank < count:
        raise ConfigError(
            "a shard is (rank, count) with 0 <= rank < count", where="TrainLoader", got=shard
        )
    if batch_size % count:
        raise ConfigError(
            "the chips of a batch cannot be divided evenly among the training processes",
            got=f"{batch_size} chips for {count} processes",
            fix="every process needs the same number of devices and the same TRAIN.BATCH_IMAGES",
        )


def _make_epoch(
    table: BoxTable,
    settings: ChipSettings,
    seed: int,
    batch_size: int,
    window: int,
    epoch: int,
    cancelled: IsCancelled,
) -> Epoch:
    try:
        return make_epoch(
            table,
            settings,
            seed=seed,
            epoch=epoch,
            batch_size=batch_size,
            window=window,
            gt_rows_only=True,
            cancelled=cancelled,
        )
    except SniperError:
        raise
    except Exception as error:
        raise TrainingError(
            "the chips of an epoch could not be made (stage: make chips)",
            where=f"epoch {epoch}",
            got=f"{type(error).__name__}: {error}",
        ) from error
