"""Early stopping in the loop of a run: why it ends, what it keeps, what a resume does."""

from __future__ import annotations

import json
from dataclasses import replace

import mxnet as mx
import pytest

from sniper.training.checkpoint import CheckpointFolder
from sniper.training.distributed import Workers
from sniper.training.keeper import Keeper
from sniper.training.loop import LoopSettings, TrainingLoop
from sniper.training.meter import Meter
from sniper.training.pace import ProgressClock
from sniper.training.run_log import RunLog, Validated
from sniper.training.run_state import RunState
from tests.training import step_toys as toys

SETTINGS = LoopSettings(9, validate_every=1, patience=2)
BATCHES = 2


class Loader:
    """Two batches an epoch."""

    batches_per_epoch = BATCHES
    wait_time_s = 0.0

    class epoch_stats:  # noqa: N801 (an attribute of loaders)
        class chips:  # noqa: N801
            @staticmethod
            def lines():
                return []

    def start_epoch(self, epoch, first_batch=0):
        self.epoch, self.index = epoch, first_batch

    def __next__(self):
        if self.index == BATCHES:
            raise StopIteration
        batch = replace(toys.toy_batch(4, seed=10 * self.epoch + self.index), index=self.index)
        self.index += 1
        return batch


class Validator:
    """Validates to values that are given."""

    def __init__(self, values):
        self.values = list(values)

    def run(self, arg, aux, epoch):
        self.arg = {name: value.asnumpy().copy() for name, value in arg.items()}
        return Validated("COCO_val", {"ap": self.values[epoch - 1]}, "ap", 0.1)


def train(folder, values, settings=SETTINGS):
    """Runs, or goes on, until the run ends; its state and the number of updates."""
    checkpoints = CheckpointFolder(folder, "SNIPER")
    checkpoint = checkpoints.newest()
    stepper = toys.make_stepper()
    state = RunState(0, 0, 8, 4, 0, run=1)
    if checkpoint is not None:
        state = checkpoint.state
        arg, aux = checkpoint.read_params()
        stepper._replicas[0].set_parameters(arg, aux)
        stepper.restore(checkpoint.read_optimizer(), state.updates, folder)
    with Workers("local") as workers:
        clock = ProgressClock(lambda: None)
        keeper = Keeper(stepper, toys.toy_symbol(4), checkpoints, workers, clock,
                        resumed=checkpoint)  # fmt: skip
        meter = Meter(None, workers, clock, 1, lambda outputs, labels: {}, state)
        log = RunLog(folder, "toy", tensorboard=False)
        loader = Loader()
        loader.start_epoch(state.epoch)
        loop = TrainingLoop(
            *(settings, stepper, loader, workers, meter, keeper, state),
            log=log,
            validation=Validator(values),
            bad_batch=folder / "bad.npz",
        )
        loop.run()
        log.close()
    return checkpoints.newest().state, toys.values(stepper)


VALUES = (0.2, 0.5, 0.4, 0.5, 0.9, 0.9, 0.9, 0.9, 0.9)


def test_it_stops_keeps_the_best_and_says_why(tmp_path, caplog):
    caplog.set_level("INFO", "sniper")
    state, _ = train(tmp_path, VALUES)
    assert (state.epoch, state.updates, state.unimproved, state.mark) == (4, 8, 2, 0.5)
    assert (state.best.epoch, state.best.value) == (2, 0.5)
    said = [text for text in caplog.messages if "stopped early" in text]
    assert said == [
        "stopped early, after epoch 4: ap has not exceeded 0.5000 in 2 validation(s) "
        "(TRAIN.EARLY_STOPPING); best: 0.5000 after epoch 2"
    ]
    assert json.loads((tmp_path / "SNIPER-best.json").read_text())["epoch"] == 2
    best, second = (mx.nd.load(str(tmp_path / f"SNIPER-{n}.params")) for n in ("best", "0002"))
    assert all((best[name].asnumpy() == second[name].asnumpy()).all() for name in second)


@pytest.mark.parametrize("broken_after", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_resumed_run_stops_where_an_unbroken_one_does(tmp_path, broken_after):
    whole, weights = train(tmp_path / "whole", VALUES)
    folder = tmp_path / "broken"
    state, _ = train(folder, VALUES, replace(SETTINGS, end_epoch=broken_after))
    assert state.epoch == broken_after
    state, resumed = train(folder, VALUES)
    toys.assert_same(resumed, weights)
    assert replace(state, saved_at_s=0) == replace(whole, saved_at_s=0)
    again, _ = train(folder, VALUES)
    assert again.updates == whole.updates, "a run that has stopped early stays so"
    further, _ = train(folder, VALUES, replace(SETTINGS, patience=5, end_epoch=6))
    assert (further.epoch, further.mark, further.unimproved) == (6, 0.9, 1)


def test_without_patience_it_runs_to_the_end(tmp_path):
    state, _ = train(tmp_path, VALUES, LoopSettings(3, validate_every=1))
    assert state.epoch == 3
