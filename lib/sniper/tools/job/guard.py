"""Runs one process of a job and ends it, with all its children, when the launcher goes away.

Started by `sniper launch`, directly or over ssh. Standard input: one line of JSON (`Order`), then
single bytes: signs of life, or the wish that the process ends in good order; its end means that the
launcher is gone. Standard output: frames, see `FrameReader`.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sniper.process import usable_cores

HEARTBEAT_VARIABLE = "SNIPER_HEARTBEAT_FD"
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
# As shells say it.
EXIT_NOT_STARTED = 127
_POLL_S = 0.1
# Between the polite and the last signal.
_GRACE_S = 3.0
# To read what the pipes still hold after the end.
_DRAIN_S = 2.0
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Order:
    """What a guard is told.

    Attributes:
        command: program and arguments.
        folder: working directory; empty: where the guard is.
        set: environment variables to set.
        unset: those to remove.
        core_share: processes of the job that compute on this machine; they divide its cores.
        silence_s: ends the process when nothing came from the launcher for so long; 0: never.
    """

    command: list[str]
    folder: str
    set: dict[str, str]
    unset: list[str]
    core_share: int
    silence_s: float


def main() -> int:
    """Follows the order on standard input; returns 0 when it could be followed."""
    _write(START)
    line = _read_line()
    if not line:
        return 1  # the launcher has gone already
    order = Order(**json.loads(line))
    try:
        guard = _Guard(order)
    except OSError as error:
        _write(frame(ERRORS, f"cannot start {order.command[0]}: {error.strerror}\n".encode()))
        _write(frame(EXIT, str(EXIT_NOT_STARTED).encode()))
        return 0
    try:
        guard.run()
    except BrokenPipeError:
        guard.end()
    return 0


class _Guard:
    """One process, its pipes, and the pipe to the launcher."""

    def __init__(self, order: Order) -> None:
        self._silence_s = order.silence_s
        self._heartbeat, child_end = os.pipe()
        os.set_inheritable(child_end, True)
        environment = _environment(order, child_end)
        try:
            self._process = subprocess.Popen(
                order.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=order.folder or None,
                env=environment,
                pass_fds=[child_end],
                start_new_session=True,
                # This process has one thread, so that is safe.
                preexec_fn=_die_with_parent,
            )
        finally:
            os.close(child_end)
        out, err = self._process.stdout, self._process.stderr
        if out is None or err is None:
            raise RuntimeError("a process without pipes")
        self._kinds = {out.fileno(): OUTPUT, err.fileno(): ERRORS, self._heartbeat: STEPS}

    def run(self) -> None:
        """Passes everything on until the process has ended, or the launcher is gone."""
        _write(frame(PROCESS, f"{self._process.pid} {socket.gethostname()}".encode()))
        heard_s = time.monotonic()
        while not self._has_ended():
            ready, _, _ = select.select([sys.stdin.fileno(), *self._kinds], [], [], _POLL_S)
            if sys.stdin.fileno() in ready:
                said = os.read(sys.stdin.fileno(), _CHUNK)
                if not said:
                    break
                heard_s = time.monotonic()
                if STOP in said and not self._has_ended():
                    # The process alone: it needs its children to stop in good order.
                    os.kill(self._process.pid, signal.SIGTERM)
            elif self._silence_s and time.monotonic() - heard_s > self._silence_s:
                break
            self._pass_on(ready)
        self.end()
        self._drain()
        _write(frame(EXIT, str(self._process.returncode).encode()))

    def end(self) -> None:
        """Ends the process and all that it has started."""
        if not self._has_ended():
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)  # a stopped process cannot end
            deadline_s = time.monotonic() + _GRACE_S
            while not self._has_ended() and time.monotonic() < deadline_s:
                time.sleep(_POLL_S)
        # Before the process is reaped nobody else can have its number.
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _has_ended(self) -> bool:
        if self._process.returncode is not None:
            return True
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, options) is not None

    def _signal(self, number: int) -> None:
        if self._process.returncode is None:
            os.killpg(self._process.pid, number)

    def _pass_on(self, ready: list[int]) -> None:
        for pipe in ready:
            if pipe in self._kinds:
                data = os.read(pipe, _CHUNK)
                if data:
                    _write(frame(self._kinds[pipe], data))
                else:
                    del self._kinds[pipe]

    def _drain(self) -> None:
        deadline_s = time.monotonic() + _DRAIN_S
        while self._kinds and time.monotonic() < deadline_s:
            ready, _, _ = select.select([*self._kinds], [], [], _POLL_S)
            self._pass_on(ready)


def _environment(order: Order, heartbeat: int) -> dict[str, str]:
    environment = {**initial_environment(), **order.set}
    environment.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // order.core_share)))
    environment["PYTHONUNBUFFERED"] = "1"
    environment[HEARTBEAT_VARIABLE] = str(heartbeat)
    for name in order.unset:
        environment.pop(name, None)
    return environment


def _die_with_parent() -> None:
    """In the child: the kernel kills it when this guard dies, whatever the reason."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _read_line() -> bytes:
    """One line; byte by byte, so that nothing after it is lost in a buffer."""
    line = b""
    while byte := os.read(sys.stdin.fileno(), 1):
        if byte == b"\n":
            return line
        line += byte
    return b""


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]


