"""Images of a generated set in several processes."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import cv2

from sniper.errors import TrainingError
from sniper.process import usable_cores

_CHUNK = 8  # images per task of the process pool
_PROGRESS_PERIOD_S = 5.0
Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int | None
) -> Iterator[Result]:
    """Maps `work` over the jobs, in order, in spawned processes or here when there is one.

    Args:
        work: can be pickled.
        jobs: its arguments.
        workers: processes; all usable cores when None. Few jobs take fewer.

    Raises:
        TrainingError: a worker process died.
    """
    wanted = usable_cores() if workers is None else workers
    wanted = max(1, min(wanted, len(jobs) // _CHUNK))
    if wanted == 1:
        yield from map(work, jobs)
        return
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(wanted, context, _one_thread) as pool:
            yield from pool.map(work, jobs, chunksize=_CHUNK)
    except BrokenProcessPool as error:
        raise TrainingError(
            "a worker process of make-toy-data died",
            got=error,
            fix="use fewer --workers when memory is short; calling again starts over",
        ) from error


def _one_thread() -> None:
    cv2.setNumThreads(1)


def told(
    results: Iterable[Result], total: int, progress: Callable[[str], None]
) -> Iterator[Result]:
    """The results, with a line of how many there are, one every 5 s at most."""
    last = time.monotonic()
    for done, result in enumerate(results, start=1):
        yield result
        if time.monotonic() - last >= _PROGRESS_PERIOD_S:
            progress(f"{done} of {total} images")
            last = time.monotonic()
