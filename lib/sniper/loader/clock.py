"""How long the stages of a run take."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator


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
