"""From a list of chips to batches: tasks for the workers, compact samples back, float32 arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np

from sniper.chips.chip_table import Chip
from sniper.chips.streams import stream_seeds
from sniper.data.record import Record
from sniper.errors import TrainingError
from sniper.loader.batch_settings import BatchSettings
from sniper.loader.compact import Expander, compact_specs, empty_arrays
from sniper.loader.images import ImageCache, ImageUse, Router
from sniper.loader.sample import image_reduction, write_sample
from sniper.loader.workers import WorkerPool, row_of

# The chip `k` of a record.
ChipOf = Callable[[int, int], Chip]


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch. Its arrays stay valid until the batch after the next one is asked for.

    Attributes:
        data: arrays (n, ...) float32 that the network reads as data, in order.
        label: the same for labels.
        index: number of the batch in its epoch.
        image_paths: the image of each sample.
        surplus_gt: for each sample the number of boxes that had no room in its arrays.
    """

    data: dict[str, np.ndarray]
    label: dict[str, np.ndarray]
    index: int
    image_paths: list[str]
    surplus_gt: list[int]


@dataclass(frozen=True, eq=False)
class _Task:
    """What a worker must know to make one sample.

    The record is sent along, without its proposals: a worker that read it from the memory that the
    fork has copied would count its references there, and so copy all records page by page.
    """

    seed: int
    record: Record
    chip: Chip


class _SampleMaker:
    """Makes the sample of a task, in a worker or in this process."""

    def __init__(self, settings: BatchSettings, cache_bytes: int) -> None:
        self.settings = settings
        self.images = ImageCache(max_bytes=cache_bytes)

    def __call__(self, task: _Task, row: Mapping[str, np.ndarray]) -> int:
        return write_sample(task.record, task.chip, self.settings, task.seed, self.images, row)


class _OwnProcess:
    """Stands in for a `WorkerPool`: makes the samples when they are waited for."""

    def __init__(self, make: _SampleMaker, arrays: dict[str, np.ndarray]) -> None:
        self._make = make
        self._arrays = arrays
        self._tasks: list[_Task] = []
        self.processes: list[BaseProcess] = []

    def submit(
        self, slot: int, tasks: Sequence[Any], names: Sequence[str], shares: Sequence[Sequence[int]]
    ) -> None:
        self._tasks = list(tasks)

    def wait(self, slot: int) -> tuple[dict[str, np.ndarray], list[int]]:
        notes = [self._make(task, row_of(self._arrays, i)) for i, task in enumerate(self._tasks)]
        return self._arrays, notes

    def drain(self) -> None:
        pass

    def close(self) -> None:
        pass


