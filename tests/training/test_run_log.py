"""JSON lines, TensorBoard curves and progress lines."""

import errno
import json
import logging
import sys
import types

import numpy as np
import pytest

from sniper.models.assembly import DetectorSpec, batch_metrics
from sniper.process import start_logging
from sniper.training import run_log, tensorboard
from sniper.training.distributed import Workers
from sniper.training.meter import Meter
from sniper.training.pace import Pace, ProgressClock
from sniper.training.run_log import Display, JsonLines, RunLog, Validated
from sniper.training.run_state import RunState

NETWORK = DetectorSpec("resnet_mx_18_e2e", 3, (1,), (1,), 16, 1)
MEASURE = batch_metrics(NETWORK, rpn_only=True)
PACE = Pace(chips_per_s=16.0, data_wait=0.25, eta_s=3, memory_gb=1.5)


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def curves(monkeypatch):
    """A stand-in for tensorboardX: {tag: [(update, value), ...]}."""
    points: dict = {}

    class SummaryWriter:
        def __init__(self, folder):
            points["folder"] = folder

        def add_scalar(self, tag, value, step):
            points.setdefault(tag, []).append((step, value))

        def close(self):
            points["closed"] = True

    module = types.ModuleType("tensorboardX")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    return points


def _display(**changes):
    values = {
        **{"epoch": 2, "batch": 10, "batches": 50, "update": 110, "lr": 0.015, "loss_scale": 1.0},
        **{"skipped": 0, "pace": PACE, "metrics": {"RPNAcc": 0.75, "RPNLogLoss": 0.5}},
    }
    return Display(**{**values, **changes})


def test_json_lines_can_be_read_while_the_run_goes_on(tmp_path):
    lines = JsonLines(tmp_path / "x.jsonl")
    lines.write({"epoch": 1, "loss": 0.5})
    assert _lines(tmp_path / "x.jsonl") == [{"epoch": 1, "loss": 0.5}]
    lines.close()


def test_a_line_cut_by_a_kill_does_not_spoil_the_next(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"update": 1}\n{"upd')
    lines = JsonLines(path)
    lines.write({"update": 2})
    lines.close()
    assert path.read_text().splitlines() == ['{"update": 1}', '{"upd', '{"update": 2}']


def test_a_full_disk_ends_the_lines_and_not_the_run(tmp_path, capsys):
    start_logging()
    lines = JsonLines(tmp_path / "x.jsonl")

    class FullDisk:
        closed = False

        def write(self, line):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            self.closed = True

    lines._file = FullDisk()
    lines.write({})
    lines.write({})
    assert capsys.readouterr().err.count("No space left") == 1


def test_a_progress_line_goes_everywhere(tmp_path, curves, capsys):
    start_logging()
    log = RunLog(tmp_path, "toy", tensorboard=True)
    log.display(_display())
    log.close()
    text = capsys.readouterr().err
    assert (
        "epoch 3, batch 10 of 50: 16.0 chips/s, data wait 25%, ETA 0:00:03, 1.5 GB, lr 0.015"
        in text
    )
    assert "RPNAcc=0.7500 RPNLogLoss=0.5000" in text
    assert "loss scale" not in text
    assert "skipped" not in text
    (line,) = _lines(tmp_path / "toy.jsonl")
    assert line.pop("time") > 1e9
    assert line == {
        **{"kind": "train", "epoch": 2, "batch": 10, "update": 110, "lr": 0.015, "loss_scale": 1.0},
        **{"skipped": 0, "chips_per_s": 16.0, "data_wait": 0.25, "memory_gb": 1.5},
        **{"RPNAcc": 0.75, "RPNLogLoss": 0.5},
    }
    assert curves["folder"] == str(tmp_path / "tensorboard")
    assert curves["train/RPNAcc"] == [(110, 0.75)]
    assert curves["run/lr"] == [(110, 0.015)]
    assert curves["closed"]


def test_loss_scale_and_skipped_updates_are_shown_when_there_are_any(tmp_path, capsys):
    start_logging()
    log = RunLog(tmp_path, "toy", tensorboard=False)
    log.display(_display(loss_scale=1024.0, skipped=3))
    assert "lr 0.015, loss scale 1024, 3 updates skipped, RPNAcc" in capsys.readouterr().err


def test_epochs_and_validations_have_lines_of_their_own_kind(tmp_path, curves):
    log = RunLog(tmp_path, "toy", tensorboard=True)
    log.epoch(1, 100, 2.0, {"RPNAcc": 0.5})
    found = Validated("COCO_val", {"ap": 0.3, "ap_small": float("nan")}, "ap", 1.0)
    log.validation(1, 100, found)
    log.close()
    epoch, validation = _lines(tmp_path / "toy.jsonl")
    assert (epoch["kind"], epoch["RPNAcc"]) == ("epoch", 0.5)
    assert (validation["kind"], validation["set"]) == ("validation", "COCO_val")
    assert (validation["ap"], validation["ap_small"]) == (0.3, None), "NaN is no JSON"
    assert curves["validation/ap"] == [(100, 0.3)]
    assert "validation/ap_small" not in curves


def test_without_a_package_one_line_says_how_to_get_curves(tmp_path, monkeypatch, capsys):
    start_logging()
    for name in ("tensorboardX", "tensorboard", "tensorboard.summary"):
        monkeypatch.setitem(sys.modules, name, None)
    board = tensorboard.TensorBoard(tmp_path)
    board.write("train", {"a": 1.0}, 1)
    board.close()
    assert capsys.readouterr().err.count("pip install tensorboardX") == 1
    assert not list(tmp_path.iterdir())


def test_a_full_disk_ends_the_curves_and_not_the_run(tmp_path, curves, monkeypatch, capsys):
    start_logging()
    board = tensorboard.TensorBoard(tmp_path)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys.modules["tensorboardX"].SummaryWriter, "add_scalar", full)
    for update in (1, 2):
        board.write("train", {"a": 1.0}, update)
    board.close()
    assert capsys.readouterr().err.count("No space left") == 1


