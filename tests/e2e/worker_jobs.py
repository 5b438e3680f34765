"""Training jobs of several processes for tests: how they are started, watched and compared."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import mxnet as mx
import numpy as np

from tests.child_output import output_file

REPO = Path(__file__).resolve().parents[2]
# Import of MXNet four times, and the first batches.
START_LIMIT_S = 120
END_LIMIT_S = 30
# Longer than the start takes on a busy machine.
TIMEOUT_S = 45

SMALL = ("TRAIN.end_epoch", "1", "TRAIN.NUM_PROCESS", "0")
HALF = ("TRAIN.BATCH_IMAGES", "2", "gpus", "cpu")
WHOLE = ("TRAIN.BATCH_IMAGES", "2", "gpus", "cpu,cpu")
# Of the figures in a log these depend on the machine.
TIMES = {"time", "took_s", "chips_per_s", "data_wait", "memory_gb"}


def command(tiny, output, *overrides, flags=(), timeout_s=100, processes=("-n", "2", "-s", "1")):
    program = [str(REPO / "main_train.py"), *tiny.arguments(output, *flags), *overrides]
    launcher = [sys.executable, "-m", "sniper.tools.launch", "--timeout", str(timeout_s)]
    return [*launcher, *processes, "--", *program]


def environment():
    return {**os.environ, "PYTHONPATH": str(REPO / "lib"), "OMP_NUM_THREADS": "1"}


def run(tiny, output, *overrides, flags=()):
    """Output and errors of a run with two workers that must go well."""
    done = subprocess.run(
        command(tiny, output, *overrides, flags=flags),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=START_LIMIT_S + 60,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def run_alone(tiny, *overrides):
    """Model folder of one process with as many threads a device: bits depend on their number."""
    program = [sys.executable, str(REPO / "main_train.py"), *tiny.arguments("alone"), *overrides]
    subprocess.run(program, env=environment(), check=True, timeout=START_LIMIT_S + 60)
    return tiny.model_folder("alone")


def params(folder, name="SNIPER-0001"):
    return {key: value.asnumpy() for key, value in mx.nd.load(f"{folder}/{name}.params").items()}


def momenta(folder, name="SNIPER-0001"):
    arrays = mx.nd.load(f"{folder}/{name}.states")
    return {key: value.asnumpy() for key, value in arrays.items() if not key.startswith("aux:")}


def losses(folder):
    lines = [json.loads(line) for line in (folder / "tiny.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def assert_same_bits(first, second):
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


class Running:
    """A job in the background."""

    def __init__(self, folder, arguments):
        self._files = [output_file(folder / name) for name in ("job_out", "job_err")]
        out, err = self._files
        self.process = subprocess.Popen(arguments, stdout=out, stderr=err, env=environment())

    def text(self, index):
        self._files[index].seek(0)
        return self._files[index].read()

    def wait_for(self, pattern):
        deadline_s = time.monotonic() + START_LIMIT_S
        while not re.search(pattern, self.text(0)):
            assert self.process.poll() is None, self.text(0) + self.text(1)
            assert time.monotonic() < deadline_s, self.text(0) + self.text(1)
            time.sleep(0.05)

    def pids(self):
        """Role: process."""
        return {r: int(p) for r, p in re.findall(r"(\w+ ?\d?) is process (\d+)", self.text(0))}

    def wait_for_end(self, limit_s=END_LIMIT_S):
        """Exit code; in time, and with none of the processes left."""
        sessions = set(self.pids().values())
        deadline_s = time.monotonic() + limit_s
        code = self.process.wait(limit_s)
        while left := sessions & running_sessions():
            assert time.monotonic() < deadline_s, left
            time.sleep(0.05)
        return code

    def close(self):
        self.process.kill()
        self.process.wait()
        for file in self._files:
            file.close()


def running_sessions():
    """Sessions with a process; the launcher gives every process of the job its own."""
    sessions = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue  # it has ended meanwhile
        if state != "Z":
            sessions.add(int(session))
    return sessions
