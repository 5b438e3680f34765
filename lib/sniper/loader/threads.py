"""A few threads that work off jobs and never keep the program from ending."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from sniper.process import HomeProcess


class DaemonThreads:
    """Like `concurrent.futures.ThreadPoolExecutor`, but no end of it waits for a stuck job.

    The executor of the standard library joins its threads when the interpreter ends: one read
    from a disk that does not answer would keep the process for ever.

    Args:
        count: number of threads.
        name: prefix of their names.
    """

    def __init__(self, count: int, name: str) -> None:
        self._home = HomeProcess()
        self._jobs: queue.SimpleQueue[tuple[Future, Callable[[], Any]] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=_work, args=(self._jobs,), name=f"{name}-{i}", daemon=True)
            for i in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Callable[[], Any]) -> Future:
        """Has a job done; its result or its exception will be in the future.

        Raises:
            TrainingError: this is a forked copy of the process that has made the threads.
        """
        self._home.check()
        future: Future = Future()
        self._jobs.put((future, job))
        return future

    def close(self, timeout_s: float = 5.0) -> None:
        """Cancels the jobs that have not begun and waits a little for the others. Idempotent."""
        try:
            while True:
                item = self._jobs.get_nowait()
                if item is not None:
                    item[0].cancel()
        except queue.Empty:
            pass
        for _ in self._threads:
            self._jobs.put(None)
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))


def _work(jobs: queue.SimpleQueue[tuple[Future, Callable[[], Any]] | None]) -> None:
    # No reference to the owner: it can be collected, and its threads end with it.
    while True:
        item = jobs.get()
        if item is None:
            return
        future, job = item
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(job())
            except BaseException as error:  # noqa: BLE001 (whoever asks for the result gets it)
                future.set_exception(error)
        del item, future, job  # else the last batch would stay in memory until the next job


class StageClock:
    """Adds up the seconds that threads spend in named stages; threads may share it.

    Stages that run at the same time add up to more than the time that passes.
    """

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Adds the time of the `with` block to a stage."""
        started_s = time.perf_counter()
        try:
            yield
        finally:
            took_s = time.perf_counter() - started_s
            with self._lock:
                self._seconds[stage] += took_s

    def seconds(self) -> dict[str, float]:
        """Seconds of every stage so far."""
        with self._lock:
            return dict(self._seconds)
