"""Worker processes that fill batches in shared memory.

The batches ("slots") lie in anonymous shared memory that was mapped before the workers were
forked: it has no name, so nothing can be left behind in /dev/shm. Tasks and answers are short
messages.
"""

from __future__ import annotations

import gc
import mmap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import cv2
import numpy as np

from sniper.children import Child, ChildKind, Children, Failure, attempt
from sniper.errors import ConfigError, TrainingError

# Makes one sample: (task, its row of the batch's arrays) -> note for the consumer.
MakeSample = Callable[[Any, Mapping[str, np.ndarray]], Any]

_KIND = ChildKind(
    "data worker",
    deed="while it made training samples",
    if_died="SIGKILL usually means that memory ran out: use fewer workers (TRAIN.NUM_PROCESS) or "
    "smaller batches",
    if_stalled="check that the disk with the images answers",
)


class WorkerPool:
    """Processes that make samples and write them into shared batches.

    Use it as a context manager, or call `close`; it also closes when it is collected or when the
    interpreter ends. Processes are forked: make the pool early, before other libraries start
    threads. One thread may use it.

    Args:
        make: (task, arrays of one sample) -> note for the consumer; runs in the workers and writes
            the sample into the arrays.
        specs: name, type and shape of the arrays of one sample.
        batch_size: samples of a slot.
        num_slots: batches that are in work or in use at the same time.
        num_workers: processes, at least one.
        stall_timeout_s: a wait for a batch fails when no worker answered for so long.

    Raises:
        ConfigError: a number is not positive.
    """

    def __init__(
        self,
        make: MakeSample,
        specs: dict[str, tuple[type, tuple[int, ...]]],
        *,
        batch_size: int,
        num_slots: int,
        num_workers: int,
        stall_timeout_s: float = 120.0,
    ) -> None:
        if min(batch_size, num_slots, num_workers, stall_timeout_s) <= 0:
            raise ConfigError(
                "batch size, slots, workers and timeout must be positive",
                got=f"{batch_size}, {num_slots}, {num_workers}, {stall_timeout_s}",
            )
        self._slots = [shared_arrays(specs, batch_size) for _ in range(num_slots)]
        self._notes: list[list[Any]] = [[] for _ in range(num_slots)]
        self._missing = [0] * num_slots
        self._workers = Children(_KIND, stall_timeout_s)
        for index in range(num_workers):
            serve = partial(_serve_samples, self._slots, make)
            self._workers.fork(f"sniper-worker-{index}", serve)

    def submit(
        self,
        slot: int,
        tasks: Sequence[Any],
        names: Sequence[str],
        shares: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Has the tasks of one batch made; task i becomes row i of the slot's arrays.

        Args:
            slot: a slot that is neither in work nor in use.
            tasks: at most `batch_size` picklable tasks.
            names: what each task is about, for messages.
            shares: for each worker the tasks (indices) that it gets, in order; all of them
                together are all tasks. None: in turn.

        Raises:
            TrainingError: a worker died or does not take the work.
        """
        self._check_open()
        if shares is None:
            count = len(self._workers)
            shares = [range(i, len(tasks), count) for i in range(count)]
        self._notes[slot] = [None] * len(tasks)
        self._missing[slot] = len(tasks)
        try:
            for worker, share in zip(self._workers, shares):
                worker.tasks.update(((slot, i), names[i]) for i in share)
                if share:
                    self._workers.send(worker, [(slot, i, tasks[i]) for i in share])
        except BaseException:
            self.close()
            raise

    def wait(self, slot: int) -> tuple[dict[str, np.ndarray], list[Any]]:
        """Waits until a submitted batch is complete.

        Returns:
            The slot's arrays, without a copy: they change when the slot is submitted again. And
            the notes of its samples.

        Raises:
            SniperError: as raised in a worker.
            TrainingError: a worker failed otherwise, died, or no worker answered in time. The pool
                is closed then.
        """
        self._check_open()
        try:
            while self._missing[slot]:
                for worker, answer in self._workers.answers():
                    self._take(worker, *answer)
        except BaseException:
            # Also after Ctrl-C: a message that was cut in two can not be read on.
            self.close()
            raise
        return self._slots[slot], self._notes[slot]

    def drain(self) -> None:
        """Waits until nothing is in work; raises as `wait` does."""
        for slot, missing in enumerate(self._missing):
            if missing:
                self.wait(slot)

    def close(self) -> None:
        """Ends all processes and frees the memory; arrays in use stay valid. Idempotent."""
        self._workers.close()
        self._slots = []

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def processes(self) -> list[BaseProcess]:
        """The worker processes."""
        processes = (worker.process for worker in self._workers)
        return [process for process in processes if isinstance(process, BaseProcess)]  # all forked

    def _take(
        self, worker: Child, slot: int, position: int, note: Any, failure: Failure | None
    ) -> None:
        name = worker.tasks.pop((slot, position))
        if failure is not None:
            self._workers.fail(failure, name)
        self._notes[slot][position] = note
        self._missing[slot] -= 1

    def _check_open(self) -> None:
        if not self._workers.is_open:
            raise TrainingError("the data workers are already closed")


def shared_arrays(
    specs: Mapping[str, tuple[type, tuple[int, ...]]], batch_size: int
) -> dict[str, np.ndarray]:
    """Arrays (batch_size, *shape) in memory that forked processes share."""
    arrays: dict[str, np.ndarray] = {}
    for name, (kind, shape) in specs.items():
        full = (batch_size, *shape)
        count = int(np.prod(full))
        # MAP_SHARED | MAP_ANONYMOUS is the default; the arrays keep the mapping alive.
        memory = mmap.mmap(-1, max(1, count * np.dtype(kind).itemsize))
        arrays[name] = np.frombuffer(memory, kind, count).reshape(full)
    return arrays


def row_of(arrays: Mapping[str, np.ndarray], position: int) -> dict[str, np.ndarray]:
    """Views of one sample of a batch; the dots make a view of a single number too."""
    return {name: array[position, ...] for name, array in arrays.items()}


def _serve_samples(
    slots: Sequence[Mapping[str, np.ndarray]], make: MakeSample, pipe: Connection
) -> None:
    """In a worker: receives lists of (slot, position, task), answers one by one."""
    gc.freeze()  # collections would touch, and so copy, the pages shared with the parent
    # 0 and not 1: 1 would join the threads of OpenCV's pool, which a fork does not copy.
    cv2.setNumThreads(0)
    while True:
        for slot, position, task in pipe.recv():
            row = row_of(slots[slot], position)
            pipe.send((slot, position, *attempt(partial(make, task, row))))
