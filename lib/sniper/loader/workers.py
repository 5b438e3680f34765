"""Worker processes that fill batches in shared memory.

The batches ("slots") lie in anonymous shared memory that was mapped before the workers were
forked: it has no name, so nothing can be left behind in /dev/shm. Tasks and answers are short
messages through one pipe per worker, so that a killed worker can hold no lock that others need.
"""

from __future__ import annotations

import gc
import mmap
import multiprocessing
import os
import selectors
import signal
import socket
import struct
import time
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import cv2
import numpy as np

from sniper.errors import ConfigError, SniperError, TrainingError
from sniper.process import exit_cause

_POLL_S = 1.0


@dataclass(eq=False)
class _Worker:
    """A worker process as its parent sees it."""

    process: BaseProcess
    pipe: Connection
    pending: dict[tuple[int, int], str]  # (slot, position) -> name of the task


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
        self.stall_timeout_s = stall_timeout_s
        self._slots = [shared_arrays(specs, batch_size) for _ in range(num_slots)]
        self._notes: list[list[Any]] = [[] for _ in range(num_slots)]
        self._missing = [0] * num_slots
        self._workers: list[_Worker] = []
        self._selector = selectors.PollSelector()
        self._finalizer = weakref.finalize(self, _stop, self._workers, self._selector, os.getpid())
        for index in range(num_workers):
            self._start(index, make)

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
                worker.pending.update(((slot, i), names[i]) for i in share)
                if share:
                    self._send(worker, [(slot, i, tasks[i]) for i in share])
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
        last_answer_s = time.monotonic()
        try:
            while self._missing[slot]:
                if self._receive():
                    last_answer_s = time.monotonic()
                elif time.monotonic() - last_answer_s > self.stall_timeout_s:
                    self._fail_stalled()
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
        self._finalizer()
        self._slots = []

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def processes(self) -> list[BaseProcess]:
        """The worker processes."""
        return [worker.process for worker in self._workers]

    def _start(self, index: int, make: MakeSample) -> None:
        context = multiprocessing.get_context("fork")
        parent_end, child_end = context.Pipe(duplex=True)
        limit_send(parent_end, self.stall_timeout_s)
        inherited = [*(worker.pipe for worker in self._workers), parent_end]
        process = context.Process(
            target=run_worker,
            args=(child_end, inherited, self._slots, make, os.getpid()),
            name=f"sniper-worker-{index}",
            daemon=True,
        )
        # Ctrl-C reaches the whole process group; only the parent shall act on it. Workers inherit
        # the blocked signal.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
            worker = _Worker(process, parent_end, {})
            self._workers.append(worker)
            self._selector.register(parent_end, selectors.EVENT_READ, worker)
            self._selector.register(process.sentinel, selectors.EVENT_READ, worker)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            # The worker must hold the only copy: else its death would not end the pipe.
            child_end.close()

    def _send(self, worker: _Worker, share: list[tuple[int, int, Any]]) -> None:
        try:
            worker.pipe.send(share)
        except BlockingIOError:
            self._fail_stalled()
        except OSError:
            self._fail_died(worker)

    def _receive(self) -> bool:
        """Takes in the answers that are there, or waits a moment for some; whether there were."""
        ready = self._selector.select(min(_POLL_S, self.stall_timeout_s))
        # Answers first: a worker that reported its failure before it ended knows the cause.
        pipes = [key.data for key, _ in ready if key.fileobj is key.data.pipe]
        for worker in pipes:
            try:
                self._take(worker, worker.pipe.recv())
            except (EOFError, OSError):
                self._fail_died(worker)
        if ready and not pipes:
            self._fail_died(ready[0][0].data)
        return bool(ready)

    def _take(
        self, worker: _Worker, answer: tuple[int, int, Any, SniperError | str | None]
    ) -> None:
        slot, position, note, error = answer
        name = worker.pending.pop((slot, position))
        if isinstance(error, SniperError):
            raise error
        if error is not None:
            raise TrainingError("a data worker failed", where=name, got=error)
        self._notes[slot][position] = note
        self._missing[slot] -= 1

    def _fail_died(self, worker: _Worker) -> None:
        worker.process.join(_POLL_S)
        cause = exit_cause(worker.process.exitcode)
        raise TrainingError(
            f"a data worker ({worker.process.name}) died while it made training samples: {cause}",
            where=_at_work([worker]),
            fix="SIGKILL usually means that memory ran out: use fewer workers "
            "(TRAIN.NUM_PROCESS) or smaller batches",
        )

    def _fail_stalled(self) -> None:
        raise TrainingError(
            f"no data worker answered for {self.stall_timeout_s:g} s",
            where=_at_work(self._workers),
            fix="check that the disk with the images answers",
        )

    def _check_open(self) -> None:
        if not self._finalizer.alive:
            raise TrainingError("the data workers are already closed")


def _at_work(workers: Sequence[_Worker]) -> str:
    """The tasks that the workers have probably been at: the oldest open one of each."""
    return ", ".join(next(iter(worker.pending.values()), "idle") for worker in workers)


def limit_send(pipe: Connection, seconds: float) -> None:
    """Lets `pipe.send` fail with BlockingIOError when the other end does not read for so long."""
    with socket.socket(fileno=os.dup(pipe.fileno())) as same:
        limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _stop(workers: list[_Worker], selector: selectors.BaseSelector, owner: int) -> None:
    """Ends worker processes; they hold nothing that would have to be saved."""
    if os.getpid() != owner:
        return  # a forked copy of the owner ends: the workers are not its own
    selector.close()
    for worker in workers:
        worker.process.terminate()
    deadline_s = time.monotonic() + _POLL_S
    for worker in workers:
        worker.process.join(max(0.0, deadline_s - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.process.close()
        worker.pipe.close()
    workers.clear()


# Makes one sample: (task, its row of the batch's arrays) -> note for the consumer.
MakeSample = Callable[[Any, Mapping[str, np.ndarray]], Any]


def shared_arrays(
    specs: Mapping[str, tuple[type, tuple[int, ...]]], batch_size: int
) -> dict[str, np.ndarray]:
    """Arrays (batch_size, *shape) in memory that forked processes share."""
    arrays = {}
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


def run_worker(
    pipe: Connection,
    inherited: Sequence[Connection],
    slots: Sequence[Mapping[str, np.ndarray]],
    make: MakeSample,
    parent: int,
) -> None:
    """Main loop of a worker: receives lists of (slot, position, task), answers one by one.

    Args:
        pipe: to the parent.
        inherited: ends of other pipes that the fork has copied; they are closed.
        slots: shared arrays of the batches.
        make: makes a sample.
        parent: process id; the worker ends when its parent is another one.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in inherited:
        other.close()
    gc.freeze()  # collections would touch, and so copy, the pages shared with the parent
    # 0 and not 1: 1 would join the threads of OpenCV's pool, which a fork does not copy.
    cv2.setNumThreads(0)
    try:
        while True:
            while not pipe.poll(_POLL_S):
                if os.getppid() != parent:
                    return
            for slot, position, task in pipe.recv():
                pipe.send((slot, position, *_attempt(make, task, row_of(slots[slot], position))))
    except (EOFError, OSError):
        return  # the parent is gone


def _attempt(
    make: MakeSample, task: Any, row: Mapping[str, np.ndarray]
) -> tuple[Any, SniperError | str | None]:
    """Makes one sample: (note, None) or (None, what went wrong)."""
    try:
        return make(task, row), None
    except SniperError as error:
        return None, error
    except Exception:  # noqa: BLE001 (the parent raises it)
        return None, traceback.format_exc(limit=-5)
