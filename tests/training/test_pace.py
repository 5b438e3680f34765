"""The pace of a run."""

import pytest

from sniper.training import pace as pace_module


@pytest.fixture
def now(monkeypatch):
    time_s = [100.0]
    monkeypatch.setattr(pace_module.time, "monotonic", lambda: time_s[0])
    return time_s


def test_speed_wait_and_remaining_time(now):
    clock = pace_module.ProgressClock()
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
    clock = pace_module.ProgressClock()
    now[0] += 2.0
    clock.step()
    with clock.pause():
        now[0] += 100.0
    pace = clock.read(4, waited_s=0.0, remaining_steps=10)
    assert (pace.chips_per_s, pace.eta_s) == (2.0, 20.0)


def test_reading_at_once_gives_numbers(now):
    pace = pace_module.ProgressClock(lambda: 3.25).read(4, waited_s=0.0, remaining_steps=10)
    assert (pace.chips_per_s, pace.data_wait, pace.eta_s) == (0.0, 0.0, 0.0)
    assert str(pace).endswith(", GPU 3.2 GB")
