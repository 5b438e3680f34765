from __future__ import annotations

import logging
import threading
import time

import pytest

import sniper.data.progress as progress_module
from sniper.data.progress import Heartbeat, Progress, peak_memory_mb


@pytest.fixture(autouse=True)
def quick(monkeypatch, caplog):
    monkeypatch.setattr(progress_module, "EVERY_S", 0.05)
    caplog.set_level(logging.INFO)


def test_lines_come_at_intervals(caplog):
    progress = Progress("boxes counted", 3)
    progress.tell(1)
    assert not caplog.messages
    time.sleep(0.06)
    progress.tell(2)
    progress.tell(3)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("boxes counted: 2/3, peak memory ")


def test_a_long_call_shows_that_it_lives_and_leaves_no_thread(caplog):
    before = threading.active_count()
    with pytest.raises(KeyError), Heartbeat("reading x"):
        time.sleep(0.2)
        raise KeyError
    assert threading.active_count() == before
    assert any(text.startswith("reading x: 0 s so far") for text in caplog.messages)


def test_memory():
    assert 10 < peak_memory_mb() < 1 << 20
