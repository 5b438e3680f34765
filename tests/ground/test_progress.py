from __future__ import annotations

import logging
import re
import threading
import time

import pytest

import sniper.progress as progress_module
from sniper.progress import LongCall, Progress, StageProgress, format_time, peak_memory_mb


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
    assert re.fullmatch(
        r"boxes counted: 2/3, 0\.0\d\d s each, 0:00:00 left, peak memory \d+ MB", caplog.messages[0]
    )


def test_a_total_that_nobody_knows(caplog, monkeypatch):
    monkeypatch.setattr(progress_module, "EVERY_S", 0.0)
    Progress("images", None).tell(3)
    assert re.fullmatch(r"images: 3, 0\.\d+ s each, peak memory \d+ MB", caplog.messages[0])


def test_a_stage_after_a_silent_one_is_timed_from_its_own_beginning(caplog, monkeypatch):
    monkeypatch.setattr(progress_module, "EVERY_S", 5.0)
    now_s = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now_s[0])
    stages = StageProgress()
    for done in range(4):  # 4 s: too short for a line before its end
        now_s[0] += 1.0
        stages("level 1/2", done + 1, 5)
    for done in range(2):
        now_s[0] += 0.25
        stages("level 2/2", done + 1, 2)
    (line,) = caplog.messages
    assert line.startswith("level 2/2: 2/2, 0.250 s each, 0:00:00 left")


def test_a_long_call_shows_that_it_lives_and_leaves_no_thread(caplog):
    before = threading.active_count()
    with pytest.raises(KeyError), LongCall("reading x"):
        time.sleep(0.2)
        raise KeyError
    assert threading.active_count() == before
    assert any(text.startswith("reading x: 0 s so far") for text in caplog.messages)


def test_memory():
    assert 10 < peak_memory_mb() < 1 << 20


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (3723.4, "1:02:03")])
def test_format_time(seconds, text):
    assert format_time(seconds) == text
