"""The progress line and the logs of a run."""

import json
import logging

import pytest

from sniper.engine import progress


def test_speed_wait_and_remaining_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    clock = progress.ProgressClock(total_steps=10)
    for _ in range(4):
        now[0] += 0.5
        clock.step()
    line = clock.read(samples_per_step=8, waited_s=0.5)
    assert line.startswith("16.0 chips/s, data wait 25 %, ETA 0:00:03")
    now[0] += 1.0
    clock.step()
    # A new epoch: the loader's counter began again at zero.
    assert clock.read(samples_per_step=8, waited_s=0.1).startswith("8.0 chips/s, data wait 10 %")


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (3723.4, "1:02:03")])
def test_format_time(seconds, text):
    assert progress.format_time(seconds) == text


def test_log_file_gets_what_the_console_gets(tmp_path):
    path = tmp_path / "run" / "x.log"
    progress.start_logging(path)
    logging.getLogger("sniper.engine").info("hello")
    progress.start_logging()
    logging.getLogger("sniper.engine").info("not for the file")
    assert path.read_text().endswith("hello\n")


def test_json_lines_can_be_read_while_the_run_goes_on(tmp_path):
    lines = progress.JsonLines(tmp_path / "x.jsonl")
    lines.write({"epoch": 1, "loss": 0.5})
    assert json.loads((tmp_path / "x.jsonl").read_text()) == {"epoch": 1, "loss": 0.5}
    lines.close()
