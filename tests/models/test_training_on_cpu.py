"""Networks as CPUs train them: the same to the bit, with fewer passes over their maps."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest

from sniper import ops
from sniper.models.cpu_graph import OF_LIBRARY, for_training_on_cpu

SHAPE = (4, 16, 8, 8)


def operators(symbol):
    return [node["op"] for node in json.loads(symbol.tojson())["nodes"] if node["op"] != "null"]


def changed_for_cpu(symbol, shape=SHAPE):
    return for_training_on_cpu(symbol, {"data": shape})


def norm(data, name, **attributes):
    return mx.sym.BatchNorm(data, name=name, fix_gamma=False, **attributes)


def block(data, name, **attributes):
    conv = mx.sym.Convolution(data, num_filter=16, kernel=(1, 1), no_bias=True, name=f"{name}_conv")
    body = norm(conv, f"{name}_bn", **attributes)
    return mx.sym.Activation(body, act_type="relu", name=f"{name}_relu")


def run(symbol, shape=SHAPE):
    """Outputs, gradients and statistics after a step from weights by seed."""
    executor = symbol.simple_bind(mx.cpu(), data=shape, grad_req="write")
    rng = np.random.default_rng(0)
    for name, value in executor.arg_dict.items():
        value[:] = rng.normal(1 if name.endswith("gamma") else 0, 0.5, value.shape)
    executor.forward(is_train=True)
    executor.backward([mx.nd.array(rng.normal(size=value.shape)) for value in executor.outputs])
    named = {**executor.grad_dict, **executor.aux_dict}
    return [*executor.outputs, *named.values()], list(named)


def assert_same_network(symbol, other):
    assert symbol.list_arguments() == other.list_arguments()
    assert symbol.list_auxiliary_states() == other.list_auxiliary_states()
    (expected, names), (got, other_names) = run(symbol), run(other)
    assert names == other_names
    for value, wanted in zip(got, expected):
        np.testing.assert_array_equal(value.asnumpy(), wanted.asnumpy())


def test_norms_take_their_relu_in():
    symbol = block(block(mx.sym.Variable("data"), "first"), "second")
    fused = changed_for_cpu(symbol)
    assert operators(fused) == ["Convolution", "_contrib_BatchNormWithReLU"] * 2
    assert_same_network(symbol, fused)


def test_a_map_that_is_read_twice_stays():
    body = norm(mx.sym.Variable("data"), "bn")
    symbol = mx.sym.Activation(body, act_type="relu", name="relu") + body
    assert operators(changed_for_cpu(symbol)) == operators(symbol)
    symbol = mx.sym.Group([body, mx.sym.Activation(body, act_type="relu")])
    assert operators(changed_for_cpu(symbol)) == operators(symbol)
    assert_same_network(symbol, changed_for_cpu(symbol))


@pytest.mark.parametrize(("act_type", "attributes"), [("tanh", {}), ("relu", {"stored": True})])
def test_other_activations_and_stored_statistics_stay(act_type, attributes):
    body = norm(mx.sym.Variable("data"), "bn", use_global_stats=bool(attributes))
    symbol = mx.sym.Activation(body, act_type=act_type)
    assert operators(changed_for_cpu(symbol)) == ["BatchNorm", "Activation"]


@pytest.mark.parametrize("shape", [(6, 5), (6, 4, 9), (2, 3, 4, 5, 6)], ids=len)
def test_norms_of_other_ranks_stay(shape):
    """oneDNN's norm with a ReLU fails on them: a dense layer with a norm could not be trained."""
    body = norm(mx.sym.Variable("data"), "bn")
    symbol = mx.sym.Activation(body, act_type="relu", name="relu")
    changed = changed_for_cpu(symbol, shape)
    assert operators(changed) == ["BatchNorm", "Activation"]
    (expected, _), (got, _) = run(symbol, shape), run(changed, shape)
    for value, wanted in zip(got, expected):
        np.testing.assert_array_equal(value.asnumpy(), wanted.asnumpy())


def test_a_relu_that_is_an_output_keeps_its_place():
    relu = block(mx.sym.Variable("data"), "first")
    symbol = mx.sym.Group([block(relu, "second"), relu])
    assert_same_network(symbol, changed_for_cpu(symbol))


def test_our_operators_get_plain_maps():
    data = mx.sym.Variable("data")
    body = block(data, "first")
    conv = mx.sym.Convolution(body, num_filter=16, kernel=(1, 1), name="conv")
    symbol = ops.relu6(conv, name="six") * ops.relu6(data, name="of_variable")
    changed = changed_for_cpu(symbol)
    assert operators(changed).count("Reshape") == 2
    assert_same_network(symbol, changed)


def conv(data, name, filters=64, **attributes):
    window = {"kernel": (3, 3), "pad": (1, 1), **attributes}
    return mx.sym.Convolution(data, num_filter=filters, name=name, **window)


@pytest.mark.parametrize(
    ("attributes", "channels", "changes"),
    [
        ({}, 64, True),
        ({"no_bias": True, "filters": 80, "pad": (0, 2)}, 72, True),
        ({"filters": 63}, 64, False),
        ({}, 63, False),
        ({"stride": (2, 2)}, 64, False),
        ({"dilate": (2, 2), "pad": (2, 2)}, 64, False),
        ({"num_group": 2}, 128, False),
        ({"kernel": (1, 1), "pad": (0, 0)}, 64, False),
    ],
)
def test_wide_convolutions_save_multiplications(monkeypatch, attributes, channels, changes):
    monkeypatch.setattr("sniper.models.cpu_graph.isa", lambda: "avx2")
    symbol = conv(mx.sym.Variable("data"), "conv", **attributes)
    shape = (2, channels, 8, 8)
    changed = changed_for_cpu(symbol, shape)
    assert ("WinogradConvolution" in operators(changed)) == changes
    assert changed.list_arguments() == symbol.list_arguments()
    monkeypatch.setattr("sniper.models.cpu_graph.isa", lambda: "avx512")
    assert operators(changed_for_cpu(symbol, shape)) == ["Convolution"]


def test_saved_multiplications_change_roundings_only(monkeypatch):
    monkeypatch.setattr("sniper.models.cpu_graph.isa", lambda: "avx2")
    first = norm(conv(mx.sym.Variable("data"), "first", no_bias=True), "bn")
    second = conv(mx.sym.Activation(first, act_type="relu"), "second")
    symbol, shape = mx.sym.Activation(second, act_type="relu"), (2, 64, 8, 8)
    changed = changed_for_cpu(symbol, shape)
    assert operators(changed).count("WinogradConvolution") == 2
    assert "Activation" not in operators(changed)
    (expected, names), (got, other_names) = run(symbol, shape), run(changed, shape)
    assert names == other_names
    for value, wanted in zip(got, expected):
        wanted = wanted.asnumpy()
        assert np.linalg.norm(value.asnumpy() - wanted) <= 1e-4 * np.linalg.norm(wanted)


def test_the_operators_of_the_library_have_these_names():
    ops.relu6(mx.nd.zeros(1))  # loads the library
    assert all(hasattr(mx.sym, name) for name in OF_LIBRARY)


def test_without_onednn_norms_stay(monkeypatch):
    monkeypatch.setenv("MXNET_MKLDNN_ENABLED", "0")
    symbol = block(mx.sym.Variable("data"), "first")
    assert operators(changed_for_cpu(symbol)) == operators(symbol)
