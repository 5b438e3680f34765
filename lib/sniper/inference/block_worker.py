"""A worker process of a test run: `python -m sniper.inference.block_worker FD PARENT`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

from sniper.errors import SniperError

# Messages to the parent begin with one of these.
READY, STEP, DONE, FAILED = "ready", "step", "done", "failed"

_POLL_S = 0.5
_STEP_EVERY_S = 1.0


def main(argv: Sequence[str]) -> int:
    """Receives the work, then numbers of blocks; answers when each is on disk.

    Args:
        argv: the socket to the parent, and the parent's process id.
    """
    descriptor, parent = map(int, argv)
    # Ctrl-C reaches the whole process group; only the parent shall act on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    pipe = Connection(descriptor)
    try:
        pipe.send((READY,))
        work = pipe.recv()
        failure = _attempt(lambda: _work_on(work, pipe))
        if failure is not None:
            pipe.send((FAILED, failure))
    except (EOFError, OSError):
        return 1  # the parent is gone
    return 0


def _work_on(work: object, pipe: Connection) -> None:
    _start_logging()
    run = work.open()
    pipe.send((DONE, None))
    while (number := pipe.recv()) is not None:
        run(number, _Steps(pipe, number))
        pipe.send((DONE, number))


def _start_logging() -> None:
    """Warnings only: what else there is to say, the parent says once for all workers."""
    import logging

    from sniper.process import start_logging

    start_logging(level=logging.WARNING)


class _Steps:
    """Tells the parent now and then how far a block has got."""

    def __init__(self, pipe: Connection, number: int) -> None:
        self._pipe, self._number = pipe, number
        self._last_s = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._last_s >= _STEP_EVERY_S:
            self._last_s = time.monotonic()
            self._pipe.send((STEP, self._number, what, done, total))


def _attempt(function: Callable[[], None]) -> SniperError | str | None:
    """Calls a function; what went wrong, or None."""
    try:
        function()
    except SniperError as error:
        return error
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise  # the parent is gone
    except Exception:  # noqa: BLE001 (the parent raises it)
        return traceback.format_exc(limit=-5)
    return None


def _end_with(parent: int) -> None:
    """Ends this process when the parent has ended, also in the middle of a block."""
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
