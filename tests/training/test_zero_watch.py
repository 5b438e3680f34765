"""Metrics that must not stay 0: one warning for each time, whatever the progress lines are."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest

from sniper.training.meter import Meter
from sniper.training.pace import ProgressClock
from sniper.training.run_log import RunLog
from sniper.training.run_state import RunState
from sniper.training.zero_watch import PATIENCE, ZeroWatch

ADVICE = {"MPos1": "no small faces", "MPos3": "no large faces"}


def windows(watch, series, caplog):
    """Feeds (updates, values) pairs; what was warned after each, as (metric, text) pairs."""
    said = []
    for updates, values in series:
        caplog.clear()
        watch.window(values, updates)
        said.append([(r.args[0], r.args[1]) for r in caplog.records])
    return said


def test_each_time_is_told_once_and_the_metrics_are_told_apart(caplog):
    watch = ZeroWatch(ADVICE, 0)
    both = {"MPos1": 2.0, "MPos3": 0.0, "MLogLoss3": 0.0}
    series = [(10, both), (PATIENCE - 1, both), (PATIENCE, both), (5 * PATIENCE, both)]
    # A face of the third module comes, then none again; the first module never starves.
    series += [(6 * PATIENCE, {"MPos1": 2.0, "MPos3": 0.01}), (7 * PATIENCE - 1, both)]
    series += [(7 * PATIENCE, both), (9 * PATIENCE, both)]
    said = windows(watch, series, caplog)
    once, again = [("MPos3", f"for {PATIENCE} updates")], [("MPos3", f"for {PATIENCE} updates")]
    assert said == [[], [], once, [], [], [], again, []]


def test_a_resumed_run_counts_from_where_it_goes_on(caplog):
    watch = ZeroWatch(ADVICE, 1000)
    zero = {"MPos3": 0.0}
    said = windows(watch, [(1010, zero), (1000 + PATIENCE, zero)], caplog)
    assert [len(records) for records in said] == [0, 1]


def test_an_epoch_without_any_is_enough(caplog):
    watch = ZeroWatch(ADVICE, 0)
    watch.epoch({"MPos1": 0.1, "MPos3": 0.0}, 16)
    watch.epoch({"MPos1": 0.1, "MPos3": 0.0}, 32)
    assert caplog.text.count("MPos3 was 0 in a whole epoch (up to update 16): no large faces") == 1
    assert "MPos1" not in caplog.text
    # What is watched but was never measured is no zero.
    watch.epoch({}, 48)
    watch.window({}, 10 * PATIENCE)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("display", [1, 30, 1000])
@pytest.mark.parametrize("writes", [True, False])
def test_the_meter_watches_the_sums_of_all_workers(tmp_path, caplog, display, writes):
    """Injected: module 3 has positives at the other worker alone, then nowhere, from batch 301 on.

    Only the worker that writes warns.
    """
    caplog.set_level(logging.WARNING)
    elsewhere = [1.0]

    def total(numbers):
        # Pairs (sum, count) of MPos1 and MPos3: the other worker's are added.
        return numbers + [0, 0, elsewhere[0], 0][: len(numbers)]

    log = RunLog(tmp_path, "toy", tensorboard=False) if writes else None
    measure = lambda outputs, labels: {"MPos1": (3.0, 4.0), "MPos3": (0.0, 4.0)}  # noqa: E731
    state = RunState(0, 0, 2000, 4, 0)
    meter = Meter(
        log, SimpleNamespace(total=total), ProgressClock(), display, measure, state, ADVICE
    )
    first = None
    for batch in range(1, 501):
        state = replace(state, batch=batch, updates=batch)
        elsewhere[0] = float(batch <= 300)
        meter.add({}, SimpleNamespace(label={}))
        meter.show(state, batches=500, remaining=500 - batch, lr=0.1, loss_scale=1.0, waited_s=0.0)
        if first is None and caplog.records:
            first = batch
    if writes:
        # Windows that are cut earlier know earlier.
        assert first == {1: 300 + PATIENCE, 30: 300 + PATIENCE + 20, 1000: 500}[display]
    told = [r for r in caplog.records if r.args and r.args[0] == "MPos3"]
    assert len(told) == writes and "MPos1" not in caplog.text
    meter.end_epoch(state, 1.0, complete=True)
    # It was told already.
    assert len(caplog.records) == writes
    if log is not None:
        log.close()
