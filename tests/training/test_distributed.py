"""Workers alone, and two real ones that MXNet's parameter server connects."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from sniper.errors import ConfigError, TrainingError
from sniper.training import collectives
from sniper.training.distributed import Workers

LIB = Path(__file__).resolve().parents[2] / "lib"


@pytest.fixture
def launched(monkeypatch):
    """The environment of worker 1 of 2, without its servers."""
    monkeypatch.setenv("SNIPER_WORKER_RANK", "1")
    monkeypatch.setenv("DMLC_NUM_WORKER", "2")


@pytest.mark.parametrize("kind", ["device", "local", "nccl"])
def test_a_worker_alone_waits_for_nobody(kind):
    with Workers(kind) as workers:
        workers.connect()
        assert (workers.rank, workers.count, workers.is_writer) == (0, 1, True)
        assert workers.kvstore is None
        workers.barrier()
        workers.beat()
        with workers.long_task():
            pass
        np.testing.assert_array_equal(workers.gather(np.array([1.0, 2.0])), [[1.0, 2.0]])
        np.testing.assert_array_equal(workers.total(np.array([1.0, 2.0])), [1.0, 2.0])
        array = mx.nd.array([1.0, 3.0])
        workers.average_({"a": array})
        np.testing.assert_array_equal(array.asnumpy(), [1.0, 3.0])
        workers.check_same("anything", 5, "nothing")
        workers.check_same_arrays("anything", {"a": array})


def test_several_workers_need_the_launcher():
    with pytest.raises(ConfigError, match=r"dist_sync[\s\S]*sniper launch"):
        Workers("dist_sync")


def test_the_launcher_needs_dist_sync(launched):
    with pytest.raises(ConfigError, match=r"device[\s\S]*--set default.kvstore dist_sync"):
        Workers("device")


def test_the_rank_is_known_before_mxnet_starts(launched):
    workers = Workers("dist_sync")
    assert (workers.rank, workers.count, workers.is_writer) == (1, 2, False)
    assert workers.kvstore is None


def test_a_wait_has_an_end_and_errors_come_through(launched):
    import time

    workers = Workers("dist_sync")
    with pytest.raises(TrainingError, match=r"worker 1 has waited for Godot for 0.1 s"):
        workers._in_time(lambda: time.sleep(30), "for Godot", 0.1)
    with pytest.raises(ZeroDivisionError):
        workers._in_time(lambda: 1 / 0, "for a number")
    assert workers._in_time(lambda: [None], "for a list") == [None]


def test_small_arrays_travel_together(monkeypatch):
    monkeypatch.setattr(collectives, "BUCKET_ELEMENTS", 10)
    layout = [("a", (2, 3)), ("b", (4,)), ("c", (1,)), ("d", (5, 5)), ("e", (1,)), ("f", (9,))]
    buckets = collectives._buckets("x", layout)
    assert [[index for index, _, _ in bucket.parts] for bucket in buckets] == [
        [0, 1],
        [2],
        [3],
        [4, 5],
    ]
    assert [bucket.size for bucket in buckets] == [10, 1, 25, 10]
    assert [bucket.key for bucket in buckets] == ["x:0", "x:1", "x:2", "x:3"]


# Every worker checks all that it gets; what it prints is compared below.
SCRIPT = """
import contextlib, os, sys, time
import numpy as np
from sniper.training.distributed import Workers
from sniper.errors import TrainingError

def raises(words, function, *arguments):
    try:
        function(*arguments)
    except TrainingError as error:
        assert words in str(error), error
    else:
        raise SystemExit(f"nobody said: {words}")

def tcp_listeners():
    own = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            own.add(os.readlink(f"/proc/self/fd/{number}"))
    rows = [line.split() for line in open("/proc/net/tcp").read().splitlines()[1:]]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own]

