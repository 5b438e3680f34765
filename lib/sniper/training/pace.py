"""How a run gets on: speed, waiting for data, remaining time, memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sniper.progress import format_time, peak_memory_mb


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

    def seconds_left(self, remaining_steps: int) -> float:
        """What the rest takes at the mean speed so far."""
        return remaining_steps * (time.monotonic() - self._start) / max(self._steps, 1)

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
            eta_s=self.seconds_left(remaining_steps),
            memory_gb=peak_memory_mb() * (1 << 20) / 1e9,
            gpu_memory_gb=self._gpu_memory_gb(),
        )
        self._window_start, self._window_steps, self._window_wait = now, 0, waited_s
        return pace
