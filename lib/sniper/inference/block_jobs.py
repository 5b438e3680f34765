"""Blocks of a test run shared by several processes, each with networks of its own."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Protocol

from sniper.children import ChildKind, Children, attempt
from sniper.process import start_logging
from sniper.progress import BlockProgress, OnStep

STALL_TIMEOUT_S = 600.0

# Messages of a worker begin with one of these.
_READY, _STEP, _DONE, _FAILED = "ready", "step", "done", "failed"
_STEP_EVERY_S = 1.0

# The number of threads stays that of this process: oneDNN chooses kernels by it, whose last bits
# differ. So threads may outnumber cores, and those that wait must not keep the others from working.
_SHARED_CORES = {"OMP_WAIT_POLICY": "passive"}

_GO_ON = "the blocks that are done are kept: the same command goes on with them"
_KIND = ChildKind(
    "test job",
    if_died="SIGKILL usually means that memory ran out: use fewer jobs (TEST.CONCURRENT_JOBS) or "
    f"smaller batches (TEST.BATCH_IMAGES); {_GO_ON}",
    if_stalled=f"check that the disk with the images answers; {_GO_ON}",
    if_failed=_GO_ON,
)


class Work(Protocol):
    """Picklable work on numbered blocks."""

    def open(self) -> Callable[[int, OnStep], None]:
        """Prepares a process; returns what computes and stores the block of a number."""
        ...

    def images_of(self, number: int) -> str:
        """A block for messages."""
        ...


def run_in_processes(
    work: Work,
    numbers: Sequence[int],
    jobs: int,
    progress: BlockProgress,
    *,
    stall_timeout_s: float = STALL_TIMEOUT_S,
) -> None:
    """Has blocks computed by several processes.

    Args:
        work: what to do.
        numbers: of the blocks, in the order in which they are begun.
        jobs: most processes.
        progress: is told about all of them.
        stall_timeout_s: fails when no process says anything for so long.

    Raises:
        SniperError: as raised in a worker.
        TrainingError: a worker failed otherwise, died, or none answered in time. No process is
            left behind, whatever happens.
    """
    waiting, missing = deque(numbers), len(numbers)
    with Children(_KIND, stall_timeout_s) as workers:
        for _ in range(min(jobs, missing)):
            workers.spawn(serve_blocks, _SHARED_CORES)
        while missing:
            for worker, (message, *content) in workers.answers():
                if message == _READY:
                    workers.send(worker, work)
                elif message == _STEP:
                    progress.step(*content)
                elif message == _FAILED:
                    (failure,) = content
                    workers.fail(failure, "; ".join(worker.tasks.values()))
                elif message == _DONE:
                    for number in content:
                        del worker.tasks[number]
                        progress.finished(number)
                        missing -= 1
                    if waiting:
                        number = waiting.popleft()
                        worker.tasks[number] = work.images_of(number)
                        workers.send(worker, number)


def serve_blocks(pipe: Connection) -> None:
    """In a worker: receives the work, then numbers of blocks; answers when each is on disk."""
    # What else there is to say, the parent says once for all workers.
    start_logging(level=logging.WARNING)
    pipe.send((_READY,))
    work: Work = pipe.recv()
    _, failure = attempt(lambda: _work_on(work, pipe))
    if failure is not None:
        pipe.send((_FAILED, failure))


def _work_on(work: Work, pipe: Connection) -> None:
    run = work.open()
    pipe.send((_DONE,))
    while True:
        number = pipe.recv()
        run(number, _Steps(pipe, number))
        pipe.send((_DONE, number))


class _Steps:
    """Tells the parent now and then how far a block has got."""

    def __init__(self, pipe: Connection, number: int) -> None:
        self._pipe, self._number = pipe, number
        self._last_s = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._last_s >= _STEP_EVERY_S:
            self._last_s = time.monotonic()
            self._pipe.send((_STEP, self._number, what, done, total))
