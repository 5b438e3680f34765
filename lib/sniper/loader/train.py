"""Training batches: records and chips in, NumPy arrays out."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

import numpy as np

from sniper.chips.chip import Chip
from sniper.chips.sampler import ChipSettings, Epoch, make_epoch
from sniper.chips.stats import EpochStats
from sniper.chips.streams import stream_seeds
from sniper.data.record import Record
from sniper.errors import ConfigError, DataError, TrainingError
from sniper.loader.images import ImageCache
from sniper.loader.sample import BatchSettings, build_sample, make_sample
from sniper.loader.workers import WorkerPool

__all__ = ["Batch", "BatchSettings", "LoaderStats", "TrainLoader", "make_sample"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch. Its arrays stay valid until the next batch is asked for; copy them to keep them.

    Attributes:
        data: arrays (n, ...) float32 that the network reads as data, in order.
        label: the same for labels.
        index: number of the batch in its epoch.
        image_paths: the image of each sample.
    """

    data: dict[str, np.ndarray]
    label: dict[str, np.ndarray]
    index: int
    image_paths: list[str]


@dataclass(frozen=True)
class LoaderStats:
    """Counts of the running epoch.

    Attributes:
        chips: what the chips consist of.
        surplus_gt: boxes that had no room in `gt_boxes`, in the batches handed out so far.
        chips_with_surplus: samples with such boxes.
    """

    chips: EpochStats
    surplus_gt: int
    chips_with_surplus: int


@dataclass(frozen=True, eq=False)
class _Task:
    """What a worker must know to make one sample; the records it has since it was forked."""

    epoch: int
    position: int
    record: int
    chip: Chip


class _SampleMaker:
    """Makes the sample of a task, in a worker or in this process."""

    def __init__(self, records: Sequence[Record], settings: BatchSettings, seed: int) -> None:
        self.records = records
        self.settings = settings
        self.seed = seed
        self.images = ImageCache()

    def __call__(self, task: _Task) -> tuple[dict[str, np.ndarray], int]:
        rng = np.random.default_rng(int(stream_seeds(self.seed, task.epoch, task.position)))
        record = self.records[task.record]
        return build_sample(record, task.chip, self.settings, rng, self.images)


