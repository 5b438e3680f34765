"""Training with two workers on this machine: the updates of one process, and how it ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess

import numpy as np
import pytest

from tests.e2e.worker_jobs import (
    END_LIMIT_S,
    HALF,
    SMALL,
    START_LIMIT_S,
    TIMEOUT_S,
    WHOLE,
    Running,
    assert_same_bits,
    command,
    environment,
    losses,
    momenta,
    params,
    run,
    run_alone,
    running_sessions,
)


def compare_with_one_process(tiny, output, *overrides):
    """Trains both ways; returns what two workers have said."""
    said = run(tiny, output, *SMALL, *HALF, *overrides)
    shutil.rmtree(tiny.root / "alone", ignore_errors=True)
    alone = run_alone(tiny, *SMALL, *WHOLE, *overrides)
    together = tiny.model_folder(output)
    assert_same_bits(params(together), params(alone))
    assert_same_bits(momenta(together), momenta(alone))
    pairs = list(zip(losses(together), losses(alone)))
    assert len(pairs) > 4 and len(losses(together)) == len(losses(alone))
    for two, one in pairs:
        assert two.pop("kind") == one.pop("kind")
        # The sums of the metrics are taken in another order.
        assert two == pytest.approx(one, rel=1e-12)
    return said


def test_two_workers_train_like_one_process_with_two_devices(tiny, fresh):
    """Batch BN too: its statistics belong to a device, in one process or in two."""
    said = compare_with_one_process(tiny, fresh)
    assert "[worker 0]" in said and "the weights are the same on all 2 workers" in said
    assert "epoch 1, batch" not in "".join(re.findall(r"\[worker 1\].*", said)), "one writer"
    (log,) = tiny.model_folder(fresh).glob("*.log")
    batch = "batch: 4 chips an update = 1 device(s) x 2 (TRAIN.BATCH_IMAGES) x 2 workers"
    assert batch in log.read_text()


@pytest.fixture
def job(tiny, fresh, tmp_path):
    """A long training with two workers and loader processes, after its first updates."""
    overrides = ("TRAIN.end_epoch", "500", "TRAIN.NUM_PROCESS", "1", *HALF)
    running = Running(tmp_path, command(tiny, fresh, *overrides, timeout_s=TIMEOUT_S))
    try:
        running.wait_for("batch 2 of")
        assert set(running.pids()) == {"scheduler", "server 0", "worker 0", "worker 1"}
        assert set(running.pids().values()) <= running_sessions()
        yield running
    finally:
        running.close()


def assert_ended_because_of(job, role, cause):
    errors = job.text(1)
    assert f"error: {role} (process " in errors and cause in errors, errors
    assert "go on from the newest checkpoint: sniper launch --timeout 45 -n 2" in errors
    assert "main_train.py --resume --cfg" in errors


def test_a_killed_worker_ends_the_job(job):
    os.kill(job.pids()["worker 1"], signal.SIGKILL)
    assert job.wait_for_end() == 1
    assert_ended_because_of(job, "worker 1", "was killed by SIGKILL")


@pytest.mark.slow
@pytest.mark.parametrize("role", ["server 0", "scheduler"])
def test_a_killed_server_ends_the_job(job, role):
    os.kill(job.pids()[role], signal.SIGKILL)
    assert job.wait_for_end() == 1
    assert_ended_because_of(job, role, "was killed by SIGKILL")


@pytest.mark.slow
def test_a_killed_launcher_ends_the_job(job):
    job.process.kill()
    job.wait_for_end()


@pytest.mark.slow
@pytest.mark.parametrize("role", ["worker 1", "server 0"])
def test_a_stopped_process_ends_the_job(job, role):
    os.kill(job.pids()[role], signal.SIGSTOP)
    assert job.wait_for_end(TIMEOUT_S + END_LIMIT_S) == 1
    assert f"no worker has made an update for {TIMEOUT_S} s" in job.text(1)
    assert re.search(rf"probably because of {role} \([^)]*\): no sign of life", job.text(1))


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.slow
def test_ctrl_c_saves_and_resume_goes_on(job, tiny, fresh):
    job.process.send_signal(signal.SIGINT)
    assert job.wait_for_end() == 130
    assert "stopped as requested" in job.text(0)
    said = run(tiny, fresh, "TRAIN.end_epoch", "2", "TRAIN.NUM_PROCESS", "1", *HALF,
               flags=("--resume",))  # fmt: skip
    assert "resumed after" in said or "done already" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("network.BN_MODE", "frozen", "TRAIN.lr", "0.001", "TRAIN.warmup_lr", "0.001"),
        ("TRAIN.GRADIENT_REDUCTION", "mean", "TRAIN.EMA_DECAY", "0.9"),
        ("TRAIN.BATCH_IMAGES", "1", "TRAIN.NUM_PROCESS", "2"),
    ],
)
def test_other_settings_train_like_one_process_too(tiny, fresh, overrides):
    compare_with_one_process(tiny, fresh, *overrides)


@pytest.mark.slow
def test_accumulated_batches_are_added_in_another_order(tiny, fresh):
    """Batches before workers, instead of devices before batches: equal but for the last bits."""
    settings = (*SMALL, "TRAIN.ACCUMULATION_STEPS", "2", "TRAIN.lr", "0.01")
    run(tiny, fresh, *settings, *HALF)
    shutil.rmtree(tiny.root / "alone", ignore_errors=True)
    alone = run_alone(tiny, *settings, *WHOLE)
    pairs = list(zip(losses(tiny.model_folder(fresh)), losses(alone)))
    assert len(pairs) == 7
    for index, (two, one) in enumerate(pairs):
        assert two.pop("kind") == one.pop("kind")
        assert two == pytest.approx(one, rel=1e-12 if index < 2 else 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accumulation", "overrides", "place"),
    [
        ("1", ("TRAIN.CHECKPOINT_EVERY", "4", "TRAIN.MAX_UPDATES", "4"), "batch 4 of epoch 1"),
        # The epoch of 6 batches ends within an update.
        ("4", ("TRAIN.end_epoch", "1"), "epoch 1, update 1"),
    ],
)
def test_a_resumed_run_goes_on_like_an_unbroken_one(tiny, fresh, accumulation, overrides, place):
    settings = ("TRAIN.end_epoch", "2", "TRAIN.NUM_PROCESS", "0", *HALF)
    settings += ("TRAIN.ACCUMULATION_STEPS", accumulation)
    shutil.rmtree(tiny.root / "unbroken_workers", ignore_errors=True)
    run(tiny, "unbroken_workers", *settings)
    run(tiny, fresh, *settings, *overrides)
    assert f"resumed after {place}" in run(tiny, fresh, *settings, flags=("--resume",))
    whole, broken = tiny.model_folder("unbroken_workers"), tiny.model_folder(fresh)
    first, second = params(whole, "SNIPER-0002"), params(broken, "SNIPER-0002")
    trained = {name for name in first if name.startswith("arg:")}
    assert_same_bits(*({name: of[name] for name in trained} for of in (first, second)))
    # The averages of BatchNorm, which training does not use, go on from their mean.
    for name in first.keys() - trained:
        np.testing.assert_allclose(first[name], second[name], rtol=0.05, atol=0.05, err_msg=name)


@pytest.mark.slow
def test_early_stopping_ends_both_workers(tiny, fresh):
    """The first worker alone validates; a gain of 100 points of AP counts as one, so none does."""
    early = ("TRAIN.EARLY_STOPPING.PATIENCE", "1", "TRAIN.EARLY_STOPPING.MIN_DELTA", "1.0")
    settings = ("TRAIN.end_epoch", "6", "TRAIN.NUM_PROCESS", "0", "TRAIN.VALIDATE_EVERY", "1")
    said = run(tiny, fresh, *settings, *early, *HALF)
    assert "stopped early, after epoch 2" in said
    folder = tiny.model_folder(fresh)
    assert (folder / "SNIPER-0002.params").is_file() and not list(folder.glob("SNIPER-0003*"))
    assert (folder / "SNIPER-best.params").is_file()


@pytest.mark.slow
def test_bad_input_gives_its_own_exit_code(tiny, fresh):
    arguments = command(tiny, fresh, "dataset.image_set", "no_such_set", *HALF)
    done = subprocess.run(
        arguments, env=environment(), capture_output=True, text=True, timeout=START_LIMIT_S
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "no_such_set" in done.stdout and "failed with exit code 3" in done.stderr
