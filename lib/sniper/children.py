"""Child processes that work for this one: started, heard, watched and ended in one place.

Every child answers through a pipe of its own, so that a killed one can hold no lock that others
need. Whatever happens, no child is left behind: the parent ends its children when it closes them,
fails, or is interrupted, and a child whose parent has been killed ends itself.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn, TypeVar, Union

from sniper.errors import SniperError, TrainingError

Value = TypeVar("Value")
# What a child does: receives and sends messages until it is done.
Serve = Callable[[Connection], None]
# What went wrong in a child: an error for the user, or the end of a traceback.
Failure = Union[SniperError, str]

_POLL_S = 1.0
# Between the polite and the last signal; and for the last one to take effect.
_GRACE_S = 1.0
_PARENT_POLL_S = 0.5
_RUN_SPAWNED = "from sniper.children import serve_spawned; serve_spawned()"


@dataclass(frozen=True)
class ChildKind:
    """How messages speak of the children of a group.

    Attributes:
        name: what one of them is, for example "data worker".
        deed: what it does, behind "died": "while it made samples".
        if_died: what a user can do when one was killed.
        if_stalled: the same when none answers.
        if_failed: the same when one raised what is not meant for users.
    """

    name: str
    if_died: str
    if_stalled: str
    if_failed: str | None = None
    deed: str = ""


@dataclass(eq=False)
class Child:
    """A child as its parent sees it.

    Attributes:
        process: the process.
        pipe: to the child.
        tasks: what it has been asked for, by any key, the oldest first, in words for messages; the
            owner of the group keeps it up to date.
    """

    process: BaseProcess | subprocess.Popen[bytes]
    pipe: Connection
    tasks: dict[Hashable, str] = field(default_factory=dict)

    def exit_code(self, timeout_s: float) -> int | None:
        """The exit code, negative for a signal; None if it still runs after so long."""
        if isinstance(self.process, BaseProcess):
            self.process.join(timeout_s)
            return self.process.exitcode
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(timeout_s)
        return None


class Children:
    """Children of one kind.

    Use it as a context manager, or call `close`; it also closes when it is collected or when the
    interpreter ends. Iterate over it for the children. One thread may use it.

    Args:
        kind: for messages.
        stall_timeout_s: sending fails when a child does not read for so long, and waiting when none
            answers for so long.
    """

    def __init__(self, kind: ChildKind, stall_timeout_s: float) -> None:
        self._kind, self._stall_timeout_s = kind, stall_timeout_s
        self._members: list[Child] = []
        self._finalizer = weakref.finalize(self, _end, self._members, os.getpid())

    def fork(self, name: str, serve: Serve) -> Child:
        """Starts a copy of this process, which shares its memory; `name` is that of the process.

        Fork early, before other libraries start threads.
        """
        context = multiprocessing.get_context("fork")

        def start(own_end: Connection, child_end: Connection) -> BaseProcess:
            inherited = [*(member.pipe for member in self._members), own_end]
            arguments = (serve, child_end, inherited, os.getpid())
            process = context.Process(target=_serve_forked, args=arguments, name=name, daemon=True)
            process.start()
            return process

        return self._add(start)

    def spawn(self, serve: Serve, environment: Mapping[str, str] | None = None) -> Child:
        """Starts a fresh interpreter that finds this package.

        Args:
            serve: a function of a module, which is imported there.
            environment: variables that the user has perhaps not set.
        """
        package_root = str(Path(__file__).resolve().parents[1])
        paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]

        def start(own_end: Connection, child_end: Connection) -> subprocess.Popen[bytes]:
            function = f"{serve.__module__}:{serve.__name__}"
            numbers = [str(child_end.fileno()), str(os.getpid())]
            return subprocess.Popen(
                [sys.executable, "-c", _RUN_SPAWNED, function, *numbers],
                stdin=subprocess.DEVNULL,
                pass_fds=[child_end.fileno()],
                env={**(environment or {}), **os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )

        return self._add(start)

    def send(self, child: Child, message: Any) -> None:
        """Sends a picklable message.

        Raises:
            TrainingError: the child died, or does not read.
        """
        try:
            child.pipe.send(message)
        except BlockingIOError as error:
            raise self._stalled() from error
        except OSError as error:
            raise self._died(child) from error

    def answers(self) -> Iterator[tuple[Child, Any]]:
        """Waits for messages, and yields those that are there, one of each child at most.

        Raises:
            TrainingError: a child died, or none answered in time.
        """
        deadline_s = time.monotonic() + self._stall_timeout_s
        pipes = [member.pipe for member in self._members]
        while not (ready := wait(pipes, min(_POLL_S, self._stall_timeout_s))):
            for child in self._members:
                # Its end of the pipe may live on in a copy that somebody else has forked.
                if child.exit_code(0) is not None:
                    raise self._died(child)
            if time.monotonic() > deadline_s:
                raise self._stalled()
        for child in self._members:
            if child.pipe in ready:
                yield child, self._receive(child)

    def fail(self, failure: Failure, where: str | None = None) -> NoReturn:
        """Raises what went wrong in a child, see `attempt`; `where` says what it was working on."""
        if isinstance(failure, SniperError):
            raise failure
        what = f"a {self._kind.name} failed"
        raise TrainingError(what, where=where, got=failure, fix=self._kind.if_failed)

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed."""
        return self._finalizer.alive

    def close(self) -> None:
        """Ends all children. Idempotent."""
        self._finalizer()

    def __iter__(self) -> Iterator[Child]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _add(
        self, start: Callable[[Connection, Connection], BaseProcess | subprocess.Popen[bytes]]
    ) -> Child:
        own_end, child_end = multiprocessing.Pipe()
        _limit(own_end, self._stall_timeout_s)
        # The child inherits the blocked signal until it can ignore it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            child = Child(start(own_end, child_end), own_end)
            self._members.append(child)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            # The child must hold the only copy: else its death would not end the pipe.
            child_end.close()
        return child

    def _receive(self, child: Child) -> Any:
        try:
            return child.pipe.recv()
        except BlockingIOError as error:  # it stopped in the middle of a message
            raise self._stalled() from error
        except (EOFError, OSError) as error:
            raise self._died(child) from error

    def _died(self, child: Child) -> TrainingError:
        name = self._kind.name
        if isinstance(child.process, BaseProcess):
            name += f" ({child.process.name})"
        what = " ".join(filter(None, [f"a {name} died", self._kind.deed]))
        cause = exit_cause(child.exit_code(_POLL_S))
        return TrainingError(f"{what}: {cause}", where=_at_work([child]), fix=self._kind.if_died)

    def _stalled(self) -> TrainingError:
        return TrainingError(
            f"no {self._kind.name} answered for {self._stall_timeout_s:g} s",
            where=_at_work(self._members),
            fix=self._kind.if_stalled,
        )


