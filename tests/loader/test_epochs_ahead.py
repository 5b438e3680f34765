"""Epochs that are made in the background: order, failures, cancelling, nothing left."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from sniper.errors import DataError, TrainingError
from sniper.loader.epochs import EpochsAhead

LIMIT_S = 10


class Recorder:
    """Makes epochs and notes which; waits at the gate of an epoch that has one."""

    def __init__(self):
        self.begun = []
        self.cancelled = []
        self.gates = {}

    def __call__(self, epoch, is_cancelled):
        self.begun.append(epoch)
        gate = self.gates.get(epoch)
        while gate is not None and not gate.wait(0.01):
            if is_cancelled():
                self.cancelled.append(epoch)
                raise TrainingError("given up")
        return f"epoch {epoch}"


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("sniper-chips")]


@pytest.fixture
def make():
    return Recorder()


@pytest.fixture
def ahead(make):
    epochs = EpochsAhead(make)
    yield epochs
    epochs.close()
    assert not threads()


def test_an_epoch_is_made_when_it_is_asked_for(ahead, make):
    assert ahead.take(3) == "epoch 3"
    assert ahead.take(0) == "epoch 0"
    assert make.begun == [3, 0]


def test_a_prepared_epoch_is_made_once_and_before_it_is_asked_for(ahead, make):
    ahead.prepare(1)
    ahead.prepare(1)
    deadline = time.monotonic() + LIMIT_S
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert make.begun == [1]
    assert ahead.take(1) == "epoch 1"
    assert make.begun == [1]
    assert ahead.take(1) == "epoch 1", "it is made again: it was handed out, not kept"
    assert make.begun == [1, 1]


def test_taking_waits_for_what_is_in_work(ahead, make):
    gate = make.gates[1] = threading.Event()
    ahead.prepare(1)
    threading.Timer(0.2, gate.set).start()
    assert ahead.take(1) == "epoch 1"
    assert gate.is_set() and make.begun == [1]


def test_another_epoch_replaces_the_prepared_one(ahead, make):
    make.gates[1] = threading.Event()
    ahead.prepare(1)
    assert ahead.take(7) == "epoch 7"
    assert make.begun == [1, 7] and make.cancelled == [1]
    ahead.prepare(8)
    ahead.prepare(9)
    assert ahead.take(9) == "epoch 9"


def test_a_failure_reaches_whoever_asks_for_the_epoch_and_nobody_else():
    def fail(epoch, is_cancelled):
        if epoch == 1:
            raise DataError("broken", where="a.jpg")
        return epoch

    epochs = EpochsAhead(fail)
    epochs.prepare(1)
    assert epochs.take(0) == 0
    epochs.prepare(1)
    with pytest.raises(DataError, match=r"a\.jpg"):
        epochs.take(1)
    assert epochs.take(2) == 2
    epochs.prepare(1)
    epochs.close()
    assert not threads()


def test_close_cancels_and_joins(make):
    make.gates[4] = threading.Event()
    epochs = EpochsAhead(make)
    epochs.prepare(4)
    epochs.close()
    epochs.close()
    assert make.cancelled == [4]
    assert not threads()


def test_close_does_not_wait_for_what_cannot_be_cancelled():
    gate = threading.Event()
    epochs = EpochsAhead(lambda epoch, is_cancelled: gate.wait(60))
    epochs.prepare(0)
    start_s = time.monotonic()
    epochs.close(timeout_s=0.2)
    assert time.monotonic() - start_s < LIMIT_S
    gate.set()


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_interrupts_the_wait(make):
    """Also while the epoch is made by compiled code, since that runs in another thread."""
    make.gates[0] = threading.Event()
    epochs = EpochsAhead(make)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    start_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        epochs.take(0)
    assert time.monotonic() - start_s < LIMIT_S
    epochs.close()
    assert make.cancelled == [0] and not threads()


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="needs priorities of threads")
def test_only_the_background_thread_has_a_low_priority():
    def priority(epoch, is_cancelled):
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    own = os.getpriority(os.PRIO_PROCESS, 0)
    epochs = EpochsAhead(priority)
    assert epochs.take(0) == own
    epochs.prepare(1)
    assert epochs.take(1) > own
    assert os.getpriority(os.PRIO_PROCESS, 0) == own
