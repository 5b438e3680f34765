"""Tells the launcher of a job that this process lives, and whether it gets on.

The launcher (`sniper launch`) gives a process the number of an open pipe. A line with the number of
steps done goes there every few seconds; a program that was not launched writes nothing.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator

PIPE_VARIABLE = "SNIPER_HEARTBEAT_FD"
INTERVAL_S = 2.0


class Heartbeat:
    """Writes the number of steps done to the launcher's pipe, in a thread of its own."""

    def __init__(self) -> None:
        text = os.environ.get(PIPE_VARIABLE, "")
        self._steps = 0
        self._excused_until_s = 0.0
        self._closed = threading.Event()
        if text.isdigit():
            pipe = int(text)
            threading.Thread(
                target=self._run, args=(pipe,), name="sniper-heartbeat", daemon=True
            ).start()

    def beat(self) -> None:
        """One step done."""
        self._steps += 1

    @contextlib.contextmanager
    def long_task(self, limit_s: float) -> Iterator[None]:
        """While this runs, time counts as progress, for `limit_s` at most."""
        self._excused_until_s = time.monotonic() + limit_s
        try:
            yield
        finally:
            self._excused_until_s = 0.0
            self.beat()

    def close(self) -> None:
        """Ends the thread; idempotent."""
        self._closed.set()

    def _run(self, pipe: int) -> None:
        # The launcher may be gone: then this process is ended from elsewhere.
        with contextlib.suppress(OSError):
            while not self._closed.wait(INTERVAL_S):
                if time.monotonic() < self._excused_until_s:
                    self.beat()
                os.write(pipe, f"{self._steps}\n".encode())
