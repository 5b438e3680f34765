"""Progress lines of long detections."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

# A line at least this often, so that slow and dead can be told apart.
EVERY_S = 5.0

# Called after each step with what is done, steps done, and steps in all.
OnStep = Callable[[str, int, int], None]


class ProgressLog:
    """Logs steps done, speed and remaining time of one thing after the other."""

    def __init__(self) -> None:
        self._what = ""
        self._start_s = self._last_s = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Notes that `done` of `total` steps of `what` are done."""
        now_s = time.monotonic()
        if what != self._what:
            self._what, self._start_s, self._last_s = what, self._last_s, self._last_s
        if now_s - self._last_s < EVERY_S and not (done == total and total > 1):
            return
        each_s = (now_s - self._start_s) / done
        logger.info(
            "%s: %d/%d, %.3f s each, %.0f s left",
            what,
            done,
            total,
            each_s,
            each_s * (total - done),
        )
        self._last_s = now_s


def silent(what: str, done: int, total: int) -> None:
    """Says nothing."""
