"""Runs the processes of a job: passes their output on, and ends all of them when one fails."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from typing import IO

from sniper.children import exit_cause
from sniper.errors import TrainingError
from sniper.tools.job.guard import (
    ALIVE,
    ERRORS,
    EXIT,
    EXIT_NOT_STARTED,
    OUTPUT,
    PROCESS,
    STEPS,
    STOP,
    FrameReader,
    LineCutter,
)
from sniper.tools.job.processes import Process

_POLL_S = 0.5
_PING_S = 5.0
# A process writes every 2 s: after this it is stopped, or its machine cannot be reached.
_SILENT_S = 5.0
# Workers that are asked to stop have so long to save what they have.
_STOP_S = 30.0
# Guards are given so long to end their processes.
_END_S = 12.0
_CHUNK = 1 << 16
# Exit code of ssh when the connection fails, and of a guard that is gone.
_LOST = 255


class JobError(TrainingError):
    """A process of a job failed, and the others were ended."""

    def __init__(self, what: str, *, code: int, fix: str) -> None:
        super().__init__(what, fix=fix)
        self.exit_code = code


def run_job(
    processes: Sequence[Process], *, timeout_s: float, again: str, farewell_s: float = 10.0
) -> None:
    """Runs a job to its end.

    Args:
        processes: see `plan`.
        timeout_s: the job is ended when no worker got on for so long.
        again: the sentence that says how to go on after a failure.
        farewell_s: when all workers are done the others have so long to end by themselves.

    Raises:
        JobError: a process failed or did not get on; all others have been ended.
        KeyboardInterrupt: the workers were asked to stop, had time to, and have been ended.
    """
    job = _Job(timeout_s, again, farewell_s)
    try:
        for process in processes:
            job.start(process)
        job.watch()
    except KeyboardInterrupt:
        job.stop()
        raise
    finally:
        job.end()


class _Member:
    """A running process of the job."""

    def __init__(self, process: Process, guard: subprocess.Popen[bytes]) -> None:
        self.role = process.role
        self.is_worker = process.is_worker
        self.guard = guard
        self._orders = _pipe(guard.stdin)
        self.frames = FrameReader()
        self.lines = {OUTPUT: LineCutter(), ERRORS: LineCutter()}
        self.where = "not started"
        self.code: int | None = None
        self.is_lost = False
        self.steps = 0
        self.heard_s = time.monotonic()

    def send(self, data: bytes) -> None:
        """Writes to the guard; a dead one is noticed elsewhere."""
        with contextlib.suppress(OSError, ValueError):
            self._orders.write(data)
            self._orders.flush()

    def let_go(self) -> None:
        """Tells the guard to end its process."""
        with contextlib.suppress(OSError):
            self._orders.close()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    """A standard stream of a guard: all three of them are pipes."""
    if stream is None:
        raise RuntimeError("a guard was started without a pipe for one of its streams")
    return stream


class _Job:
    """The processes of a job, watched in one thread."""

    def __init__(self, timeout_s: float, again: str, farewell_s: float) -> None:
        self._timeout_s = timeout_s
        self._again = again
        self._farewell_s = farewell_s
        self._members: list[_Member] = []
        self._selector = selectors.DefaultSelector()
        self._progress_s = self._ping_s = time.monotonic()

    def start(self, process: Process) -> None:
        """Starts a guard and gives it its order."""
        guard = subprocess.Popen(
            process.start,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=process.environment,
            # Ctrl-C goes to the launcher alone.
            start_new_session=True,
        )
        member = _Member(process, guard)
        self._members.append(member)
        for stream, kind in ((guard.stdout, OUTPUT), (guard.stderr, ERRORS)):
            pipe = _pipe(stream)
            self._selector.register(pipe, selectors.EVENT_READ, (member, kind, pipe))
        member.send(json.dumps(dataclasses.asdict(process.order)).encode() + b"\n")

    def watch(self) -> None:
        """Returns when all workers are done.

        Raises:
            JobError: a process failed, or no worker gets on.
        """
        workers = [member for member in self._members if member.is_worker]
        while not all(member.code == 0 for member in workers):
            self._receive()
            for member in self._members:
                if member.code:
                    raise _failure(member, self._again)
            if time.monotonic() - self._progress_s > self._timeout_s:
                raise _standstill(self._members, self._timeout_s, self._again)
            self._ping()
        # The servers end by themselves when the workers have said goodbye.
        self._receive_until(self._have_all_ended, self._farewell_s)

    def stop(self) -> None:
        """Asks the workers to end in good order; returns when they have, or after a while."""
        print("[launch] the workers are told to save and stop; Ctrl-C ends them now", flush=True)
        workers = [member for member in self._members if member.is_worker]
        for member in workers:
            member.send(STOP)
        self._receive_until(lambda: all(m.code is not None for m in workers), _STOP_S)

    def end(self) -> None:
        """Ends what still runs."""
        for member in self._members:
            member.let_go()
        self._receive_until(lambda: not self._selector.get_map(), _END_S)
        for member in self._members:
            if member.guard.poll() is None:
                os.killpg(member.guard.pid, signal.SIGKILL)
            member.guard.wait()
        self._selector.close()

    def _have_all_ended(self) -> bool:
        return all(member.code is not None for member in self._members)

    def _ping(self) -> None:
        """Remote guards want to hear from the launcher."""
        if time.monotonic() - self._ping_s > _PING_S:
            self._ping_s = time.monotonic()
            for member in self._members:
                member.send(ALIVE)

    def _receive_until(self, happened: Callable[[], bool], limit_s: float) -> None:
        deadline_s = time.monotonic() + limit_s
        while not happened() and time.monotonic() < deadline_s:
            self._receive()

    def _receive(self) -> None:
        """Takes in what the guards have written, or waits a moment for it."""
        for key, _ in self._selector.select(_POLL_S):
            member, kind, pipe = key.data
            data = os.read(key.fd, _CHUNK)
            if not data:
                self._selector.unregister(pipe)
                pipe.close()
                if kind == OUTPUT:
                    _note_end(member)
            elif kind == ERRORS:  # ssh, or a guard that fails
                _show(member, member.lines[ERRORS].feed(data))
            else:
                for frame in member.frames.feed(data):
                    self._take(member, *frame)

    def _take(self, member: _Member, kind: bytes, payload: bytes) -> None:
        member.heard_s = time.monotonic()
        if kind in (OUTPUT, ERRORS):
            _show(member, member.lines[kind].feed(payload))
        elif kind == EXIT:
            member.code = int(payload)
        elif kind == PROCESS:
            pid, _, host = payload.decode(errors="replace").partition(" ")
            member.where = f"process {pid} on {host}"
            _show(member, member.frames.noise.decode(errors="replace").splitlines())
            print(f"[launch] {member.role} is {member.where}", flush=True)
        elif kind == STEPS:
            steps = int(payload.split()[-1])
            if steps > member.steps:
                member.steps, self._progress_s = steps, time.monotonic()


def _note_end(member: _Member) -> None:
    """A guard has closed its output: it told the exit code before, or it is lost."""
    rest = [cutter.rest() for cutter in member.lines.values()]
    _show(member, [*member.frames.rest().decode(errors="replace").splitlines(), *rest])
    if member.code is None:
        member.is_lost, member.code = True, _LOST


def _show(member: _Member, lines: Iterable[str]) -> None:
    for line in lines:
        if line:
            print(f"[{member.role}] {line}", flush=True)


def _failure(member: _Member, again: str) -> JobError:
    code = member.code or 0
    who = f"{member.role} ({member.where})"
    if member.is_lost:
        what, cause = f"the connection to {who} was lost", "see its messages above. "
    elif code == EXIT_NOT_STARTED:
        what, cause = f"{who} could not be started", "see its messages above. "
    elif code < 0:
        what = f"{who} was {exit_cause(code)}"
        cause = "SIGKILL usually means that memory ran out. " if code == -signal.SIGKILL else ""
    else:
        what, cause = f"{who} failed with {exit_cause(code)}", "see its messages above. "
    is_convention = 0 < code < _LOST and code != EXIT_NOT_STARTED
    return JobError(
        f"{what}; the whole job was ended",
        code=code if is_convention else 1,
        fix=cause + again,
    )


def _standstill(members: Sequence[_Member], timeout_s: float, again: str) -> JobError:
    now_s = time.monotonic()
    silent = [member for member in members if now_s - member.heard_s > _SILENT_S]
    # One that stands still stops all others, at its own update or at the next one.
    workers = (member for member in members if member.is_worker)
    suspects = silent or [min(workers, key=lambda member: member.steps)]
    names = " and ".join(f"{m.role} ({m.where})" for m in suspects)
    why = "no sign of life" if silent else f"alive, at update {suspects[0].steps}"
    return JobError(
        f"no worker has made an update for {timeout_s:g} s; probably because of {names}: {why}; "
        "the whole job was ended",
        code=1,
        fix="look at that process's machine, disk and messages; --timeout sets the limit. " + again,
    )