class TrainLoader:
    """Makes the batches of one epoch after the other.

    The content of a batch depends on the seed, the epoch and the position of its samples alone:
    not on the number of workers, nor on the batch an epoch was started with.

    Usage::

        with TrainLoader(...) as loader:
            for epoch in range(begin, end):
                loader.start_epoch(epoch)
                for batch in loader:
                    ...

    Make it early: workers are forked here, and forking is safest before MXNet starts threads.

    Args:
        records: images with boxes (and proposals, for negative chips).
        chip_settings: how chips are made.
        batch_settings: what the arrays look like.
        batch_size: samples of a batch, all devices together.
        num_workers: processes; 0 makes the batches in this process.
        seed: any whole number.
        prefetch: batches that are made ahead.
        stall_timeout_s: waiting for a batch fails when no worker answered for so long.

    Raises:
        ConfigError: a number is out of range.
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
        prefetch: int = 2,
        stall_timeout_s: float = 120.0,
    ) -> None:
        if batch_size < 1 or num_workers < 0 or prefetch < 1:
            raise ConfigError(
                "batch size and prefetch must be positive, the number of workers not negative",
                got=f"{batch_size}, {prefetch}, {num_workers}",
            )
        if chip_settings.chip_size != batch_settings.chip_size:
            raise ConfigError(
                "chips and batches must have the same chip size",
                got=f"{chip_settings.chip_size} and {batch_settings.chip_size}",
            )
        self.records = records
        self.chip_settings = chip_settings
        self.batch_settings = batch_settings
        self.batch_size = batch_size
        self.seed = seed
        self.wait_time_s = 0.0
        self._epoch: Epoch | None = None
        self._epoch_number = 0
        self._next = 0
        self._submitted = 0
        self._surplus: list[int] = []
        self._make = _SampleMaker(records, batch_settings, seed)
        shapes = batch_settings.shapes
        self._pool: WorkerPool | None = None
        self._num_slots = prefetch + 1
        self._closed = False
        if num_workers:
            self._pool = WorkerPool(
                self._make,
                shapes,
                batch_size=batch_size,
                num_slots=self._num_slots,
                num_workers=num_workers,
                stall_timeout_s=stall_timeout_s,
            )
        else:
            self._arrays = {
                name: np.zeros((batch_size, *shape), np.float32) for name, shape in shapes.items()
            }

    def start_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Makes the chips of an epoch and starts on its batches.

        A running epoch is given up. `wait_time_s` and the statistics start anew.

        Args:
            epoch: number of the epoch.
            start_batch: first batch to be handed out: an interrupted epoch goes on exactly there.

        Raises:
            DataError: not a single chip can be made.
            ConfigError: the epoch has no such batch.
        """
        self._check_open()
        if self._pool is not None:
            self._pool.drain()
        self._epoch = None
        made = make_epoch(
            self.records,
            self.chip_settings,
            seed=self.seed,
            epoch=epoch,
            batch_size=self.batch_size,
        )
        if not len(made.samples):
            raise DataError(
                "no chip can be made from these images",
                where=f"{len(self.records)} records",
                got=made.stats.lines()[-1],
                fix="compare TRAIN.SCALES and TRAIN.VALID_RANGES with the sizes of the boxes",
            )
        batches = len(made.samples) // self.batch_size
        if not 0 <= start_batch <= batches:
            raise ConfigError(
                "the epoch has no such batch", got=start_batch, expected=f"0 ... {batches}"
            )
        self._epoch, self._epoch_number, self._next = made, epoch, start_batch
        self._surplus = []
        self.wait_time_s = 0.0
        self._submitted = start_batch
        self._submit(start_batch + self._num_slots)

    @property
    def batches_per_epoch(self) -> int:
        """Batches of the running epoch, also those before `start_batch`."""
        return len(self._running().samples) // self.batch_size

    @property
    def epoch_stats(self) -> LoaderStats:
        """Counts of the running epoch."""
        return LoaderStats(self._running().stats, sum(self._surplus), len(self._surplus))

    def __iter__(self) -> TrainLoader:
        return self

    def __next__(self) -> Batch:
        self._check_open()
        index = self._next
        if index >= self.batches_per_epoch:
            raise StopIteration
        start_s = time.monotonic()
        arrays, notes = self._collect(index)
        self.wait_time_s += time.monotonic() - start_s
        self._surplus += [note for note in notes if note]
        self._next += 1
        if self._next == self.batches_per_epoch:
            self._report_surplus()
        return Batch(
            data={name: arrays[name] for name in self.batch_settings.data_names},
            label={name: arrays[name] for name in self.batch_settings.label_names},
            index=index,
            image_paths=[self.records[task.record].image_path for task in self._tasks(index)],
        )

    @property
    def processes(self) -> list[BaseProcess]:
        """The worker processes; none when batches are made in this process."""
        return [] if self._pool is None else self._pool.processes

    def close(self) -> None:
        """Ends the workers. Idempotent; arrays that were handed out stay valid."""
        self._closed = True
        if self._pool is not None:
            self._pool.close()

    def __enter__(self) -> TrainLoader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _running(self) -> Epoch:
        if self._epoch is None:
            raise TrainingError("no epoch has been started", fix="call start_epoch first")
        return self._epoch

    def _check_open(self) -> None:
        if self._closed:
            raise TrainingError("the loader is already closed")

    def _collect(self, index: int) -> tuple[dict[str, np.ndarray], list[int]]:
        """Arrays of a batch, and for each sample the number of boxes without room."""
        if self._pool is None:
            return self._arrays, self._fill(index)
        # The batch that was handed out before is no longer in use: its slot is free again.
        self._submit(index + self._num_slots)
        return self._pool.wait(index % self._num_slots)

    def _submit(self, end: int) -> None:
        """Has the workers begin with all batches before `end`."""
        if self._pool is None:
            return
        for index in range(self._submitted, min(end, self.batches_per_epoch)):
            tasks = self._tasks(index)
            names = [self.records[task.record].image_path for task in tasks]
            self._pool.submit(index % self._num_slots, tasks, names)
            self._submitted = index + 1

    def _tasks(self, index: int) -> list[_Task]:
        epoch = self._running()
        start = index * self.batch_size
        pairs = epoch.samples[start : start + self.batch_size].tolist()
        return [
            _Task(self._epoch_number, start + i, record, self._without_proposals(record, chip))
            for i, (record, chip) in enumerate(pairs)
        ]

    def _without_proposals(self, record: int, chip: int) -> Chip:
        """A chip without the rows of proposals, which no sample needs: keeps messages short."""
        full = self._running().chips[record][chip]
        return dataclasses.replace(full, rows=full.rows[self.records[record].is_gt[full.rows]])

    def _fill(self, index: int) -> list[int]:
        """Makes a batch in this process."""
        notes = []
        for position, task in enumerate(self._tasks(index)):
            sample, note = self._make(task)
            for name, array in self._arrays.items():
                array[position] = sample[name]
            notes.append(note)
        return notes

    def _report_surplus(self) -> None:
        """Says once per epoch that boxes were left out."""
        if self._surplus:
            logger.warning(
                "epoch %d: %d boxes in %d chips had no room beyond %d (TRAIN.MAX_GT); boxes that "
                "the chip's level is responsible for were kept first",
                self._epoch_number,
                sum(self._surplus),
                len(self._surplus),
                self.batch_settings.max_gt,
            )
