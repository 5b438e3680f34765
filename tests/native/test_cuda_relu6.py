"""CUDA kernels of ReLU6 against MXNet's clip on the CPU, bit for bit."""

from __future__ import annotations

import ctypes

import mxnet as mx
import numpy as np
import pytest

from tests.native import cuda_sources

F = np.float32
LIMITS = F([-np.inf, -1, -1e-45, -0.0, 0, 1e-45, 3, 6, np.nextafter(F(6), F(7)), np.inf, np.nan])


class Relu6Params(ctypes.Structure):
    _fields_ = [("size", ctypes.c_int64)]


def clip(values, heads):
    data = mx.nd.array(values)
    data.attach_grad()
    with mx.autograd.record():
        output = mx.nd.clip(data, 0, 6)
    output.backward(mx.nd.array(heads))
    return output.asnumpy(), data.grad.asnumpy()


def test_structure(tmp_path):
    cuda_sources.check_layouts(tmp_path, "relu6/relu6.h", {"Relu6Params": Relu6Params})


# The emulation has at most 24 blocks of 256 threads: 6144 values for one round of all of them.
@pytest.mark.parametrize("size", [1, 255, 257, 6144, 20000])
def test_equals_clip(cuda, size):
    rng = np.random.default_rng(size)
    values = rng.choice(np.concatenate([LIMITS, rng.uniform(-3, 9, 99).astype(F)]), size)
    heads = rng.normal(size=size).astype(F)
    output = cuda.run("relu6", Relu6Params(size), values, cuda.out(size))
    gradient = cuda.run(
        "relu6", Relu6Params(size), heads, values, cuda.out(size), launcher="backward"
    )
    for own, wanted in zip((output, gradient), clip(values, heads)):
        np.testing.assert_array_equal(own, wanted)
        np.testing.assert_array_equal(np.signbit(own), np.signbit(wanted))


def test_nothing_to_do(cuda):
    nothing = np.zeros(0, F)
    assert cuda.run("relu6", Relu6Params(0), nothing, cuda.out(0)).shape == (0,)
