"""SIGTERM and Ctrl-C: the first one ends a run in good order, a second one at once.

Where Ctrl-C is ignored when a run starts (`command &` in a script, some CI runners) it stays
ignored, as in other programs: Ctrl-C in the foreground must not end what runs in the background.
SIGTERM ends a run in good order everywhere.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sniper.errors import TrainingError

logger = logging.getLogger(__name__)


class StopRequest:
    """Remembers that somebody wants the run to stop.

    Within `updates` a signal only sets `requested`: the loop finishes its update and saves.
    Elsewhere nothing would be lost, so it interrupts what runs at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self._updating = False
        self._signals: tuple[signal.Signals, ...] = ()

    @contextmanager
    def listen(self) -> Iterator[StopRequest]:
        """Takes over the signals; does nothing outside the main thread, which alone gets them."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        self._signals = _signals_to_take()
        before = {number: signal.signal(number, self._handle) for number in self._signals}
        try:
            yield self
        finally:
            for number, handler in before.items():
                # None: it was not set from Python.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @contextmanager
    def updates(self) -> Iterator[None]:
        """While the weights change."""
        self._updating = True
        try:
            yield
        finally:
            self._updating = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        # A second signal ends the process even inside compiled code.
        for each in self._signals:
            signal.signal(each, signal.SIG_DFL)
        name = signal.Signals(number).name
        if not self._updating:
            logger.warning("%s: stopping", name)
            raise KeyboardInterrupt
        logger.warning("%s: stopping after this update; once more quits at once", name)


def _signals_to_take() -> tuple[signal.Signals, ...]:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        return signal.SIGINT, signal.SIGTERM
    logger.info(
        "Ctrl-C is ignored, as it was when this process started; `kill %d` stops it in good order",
        os.getpid(),
    )
    return (signal.SIGTERM,)


def stopped(saved: object) -> TrainingError:
    """The error that ends a stopped run; `saved` names the checkpoint to go on from, if any."""
    if saved is None:
        return TrainingError("stopped before the first checkpoint", fix="start the run again")
    return TrainingError(
        "stopped as requested",
        where=saved,
        fix="the same command with --resume goes on from here",
    )
