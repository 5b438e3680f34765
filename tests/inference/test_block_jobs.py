"""Worker processes of a test run, with work that needs no network."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sniper.errors import DataError, TrainingError
from sniper.inference.block_jobs import run_in_processes
from sniper.progress import BlockProgress
from tests.inference.fake_block_work import FakeWork

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 30


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Makes work whose blocks become files; processes find its class as well."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def make(trouble="", at=0):
        return FakeWork(tmp_path, trouble, at)

    return make


def progress(count):
    return BlockProgress({number: 1 for number in range(count)})


def pids(folder):
    return [int(path.name[7:]) for path in folder.glob("worker_*")]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(happened):
    deadline = time.monotonic() + LIMIT_S
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.02)
    return happened()


def test_every_block_is_done_once_and_all_workers_take_part(work, tmp_path):
    told = progress(24)
    run_in_processes(work(), range(24), 3, told)
    assert sorted(int(path.name[6:]) for path in tmp_path.glob("block_*")) == list(range(24))
    assert told.images_done == 24
    assert len(pids(tmp_path)) == 3
    assert not any(map(is_running, pids(tmp_path)))


def test_there_are_no_more_workers_than_blocks(work, tmp_path):
    run_in_processes(work(), [5], 4, BlockProgress({5: 1}))
    assert len(pids(tmp_path)) == 1
    run_in_processes(work(), [], 4, progress(0))


@pytest.mark.parametrize(
    "trouble, kind, text",
    [
        ("open", DataError, "x.params"),
        ("data", DataError, "3.jpg"),
        ("bug", TrainingError, r"block 4: 3\.jpg[\s\S]*divided by nought[\s\S]*the same command"),
        ("kill", TrainingError, r"SIGKILL[\s\S]*block 4: 3\.jpg[\s\S]*CONCURRENT_JOBS"),
        ("exit", TrainingError, r"exit code 3[\s\S]*block 4: 3\.jpg"),
        ("sleep", TrainingError, r"no test job answered for 6 s[\s\S]*block 4: 3\.jpg"),
    ],
)
def test_what_goes_wrong_in_a_worker_ends_the_run(work, tmp_path, trouble, kind, text):
    stall_s = 6 if trouble == "sleep" else 60  # a worker may take seconds to start
    started_s = time.monotonic()
    with pytest.raises(kind, match=text):
        run_in_processes(work(trouble, 3), range(5), 2, progress(5), stall_timeout_s=stall_s)
    assert time.monotonic() - started_s < LIMIT_S
    assert not any(map(is_running, pids(tmp_path)))
    if trouble not in ("open", "sleep"):
        assert (tmp_path / "block_0").exists(), "what was done before stays"


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_in_the_parent_ends_the_workers(work, tmp_path):
    threading.Thread(
        target=lambda: (
            wait_until(lambda: (tmp_path / "block_0").exists()),
            os.kill(os.getpid(), signal.SIGINT),
        )
    ).start()
    with pytest.raises(KeyboardInterrupt):
        run_in_processes(work("sleep", 1), range(3), 1, progress(3))
    assert not any(map(is_running, pids(tmp_path)))


PARENT = """
from pathlib import Path
from sniper.inference.block_jobs import run_in_processes
from sniper.progress import BlockProgress
from tests.inference.fake_block_work import FakeWork

work = FakeWork(Path({folder!r}), "sleep", 1)
run_in_processes(work, range(3), 2, BlockProgress(dict.fromkeys(range(3), 1)))
"""


@pytest.mark.usefixtures("ctrl_c")
def test_workers_end_with_a_parent_that_is_killed_and_ignore_ctrl_c(tmp_path):
    path = os.pathsep.join([str(ROOT / "lib"), str(ROOT)])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(folder=str(tmp_path))],
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        assert wait_until(lambda: len(pids(tmp_path)) == 2)
        for pid in pids(tmp_path):
            os.kill(pid, signal.SIGINT)
        time.sleep(0.2)
        assert all(map(is_running, pids(tmp_path)))
    finally:
        parent.kill()
        parent.wait()
    assert wait_until(lambda: not any(map(is_running, pids(tmp_path))))


def test_progress_tells_images_and_remaining_time(caplog, monkeypatch):
    from sniper import progress

    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    told = BlockProgress({0: 10, 1: 20}, before=70)
    with caplog.at_level("INFO", "sniper"):
        told.step(1, "level 1/3", 5, 20)
        assert not caplog.messages
        now[0] = 106.0
        told.step(0, "level 2/3", 1, 10)
        now[0] = 120.0
        told.finished(1)
        now[0] = 121.0
        told.finished(0)
    messages = [re.sub(r", peak memory \d+ MB", "", text) for text in caplog.messages]
    assert messages == [
        "images: 70/100; block 1: level 2/3 1/10; block 2: level 1/3 5/20",
        "images: 90/100, 1.000 s each, 0:00:10 left; block 1: level 2/3 1/10",
        "images: 100/100, 0.700 s each, 0:00:00 left",
    ]
