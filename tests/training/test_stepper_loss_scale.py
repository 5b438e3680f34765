"""Loss scaling: static as in 2018, dynamic, and what an overflow leaves behind."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from sniper.errors import TrainingError
from sniper.training.loss_scale import HIGHEST, LossScale, scale_losses
from tests.training import step_toys as toys


def state_of(stepper):
    return {name: value.asnumpy() for name, value in stepper.state().items()}


def bad_batch(images=4, seed=0, rows=slice(None), value=np.inf):
    weight = np.ones((images, 4))
    weight[rows] = value
    return toys.toy_batch(images, seed, box_weight=weight)


@pytest.mark.parametrize("fp16", [False, True])
def test_a_power_of_two_changes_nothing(fp16):
    """Exact in floating point, unless a value leaves its range: lr / scale, wd x scale, losses."""
    steppers = [
        toys.make_stepper(loss_scale=scale, clip_gradient=0.05, fp16=fp16, multi_precision=fp16)
        for scale in (1.0, 64.0)
    ]
    for seed in range(8):
        for stepper in steppers:
            assert stepper.step(toys.toy_batch(4, seed)).updated
    tolerance = {"rtol": 2e-3, "atol": 2e-4} if fp16 else {}
    toys.assert_same(*map(toys.values, steppers), **tolerance)
    assert steppers[0].learning_rate == steppers[1].learning_rate


@pytest.mark.parametrize("options", [{}, {"devices": 2}, {"accumulation": 2}])
def test_a_scale_that_grows_on_the_way_changes_nothing_either(options):
    """The graph is bound anew on the same arrays."""
    growing = toys.make_stepper(
        dynamic_loss_scale=True, loss_scale=2.0, loss_scale_window=2, ema_decay=0.9, **options
    )
    plain = toys.make_stepper(ema_decay=0.9, **options)
    scales = []
    for seed in range(10):
        batch = toys.toy_batch(4 * options.get("devices", 1), seed)
        scales.append(growing.step(batch).loss_scale)
        plain.step(batch)
    assert scales[-1] == 2 ** (1 + 4 // options.get("accumulation", 1))
    toys.assert_same(toys.values(growing), toys.values(plain))
    arg, _ = growing.averaged_params()
    for name, value in plain.averaged_params()[0].items():
        np.testing.assert_array_equal(arg[name].asnumpy(), value.asnumpy())


@pytest.mark.parametrize(
    ("options", "rows"),
    [({}, slice(0, 1)), ({"devices": 2}, slice(7, 8)), ({"accumulation": 2}, slice(0, 1))],
)
def test_an_overflow_leaves_no_trace_but_in_the_scale(options, rows):
    images = 4 * options.get("devices", 1)
    options = {"dynamic_loss_scale": True, "loss_scale": 8.0, "ema_decay": 0.9, **options}
    stepper = toys.make_stepper(**options)
    for seed in range(2):
        stepper.step(toys.toy_batch(images, seed))
    updates, weights, state = stepper.updates, toys.values(stepper), state_of(stepper)
    for _ in range(options.get("accumulation", 1) - 1):
        assert not stepper.step(toys.toy_batch(images, 5)).skipped
    result = stepper.step(bad_batch(images, rows=rows))
    assert (result.updated, result.skipped, result.bad_gradients) == (False, True, ())
    assert (result.loss_scale, stepper.updates) == (8.0, updates)
    toys.assert_same(toys.values(stepper), weights)
    after = state_of(stepper)
    np.testing.assert_array_equal(after.pop("scalars"), [4, 0, 0])
    del state["scalars"]
    toys.assert_same(after, state)
    # Training goes on as if nothing had been.
    other = toys.make_stepper(**{**options, "dynamic_loss_scale": False})
    for seed in (0, 1, 2, 3):
        other.step(toys.toy_batch(images, seed))
    for seed in (2, 3):
        assert stepper.step(toys.toy_batch(images, seed)).loss_scale == 4
    toys.assert_same(toys.values(stepper), toys.values(other))


def test_a_scale_that_is_too_large_comes_down_until_the_gradients_fit():
    """A real overflow of float32: the scale times the loss weight is beyond 3.4e38."""
    stepper = toys.make_stepper(dynamic_loss_scale=True, loss_scale=2.0**20)
    batch = bad_batch(value=1e36)
    results = [stepper.step(batch)]
    while results[-1].skipped:
        results.append(stepper.step(batch))
    assert 8 < len(results) < 20
    assert [result.loss_scale for result in results] == [
        2.0 ** (20 - n) for n in range(len(results))
    ]
    assert results[-1].updated and not any(result.bad_gradients for result in results)


def test_a_fixed_scale_reports_the_parameters_and_does_not_update():
    stepper = toys.make_stepper(loss_scale=2.0)
    stepper.step(toys.toy_batch(4, 0))
    weights = stepper.params()[0]
    result = stepper.step(bad_batch())
    assert (result.updated, result.skipped, result.loss_scale) == (False, True, 2.0)
    # The classifier is beside the box layer, not below it.
    assert "delta_weight" in result.bad_gradients and "slow_bias" in result.bad_gradients
    assert "cls_weight" not in result.bad_gradients
    for name, value in stepper.params()[0].items():
        np.testing.assert_array_equal(value.asnumpy(), weights[name].asnumpy())


def test_at_the_lowest_scale_an_overflow_is_reported():
    stepper = toys.make_stepper(dynamic_loss_scale=True, loss_scale=4.0)
    results = [stepper.step(bad_batch()) for _ in range(3)]
    assert [result.loss_scale for result in results] == [4, 2, 1]
    assert [bool(result.bad_gradients) for result in results] == [False, False, True]


def test_the_rule_of_the_dynamic_scale():
    scale = LossScale(8.0, dynamic=True, window=3)
    assert [scale.updated() for _ in range(3)] == [False, False, True]
    assert (scale.value, scale.good_updates) == (16, 0)
    scale.updated()
    assert scale.overflowed() and (scale.value, scale.good_updates) == (8, 0)
    top = LossScale(HIGHEST, dynamic=True, window=1)
    assert not top.updated() and top.value == HIGHEST
    low = LossScale(1.5, dynamic=True)
    assert low.overflowed() and low.value == 1
    assert not low.overflowed() and low.value == 1
    small = LossScale(0.5, dynamic=True)
    assert not small.overflowed() and small.value == 0.5
    fixed = LossScale(100.0)
    assert not any(fixed.updated() for _ in range(5000)) and not fixed.overflowed()
    assert fixed.value == 100


def test_only_the_losses_of_a_graph_are_scaled():
    symbol = toys.toy_symbol(4, scale=3.0)
    assert scale_losses(symbol, 1) is symbol
    scaled = scale_losses(symbol, 5.0)
    attributes, before = scaled.attr_dict(), symbol.attr_dict()
    changed = {name for name in before if before[name] != attributes[name]}
    assert changed == {"prob", "box_loss"}
    assert float(attributes["prob"]["grad_scale"]) == 15
    assert float(attributes["box_loss"]["grad_scale"]) == 3.75
    for names in ("list_arguments", "list_outputs", "list_auxiliary_states"):
        assert getattr(scaled, names)() == getattr(symbol, names)()
    with pytest.raises(TrainingError, match="no loss"):
        scale_losses(mx.sym.Variable("data") + 1, 2.0)
