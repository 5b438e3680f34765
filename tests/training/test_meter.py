"""What a run says of itself while it trains: how long it will take, and a line often enough."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from sniper.process import start_logging
from sniper.progress import LongCall
from sniper.training import loop
from sniper.training.meter import FIRST_DISPLAY, SILENT_S, Meter
from sniper.training.pace import ProgressClock
from sniper.training.run_log import RunLog
from sniper.training.run_state import RunState

BATCHES = 300


@pytest.fixture
def clock(monkeypatch):
    """Time that goes on by hand: batches of `each_s` seconds."""
    now = SimpleNamespace(s=1000.0, each_s=0.1)
    monkeypatch.setattr("time.monotonic", lambda: now.s)
    return now


def _run(tmp_path, clock, batches, *, start=0, display=1000):
    """Shows `batches` batches of an epoch, from batch `start` on."""
    start_logging()
    state = RunState(0, start, BATCHES * 4, 4, 0, batch=start)
    log = RunLog(tmp_path, "toy", tensorboard=False)
    workers = SimpleNamespace(total=lambda values: values)
    measure = lambda outputs, labels: {"RPNAcc": (1.0, 2.0)}  # noqa: E731
    meter = Meter(log, workers, ProgressClock(), display, measure, state)
    for number in range(start + 1, start + batches + 1):
        clock.s += clock.each_s
        meter.add({}, SimpleNamespace(label={}))
        meter.show(
            RunState(0, number, BATCHES * 4, 4, 0, batch=number),
            batches=BATCHES,
            remaining=BATCHES - number,
            lr=0.1,
            loss_scale=1.0,
            waited_s=0.0,
        )
    log.close()
    return meter


def test_the_duration_is_announced_and_the_dip_explained(tmp_path, clock, capsys):
    clock.each_s = 2.0
    _run(tmp_path, clock, FIRST_DISPLAY)
    text = capsys.readouterr().err
    assert "this will take about 0:09:40, until" in text  # 290 batches of 2 s
    assert "during the first 400 batches" in text


def test_a_resumed_run_announces_its_rest_only(tmp_path, clock, capsys):
    _run(tmp_path, clock, FIRST_DISPLAY, start=100)
    text = capsys.readouterr().err
    assert text.count("this will take about 0:00:19") == 1 and "400 batches" not in text


def test_slow_batches_are_never_silent_for_long(tmp_path, clock, capsys):
    clock.each_s = 20.0
    meter = _run(tmp_path, clock, FIRST_DISPLAY + 6)
    lines = capsys.readouterr().err.splitlines()
    told = [line for line in lines if "about" in line and "left" in line]
    # Every second batch: one alone is below the limit.
    assert len(told) == 7 and "batch 12 of 300: about 1:36:00 left" in "\n".join(told)
    # These lines leave the averages of the next progress line alone.
    assert meter.into(RunState(0, 0, 0, 4, 0)).window == {"RPNAcc": (6.0, 12.0)}
    assert SILENT_S <= 30
    clock.each_s = 0.1
    _run(tmp_path, clock, FIRST_DISPLAY + 6)
    assert " left" not in capsys.readouterr().err


def test_workers_that_do_not_write_say_nothing(clock, capsys):
    meter = Meter(
        None,
        SimpleNamespace(total=np.asarray),
        ProgressClock(),
        1000,
        lambda outputs, labels: {},
        RunState(0, 0, 1, 4, 0),
    )
    start_logging()
    for number in range(1, FIRST_DISPLAY + 3):
        clock.s += 60
        meter.add({}, SimpleNamespace(label={}))
        meter.show(
            RunState(0, number, 1, 4, 0, batch=number),
            batches=99,
            remaining=9,
            lr=1,
            loss_scale=1,
            waited_s=0,
        )
    assert capsys.readouterr().err == ""


def test_slow_batches_have_company(monkeypatch, capsys):
    assert isinstance(loop._company(0, None), LongCall), "the first one builds the network"
    assert isinstance(loop._company(5, 100.0), LongCall)
    assert not isinstance(loop._company(5, 0.3), LongCall)
    monkeypatch.setattr(loop, "SILENT_S", 0.01)
    start_logging()
    told = threading.Event()
    monkeypatch.setattr("sniper.progress.logger.info", lambda *args: told.set())
    with loop._company(6, None):
        assert told.wait(60)
