"""A run that dies within an epoch goes on as if nothing had happened, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest

from sniper.errors import TrainingError
from sniper.loader.train import TrainLoader
from sniper.training.checkpoint import CheckpointFolder

# Dies right after its checkpoint of update UPDATE; then, in another process, an unbroken run and
# the rest of the broken one. All with one thread: sums in another order differ in the last bit.
DIE = """
import os, signal, sys
from sniper.training.checkpoint import CheckpointFolder
from sniper.tools.train import main
save = CheckpointFolder.save_update
def save_and_die(folder, snapshot, state):
    checkpoint = save(folder, snapshot, state)
    if state.updates == UPDATE:
        os.kill(os.getpid(), signal.SIGKILL)
    return checkpoint
CheckpointFolder.save_update = save_and_die
sys.exit(main(BROKEN))
"""
GO_ON = """
import sys
from sniper.tools.train import main
sys.exit(main(WHOLE) or main(RESUMED))
"""


def _run(code, **values):
    for name, value in values.items():
        code = code.replace(name, repr(value))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        timeout=200,
        check=False,
    )


def _train_lines(folder):
    """The lines as they stand, without what tells about the machine."""
    pace = {"time", "chips_per_s", "data_wait", "memory_gb", "took_s"}
    lines = [json.loads(line) for line in (folder / "tiny.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in pace} for line in lines]


def _assert_same_arrays(one, other):
    first, second = mx.nd.load(str(one)), mx.nd.load(str(other))
    assert set(first) == set(second)
    for name, value in first.items():
        np.testing.assert_array_equal(value.asnumpy(), second[name].asnumpy(), err_msg=name)


@pytest.mark.parametrize(
    ("name", "settings", "update", "batch"),
    [
        ("averaged", ("TRAIN.EMA_DECAY", "0.9"), 8, 2),
        pytest.param(
            "cosine",
            ("TRAIN.LR_SCHEDULE", "cosine", "TRAIN.COLOR_JITTER.HUE", "0.2"),
            8,
            2,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "accumulated",
            ("gpus", "cpu,cpu", "TRAIN.BATCH_IMAGES", "2", "TRAIN.ACCUMULATION_STEPS", "2"),
            5,
            4,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_killed_within_an_epoch(tiny, name, settings, update, batch):
    # Progress lines cover three batches: the checkpoint lies within one of them.
    settings = (
        *("--display", "3", "--set", "TRAIN.NUM_PROCESS", "0"),
        *("TRAIN.CHECKPOINT_EVERY", str(update)),
        *("TRAIN.lr_step", "1.2", "TRAIN.end_epoch", "3", *settings),
    )

    def arguments(output, *flags):
        given = tiny.arguments(output, *flags)
        start = given.index("--set")
        return [*given[:start], *settings, *given[start + 1 :]]

    broken = arguments(f"{name}_broken")
    died = _run(DIE, UPDATE=update, BROKEN=broken)
    assert died.returncode == -signal.SIGKILL, died.stderr
    folder = tiny.model_folder(f"{name}_broken")
    stands = CheckpointFolder(folder, "SNIPER").newest().state
    assert (stands.epoch, stands.batch, stands.updates) == (1, batch, update)
    gone_on = _run(
        GO_ON, WHOLE=arguments(f"{name}_whole"), RESUMED=arguments(f"{name}_broken", "--resume")
    )
    assert gone_on.returncode == 0, gone_on.stderr
    assert f"resumed after batch {batch} of epoch 2, update {update}" in gone_on.stderr
    whole = tiny.model_folder(f"{name}_whole")
    assert _train_lines(folder) == _train_lines(whole)
    for path in whole.glob("SNIPER-*.params"):
        _assert_same_arrays(path, folder / path.name)
    _assert_same_arrays(whole / "SNIPER-0003.states", folder / "SNIPER-0003.states")
    assert (whole / "SNIPER-ema-0003.params").exists() == (name == "averaged")


def test_stopping_while_the_processes_of_the_loader_are_killed_too(tiny, monkeypatch, capsys):
    """A scheduler sends SIGTERM to all processes of a job: the run saves itself all the same."""
    take = TrainLoader.__next__

    def killed(loader):
        batch = take(loader)
        if batch.index == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            raise TrainingError("a worker died")
        return batch

    monkeypatch.setattr(TrainLoader, "__next__", killed)
    assert tiny.run_train("group") == 1
    message = capsys.readouterr().err
    assert "stopped as requested" in message
    assert "a worker died" not in message
    state = CheckpointFolder(tiny.model_folder("group"), "SNIPER").newest().state
    assert (state.epoch, state.batch, state.updates) == (0, 3, 3)


@pytest.mark.usefixtures("ctrl_c")
def test_a_signal_between_epochs_loses_nothing(tiny, monkeypatch, capsys):
    start = TrainLoader.start_epoch

    def interrupted(loader, epoch, first_batch=0):
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)
        start(loader, epoch, first_batch)

    monkeypatch.setattr(TrainLoader, "start_epoch", interrupted)
    assert tiny.run_train("between") == 1
    message = capsys.readouterr().err
    assert "SNIPER-0001.params" in message
    assert "--resume" in message


def test_max_updates_within_an_epoch_can_be_raised(tiny, capsys):
    folder = tiny.train("short", overrides=("TRAIN.MAX_UPDATES", "4"))
    assert CheckpointFolder(folder, "SNIPER").newest().path(".params").name == "SNIPER-0001.params"
    etas = [line for line in capsys.readouterr().err.splitlines() if "batch 4 of 6" in line]
    assert "ETA 0:00:00" in etas[0], "it knows where the run ends"
    tiny.train("short", "--resume", overrides=("TRAIN.MAX_UPDATES", "4"))
    assert "done already" in capsys.readouterr().err
    tiny.train("short", "--resume", overrides=("TRAIN.MAX_UPDATES", "8"))
    state = CheckpointFolder(folder, "SNIPER").newest().state
    assert (state.epoch, state.batch, state.updates) == (1, 2, 8)
    places = [(line["epoch"], line["batch"]) for line in _train_lines(folder) if "batch" in line]
    assert places == [(0, batch) for batch in range(1, 7)] + [(1, 1), (1, 2)]
