"""Log file and pace of a run."""

from __future__ import annotations

import contextlib
import logging
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


def start_logging(log_path: Path | None = None, level: int = logging.INFO) -> None:
    """Messages from `level` on go to stderr and, with `log_path`, to a file as well."""
    root = logging.getLogger("sniper")
    root.setLevel(level)
    root.propagate = False
    # Called once per run: handlers of an earlier run in this process are replaced.
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log_path is not None:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(_LogFile(log_path, encoding="utf-8"))
    formatter = logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S")
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)


class _LogFile(logging.FileHandler):
    """A full disk ends the file with one message, not with a traceback for every line."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Says what is wrong and gives up."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        logging.getLogger("sniper").removeHandler(self)
        sys.stderr.write(f"{self.baseFilename} cannot be written any more: {error}\n")


@dataclass(frozen=True)
class Pace:
    """How a run gets on.

    Attributes:
        chips_per_s: chips (or images) trained in a second since the last reading.
        data_wait: share of that time spent waiting for data, 0 to 1.
        eta_s: seconds that the rest takes at the mean speed so far.
        memory_gb: peak memory of this process.
        gpu_memory_gb: memory in use on the fullest GPU; None on the CPU.
    """

    chips_per_s: float
    data_wait: float
    eta_s: float
    memory_gb: float
    gpu_memory_gb: float | None = None

    def __str__(self) -> str:
        gpu = "" if self.gpu_memory_gb is None else f", GPU {self.gpu_memory_gb:.1f} GB"
        return (
            f"{self.chips_per_s:.1f} chips/s, data wait {self.data_wait:.0%}, "
            f"ETA {format_time(self.eta_s)}, {self.memory_gb:.1f} GB{gpu}"
        )


class ProgressClock:
    """Speed, remaining time and the share of time spent waiting for data."""

    def __init__(self, gpu_memory_gb: Callable[[], float | None] = lambda: None) -> None:
        """`gpu_memory_gb` tells the memory in use on the fullest GPU."""
        self._gpu_memory_gb = gpu_memory_gb
        self._window_start = self._start = time.monotonic()
        self._window_steps = self._steps = 0
        self._window_wait = 0.0

    def step(self) -> None:
        """One step done."""
        self._steps += 1
        self._window_steps += 1

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Time that does not count: validation, writing checkpoints."""
        began = time.monotonic()
        try:
            yield
        finally:
            took = time.monotonic() - began
            self._start += took
            self._window_start += took

    def read(self, chips_per_step: int, waited_s: float, remaining_steps: int) -> Pace:
        """The pace since the last reading; starts a new window.

        Args:
            chips_per_step: chips (or images) in a step.
            waited_s: seconds spent waiting for data in this epoch.
            remaining_steps: steps to the end of the run.
        """
        now = time.monotonic()
        elapsed = max(now - self._window_start, 1e-9)
        if waited_s < self._window_wait:  # the loader counts anew in every epoch
            self._window_wait = 0.0
        pace = Pace(
            chips_per_s=self._window_steps * chips_per_step / elapsed,
            data_wait=min(max((waited_s - self._window_wait) / elapsed, 0.0), 1.0),
            eta_s=remaining_steps * (now - self._start) / max(self._steps, 1),
            memory_gb=peak_memory_gb(),
            gpu_memory_gb=self._gpu_memory_gb(),
        )
        self._window_start, self._window_steps, self._window_wait = now, 0, waited_s
        return pace


def format_time(seconds: float) -> str:
    """`1:02:03`."""
    seconds = round(seconds)
    return f"{seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"


def peak_memory_gb() -> float:
    """Peak resident memory of this process in GB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
