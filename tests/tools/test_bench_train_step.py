"""The training-step benchmark: what it refuses, its weights, its command line. It runs no step."""

from __future__ import annotations

import numpy as np
import pytest

from bench import train_step
from bench.cases import train_step as case

F = np.float32


def side(seed=0, gradient_noise=0.0, step=1.0):
    """Outputs of a side after a step of `step` times the learning rate."""
    rng = np.random.default_rng(0)
    arrays = {"features": rng.normal(size=(1, 4, 2, 2)).astype(F)}
    for name in ("a_weight", "b_gamma"):
        gradient = rng.normal(size=50)
        gradient += gradient_noise * np.random.default_rng(seed).normal(size=50)
        weight = rng.normal(size=50) - step * case.LEARNING_RATE * gradient
        arrays[case.GRADIENT + name], arrays[case.WEIGHT + name] = gradient.astype(F), weight
    return arrays


def test_equal_sides_agree_and_rounding_is_forgiven():
    noisy = side(seed=1, gradient_noise=0.01)
    sentence = case.compare(side(), noisy, None, "torch")
    assert "2 gradients to 9.4e-03" in sentence


@pytest.mark.parametrize(
    ("other", "what"),
    [({"gradient_noise": 0.5}, "2 gradients"), ({"step": 2.0}, "update of a_weight")],
)
def test_other_gradients_or_updates_are_refused(other, what):
    with pytest.raises(Exception, match=what) as error:
        case.compare(side(), side(**other), None, "torch")
    assert type(error.value).__name__ == "OutputsDifferError"


def test_a_missing_parameter_is_named():
    other = side()
    del other[case.GRADIENT + "b_gamma"]
    with pytest.raises(Exception, match="only one side has gradient of b_gamma"):
        case.compare(side(), other, None, "torch")


def test_weights_depend_on_seed_and_name_only():
    first = case.initial(3, "conv_weight", (64, 16, 3, 3))
    np.testing.assert_array_equal(first, case.initial(3, "conv_weight", (64, 16, 3, 3)))
    assert (first != case.initial(4, "conv_weight", (64, 16, 3, 3))).any()
    assert (first != case.initial(3, "other_weight", (64, 16, 3, 3))).any()
    assert abs(float(first.std()) / np.sqrt(2 / 144) - 1) < 0.05
    assert (case.initial(3, "bn_data_gamma", (3,)) == 1).all()


@pytest.mark.parametrize("network", ["ResNet-50", "MobileNetV2"])
def test_head_gradient_has_the_shape_of_the_features(network):
    symbol = case.network_symbol(network)
    channels, cells = case.FEATURES[network]
    _, shapes, _ = symbol.infer_shape(data=(2, 3, case.PX, case.PX))
    assert shapes == [(2, channels, cells, cells)]
    assert not any("offset" in name for name in symbol.list_arguments())


def test_command_line(capsys):
    assert train_step.main(["--list"]) == 0
    assert "MobileNetV2, batch 1: ours against torch (at most 1.5x)" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        train_step.main(["--only", "no such job"])
