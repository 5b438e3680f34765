"""The native update: NumPy's numbers to the bit, whatever the threads, and nothing by half."""

from __future__ import annotations

import numpy as np
import pytest

from sniper.errors import OpsError
from sniper.native import _native

F = np.float32
SIZES = (1, 7, 16384, 50_003)


def vectors(seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=size).astype(F) for size in SIZES]


def copies(arrays):
    return [array.copy() for array in arrays]


@pytest.mark.instruction_sets
@pytest.mark.parametrize("threads", [1, 3])
def test_sums_are_added_in_order_and_divided(threads):
    first, second, third = vectors(0), vectors(1), vectors(2)
    totals = copies(first)
    assert _native.reduce_gradients(totals, [second, third], 3.0, threads)
    for total, a, b, c in zip(totals, first, second, third):
        np.testing.assert_array_equal(total, (a + b + c) / F(3))


def test_one_gradient_is_left_as_it_is():
    gradients = vectors(0)
    before = copies(gradients)
    assert _native.reduce_gradients(gradients, [])
    for array, expected in zip(gradients, before):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("array", range(len(SIZES)))
def test_a_value_that_is_not_finite_is_found_wherever_it_is(value, place, array):
    gradients = vectors(0)
    gradients[array][place] = value
    assert not _native.reduce_gradients(gradients, [], threads=2)
    assert not _native.reduce_gradients(vectors(1), [gradients], 2.0)


def test_large_and_tiny_values_are_finite_but_their_sum_may_overflow():
    values = [F([3.4e38, 1e-45, -3.4e38, 0])]
    assert _native.reduce_gradients(copies(values), [])
    assert not _native.reduce_gradients(copies(values), [values])


@pytest.mark.instruction_sets
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("clip", [-1.0, 0.5])
def test_the_update_is_that_of_sgd_with_momentum(clip, threads):
    gradients, weights, momenta = vectors(0), vectors(1), vectors(2)
    others = [vectors(3), vectors(4)]
    rates, decays = [0.1, 0.0123, 0.05, 0.7], [0.0, 0.0005, 0.01, 0.0001]
    before = copies(weights), copies(momenta)
    _native.sgd_update(gradients, weights, momenta, others, rates, decays, 0.9, clip, threads)
    for i, gradient in enumerate(gradients):
        rate, decay = F(rates[i]), F(decays[i])
        limited = np.clip(gradient, -clip, clip) if clip >= 0 else gradient
        momentum = F(0.9) * before[1][i] - rate * decay * before[0][i] - rate * limited
        np.testing.assert_array_equal(momenta[i], momentum)
        np.testing.assert_array_equal(weights[i], before[0][i] + momentum)
        for other in others:
            np.testing.assert_array_equal(other[i], weights[i])


def test_nothing_to_update_is_fine():
    assert _native.reduce_gradients([], [])
    _native.sgd_update([], [], [], [], [], [], 0.9)
    _native.sgd_update([np.empty(0, F)], [np.empty(0, F)], [np.empty(0, F)], [], [0.1], [0.0], 0.9)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("gradients", [np.zeros(4)]),
        ("weights", [np.zeros((2, 2), F)]),
        ("weights", [np.zeros(8, F)[::2]]),
        ("momenta", [np.zeros(5, F)]),
        ("momenta", []),
        ("copies", [[np.zeros(3, F)]]),
        ("rates", [np.nan]),
        ("threads", 0),
    ],
)
def test_wrong_arrays_are_refused_before_anything_changes(name, wrong):
    arguments = {
        "gradients": [np.ones(4, F)],
        "weights": [np.ones(4, F)],
        "momenta": [np.ones(4, F)],
        "copies": [],
        "rates": [0.1],
        "decays": [0.0],
        "momentum": 0.9,
    }
    right = arguments["weights"][0]
    with pytest.raises(OpsError):
        _native.sgd_update(**{**arguments, name: wrong})
    assert (right == 1).all()


def test_read_only_weights_are_refused():
    weights = np.ones(4, F)
    weights.flags.writeable = False
    with pytest.raises(OpsError, match="weights"):
        _native.sgd_update([np.ones(4, F)], [weights], [np.ones(4, F)], [], [0.1], [0.0], 0.9)
