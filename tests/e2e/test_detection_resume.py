"""main_test.py after kills, with damaged files and full disks: it goes on, with the same result."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from sniper.data import npz
from sniper.inference.detector import Detector
from sniper.tools.test import main as run_test
from tests.e2e.detection_runs import WATCHED, Started, interrupted, jobs

LIMIT_S = 10


@pytest.fixture
def start(runs, tmp_path):
    """Starts runs; ends them after the test."""
    started = []

    def start_run(output, name, *overrides, patch=""):
        started.append(Started(runs, tmp_path, output, name, overrides, patch))
        return started[-1]

    yield start_run
    for run in started:
        run.close()


def ended(pids):
    """Waits for processes that are no children of this one."""
    deadline = time.monotonic() + LIMIT_S
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.fixture
def detected(monkeypatch):
    """Ids of the images that go through the network of this process."""
    original, ids = Detector.detect, []

    def detect(self, records, **options):
        ids.extend(record.image_id for record in records)
        return original(self, records, **options)

    monkeypatch.setattr(Detector, "detect", detect)
    return ids


def test_a_killed_run_goes_on_without_repeating_an_image(
    runs, start, one_image_blocks, detected, capsys
):
    output = runs.new_output()
    first = start(output, "first5", patch=WATCHED.format(pause=0.3))
    first.wait_until(lambda: len(first.blocks()) >= 2)
    first.process.kill()
    first.process.wait()
    done = len(first.blocks())
    assert 2 <= done < 5
    assert run_test(runs.arguments(output, "first5")) == 0
    assert f"{done} of 5 images are done already" in capsys.readouterr().err
    assert len(detected) == 5 - done
    assert not set(detected) & set(first.detected[:done])
    assert runs.results(output, "first5") == runs.plain("first5")
    assert not list((output / "results").glob("partial_*"))
    report = json.loads((output / "results" / "detections_first5_report.json").read_text())
    assert report["speed"]["images"] == 5, "the figures of both runs together"


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(runs, start):
    run = start(runs.new_output(), "first5", patch=WATCHED.format(pause=0.3))
    run.wait_until(lambda: len(run.blocks()) >= 1)
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.process.wait(LIMIT_S) == 130
    assert "of 5 images are done; the same command goes on from there" in run.errors
    assert "Traceback" not in run.errors and run.blocks()


# In a worker process, through `sitecustomize`: after one block it stands still.
STANDSTILL = """
import os, time
if os.environ.get("SNIPER_TEST_STANDSTILL") and "sniper.inference.block_jobs" in " ".join(
    open("/proc/self/cmdline").read().split(chr(0))
):
    from sniper.inference.block_store import BlockStore
    original = BlockStore.save

    def save(self, number, arrays, stats):
        original(self, number, arrays, stats)
        time.sleep(600)

    BlockStore.save = save
"""


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_and_the_next_run_goes_on(
    runs, start, tmp_path, monkeypatch, one_image_blocks, capsys
):
    (tmp_path / "sitecustomize.py").write_text(STANDSTILL)
    output = runs.new_output()
    patch = f"os.environ.update(SNIPER_TEST_STANDSTILL='1', PYTHONPATH={str(tmp_path)!r})"
    run = start(output, "first5", *jobs(2), patch=patch)
    run.wait_until(lambda: len(run.blocks()) == 2)
    workers = run.workers()
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    assert run.process.wait(LIMIT_S) == 1
    assert "a test job died: killed by SIGKILL" in run.errors
    assert "TEST.CONCURRENT_JOBS" in run.errors and ".jpg" in run.errors
    assert "Traceback" not in run.errors
    assert ended(workers)
    assert run_test(runs.arguments(output, "first5")) == 0
    assert "2 of 5 images are done already" in capsys.readouterr().err
    assert runs.results(output, "first5") == runs.plain("first5")


def test_a_damaged_block_is_computed_anew(runs, one_image_blocks, monkeypatch, capsys, detected):
    output = interrupted(runs, "first3", monkeypatch)
    path = sorted((output / "results").glob("partial_*/*/block_*.npz"))[0]
    path.write_bytes(path.read_bytes()[:-300])
    del detected[:]
    assert run_test(runs.arguments(output, "first3")) == 0
    logged = capsys.readouterr().err
    assert "computed anew, since its file is damaged" in logged and path.name in logged
    assert "1 of 3 images are done already" in logged and len(detected) == 2
    assert runs.results(output, "first3") == runs.plain("first3")


@pytest.mark.parametrize(
    "change",
    [
        ("TEST.NMS_SIGMA", 0.4),
        ("TEST.MODE", "single"),
        ("TEST.MAX_PER_IMAGE", 3),
        "weights",
        "image",
    ],
    ids=str,
)
def test_blocks_of_other_runs_are_not_used(
    runs, one_image_blocks, monkeypatch, capsys, detected, change
):
    output = interrupted(runs, "first3", monkeypatch)
    overrides = () if isinstance(change, str) else change
    if change == "weights":
        other = runs.trained / "SNIPER-0001.params"
        shutil.copy(other, output / "tiny" / "train" / "SNIPER-0002.params")
    if change == "image":
        for image in (runs.tiny.root / "toy" / "images" / "train").iterdir():
            os.utime(image)
    del detected[:]
    assert run_test(runs.arguments(output, "first3", *overrides)) == 0
    logged = capsys.readouterr().err
    assert len(detected) == 3 and "done already" not in logged
    assert "removed an unfinished run with other weights, settings or images" in logged
    assert not list((output / "results").glob("partial_*"))


def test_a_full_disk_ends_the_run_with_a_message(runs, one_image_blocks, monkeypatch, capsys):
    original, calls = npz.atomic_write, []

    def full(path, write):
        calls.append(path)
        if len(calls) == 2:
            write = no_space
        original(path, write)

    def no_space(path):
        path.write_text("half of the arr")
        raise OSError(errno.ENOSPC, "No space left on device")

    output = runs.new_output()
    with monkeypatch.context() as patch:
        patch.setattr(npz, "atomic_write", full)
        assert run_test(runs.arguments(output, "first3")) == 1
    logged = capsys.readouterr().err
    assert "No space left" in logged and "block_0000" in logged
    assert "1 of 3 images are done; the same command goes on from there" in logged
    assert [path.name[:6] for path in (output / "results").glob("partial_*/*/*")] == ["block_"]
    assert run_test(runs.arguments(output, "first3")) == 0
    assert runs.results(output, "first3") == runs.plain("first3")