def attempt(function: Callable[[], Value]) -> tuple[Value | None, Failure | None]:
    """In a child: calls a function; its result and None, or None and what went wrong."""
    try:
        return function(), None
    except SniperError as error:
        return None, error
    except Exception:  # noqa: BLE001 (the parent raises it)
        return None, traceback.format_exc(limit=-5)


def exit_cause(code: int | None) -> str:
    """An exit code of a child process in words: `exit code 3`, `killed by SIGKILL`."""
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def serve_spawned() -> None:
    """In a fresh interpreter: what `Children.spawn` has started it for."""
    function, descriptor, parent = sys.argv[1:]
    module, _, name = function.partition(":")
    serve: Serve = getattr(importlib.import_module(module), name)
    _serve(serve, Connection(int(descriptor)), int(parent))


def _serve_forked(
    serve: Serve, pipe: Connection, inherited: Sequence[Connection], parent: int
) -> None:
    for other in inherited:
        other.close()
    _serve(serve, pipe, parent)


def _serve(serve: Serve, pipe: Connection, parent: int) -> None:
    # Ctrl-C reaches the whole process group; only the parent shall act on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with suppress(EOFError, OSError):  # the parent is gone
        serve(pipe)


def _end_with(parent: int) -> None:
    """Ends this process when the parent has ended, also in the middle of its work."""
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_S)
    os._exit(1)


def _end(members: list[Child], owner: int) -> None:
    """Ends children: politely, then by force; what they have not written yet is lost."""
    if os.getpid() != owner:
        return  # a forked copy of the owner ends: the children are not its own
    for child in members:
        child.process.terminate()
    deadline_s = time.monotonic() + _GRACE_S
    for child in members:
        if child.exit_code(max(0.0, deadline_s - time.monotonic())) is None:
            child.process.kill()
            child.exit_code(_GRACE_S)
        if isinstance(child.process, BaseProcess):
            with suppress(ValueError):  # not even SIGKILL ends a process that the kernel holds
                child.process.close()
        child.pipe.close()
    members.clear()


def _at_work(children: Sequence[Child]) -> str:
    """What the children have probably been at: the oldest open task of each."""
    tasks = [next(iter(child.tasks.values())) for child in children if child.tasks]
    return "; ".join(tasks) or "before its first task"


def _limit(pipe: Connection, seconds: float) -> None:
    """Has `pipe` raise BlockingIOError when the other end stops in the middle of a message."""
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    with socket.socket(fileno=os.dup(pipe.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
