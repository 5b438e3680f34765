"""One run at a time in a folder: the second one is refused at once and told who is there.

A lock is a hidden file that says who holds it, and an operating system's lock on that file. The
system gives its lock up when the process ends, however it ends: what a killed run leaves behind
keeps nobody out. Network file systems pass such locks on to all machines that share them; where
one does not, the holder's sign of life (the file's time, renewed every few seconds) takes its
place for processes of other machines.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from sniper.errors import TrainingError

logger = logging.getLogger(__name__)

_BEAT_S = 10.0
# Without a sign of life for so long, a holder on another machine is gone.
_SILENT_S = 60.0
_BUSY = (errno.EACCES, errno.EAGAIN)
_NOT_SUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)

_SHOWN_COMMAND = 200


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes:
        process: its number.
        machine: name of the machine.
        boot: tells this start of the machine from others; empty where the system does not say.
        started: local time at which the lock was taken.
        command: the command line.
    """

    process: int
    machine: str
    boot: str
    started: str
    command: str

    def __str__(self) -> str:
        return (
            f"process {self.process} on machine {self.machine}, since {self.started}: "
            f"{self.command}"
        )

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, a process of this machine since its last start."""
        here = _this_process()
        return self.boot == here.boot if here.boot else self.machine == here.machine

    @property
    def was_before_restart(self) -> bool:
        """Whether this machine has been started anew since."""
        here = _this_process()
        return self.machine == here.machine and self.boot != here.boot


# The system's locks do not keep a process from what it holds itself. Forked children inherit this,
# but not the locks: an entry counts in the process that has made it.
_held: dict[str, Holder] = {}
_held_guard = threading.Lock()


@contextlib.contextmanager
def folder_lock(folder: str | Path, *, fix: str, name: str = "run") -> Iterator[None]:
    """Keeps other runs out of a folder while the `with` block runs.

    Args:
        folder: made when missing.
        fix: what a refused user can do.
        name: locks of different names in one folder have nothing to do with each other.

    Raises:
        TrainingError: another run holds the lock, or the folder cannot be written.
    """
    path = Path(folder) / f".{name.replace(os.sep, '_')}.lock"
    key = os.path.realpath(path)
    with _held_guard:
        holder = _held.get(key)
        if holder is not None and holder.process == os.getpid():
            raise _refusal(path, holder, fix)
        _held[key] = _this_process()
    try:
        with _lock_file(path, fix) as file, _signs_of_life(file):
            yield
    finally:
        with _held_guard:
            _held.pop(key, None)


@contextlib.contextmanager
def _lock_file(path: Path, fix: str) -> Iterator[IO[str]]:
    owner = os.getpid()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _opened_and_locked(path, fix)
    except OSError as error:
        raise TrainingError(
            "a folder of results cannot be written",
            where=path.parent,
            got=error,
            fix="check its permissions and the space on the disk",
        ) from error
    with file:
        try:
            yield file
        finally:
            # A forked copy of this process ends: the lock is not its own.
            if os.getpid() == owner:
                with contextlib.suppress(OSError):
                    path.unlink()


def _opened_and_locked(path: Path, fix: str) -> IO[str]:
    while True:
        file = open(path, "a+", encoding="utf-8")
        try:
            is_locked = _lock(file, path, fix)
            if _is_same_file(file, path):
                _refuse_living(file, path, fix, is_locked)
                file.seek(0)
                file.truncate()
                file.write(json.dumps(asdict(_this_process())))
                file.flush()
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # its holder has removed it between our two steps


def _lock(file: IO[str], path: Path, fix: str) -> bool:
    """Takes the system's lock; False where the file system has none."""
    try:
        # The kind that belongs to a process: forked children do not hold it too.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            raise _refusal(path, _holder(file), fix) from None
        if error.errno in _NOT_SUPPORTED:
            return False
        raise
    return True


def _is_same_file(file: IO[str], path: Path) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(file.fileno()), there)


def _refuse_living(file: IO[str], path: Path, fix: str, is_locked: bool) -> None:
    """Whoever has left a name in the file has ended, unless the system's lock cannot say that."""
    holder = _holder(file)
    if holder is None:
        return
    if holder.is_here:
        may_live = not is_locked and _is_alive(holder.process)
    else:
        may_live = not holder.was_before_restart
    if may_live and _silence_s(file, path) < _SILENT_S:
        # Not said where the system's lock is certain: there it would let a second run in.
        gone = f"if that process is gone, wait {_SILENT_S:.0f} s, or delete {path}"
        raise _refusal(path, holder, f"{fix}; {gone}")
    logger.info("an earlier run in %s has ended without saying so: %s", path.parent, holder)


def _refusal(path: Path, holder: Holder | None, fix: str) -> TrainingError:
    return TrainingError(
        "another run is working in this folder, and two would spoil each other's files",
        where=path.parent,
        got=holder or "a process that is just beginning",
        fix=f"let it end, or stop it; {fix}",
    )


def _holder(file: IO[str]) -> Holder | None:
    """Who has written the file; None for an empty or broken one."""
    file.seek(0)
    try:
        return Holder(**json.loads(file.read()))
    except (ValueError, TypeError):
        return None


def _this_process() -> Holder:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    command = shlex.join(getattr(sys, "orig_argv", sys.argv))
    return Holder(os.getpid(), socket.gethostname(), boot, started, command[:_SHOWN_COMMAND])


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _silence_s(file: IO[str], path: Path) -> float:
    """Time since the last sign of life, by the clock of whoever keeps the folder."""
    probe = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        probe.touch()
        now_s = probe.stat().st_mtime
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return now_s - os.fstat(file.fileno()).st_mtime


@contextlib.contextmanager
def _signs_of_life(file: IO[str]) -> Iterator[None]:
    """Renews the file's time while the `with` block runs."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(_BEAT_S):
            with contextlib.suppress(OSError):
                os.utime(file.fileno())

    thread = threading.Thread(target=renew, name="sniper-lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