def test_real_curves_can_be_read(tmp_path):
    pytest.importorskip("tensorboardX")
    board = tensorboard.TensorBoard(tmp_path)
    board.write("train", {"RPNAcc": 0.5}, 7)
    board.close()
    (file,) = tmp_path.iterdir()
    assert b"train/RPNAcc" in file.read_bytes()


class _FakeLog:
    def __init__(self):
        self.displays, self.epochs = [], []

    def display(self, shown):
        self.displays.append(shown)

    def epoch(self, *figures):
        self.epochs.append(figures)


def _batch(value):
    """One anchor that counts, with probability `value` for its label."""
    outputs = {
        "rpn_cls_prob": np.float32([1 - value, value]).reshape(1, 2, 1, 1),
        "rpn_bbox_loss": np.zeros((1, 4), np.float32),
    }
    return outputs, types.SimpleNamespace(label={"label": np.ones((1, 1), np.float32)})


def _train(meter, log, first, last, batches=30, epoch=0):
    for done in range(first, last + 1):
        outputs, batch = _batch(0.3 + 0.02 * done)
        meter.add(outputs, batch)
        meter.show(
            RunState(epoch, done, 100, 4, 0, batch=done),
            **{"batches": batches, "remaining": 7, "lr": 0.1, "loss_scale": 1.0, "waited_s": 0.0},
        )
    return [(shown.batch, shown.metrics) for shown in log.displays]


def _meter(log, state=None, display=12):
    state = state or RunState(0, 0, 100, 4, 0)
    return Meter(log, Workers("device"), ProgressClock(), display, MEASURE, state)


def test_which_batches_are_shown():
    log = _FakeLog()
    shown = _train(_meter(log), log, 1, 30)
    assert [batch for batch, _ in shown] == [10, 12, 24, 30]
    log = _FakeLog()
    shown = _train(_meter(log), log, 1, 30, epoch=1)
    assert [batch for batch, _ in shown] == [12, 24, 30], "an early line in the first epoch only"


def test_metrics_of_an_epoch_are_averages_over_all_of_it_and_never_nan():
    log = _FakeLog()
    meter = _meter(log)
    _train(meter, log, 1, 30)
    # Right after a progress line the window is empty.
    meter.end_epoch(RunState(0, 30, 100, 4, 0, batch=30), 1.0, complete=True)
    meter.end_epoch(RunState(1, 30, 100, 4, 0), 1.0, complete=False)
    (_, _, _, values), (_, _, _, nothing) = log.epochs
    assert values["RPNAcc"] == pytest.approx(20 / 30), "the label wins from batch 11 on"
    assert nothing == {}


def test_an_interrupted_meter_shows_what_an_unbroken_one_does(capsys):
    start_logging()
    log = _FakeLog()
    unbroken = _train(_meter(log), log, 1, 30)
    log = _FakeLog()
    meter = _meter(log)
    _train(meter, log, 1, 14)
    state = meter.into(RunState(0, 14, 100, 4, 0, batch=14))
    capsys.readouterr()
    assert _train(_meter(log, state), log, 15, 30) == unbroken
    text = capsys.readouterr().err
    assert text.count("epoch 1, batch 24 of 30") == 0
    assert logging.getLogger("sniper").handlers
    assert run_log.format_metrics(unbroken[-1][1]).startswith("RPNAcc=1.0000")


def test_a_resumed_run_says_something_after_ten_batches(capsys):
    start_logging()
    log = _FakeLog()
    meter = _meter(log, RunState(3, 14, 100, 4, 0), display=100)
    _train(meter, log, 15, 24, batches=200, epoch=3)
    assert "epoch 4, batch 24 of 200: RPNAcc=" in capsys.readouterr().err
    assert not log.displays
