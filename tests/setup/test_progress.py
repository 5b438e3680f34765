"""The pace of a run and its log file."""

import errno
import logging

import pytest

from sniper.setup import progress


@pytest.fixture
def now(monkeypatch):
    time_s = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: time_s[0])
    return time_s


def test_speed_wait_and_remaining_time(now):
    clock = progress.ProgressClock()
    for _ in range(4):
        now[0] += 0.5
        clock.step()
    pace = clock.read(8, waited_s=0.5, remaining_steps=6)
    assert (pace.chips_per_s, pace.data_wait, pace.eta_s) == (16.0, 0.25, 3.0)
    assert str(pace).startswith("16.0 chips/s, data wait 25%, ETA 0:00:03, ")
    assert str(pace).endswith(f"{pace.memory_gb:.1f} GB")
    now[0] += 1.0
    clock.step()
    # A new epoch: the loader's counter began again at zero.
    pace = clock.read(8, waited_s=0.1, remaining_steps=0)
    assert (pace.chips_per_s, pace.eta_s) == (8.0, 0.0)
    assert pace.data_wait == pytest.approx(0.1)


def test_pauses_do_not_count(now):
    clock = progress.ProgressClock()
    now[0] += 2.0
    clock.step()
    with clock.pause():
        now[0] += 100.0
    pace = clock.read(4, waited_s=0.0, remaining_steps=10)
    assert (pace.chips_per_s, pace.eta_s) == (2.0, 20.0)


def test_reading_at_once_gives_numbers(now):
    pace = progress.ProgressClock(lambda: 3.25).read(4, waited_s=0.0, remaining_steps=10)
    assert (pace.chips_per_s, pace.data_wait, pace.eta_s) == (0.0, 0.0, 0.0)
    assert str(pace).endswith(", GPU 3.2 GB")


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


def test_quiet_workers_log_warnings_only(capsys):
    progress.start_logging(level=logging.WARNING)
    logging.getLogger("sniper.engine").info("hello")
    logging.getLogger("sniper.engine").warning("careful")
    progress.start_logging()
    assert "hello" not in (text := capsys.readouterr().err)
    assert "careful" in text


def test_full_disk_ends_the_log_file_with_one_message(tmp_path, capsys):
    progress.start_logging(tmp_path / "x.log")
    handler = logging.getLogger("sniper").handlers[1]

    class FullDisk:
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

        def flush(self):
            pass

        close = flush

    handler.setStream(FullDisk())
    for text in ("one", "two"):
        logging.getLogger("sniper.engine").info(text)
    progress.start_logging()
    error = capsys.readouterr().err
    assert error.count("No space left") == 1
    assert "Traceback" not in error
    assert "two" in error, "the console goes on"
