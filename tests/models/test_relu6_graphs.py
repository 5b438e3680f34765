"""Which graphs of MobileNetV2 hold our ReLU6 and which hold `clip`, and that both are the same."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest

from sniper.models.backbones.blocks import NormSettings
from sniper.models.backbones.mobilenetv2 import MobileNetOptions, mobilenetv2_features

ACTIVATIONS = 36  # of the network at width 1, all but the linear layers'


def features(**options):
    settings = {"norm": NormSettings(frozen=True), "width": 0.25, **options}
    return mobilenetv2_features(mx.sym.Variable("data"), MobileNetOptions(**settings))


def count(symbol, operator):
    return sum(node["op"] == operator for node in json.loads(symbol.tojson())["nodes"])


@pytest.mark.parametrize(
    ("options", "operator"),
    [
        ({}, "ReLU6"),
        ({"norm": NormSettings()}, "ReLU6"),
        ({"padding": "tf_same", "stride": 16}, "ReLU6"),
        ({"train": False}, "clip"),
        ({"fp16": True}, "clip"),
        ({"fp16": True, "train": False}, "clip"),
        ({"activation": "relu"}, "Activation"),
    ],
    ids=str,
)
def test_only_fp32_training_has_our_operator(options, operator):
    symbol = features(**options)
    found = {name: count(symbol, name) for name in ("ReLU6", "clip", "Activation")}
    assert found == {name: ACTIVATIONS * (name == operator) for name in found}
    assert count(symbol, "_copy") == 0


def test_names_do_not_depend_on_the_form():
    train, test = features(), features(train=False)
    assert train.list_arguments() == test.list_arguments()
    assert train.list_outputs() == test.list_outputs()
    assert train.get_internals().list_outputs() == test.get_internals().list_outputs()


def test_both_forms_compute_the_same():
    outputs = []
    for train in (True, False):
        executor = features(train=train).simple_bind(mx.cpu(), data=(1, 3, 64, 64), grad_req="null")
        for name, array in {**executor.arg_dict, **executor.aux_dict}.items():
            array[:] = value_of(name, array.shape)
        outputs.append(executor.forward(is_train=train)[0].asnumpy())
    assert outputs[0].max() == 6
    assert 0 < (outputs[0] == 0).mean() < 1
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-3)


def value_of(name, shape):
    """Random, but so that values keep their size from layer to layer."""
    rng = np.random.default_rng(len(name) + sum(name.encode()))
    if name.endswith("_weight"):
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    if name.endswith(("_gamma", "_var")):
        return rng.uniform(0.9, 1.1, shape)
    return rng.normal(0, 6 if name == "data" else 0.1, shape)
