"""However a job goes wrong: it ends in time, says who and why, and leaves no process behind.

The jobs here are of small programs; tests/e2e/test_two_workers.py trains.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.child_output import output_file

LIB = Path(__file__).resolve().parents[2] / "lib"
START_LIMIT_S = 60
END_LIMIT_S = 30

LAUNCHER = """
import json, sys
from sniper.tools.cli import run_main
from sniper.tools.job.guard import initial_environment
from sniper.tools.job.guard import Order
from sniper.tools.job.processes import Process
from sniper.tools.job import watch
from sniper.tools.job.watch import run_job

watch._SILENT_S = 1.0
programs, timeout_s, start, silence_s = json.loads(sys.argv[1])
guard = [sys.executable, "-m", "sniper.tools.job.guard"]
processes = [
    Process(role, [*start, *guard], initial_environment(),
            Order([program] if program[0] == "/" else [sys.executable, "-c", program],
                  "", {"MARK": "set"}, ["UNSET"], 1, silence_s))
    for role, program in programs.items()
]
def run(argv):
    run_job(processes, timeout_s=timeout_s, again="AGAIN", farewell_s=1)
sys.exit(run_main(run, []))
"""

# Signs of life come often here.
HEARTBEAT = """
import time
from sniper.training import heartbeat as module
module.INTERVAL_S = 0.2
heartbeat = module.Heartbeat()
"""
# Gets on for ever, and has a child that would survive it.
WORKS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid)
while True:
    heartbeat.beat()
    time.sleep(0.1)
"""
WORKS = HEARTBEAT + WORKS
# Lives on, but makes no update.
LIVES = HEARTBEAT + "print('child', 0); time.sleep(600)"
SERVES = "import time; print('child', 0); time.sleep(600)"


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Job:
    """A launcher with its output in a file."""

    def __init__(self, folder, programs, timeout_s, start, silence_s):
        self._out, self._err = (output_file(folder / name) for name in ("out", "err"))
        task = json.dumps([programs, timeout_s, start, silence_s])
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, task],
            stdout=self._out,
            stderr=self._err,
            env={**os.environ, "PYTHONPATH": str(LIB), "UNSET": "1"},
        )

    @property
    def output(self):
        self._out.seek(0)
        return self._out.read()

    @property
    def errors(self):
        self._err.seek(0)
        return self._err.read()

    def wait_until(self, happened):
        deadline_s = time.monotonic() + START_LIMIT_S
        while not happened():
            assert self.process.poll() is None, self.output + self.errors
            assert time.monotonic() < deadline_s, self.output + self.errors
            time.sleep(0.02)

    def wait_for_children(self, count):
        """Returns when so many programs have said that they run."""
        self.wait_until(lambda: len(re.findall(r"\] child \d+", self.output)) == count)

    def pid(self, role):
        return int(re.search(rf"{role} is process (\d+)", self.output)[1])

    def all_pids(self):
        pids = re.findall(r"is process (\d+)", self.output)
        pids += [pid for pid in re.findall(r"\] child (\d+)", self.output) if pid != "0"]
        return [int(pid) for pid in pids] + self.guards()

    def guards(self):
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def wait_for_end(self, pids):
        """Exit code; in time, and with none of the processes left."""
        deadline_s = time.monotonic() + END_LIMIT_S
        code = self.process.wait(END_LIMIT_S)
        while any(map(is_running, pids)):
            assert time.monotonic() < deadline_s, "processes are left"
            time.sleep(0.05)
        assert "Traceback" not in self.errors, self.errors
        return code

    def close(self):
        self.process.kill()
        self.process.wait()
        self._out.close()
        self._err.close()


@pytest.fixture
def launch(tmp_path):
    jobs = []

    def start(programs, timeout_s=600.0, start=(), silence_s=0.0):
        jobs.append(Job(tmp_path, programs, timeout_s, list(start), silence_s))
        return jobs[-1]

    yield start
    for job in jobs:
        job.close()


