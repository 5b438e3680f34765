"""A side's process, seen from the harness: start, ask, stop, and never wait without a limit."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.case import BenchError, PeerMissingError

SIDE_SCRIPT = Path(__file__).resolve().with_name("side.py")
STOPPED_OR_ENDED = os.WSTOPPED | os.WEXITED | os.WNOHANG
LAST_LINES = 5  # of a dead side's output, in the error
# Anything that would choose threads or kernels behind the harness's back.
UNSET = (
    *("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "OMP_PLACES"),
    *("GOMP_CPU_AFFINITY", "GOMP_SPINCOUNT", "KMP_AFFINITY", "KMP_BLOCKTIME"),
)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def side_environment(threads: int) -> dict[str, str]:
    """The environment that both sides start with."""
    environment = {name: value for name, value in os.environ.items() if name not in UNSET}
    environment.update({name: str(threads) for name in THREAD_VARIABLES})
    return environment


class SideProcess:
    """One running side. It is stopped (SIGSTOP) except while it is asked something.

    So no side computes while another is timed, not even a thread pool that spins before it sleeps.
    """

    def __init__(
        self, name: str, python: str, task: Mapping[str, Any], folder: Path, timeout_s: float
    ) -> None:
        """Starts the process; `wait_ready` must follow."""
        self.name = name
        self.timeout_s = timeout_s
        self._log = folder / f"{name}.log"
        self._buffer = b""
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [python, str(SIDE_SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                env=side_environment(task["threads"]),
            )
        self._send({**task, "side": name})

    def wait_ready(self) -> None:
        """Returns when the side has imported and prepared everything.

        Raises:
            PeerMissingError: it is not installed.
            BenchError: it failed.
        """
        reply = self._receive("its preparation")
        self._stop()
        if "missing" in reply:
            raise PeerMissingError(reply["missing"])

    def outputs(self, path: Path) -> None:
        """Makes the side write the outputs of one run to an .npz file."""
        self._ask("its first run", do="outputs", path=str(path))

    def turn(self, seconds: float, clock: str = "wall") -> float:
        """Seconds per call by the clock "wall" or "cpu", over a turn of about `seconds`."""
        reply = self._ask("a timed turn", do="turn", seconds=seconds, clock=clock)
        return float(reply["seconds"])

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()  # also ends a stopped process
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass  # a command that the side never read

    def _ask(self, what: str, **command: Any) -> dict[str, Any]:
        self._process.send_signal(signal.SIGCONT)
        self._send(command)
        reply = self._receive(what)
        self._stop()
        return reply

    def _stop(self) -> None:
        """Stops the process and returns when all of its threads stand still, or it has ended."""
        self._process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + self.timeout_s
        seen = None
        while seen is None:
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name}: could not be stopped after its turn.")
            time.sleep(0.0002)
            # Without WNOWAIT the exit status would be gone for `_end`.
            seen = os.waitid(os.P_PID, self._process.pid, STOPPED_OR_ENDED | os.WNOWAIT)
        if seen.si_code == os.CLD_STOPPED:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOHANG)

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            pass  # the missing answer tells more than the broken pipe

    def _receive(self, during: str) -> dict[str, Any]:
        deadline = time.monotonic() + self.timeout_s
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([descriptor], [], [], remaining)[0]:
                raise BenchError(
                    f"{self.name}: no answer within {self.timeout_s:.0f} s during {during}."
                    + self._last_output()
                )
            data = os.read(descriptor, 65536)
            if not data:
                raise BenchError(
                    f"{self.name}: {self._end()} during {during}." + self._last_output()
                )
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return json.loads(line)

    def _end(self) -> str:
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        return f"killed by signal {-status}" if status < 0 else f"ended with exit status {status}"

    def _last_output(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n  " + "\n  ".join(lines[-LAST_LINES:]) if lines else ""
