"""The 2018 learning-rate schedule: golden values and bad input."""

import pytest

from sniper.errors import ConfigError
from sniper.runs.rates import step_updates
from sniper.training.schedule import WarmupSchedule, learning_rate


def test_golden_values_of_the_coco_run():
    steps = step_updates("5.33", samples=955_776, batch_size=128)
    assert steps == [39_799]
    rate = WarmupSchedule(0.015 / 100, steps, 0.1, 0.0005 / 100, 1000)
    golden = {
        1: 5.145e-6,
        500: 7.75e-5,
        999: 1.49855e-4,
        1000: 1.5e-4,
        39_799: 1.5e-4,
        39_800: 1.5e-5,
    }
    for update, expected in golden.items():
        assert rate(update) == pytest.approx(expected, rel=1e-9)


def test_several_steps_and_no_warm_up():
    steps = step_updates("1,2.5", samples=100, batch_size=10)
    assert steps == [10, 25]
    rates = [learning_rate(u, base_lr=1.0, steps=steps) for u in (1, 10, 11, 25, 26)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_steps_before_begin_epoch_are_left_out():
    assert step_updates("1,3", samples=100, batch_size=10, begin_epoch=2) == [10]
    assert step_updates("1", samples=100, batch_size=10, begin_epoch=2) == []
    assert step_updates("", samples=100, batch_size=10) == []


def test_steps_may_be_updates():
    assert step_updates("1600u", samples=100, batch_size=10) == [1600]
    assert step_updates("1, 15u", samples=100, batch_size=10) == [10, 15]


@pytest.mark.parametrize("text", ["a", "1,1", "2,1", "0.001", "u", "1.5u", "inf", "9u,0.5"])
def test_bad_steps_are_refused(text):
    with pytest.raises(ConfigError, match="lr_step"):
        step_updates(text, samples=100, batch_size=10)
