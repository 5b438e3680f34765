"""Lines that say how far a long preparation has come."""

from __future__ import annotations

import logging
import sys
import threading
import time
from types import TracebackType

logger = logging.getLogger(__name__)

EVERY_S = 10.0


class Progress:
    """Logs `what: done/total, peak memory` at most every 10 s; short jobs stay silent."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._last = time.monotonic()

    def tell(self, done: int) -> None:
        """Takes note of the number of finished items."""
        now = time.monotonic()
        if now - self._last < EVERY_S:
            return
        self._last = now
        logger.info("%s: %d/%d, peak memory %d MB", self._what, done, self._total, peak_memory_mb())


class Heartbeat:
    """Logs `what: still at it` every 10 s while one long call runs.

    The call must let other threads run now and then, as Python code does.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
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
        while not self._done.wait(EVERY_S):
            took = time.monotonic() - start
            logger.info("%s: %.0f s so far, peak memory %d MB", self._what, took, peak_memory_mb())


def peak_memory_mb() -> int:
    """Largest resident memory of this process so far, in MB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1 << 20 if sys.platform == "darwin" else 1 << 10)