@pytest.fixture
def running(launch):
    """A job of two workers and a server that runs well, and all its processes."""
    job = launch({"server 0": SERVES, "worker 0": WORKS, "worker 1": WORKS})
    job.wait_for_children(3)
    pids = job.all_pids()
    assert len(pids) == 8 and all(map(is_running, pids))
    return job, pids


def test_a_job_that_goes_well(launch):
    program = (
        "import os, sys; print('hello', os.environ['MARK'], 'UNSET' in os.environ);"
        "print('oops', file=sys.stderr); print('no newline', end='')"
    )
    job = launch({"server 0": SERVES, "worker 0": program, "worker 1": program})
    assert job.process.wait(START_LIMIT_S) == 0
    lines = job.output.splitlines()
    for role in ("worker 0", "worker 1"):
        for text in ("hello set False", "oops", "no newline"):
            assert f"[{role}] {text}" in lines
    assert job.errors == ""
    assert not is_running(job.pid("server 0")), "a server that stays is ended"


@pytest.mark.parametrize("role", ["worker 1", "server 0"])
def test_a_killed_process_ends_the_job(running, role):
    job, pids = running
    pid = job.pid(role)
    os.kill(pid, signal.SIGKILL)
    assert job.wait_for_end(pids) == 1
    assert f"error: {role} (process {pid} on " in job.errors
    assert "was killed by SIGKILL; the whole job was ended" in job.errors
    assert "fix: SIGKILL usually means that memory ran out. AGAIN" in job.errors


def test_a_killed_launcher_takes_all_along(running):
    job, pids = running
    job.process.kill()
    assert job.wait_for_end(pids) == -signal.SIGKILL


def test_a_killed_guard_takes_its_process_along(running):
    job, pids = running
    (guard,) = (g for g in job.guards() if str(job.pid("worker 0")) in children(g))
    os.kill(guard, signal.SIGKILL)
    child = int(re.search(r"\[worker 0\] child (\d+)", job.output)[1])
    # The kernel ends the worker, but knows nothing of the worker's own children.
    assert job.wait_for_end([pid for pid in pids if pid != child]) == 1
    assert "the connection to worker 0 (process " in job.errors
    os.kill(child, signal.SIGKILL)


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c(running):
    job, pids = running
    job.process.send_signal(signal.SIGINT)
    assert job.wait_for_end(pids) == 130
    assert "interrupted" in job.errors


@pytest.mark.usefixtures("ctrl_c")
def test_workers_may_stop_in_good_order(launch):
    saves = """
import signal, sys, time
def save(*_):
    print("saved")
    sys.exit(1)
signal.signal(signal.SIGTERM, save)
print("child", 0)
time.sleep(600)
"""
    job = launch({"server 0": SERVES, "worker 0": saves, "worker 1": saves})
    job.wait_for_children(3)
    pids = job.all_pids()
    job.process.send_signal(signal.SIGINT)
    assert job.wait_for_end(pids) == 130
    for role in ("worker 0", "worker 1"):
        assert f"[{role}] saved" in job.output


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_waits_for_nobody(launch):
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVES
    job = launch({"worker 0": stubborn})
    job.wait_for_children(1)
    pids = job.all_pids()
    job.process.send_signal(signal.SIGINT)
    job.wait_until(lambda: "told to save and stop" in job.output)
    job.process.send_signal(signal.SIGINT)
    assert job.wait_for_end(pids) == 130


def test_a_process_that_ignores_sigterm_is_killed(launch):
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVES
    job = launch({"worker 0": stubborn, "worker 1": "raise SystemExit(3)"})
    job.wait_until(lambda: "worker 0 is" in job.output)
    pids = job.all_pids()
    assert job.wait_for_end(pids) == 3
    assert "worker 1 (process " in job.errors and "failed with exit code 3" in job.errors


def test_a_stopped_worker_is_found(launch):
    job = launch({"worker 0": LIVES, "worker 1": WORKS}, timeout_s=6)
    job.wait_for_children(2)
    pids = job.all_pids()
    time.sleep(0.5)  # some sign of life must have come
    os.kill(job.pid("worker 1"), signal.SIGSTOP)
    assert job.wait_for_end(pids) == 1
    expected = (
        r"no worker has made an update for 6 s; probably because of worker 1 \(.*\): no sign "
    )
    assert re.search(expected, job.errors) and "AGAIN" in job.errors


