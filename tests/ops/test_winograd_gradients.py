"""Gradients of 3x3 convolutions with fewer multiplications against MXNet's."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from sniper import ops
from tests.ops.test_winograd_convolution import CASES, in_a_process, inputs_of

NAMES = ("data", "weight", "bias")
DIGESTS = (
    "import hashlib, sniper\n"
    "from tests.ops.test_winograd_gradients import gradients_of, ours\n"
    "for name in ('several blocks of tiles', 'batch'):\n"
    "    for array in gradients_of(ours, name):\n"
    "        print(hashlib.sha256(array.tobytes()).hexdigest())\n"
)


def of_mxnet(*tensors, num_filter, pad, relu):
    output = mx.nd.Convolution(
        *tensors, num_filter=num_filter, kernel=(3, 3), pad=pad, no_bias=len(tensors) < 3
    )
    return mx.nd.relu(output) if relu else output


def ours(*tensors, **attributes):
    return ops.winograd_convolution(*tensors, **attributes)


def gradients_of(operator, name, grad_req="write", times=1):
    attributes, arrays = inputs_of(CASES[name])
    tensors = [mx.nd.array(array) for array in arrays]
    for tensor in tensors:
        tensor.attach_grad(grad_req)
    for _ in range(times):
        with mx.autograd.record():
            output = operator(*tensors, **attributes)
        head = np.random.default_rng(1).normal(0, 1, output.shape)
        output.backward(mx.nd.array(head))
    return [tensor.grad.asnumpy() for tensor in tensors]


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_mxnet(name):
    for what, got, wanted in zip(NAMES, gradients_of(ours, name), gradients_of(of_mxnet, name)):
        assert got.shape == wanted.shape
        largest = np.abs(wanted).max()
        assert largest > 0, what
        np.testing.assert_allclose(got, wanted, rtol=0, atol=3e-5 * largest, err_msg=what)
        assert np.linalg.norm(got - wanted) < 1e-5 * np.linalg.norm(wanted), what


def test_gradients_do_not_depend_on_the_number_of_threads():
    # More threads than cores would spin.
    variables = {"OMP_WAIT_POLICY": "passive"}
    one, three = (in_a_process(DIGESTS, OMP_NUM_THREADS=count, **variables) for count in "13")
    assert one == three


def test_gradients_can_be_added_up():
    once = gradients_of(ours, "batch")
    for got, wanted in zip(gradients_of(ours, "batch", "add", times=2), once):
        np.testing.assert_array_equal(got, 2 * wanted)


def test_gradients_that_nobody_asks_for():
    attributes, (data, weight) = inputs_of(CASES["one tile"])
    inputs = [mx.sym.Variable(name) for name in NAMES[:2]]
    symbol = ops.winograd_convolution(*inputs, **attributes)
    wanted = dict(zip(NAMES, gradients_of(of_mxnet, "one tile")))
    head = np.random.default_rng(1).normal(0, 1, (1, 16, 4, 4))
    for asked in NAMES[:2]:
        requests = {name: "write" if name == asked else "null" for name in NAMES[:2]}
        executor = symbol.simple_bind(mx.cpu(), grad_req=requests, data=data.shape)
        executor.copy_params_from({"data": mx.nd.array(data), "weight": mx.nd.array(weight)})
        executor.forward(is_train=True)
        executor.backward([mx.nd.array(head)])
        got = executor.grad_dict[asked].asnumpy()
        np.testing.assert_allclose(got, wanted[asked], rtol=0, atol=3e-5 * np.abs(got).max())
