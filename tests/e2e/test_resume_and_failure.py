"""Interrupted runs, killed workers, broken inputs: nothing is lost, nothing waits for ever."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sniper import files
from sniper.models.weights import read_params
from sniper.tools.test import main as run_test
from sniper.training.checkpoint import CheckpointFolder

REPO = Path(__file__).resolve().parents[2]


# What a training line tells about the machine and not about the run.
_PACE = ("time", "chips_per_s", "data_wait", "memory_gb")


def _losses(folder):
    lines = [json.loads(line) for line in (folder / "tiny.jsonl").read_text().splitlines()]
    return {
        (line["epoch"], line["batch"]): {k: v for k, v in line.items() if k not in _PACE}
        for line in lines
        if line["kind"] == "train"
    }


def _assert_same_run(one, other, epochs):
    first, second = _losses(one), _losses(other)
    assert set(first) == set(second)
    for key, line in first.items():
        assert line.pop("kind") == second[key].pop("kind")
        assert line == pytest.approx(second[key], rel=1e-6), key
    for (name, a), b in zip(
        read_params(one / f"SNIPER-{epochs:04d}.params")[0].items(),
        read_params(other / f"SNIPER-{epochs:04d}.params")[0].values(),
    ):
        np.testing.assert_allclose(a.asnumpy(), b.asnumpy(), rtol=1e-5, atol=1e-7, err_msg=name)


# One device: also in the default suite, by test_killed_run_goes_on_from_its_checkpoint.
@pytest.mark.parametrize("gpus", [pytest.param("cpu", marks=pytest.mark.slow), "cpu,cpu"])
def test_resumed_run_equals_an_unbroken_one(tiny, gpus):
    settings = ("gpus", gpus, "TRAIN.BATCH_IMAGES", "2" if "," in gpus else "4")
    name = gpus.replace(",", "_")
    whole = tiny.train(f"whole_{name}", overrides=settings)
    tiny.train(f"broken_{name}", overrides=(*settings, "TRAIN.end_epoch", "1"))
    broken = tiny.train(f"broken_{name}", "--resume", overrides=settings)
    _assert_same_run(whole, broken, epochs=2)


def _start(tiny, output, *flags, overrides=()):
    arguments = [*tiny.arguments(output, *flags), *overrides]
    return subprocess.Popen(
        [sys.executable, str(REPO / "main_train.py"), *arguments],
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for(process, condition, limit_s=90):
    end = time.monotonic() + limit_s
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "the run did not get so far"
        time.sleep(0.02)


def test_killed_run_goes_on_from_its_checkpoint(tiny):
    whole = tiny.train("unbroken", overrides=("TRAIN.end_epoch", "3"))
    folder = tiny.model_folder("killed")
    process = _start(tiny, "killed", overrides=("TRAIN.end_epoch", "3"))
    _wait_for(process, (folder / "SNIPER-0001.json").exists)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    killed = _losses(folder)
    tiny.train("killed", "--resume", overrides=("TRAIN.end_epoch", "3"))
    assert len(killed) < len(_losses(whole))
    _assert_same_run(whole, folder, epochs=3)


def _children(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()]


def test_killed_worker_ends_the_run(tiny):
    process = _start(tiny, "worker", overrides=("TRAIN.end_epoch", "500"))
    log_lines = tiny.model_folder("worker") / "tiny.jsonl"
    _wait_for(process, lambda: log_lines.exists() and log_lines.stat().st_size > 0)
    os.kill(_children(process.pid)[0], signal.SIGKILL)
    _, message = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "worker" in message
    assert "Traceback" not in message


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_run_and_ends_it_and_its_workers(tiny, number):
    """SIGTERM: of a run in the background, where Ctrl-C is ignored."""
    name = signal.Signals(number).name
    if number == signal.SIGTERM:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = _start(tiny, name, overrides=("TRAIN.end_epoch", "500"))
    log_lines = tiny.model_folder(name) / "tiny.jsonl"
    _wait_for(process, lambda: log_lines.exists() and log_lines.stat().st_size > 0)
    workers = _children(process.pid)
    if number == signal.SIGTERM:
        process.send_signal(signal.SIGINT)
        seen = log_lines.read_text().count("\n")
        _wait_for(process, lambda: log_lines.read_text().count("\n") > seen + 3)
    process.send_signal(number)
    _, message = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "the same command with --resume goes on from here" in message
    assert "Traceback" not in message
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < end
        time.sleep(0.05)
    updates = CheckpointFolder(tiny.model_folder(name), "SNIPER").newest().state.updates
    assert max(line["update"] for line in _losses(tiny.model_folder(name)).values()) == updates
    if number == signal.SIGTERM:
        overrides = ("TRAIN.end_epoch", "500", "TRAIN.MAX_UPDATES", str(updates + 1))
        folder = tiny.train(name, "--resume", overrides=overrides)
        assert max(line["update"] for line in _losses(folder).values()) == updates + 1


def test_non_finite_loss_stops_and_saves_the_batch(tiny, capsys):
    overrides = ("TRAIN.lr", "1e30", "TRAIN.warmup", "False")
    assert tiny.run_train("nan", overrides=overrides) == 1
    message = capsys.readouterr().err
    assert "not finite" in message
    assert "--resume" in message
    with np.load(tiny.model_folder("nan") / "bad_batch.npz") as batch:
        assert batch["data"].shape == (4, 3, 128, 128)


def test_resuming_a_finished_run_changes_nothing(tiny, trained):
    before = {path.name: path.stat().st_mtime_ns for path in trained.glob("SNIPER-*")}
    tiny.train("output", "--resume")
    assert {path.name: path.stat().st_mtime_ns for path in trained.glob("SNIPER-*")} == before


def test_resume_with_another_batch_size_is_refused(tiny, trained, capsys):
    overrides = ("TRAIN.BATCH_IMAGES", "2", "TRAIN.end_epoch", "3")
    assert tiny.run_train("output", "--resume", overrides=overrides) == 2
    assert "batch_size" in capsys.readouterr().err


def test_missing_weights_are_explained(tiny, trained, capsys):
    assert run_test(["--cfg", str(tiny.cfg), "--set", "TEST.TEST_EPOCH", "77"]) == 3
    message = capsys.readouterr().err
    assert "SNIPER-0077.params" in message
    assert "SNIPER-0002.params" in message, "it says which weights are there"


def test_weights_of_another_network_are_refused(tiny, trained, capsys):
    overrides = ["--set", "network.ROI_CHANNELS", "32"]
    assert run_test(["--cfg", str(tiny.cfg), *overrides]) == 3
    assert "conv_new_1" in capsys.readouterr().err


def test_wrong_class_count_is_explained(tiny, capsys):
    assert tiny.run_train("classes", overrides=("dataset.NUM_CLASSES", "5")) == 2
    assert "dataset.NUM_CLASSES 4" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["lr", "end_epoch"])
def test_settings_that_train_nothing_are_refused(tiny, capsys, key):
    assert tiny.run_train("nothing", overrides=(f"TRAIN.{key}", "0")) == 2
    assert f"TRAIN.{key}" in capsys.readouterr().err


def test_focus_pixels_are_refused_not_skipped(tiny, capsys):
    assert tiny.run_train("focus", overrides=("TRAIN.AUTO_FOCUS", "True")) == 2
    assert "AUTO_FOCUS" in capsys.readouterr().err


def test_missing_proposals_are_explained(tiny, capsys):
    overrides = ("TRAIN.USE_NEG_CHIPS", "True", "proposal_path", str(tiny.root / "nowhere"))
    assert tiny.run_train("proposals", overrides=overrides) == 3
    assert "TRAIN.USE_NEG_CHIPS mine" in capsys.readouterr().err


def test_truncated_image_names_the_file(tiny, tmp_path, capsys):
    toy = tmp_path / "toy"
    (toy / "annotations").mkdir(parents=True)
    (toy / "images" / "train").mkdir(parents=True)
    source = tiny.root / "toy"
    name = "annotations/instances_train.json"
    (toy / name).write_bytes((source / name).read_bytes())
    for image in (source / "images" / "train").iterdir():
        content = image.read_bytes()
        (toy / "images" / "train" / image.name).write_bytes(content[: len(content) // 2])
    assert tiny.run_train("truncated", overrides=("dataset.dataset_path", str(toy))) == 3
    assert str(toy / "images" / "train") in capsys.readouterr().err


def test_full_disk_keeps_the_checkpoint_before(tiny, monkeypatch, capsys):
    folder = tiny.train("disk", overrides=("TRAIN.end_epoch", "1"))
    before = (folder / "SNIPER-0001.params").read_bytes()

    def sync(number):
        if ".SNIPER-0002." in os.readlink(f"/proc/self/fd/{number}"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", sync)
        assert tiny.run_train("disk", "--resume") == 1
    message = capsys.readouterr().err
    assert "No space left" in message
    assert "SNIPER-0002.params" in message
    assert (folder / "SNIPER-0001.params").read_bytes() == before
    assert not list(folder.glob(".*tmp*"))
    tiny.train("disk", "--resume")
    assert (folder / "SNIPER-0002.params").exists()
