"""Learning-rate schedules: golden values of 2018, the cosine, bad input."""

import math

import pytest

from sniper.config import load_config
from sniper.errors import ConfigError
from sniper.runs.plan import train_plan
from sniper.runs.rates import cosine_updates, step_updates
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


def test_a_cosine_falls_from_the_warm_up_to_the_end():
    rate = WarmupSchedule(0.1, (), 0.1, 0.01, 10, cosine_updates=109)
    rates = [rate.rate(update) for update in range(1, 121)]
    # The warm-up is that of the steps.
    assert rates[:10] == pytest.approx([0.01 + u * 0.009 for u in range(1, 11)])
    falling = [0.05 * (1 + math.cos(math.pi * done / 100)) for done in range(100)]
    assert rates[9:109] == pytest.approx(falling)
    assert 0 < rates[108] < 0.0001, "the last update still counts"
    assert set(rates[109:]) == {rates[108]}, "epochs may have more chips than the first"


def test_a_cosine_without_a_warm_up_and_with_a_loss_scale():
    rate = WarmupSchedule(0.1, (4, 6), cosine_updates=8, loss_scale=4.0)
    assert rate(1) == pytest.approx(0.1 / 4)
    assert rate(5) == pytest.approx(0.05 / 4), "no drop at the steps"
    assert rate.rate(5) == pytest.approx(0.05)


def test_updates_of_a_cosine_are_those_of_the_run():
    assert cosine_updates(3, 0, samples=100, batch_size=8, warmup_step=0) == 37
    assert cosine_updates(3, 20, samples=100, batch_size=8, warmup_step=19) == 20
    assert cosine_updates(3, 99, samples=100, batch_size=8, warmup_step=0) == 37
    with pytest.raises(ConfigError, match="no update for the cosine"):
        cosine_updates(3, 20, samples=100, batch_size=8, warmup_step=20)


def test_a_plan_with_a_cosine_says_that_the_steps_are_not_in_force():
    toy = ["gpus", "cpu", "TRAIN.LR_SCHEDULE", "cosine"]
    plan = train_plan(load_config("sniper_mobilenetv2_toy", toy))
    assert any("TRAIN.lr_step 1.6 is not in force" in note for note in plan.notes)
    step = plan.step_settings(samples=5000, batch_size=16, fixed=())
    assert (step.steps, step.cosine_updates) == ((), 625)
    plan = train_plan(load_config("sniper_mobilenetv2_toy", [*toy, "TRAIN.lr_step", ""]))
    assert not any("lr_step" in note for note in plan.notes)
    steps = train_plan(load_config("sniper_mobilenetv2_toy", ["gpus", "cpu"]))
    assert steps.cosine_updates(5000, 16) == 0