with Workers("dist_sync") as workers:
    workers.connect()
    import mxnet as mx
    from sniper.training import collectives

    collectives.BUCKET_ELEMENTS = 5000
    rank, count = workers.rank, workers.count
    shapes = [(3, 4), (70,), (1,), (90, 100), (2, 2, 2), (600,)]
    types = ["float32", "float32", "float16", "float32", "float32", "float16"]
    names = [str(i) for i in range(len(shapes))]
    total = collectives.WorkerSum(workers.kvstore, "test")
    for step in range(3):
        made = [
            [np.random.default_rng([step, r, i]).normal(size=s).astype(t)
             for i, (s, t) in enumerate(zip(shapes, types))]
            for r in range(count)
        ]
        arrays = [mx.nd.array(value, dtype=value.dtype) for value in made[rank]]
        total.sum_(names, arrays)
        for i, array in enumerate(arrays):
            expected = sum(made[r][i].astype(np.float32) for r in range(count)).astype(types[i])
            assert array.dtype == np.dtype(types[i])
            np.testing.assert_array_equal(array.asnumpy(), expected)
    raises("have changed", total.sum_, names[1:], arrays[1:])

    row = np.array([0.1, 1e300, -0.0, np.inf]) * (rank + 1)
    table = workers.gather(row)
    expected = np.array([np.array([0.1, 1e300, -0.0, np.inf]) * (r + 1) for r in range(count)])
    assert table.tobytes() == expected.tobytes(), table
    for step in range(3):
        assert workers.total(np.array([0.1 + rank, step]))[0] == 0.1 + 1.1
    assert np.isnan(workers.total(np.array([np.nan if rank else 1.0]))[0])

    for step in range(2):
        averages = {"b": mx.nd.array([rank, step]), "a": mx.nd.array([[4.0 * rank]])}
        workers.average_(averages)
        np.testing.assert_array_equal(averages["b"].asnumpy(), [0.5, step])
        np.testing.assert_array_equal(averages["a"].asnumpy(), [[2.0]])

    workers.check_same("the number", 5, "")
    print("listens on TCP:", tcp_listeners(), flush=True)
    raises("disagree about the rank", workers.check_same, "the rank", rank, "do")
    workers.check_same_arrays("the weights", {"w": mx.nd.ones(3)})
    raises("disagree", workers.check_same_arrays, "w", {"w": mx.nd.ones(3) * rank})
    raises("disagree", workers.check_same_arrays, "w", {str(rank): mx.nd.ones(3)})
    workers.barrier()
    workers.kvstore._send_command_to_servers(0, "no pickle")
    print("all is well", flush=True)
    if sys.argv[1] == "wait":
        if rank == 1:
            time.sleep(600)
        workers.barrier("worker 1", 1.0)
"""


def run_script(tmp_path, mode, *flags, search_path=os.environ["PATH"]):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    launcher = [sys.executable, "-m", "sniper.tools.launch", "-n", "2", *flags]
    command = [*launcher, "--", str(path), mode]
    env = {**os.environ, "PYTHONPATH": str(LIB), "PATH": search_path}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def test_two_workers_add_up_and_compare(tmp_path):
    """And the one that has to wait too long ends the job, though MXNet would wait for ever."""
    done = run_script(tmp_path, "wait")
    for role in ("worker 0", "worker 1"):
        assert f"[{role}] all is well" in done.stdout, done.stdout + done.stderr
        # Strangers cannot even connect: a few bytes of them end a server or a worker.
        assert f"[{role}] listens on TCP: []" in done.stdout
    assert "[server 0] refused: command 0 of 9 bytes" in done.stdout
    assert "worker 0 has waited for worker 1 for 1 s" in done.stdout
    assert done.returncode == 1
    assert "error: worker 0 (process " in done.stderr and "exit code 1" in done.stderr


@pytest.mark.slow
def test_two_workers_leave_together(tmp_path):
    done = run_script(tmp_path, "leave")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


# Runs the remote command as ssh does: in a shell, elsewhere, with another environment.
FAKE_SSH = """#!/bin/sh
while [ $# -gt 1 ]; do shift; done
echo Welcome
cd / && exec env -i PATH=/usr/bin:/bin sh -c "$1"
"""


@pytest.mark.slow
def test_workers_on_hosts(tmp_path):
    ssh = tmp_path / "ssh"
    ssh.write_text(FAKE_SSH)
    ssh.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    hosts = ["--hosts", "me@localhost,127.0.0.1:22", "--port", str(port)]
    done = run_script(tmp_path, "leave", *hosts, search_path=f"{tmp_path}:{os.environ['PATH']}")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    for role in ("scheduler", "server 0", "server 1", "worker 0", "worker 1"):
        assert f"[{role}] Welcome" in done.stdout


@pytest.mark.slow
def test_a_port_that_is_in_use(tmp_path):
    ssh = tmp_path / "ssh"
    ssh.write_text(FAKE_SSH)
    ssh.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = ["--hosts", "localhost", "--port", str(taken.getsockname()[1])]
        done = run_script(tmp_path, "leave", *where, search_path=path)
    assert done.returncode == 1
    assert "[scheduler] error: the scheduler of the job cannot serve" in done.stdout
    assert "choose another with `sniper launch --port`" in done.stdout
    assert "error: scheduler (process " in done.stderr