class BatchStream:
    """Makes batches of given chips, some of them ahead, in worker processes.

    The content of a batch depends on the records, the chips, the seed, the epoch and the position
    of its samples alone. Workers are forked here: make it early.

    With a shard this is one of n streams, on n machines perhaps, that divide every batch among
    them: stream `rank` makes its rows [rank * B / n, (rank + 1) * B / n).

    Args:
        records: images with boxes.
        settings: what the arrays look like.
        batch_size: samples B of a batch, all shards together.
        num_workers: processes; 0 makes the batches in this process.
        seed: any whole number.
        shard: (rank, n), n divides B.
        prefetch: batches that are made ahead.
        cache_bytes: decoded images that all workers together keep; each keeps at least one.
        stall_timeout_s: waiting for a batch fails when no worker answered for so long.
    """

    def __init__(
        self,
        records: Sequence[Record],
        settings: BatchSettings,
        *,
        batch_size: int,
        num_workers: int,
        seed: int,
        shard: tuple[int, int] = (0, 1),
        prefetch: int = 4,
        cache_bytes: int = 512 << 20,
        stall_timeout_s: float = 120.0,
    ) -> None:
        self.records = records
        self.settings = settings
        self.batch_size = batch_size
        self.seed = seed
        rank, shards = shard
        self._rows = batch_size // shards
        self._offset = rank * self._rows
        self._expander = Expander(settings, self._rows)
        self._chip_of: ChipOf | None = None
        self._num_slots = prefetch if num_workers else 1
        share = cache_bytes // max(1, num_workers)
        self._router = Router(max(1, num_workers), share)
        make = _SampleMaker(settings, share)
        specs = compact_specs(settings)
        self._pool: WorkerPool | _OwnProcess
        if num_workers:
            self._pool = WorkerPool(
                make,
                specs,
                batch_size=self._rows,
                num_slots=self._num_slots,
                num_workers=num_workers,
                stall_timeout_s=stall_timeout_s,
            )
        else:
            self._pool = _OwnProcess(make, empty_arrays(specs, self._rows))
        self.stop()

    def start(self, chip_of: ChipOf, samples: np.ndarray, epoch: int, first: int = 0) -> None:
        """Begins with the batches of an epoch; a running one is given up.

        Args:
            chip_of: (record, k) -> the chip; the rows of its proposals are not used.
            samples: (S, 2) int rows of (record, k); S is a multiple of the batch size.
            epoch: its number, for the random streams.
            first: the first batch to hand out.
        """
        self.stop()
        self._chip_of, self._samples, self._epoch = chip_of, samples, epoch
        self._next = self._submitted = first
        self._submit_ahead()

    def stop(self) -> None:
        """Gives up what runs, and lets go of the chips."""
        self._pool.drain()
        self._chip_of = None
        self._samples = np.zeros((0, 2), np.int32)
        self._epoch = self._next = self._submitted = 0

    def __len__(self) -> int:
        """Batches from the beginning of the epoch to its end."""
        return len(self._samples) // self.batch_size

    def __iter__(self) -> BatchStream:
        return self

    def __next__(self) -> Batch:
        index = self._next
        if index >= len(self):
            raise StopIteration
        compact, surplus = self._pool.wait(index % self._num_slots)
        # A copy in another form: so the slot can be filled again while the network trains.
        arrays = self._expander.expand(compact)
        self._next += 1
        self._submit_ahead()  # the slot is free again
        rows = self._samples[self._places(index), 0]
        return Batch(
            data={name: arrays[name] for name in self.settings.contract.data_names},
            label={name: arrays[name] for name in self.settings.contract.label_names},
            index=index,
            image_paths=[self.records[record].image_path for record in rows.tolist()],
            surplus_gt=surplus,
        )

    @property
    def processes(self) -> list[BaseProcess]:
        """The worker processes; none when batches are made in this process."""
        return self._pool.processes

    def close(self) -> None:
        """Ends the workers. Idempotent; batches that were handed out stay valid."""
        self._pool.close()

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _submit_ahead(self) -> None:
        """Has the workers begin with as many batches as there are free slots."""
        for index in range(self._submitted, min(self._next + self._num_slots, len(self))):
            tasks = self._tasks(index)
            names = [task.record.image_path for task in tasks]
            shares = self._router.divide([self._image_use(task) for task in tasks])
            self._pool.submit(index % self._num_slots, tasks, names, shares)
            self._submitted = index + 1

    def _tasks(self, index: int) -> list[_Task]:
        if self._chip_of is None:
            raise TrainingError("no epoch has been started", fix="call start first")
        places = self._places(index)
        rows = self._samples[places].tolist()
        # The position in the epoch, and not in the batch, chooses the stream of random numbers.
        seeds = stream_seeds(self.seed, self._epoch, places).tolist()
        return [
            _Task(seed, self._ground_truth(self.records[record]), self._chip_of(record, chip))
            for seed, (record, chip) in zip(seeds, rows)
        ]

    def _places(self, index: int) -> np.ndarray:
        """Where the samples of this stream's batch `index` stand in the epoch."""
        begin = index * self.batch_size + self._offset
        return np.arange(begin, begin + self._rows)

    def _ground_truth(self, record: Record) -> Record:
        """The record without what no sample needs: keeps messages short."""
        polygons = record.polygons if self.settings.contract.needs_polygons else None
        if record.num_gt == len(record.boxes) and polygons is record.polygons:
            return record
        return replace(
            record,
            boxes=record.gt_boxes,
            classes=record.gt_classes,
            is_gt=record.is_gt[: record.num_gt],
            polygons=polygons,
        )

    def _image_use(self, task: _Task) -> ImageUse:
        record = task.record
        pixels = record.width * record.height
        reduction = image_reduction(task.chip, self.settings)
        key = (record.image_path, reduction, record.frame)
        return ImageUse(key, 3 * pixels // reduction**2, pixels)
