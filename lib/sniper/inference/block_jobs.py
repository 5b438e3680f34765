"""Worker processes that share the blocks of a test run, and their parent's watch over them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Protocol

import sniper
from sniper.errors import SniperError, TrainingError
from sniper.inference.block_worker import DONE, FAILED, READY, STEP
from sniper.loader.workers import limit_send
from sniper.process import exit_cause
from sniper.progress import BlockProgress, OnStep

_POLL_S = 1.0
STALL_TIMEOUT_S = 600.0

# The number of threads stays that of this process: oneDNN chooses kernels by it, whose last bits
# differ. So threads may outnumber cores, and those that wait must not keep the others from working.
_SHARED_CORES = {"OMP_WAIT_POLICY": "passive"}

_GO_ON = "the blocks that are done are kept: the same command goes on with them"


class Work(Protocol):
    """Picklable work on numbered blocks."""

    def open(self) -> Callable[[int, OnStep], None]:
        """Prepares a process; returns what computes and stores the block of a number."""

    def images_of(self, number: int) -> str:
        """A block for messages."""


@dataclass(eq=False)
class _Worker:
    """A worker process as its parent sees it."""

    process: subprocess.Popen
    pipe: Connection
    number: int | None = None  # of the block that it works on


def run_in_processes(
    work: Work,
    numbers: Sequence[int],
    jobs: int,
    progress: BlockProgress,
    *,
    stall_timeout_s: float = STALL_TIMEOUT_S,
) -> None:
    """Has blocks computed by several processes, each with networks of its own.

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
    workers: list[_Worker] = []
    try:
        for _ in range(min(jobs, len(numbers))):
            workers.append(_start(stall_timeout_s))
        _watch(work, deque(numbers), workers, progress, stall_timeout_s)
    finally:
        _stop(workers)


def _start(stall_timeout_s: float) -> _Worker:
    ours, theirs = socket.socketpair()
    package_root = str(Path(sniper.__file__).resolve().parents[1])
    paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    # A worker inherits the blocked signal until it can ignore it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "sniper.inference.block_worker",
                str(theirs.fileno()),
                str(os.getpid()),
            ],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**_SHARED_CORES, **os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        # The worker must hold the only copy: else its death would not end the connection.
        theirs.close()
    pipe = Connection(ours.detach())
    limit_send(pipe, stall_timeout_s)
    return _Worker(process, pipe)


def _watch(
    work: Work,
    waiting: deque[int],
    workers: Sequence[_Worker],
    progress: BlockProgress,
    stall_timeout_s: float,
) -> None:
    """Hands out blocks and takes in answers until all blocks are done."""
    missing = len(waiting)
    last_answer_s = time.monotonic()
    by_pipe = {worker.pipe: worker for worker in workers}
    while missing:
        for pipe in wait(list(by_pipe), min(_POLL_S, stall_timeout_s)):
            last_answer_s = time.monotonic()
            missing -= _take(work, waiting, by_pipe[pipe], progress)
        if time.monotonic() - last_answer_s > stall_timeout_s:
            raise TrainingError(
                f"no test job answered for {stall_timeout_s:g} s",
                where=_at_work(work, workers),
                fix=f"check that the disk with the images answers; {_GO_ON}",
            )


def _take(work: Work, waiting: deque[int], worker: _Worker, progress: BlockProgress) -> int:
    """Takes in one message and gives the worker something to do; how many blocks were finished."""
    try:
        kind, *content = worker.pipe.recv()
        if kind == READY:
            worker.pipe.send(work)
        elif kind == STEP:
            progress.step(*content)
        elif kind == FAILED:
            raise _failure(work, worker, *content)
        elif kind == DONE:
            worker.number = waiting.popleft() if waiting else None
            if worker.number is not None:
                worker.pipe.send(worker.number)
            (number,) = content
            if number is not None:
                progress.finished(number)
                return 1
    except (EOFError, OSError) as error:
        raise _death(work, worker) from error
    return 0


def _failure(work: Work, worker: _Worker, error: SniperError | str) -> SniperError:
    if isinstance(error, SniperError):
        return error
    return TrainingError("a test job failed", where=_at_work(work, [worker]), got=error, fix=_GO_ON)


def _death(work: Work, worker: _Worker) -> TrainingError:
    with suppress(subprocess.TimeoutExpired):
        worker.process.wait(_POLL_S)
    cause = exit_cause(worker.process.returncode)
    return TrainingError(
        f"a test job died: {cause}",
        where=_at_work(work, [worker]),
        fix="SIGKILL usually means that memory ran out: use fewer jobs (TEST.CONCURRENT_JOBS) or "
        f"smaller batches (TEST.BATCH_IMAGES); {_GO_ON}",
    )


def _at_work(work: Work, workers: Sequence[_Worker]) -> str:
    numbers = [worker.number for worker in workers if worker.number is not None]
    return "; ".join(map(work.images_of, numbers)) or "before its first block"


def _stop(workers: Sequence[_Worker]) -> None:
    """Ends the processes; what they have not written yet is computed anew by the next run."""
    for worker in workers:
        worker.process.terminate()
    deadline_s = time.monotonic() + _POLL_S
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        worker.pipe.close()
