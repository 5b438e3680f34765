"""The front of settings, the choice, and its confirmation."""

from __future__ import annotations

import numpy as np
import pytest

from sniper.errors import ConfigError
from sniper.evaluation.fronts import (
    Point,
    choose,
    confirm,
    front,
    jackknife_error,
    without_groups,
)


def point(name, cost, accuracy, left_out=()):
    return Point(name, cost, accuracy, tuple(left_out))


POINTS = [point("a", 1, 0.2), point("b", 2, 0.4), point("c", 3, 0.3), point("d", 4, 0.45)]


def names(points):
    return [p.name for p in points]


def test_the_front_has_what_no_other_beats():
    assert names(front(POINTS)) == ["a", "b", "d"]
    assert names(front([*POINTS, point("e", 2, 0.5)])) == ["a", "e"]
    assert names(front([point("x", 1, 0.1), point("y", 1, 0.1)])) == ["x"]
    assert front([]) == []


def test_a_budget_takes_the_most_accurate_within_it():
    assert choose(POINTS, budget_s=3.5).name == "b"
    assert choose(POINTS, budget_s=4).name == "d"
    assert choose(POINTS, budget_s=1).name == "a"
    with pytest.raises(ConfigError, match="no setting is within the budget") as raised:
        choose(POINTS, budget_s=0.5)
    assert "1000.0 ms, which a takes" in str(raised.value)


def test_a_loss_takes_the_cheapest_that_is_accurate_enough():
    assert choose(POINTS, loss=0.05 + 1e-9).name == "b"
    assert choose(POINTS, loss=0.0).name == "d"
    assert choose(POINTS, loss=1.0).name == "a"


def test_every_choice_is_on_the_front():
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = [point(str(k), *rng.integers(1, 6, 2).tolist()) for k in range(8)]
        on_front = {(p.cost, p.accuracy) for p in front(points)}
        for chosen in (choose(points, budget_s=5), choose(points, loss=2)):
            assert (chosen.cost, chosen.accuracy) in on_front


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(1).normal(size=200)
    left_out = np.array([np.delete(values, k).mean() for k in range(200)])
    assert jackknife_error(left_out) == pytest.approx(values.std(ddof=1) / np.sqrt(200))
    assert jackknife_error(left_out[:1]) == 0


def test_every_image_is_left_out_once():
    parts = []
    found = without_groups(23, lambda kept: float(len(parts.append(kept) or kept)))
    assert len(found) == 10 and sum(found) == 9 * 23
    missing = np.concatenate([np.setdiff1d(np.arange(23), part) for part in parts])
    assert sorted(missing.tolist()) == list(range(23))
    assert len(without_groups(4, len)) == 4


def test_a_choice_holds_when_nothing_cheaper_is_better():
    steady = [0.4] * 10
    chosen = point("chosen", 2, 0.4, steady)
    worse, dearer = point("worse", 1, 0.3, [0.3] * 10), point("dearer", 3, 0.9, [0.9] * 10)
    found = confirm(chosen, [chosen, worse, dearer])
    assert found.rival == "worse" and found.is_on_front and found.is_within_chance
    assert found.lead == pytest.approx(-0.1)
    assert confirm(chosen, [chosen, dearer]).rival is None


def test_a_small_lead_of_a_cheaper_setting_is_chance_and_a_large_one_is_not():
    chosen = point("chosen", 2, 0.4, [0.4] * 10)
    noisy = [0.41 + 0.01 * (-1) ** k for k in range(10)]
    small = confirm(chosen, [chosen, point("rival", 1, 0.41, noisy)])
    assert not small.is_on_front and small.is_within_chance
    large = confirm(chosen, [chosen, point("rival", 1, 0.6, [0.6] * 10)])
    assert not large.is_on_front and not large.is_within_chance
