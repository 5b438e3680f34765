"""Chips of the next epoch, made in the background while the running epoch trains."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from sniper.errors import TrainingError

Made = TypeVar("Made")
IsCancelled = Callable[[], bool]

# On Linux a thread has a priority of its own: training and loading come first.
_NICENESS = 10


class EpochsAhead(Generic[Made]):
    """Makes one epoch at a time in a thread; at most one is ahead of its use.

    Also the epoch that is needed now is made in the thread: so Ctrl-C interrupts the wait for it
    even while compiled code runs.

    Args:
        make: (epoch, whether it shall stop) -> the epoch; it should ask about once a second, and
            raise any exception when it shall stop.
    """

    def __init__(self, make: Callable[[int, IsCancelled], Made]) -> None:
        self._make = make
        self._job: _Job[Made] | None = None

    def prepare(self, epoch: int) -> None:
        """Begins with an epoch, at low priority, unless it is in work already."""
        if self._job is None or self._job.epoch != epoch:
            self._stop()
            self._job = _Job(self._make, epoch, in_background=True)

    def take(self, epoch: int) -> Made:
        """The epoch; waits until it is made. What was made for another epoch is dropped.

        Raises:
            Exception: whatever `make` raised.
        """
        if self._job is None or self._job.epoch != epoch:
            self._stop()
            self._job = _Job(self._make, epoch, in_background=False)
        job = self._job
        job.done.wait()
        self._job = None
        return job.result()

    def close(self, timeout_s: float = 2.0) -> None:
        """Has the thread stop and waits a little for it. Idempotent."""
        self._stop(timeout_s)

    def _stop(self, timeout_s: float | None = None) -> None:
        job, self._job = self._job, None
        if job is not None:
            job.cancelled.set()
            job.join(timeout_s)


class _Job(threading.Thread, Generic[Made]):
    """One epoch in work; a daemon, so that it never keeps the program from ending."""

    def __init__(
        self, make: Callable[[int, IsCancelled], Made], epoch: int, *, in_background: bool
    ) -> None:
        super().__init__(name=f"sniper-chips-{epoch}", daemon=True)
        self.epoch = epoch
        self.cancelled = threading.Event()
        self.done = threading.Event()
        self._make = make
        self._in_background = in_background
        self._made: list[Made] = []
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Makes the epoch, or keeps the exception for whoever asks for it."""
        try:
            if self._in_background:
                _lower_priority()
            self._made.append(self._make(self.epoch, self.cancelled.is_set))
        except BaseException as error:  # noqa: BLE001 (whoever asks for the result gets it)
            self._error = error
        finally:
            self.done.set()

    def result(self) -> Made:
        """What was made; once."""
        if self._error is not None:
            raise self._error
        if not self._made:
            raise TrainingError("the chips of this epoch were taken before", got=self.epoch)
        return self._made.pop()  # the only reference: an epoch is freed when its user drops it


def _lower_priority() -> None:
    """Lets all other threads go first; threads that compiled code starts from here inherit it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
