"""The one reporter of how far a long job is, and of what it costs."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType

logger = logging.getLogger(__name__)

# A line at least this often, so that slow and dead can be told apart.
EVERY_S = 5.0

# Called after each step with what is done, steps done, and steps in all.
OnStep = Callable[[str, int, int], None]


class Progress:
    """Logs `what: done/total, time each, time left, peak memory` at intervals.

    Short jobs stay silent.

    Args:
        what: what is counted.
        total: steps in all; None where nobody knows.
        before: steps that were done before this job began: they say nothing about its speed.
        started_s: when the first step began, on `time.monotonic`; now by default.
    """

    def __init__(
        self, what: str, total: int | None, *, before: int = 0, started_s: float | None = None
    ) -> None:
        self._what, self._total, self._before = what, total, before
        self._start_s = self._last_s = time.monotonic() if started_s is None else started_s

    def tell(self, done: int, detail: str = "", *, at_once: bool = False) -> None:
        """Takes note of the number of finished steps, those `before` included.

        Args:
            done: finished steps.
            detail: what else there is to say, behind the figures.
            at_once: say it now, however short ago the last line was.
        """
        now_s = time.monotonic()
        if not at_once and now_s - self._last_s < EVERY_S:
            return
        self._last_s = now_s
        of_all = "" if self._total is None else f"/{self._total}"
        parts = [f"{self._what}: {done}{of_all}"]
        if done > self._before:
            each_s = (now_s - self._start_s) / (done - self._before)
            parts.append(f"{each_s:.3f} s each")
            if self._total is not None:
                left_s = each_s * max(self._total - done, 0)
                parts.append(f"{format_time(left_s)} left")
        parts.append(f"peak memory {peak_memory_mb()} MB")
        logger.info("%s", ", ".join(parts) + (f"; {detail}" if detail else ""))


class StageProgress:
    """Progress of one stage after the other; an `OnStep`. The end of a stage is always told."""

    def __init__(self) -> None:
        self._what = ""
        self._progress: Progress | None = None
        self._seen_s = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Notes that `done` of `total` steps of `what` are done."""
        if self._progress is None or what != self._what:
            # A stage begins when the one before has ended, whether or not that was told.
            self._what, self._progress = what, Progress(what, total, started_s=self._seen_s)
        self._progress.tell(done, at_once=done == total > 1)
        self._seen_s = time.monotonic()


def silent(what: str, done: int, total: int) -> None:
    """An `OnStep` that says nothing."""


class BlockProgress:
    """How many images of several blocks are done, and what is being worked on.

    Args:
        images: number of images of each block that is to be done.
        before: images that are done already.
    """

    def __init__(self, images: Mapping[int, int], before: int = 0) -> None:
        self._images = images
        self.images_total = before + sum(images.values())
        self.images_done = before
        self._working: dict[int, str] = {}
        self._progress = Progress("images", self.images_total, before=before)

    def step(self, number: int, what: str, done: int, total: int) -> None:
        """A block has got so far with one of its stages."""
        self._working[number] = f"{what} {done}/{total}"
        self._tell()

    def finished(self, number: int) -> None:
        """A block is on disk."""
        self._working.pop(number, None)
        self.images_done += self._images[number]
        self._tell(at_once=self.images_done == self.images_total)

    def _tell(self, *, at_once: bool = False) -> None:
        working = (f"block {number + 1}: {text}" for number, text in sorted(self._working.items()))
        self._progress.tell(self.images_done, "; ".join(working), at_once=at_once)


class LongCall:
    """Logs `what: 5 s so far` at intervals while one long call runs.

    The call must let other threads run now and then, as Python code does.

    Args:
        what: what is done.
        every_s: between the lines; None: `EVERY_S`.
    """

    def __init__(self, what: str, every_s: float | None = None) -> None:
        self._what = what
        self._every_s = EVERY_S if every_s is None else every_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> LongCall:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _beat(self) -> None:
        start = time.monotonic()
        while not self._done.wait(self._every_s):
            took = time.monotonic() - start
            logger.info("%s: %.0f s so far, peak memory %d MB", self._what, took, peak_memory_mb())


def format_time(seconds: float) -> str:
    """`1:02:03`."""
    seconds = round(seconds)
    return f"{seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"


def peak_memory_mb() -> int:
    """Largest resident memory of this process so far, in MB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1 << 20 if sys.platform == "darwin" else 1 << 10)
