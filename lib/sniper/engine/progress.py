"""Log file, JSON lines and the progress line of a run."""

from __future__ import annotations

import contextlib
import json
import logging
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path


def start_logging(log_path: Path | None = None) -> None:
    """Messages go to stderr and, with `log_path`, to a file as well."""
    root = logging.getLogger("sniper")
    root.setLevel(logging.INFO)
    root.propagate = False
    # Called once per run: handlers of an earlier run in this process are replaced.
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log_path is not None:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log_path, encoding="utf-8"))
    formatter = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)


class JsonLines:
    """Appends one JSON object per line; a reader can follow the run while it goes on."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a", encoding="utf-8", buffering=1)

    def write(self, values: Mapping[str, object]) -> None:
        """Writes one line; a full disk stops the log, not the run."""
        with contextlib.suppress(OSError):
            self._file.write(json.dumps(values) + "\n")

    def close(self) -> None:
        """Closes the file."""
        with contextlib.suppress(OSError):
            self._file.close()


class ProgressClock:
    """Speed, remaining time and the share of time spent waiting for data."""

    def __init__(self, total_steps: int) -> None:
        self._total_steps = total_steps
        self._window_start = self._start = time.monotonic()
        self._window_steps = self._steps = 0
        self._window_wait = 0.0

    def step(self) -> None:
        """One step done."""
        self._steps += 1
        self._window_steps += 1

    def read(self, samples_per_step: int, waited_s: float) -> str:
        """`12.3 chips/s, data wait 1 %, ETA 0:04:10, 1.2 GB`; starts a new window.

        Args:
            samples_per_step: chips (or images) in a step.
            waited_s: seconds spent waiting for data in this epoch.
        """
        now = time.monotonic()
        elapsed = max(now - self._window_start, 1e-9)
        speed = self._window_steps * samples_per_step / elapsed
        if waited_s < self._window_wait:  # the loader counts anew in every epoch
            self._window_wait = 0.0
        wait = 100 * (waited_s - self._window_wait) / elapsed
        remaining = (self._total_steps - self._steps) * (now - self._start) / max(self._steps, 1)
        self._window_start, self._window_steps, self._window_wait = now, 0, waited_s
        return (
            f"{speed:.1f} chips/s, data wait {wait:.0f} %, ETA {format_time(remaining)}, "
            f"{peak_memory_gb():.1f} GB"
        )


def format_time(seconds: float) -> str:
    """`1:02:03`."""
    seconds = round(seconds)
    return f"{seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"


def peak_memory_gb() -> float:
    """Peak resident memory of this process in GB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
