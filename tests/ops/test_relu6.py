"""ReLU6 against MXNet's clip: values, gradients, graphs, contexts."""

from __future__ import annotations

import threading

import mxnet as mx
import numpy as np
import pytest

from sniper import ops
from sniper.errors import OpsError

F = np.float32
SIX = F(6)
LIMITS = F([
    -np.inf, -3e38, -6, -1e-45, -0.0, 0.0, 1e-45, 1e-3, np.nextafter(SIX, F(0)), 6,
    np.nextafter(SIX, F(7)), 1e9, np.inf, np.nan, -np.nan,
])  # fmt: skip
# The loops have blocks of 16384, and vectors of 4 to 16 elements.
SHAPES = [(1,), (15,), (16384,), (16385,), (3, 5, 7), (2, 24, 33, 31), (1, 1, 1, 1, 2), (4, 40000)]


def clip(data):
    return mx.nd.clip(data, 0, 6)


def results(function, values, heads):
    """Values and gradient of one operator."""
    data = mx.nd.array(values)
    data.attach_grad()
    with mx.autograd.record():
        output = function(data)
    output.backward(mx.nd.array(heads))
    return output.asnumpy(), data.grad.asnumpy()


def assert_same_bits(values, heads):
    for own, wanted in zip(results(ops.relu6, values, heads), results(clip, values, heads)):
        np.testing.assert_array_equal(np.isnan(own), np.isnan(wanted))
        numbers = ~np.isnan(wanted)  # the payload of a NaN may differ
        np.testing.assert_array_equal(own[numbers].view(np.uint32), wanted[numbers].view(np.uint32))


def test_hand_computed_values():
    values = F([-1, -0.0, 0, 3, 6, 6.5, np.nan])
    output, gradient = results(ops.relu6, values, np.arange(1, 8, dtype=F))
    np.testing.assert_array_equal(output, F([0, 0, 0, 3, 6, 6, np.nan]))
    assert np.signbit(output[:3]).tolist() == [False, True, False]
    np.testing.assert_array_equal(gradient, [0, 2, 3, 4, 5, 0, 7])


@pytest.mark.parametrize("repeats", [1, 3, 2000])
def test_limits_and_numbers_beside_them(repeats):
    """Every value in every lane of the vectors, also in the rest behind the last vector."""
    for shift in range(len(LIMITS)):
        values = np.roll(np.tile(LIMITS, repeats), shift)
        assert_same_bits(values, np.arange(1, len(values) + 1, dtype=F))
        if repeats > 3:
            break


def test_head_gradients_that_are_not_finite():
    heads = np.repeat(F([np.nan, np.inf, -np.inf, -0.0]), len(LIMITS))
    assert_same_bits(np.tile(LIMITS, 4), heads)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random_values_of_every_shape(shape):
    rng = np.random.default_rng(len(shape))
    values = rng.choice(np.concatenate([LIMITS, rng.uniform(-3, 9, 90).astype(F)]), shape)
    heads = rng.normal(size=shape).astype(F)
    assert_same_bits(values, heads)


def graph_gradient(activation, grad_req="write"):
    """Gradients of a small network in which the activation follows blocked (oneDNN) memory."""
    data = mx.sym.Variable("data")
    body = mx.sym.Convolution(data, kernel=(3, 3), num_filter=24, pad=(1, 1), name="a")
    body = activation(mx.sym.BatchNorm(body, fix_gamma=False, name="b"))
    body = mx.sym.Convolution(body, kernel=(1, 1), num_filter=40, name="c")
    body = activation(mx.sym.BatchNorm(body, fix_gamma=False, name="d"))
    shape = (2, 3, 12, 10)
    executor = body.simple_bind(mx.cpu(), data=shape, grad_req=grad_req)
    rng = np.random.default_rng(4)
    for name in sorted(executor.arg_dict):
        executor.arg_dict[name][:] = rng.normal(
            1 if "gamma" in name else 0, 2, executor.arg_dict[name].shape
        )
        executor.grad_dict[name][:] = 3
    for name in executor.aux_dict:
        executor.aux_dict[name][:] = 1
    for _ in range(2):
        executor.forward(is_train=True)
        executor.backward([mx.nd.array(rng.normal(size=(2, 40, 12, 10)))])
    arrays = {name: array.asnumpy() for name, array in executor.grad_dict.items()}
    return {**arrays, "output": executor.outputs[0].asnumpy()}


@pytest.mark.parametrize("grad_req", ["write", "add"])
def test_a_network_trains_as_with_clip(grad_req):
    own = graph_gradient(lambda body: ops.relu6(body), grad_req)
    wanted = graph_gradient(lambda body: mx.sym.clip(body, a_min=0, a_max=6), grad_req)
    for name, array in wanted.items():
        scale = np.abs(array).max()
        assert scale > 0
        np.testing.assert_allclose(own[name], array, rtol=0, atol=1e-5 * scale, err_msg=name)


def test_several_contexts_at_once():
    values = [np.random.default_rng(k).uniform(-3, 9, 300000).astype(F) for k in range(4)]
    found = [None] * 4

    def work(k):
        data = mx.nd.array(values[k], ctx=mx.cpu(k))
        found[k] = [ops.relu6(data).asnumpy() for _ in range(10)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for k, outputs in enumerate(found):
        assert len(outputs) == 10
        for output in outputs:
            np.testing.assert_array_equal(output, np.clip(values[k], 0, 6))


def test_only_variables_get_an_identity_in_front():
    """Other nodes are never asked to add to a gradient, so a copy would be lost time."""
    graph = ops.relu6(ops.relu6(mx.sym.Variable("x"), name="inner"), name="outer")
    assert graph.tojson().count('"_copy"') == 1
    assert graph.list_outputs() == ["outer_output"]


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32"])
def test_other_types_are_refused(dtype):
    with pytest.raises(OpsError, match="float32"):
        ops.relu6(mx.nd.ones((2, 3), dtype=dtype))
    graph = ops.relu6(mx.sym.Variable("x", dtype=dtype, shape=(2, 3)))
    with pytest.raises(
        mx.base.MXNetError, match=f"ReLU6: input 'data' has the type {dtype}, expected"
    ):
        graph.infer_type()


def test_empty_arrays_are_refused_as_clip_does():
    """Classic MXNet has no empty arrays: a size of 0 means that it is not known."""
    empty = mx.nd.array([])
    with pytest.raises(mx.base.MXNetError):
        clip(empty).asnumpy()
    with pytest.raises(OpsError, match="no empty tensors"):
        ops.relu6(empty)
    with pytest.raises(mx.base.MXNetError, match="unknown or empty dimension"):
        mx.nd.ReLU6(empty)