@pytest.mark.slow
def test_a_worker_that_lives_but_does_nothing(launch):
    job = launch({"worker 0": LIVES, "worker 1": LIVES}, timeout_s=6)
    job.wait_for_children(2)
    assert job.wait_for_end(job.all_pids()) == 1
    assert "probably because of worker 0 (process " in job.errors
    assert "): alive, at update 0; the whole job was ended" in job.errors


@pytest.mark.slow
def test_long_tasks_are_not_missed(launch):
    program = HEARTBEAT + "with heartbeat.long_task(100): time.sleep(7)\nprint('through')"
    job = launch({"worker 0": program}, timeout_s=5)
    assert job.process.wait(START_LIMIT_S) == 0, job.errors
    assert "[worker 0] through" in job.output


@pytest.mark.slow
def test_long_tasks_have_a_limit(launch):
    program = HEARTBEAT + "with heartbeat.long_task(0.5): time.sleep(60)"
    job = launch({"worker 0": program}, timeout_s=5)
    assert job.process.wait(START_LIMIT_S) == 1
    assert "no worker has made an update for 5 s" in job.errors


def test_a_program_that_does_not_exist(launch):
    job = launch({"worker 0": "/no/such/program"})
    assert job.process.wait(START_LIMIT_S) == 1
    assert "[worker 0] cannot start /no/such/program: No such file" in job.output
    assert "could not be started" in job.errors


FAKE_SSH = """#!{python}
import os, subprocess, sys, threading
print("Welcome to this host", flush=True)
command = ["sh", "-c", {broken!r} or " ".join(sys.argv[1:])]
remote = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

def relay(source, sink):
    while data := os.read(source, 65536):
        os.write(sink, data)
    os.close(sink)

threading.Thread(target=relay, args=(0, remote.stdin.fileno()), daemon=True).start()
relay(remote.stdout.fileno(), 1)
os._exit(remote.wait())
"""


def fake_ssh(tmp_path, broken=""):
    """A program that runs the command as ssh does: in a shell, after a greeting."""
    path = tmp_path / "ssh"
    path.write_text(FAKE_SSH.format(python=sys.executable, broken=broken))
    path.chmod(0o755)
    return [str(path)]


def test_remote_processes_end_when_the_connection_ends(launch, tmp_path):
    job = launch({"worker 0": WORKS}, start=fake_ssh(tmp_path))
    job.wait_for_children(1)
    assert "[worker 0] Welcome to this host" in job.output
    (connection,) = job.guards()
    guards = children(connection)
    os.kill(connection, signal.SIGKILL)
    assert job.wait_for_end([*job.all_pids(), *map(int, guards)]) == 1
    assert "the connection to worker 0 (process " in job.errors


def test_a_connection_that_fails(launch, tmp_path):
    job = launch({"worker 0": WORKS}, start=fake_ssh(tmp_path, "echo No route >&2; exit 255"))
    assert job.wait_for_end([]) == 1
    assert "[worker 0] No route" in job.output
    assert "the connection to worker 0 (not started) was lost" in job.errors


def test_a_guard_that_hears_nothing_ends_its_process(tmp_path):
    """A connection may be dead without anybody closing it."""
    guard = subprocess.Popen(
        [sys.executable, "-m", "sniper.tools.job.guard"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(LIB)},
    )
    order = {"command": [sys.executable, "-c", SERVES], "folder": str(tmp_path), "set": {}}
    order.update({"unset": [], "core_share": 1, "silence_s": 1.0})
    guard.stdin.write(json.dumps(order).encode() + b"\n")
    guard.stdin.flush()
    try:
        begin_s = time.monotonic()
        while time.monotonic() - begin_s < 2:
            guard.stdin.write(b".")
            guard.stdin.flush()
            time.sleep(0.2)
        assert guard.poll() is None, "it hears the launcher"
        assert guard.wait(END_LIMIT_S) == 0
        assert guard.stdout.read().endswith(b"-15")
    finally:
        guard.kill()
        guard.communicate()