# Everything before this comes from login scripts and the like.
START = b"\x00sniper guard 1\n"

OUTPUT, ERRORS, STEPS, PROCESS, EXIT = b"o", b"e", b"s", b"p", b"x"

# To the guard: a sign of life; the wish that the process ends in good order.
ALIVE, STOP = b".", b"t"

_HEADER = struct.Struct(">cI")


def frame(kind: bytes, payload: bytes) -> bytes:
    """One frame: its kind, the length, the payload."""
    return _HEADER.pack(kind, len(payload)) + payload


class FrameReader:
    """Cuts a stream of bytes into frames.

    `noise` is what came before the first frame.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._started = False
        self.noise = b""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Takes some bytes in; yields the (kind, payload) that are complete."""
        self._buffer += data
        if not self._started:
            noise, mark, rest = self._buffer.partition(START)
            if not mark:
                return
            self._started, self.noise, self._buffer = True, noise, rest
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            payload, self._buffer = self._buffer[_HEADER.size : end], self._buffer[end:]
            yield kind, payload

    def rest(self) -> bytes:
        """What no guard has written, when the stream has ended before the first frame."""
        return b"" if self._started else self._buffer


class LineCutter:
    """Cuts the output of a process into lines, also those that end with a carriage return."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[str]:
        """Takes some bytes in; yields the lines that are complete, without their ends."""
        *lines, self._rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        yield from (line.decode(errors="replace") for line in lines if line)

    def rest(self) -> str:
        """What is left at the end."""
        rest, self._rest = self._rest, b""
        return rest.decode(errors="replace")


# What goes along to other machines; all of it goes along on this one.
_TRAVELLING = ("PYTHONPATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
_TRAVELLING_PREFIXES = ("MXNET_", "SNIPER_", "PS_", "OPENBLAS_", "CUDA_", "NVIDIA_")
# MXNet's servers would all listen on this port; hosting platforms set it.
NOT_WANTED = ["PORT"]


def initial_environment() -> dict[str, str]:
    """The environment that this process was started with, without what `import sniper` has set.

    The number of threads that is set there suits one process on a machine, not several.
    """
    try:
        entries = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:
        return dict(os.environ)
    pairs = (os.fsdecode(entry).partition("=") for entry in entries if b"=" in entry)
    return {name: value for name, _, value in pairs}


def travelling_variables() -> dict[str, str]:
    """What processes on other machines get of this one's environment."""
    return {
        name: value
        for name, value in initial_environment().items()
        if name in _TRAVELLING or name.startswith(_TRAVELLING_PREFIXES)
    }


if __name__ == "__main__":
    sys.exit(main())
