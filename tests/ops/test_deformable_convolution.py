"""Deformable convolution against MXNet's own operator, and what that one leaves open."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from sniper import ops
from sniper.errors import OpsError

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("data", "offset", "weight", "bias")
# Sizes around the 32 lanes, the 12 rows, the 16 columns and the 256 cells or filters of a block.
CASES = {
    "one channel": {"channels": 1, "filters": 1, "map": (3, 4), "kernel": (1, 1), "pad": (0, 0)},
    "dilated, as in stage 4": {"channels": 128, "filters": 64, "map": (13, 21), "groups": 4,
                               "pad": (2, 2), "dilate": (2, 2)},
    "many filters and cells": {"channels": 32, "filters": 300, "map": (24, 27), "groups": 1},
    "batch": {"images": 3, "channels": 40, "filters": 17, "map": (8, 6), "groups": 2},
    "groups within a block": {"channels": 24, "filters": 12, "map": (9, 11), "groups": 6},
    "groups across blocks": {"channels": 100, "filters": 33, "map": (20, 14), "groups": 4},
    "groups of channels": {"images": 2, "channels": 72, "filters": 34, "map": (7, 7), "groups": 2,
                           "conv_groups": 2},
    "strides and a flat kernel": {"channels": 34, "filters": 5, "map": (10, 13), "kernel": (1, 5),
                                  "pad": (0, 3), "stride": (3, 2), "dilate": (1, 2)},
    "offsets out of the map": {"channels": 64, "filters": 16, "map": (9, 9), "groups": 2,
                               "spread": 8.0},
    "bias": {"images": 2, "channels": 8, "filters": 19, "map": (6, 9), "bias": True},
}  # fmt: skip


def inputs_of(case, seed=0):
    """Attributes, tensors and a head gradient."""
    rng = np.random.default_rng(seed)
    kernel, stride = case.get("kernel", (3, 3)), case.get("stride", (1, 1))
    pad, dilate = case.get("pad", (1, 1)), case.get("dilate", (1, 1))
    cells = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip(case["map"], kernel, stride, pad, dilate)
    ]
    images, filters = case.get("images", 1), case["filters"]
    groups, conv_groups = case.get("groups", 1), case.get("conv_groups", 1)
    offsets = (images, groups * kernel[0] * kernel[1] * 2, *cells)
    arrays = [
        rng.normal(0, 1, (images, case["channels"], *case["map"])),
        rng.normal(0, case.get("spread", 1.0), offsets),
        rng.normal(0, 0.1, (filters, case["channels"] // conv_groups, *kernel)),
    ]
    if case.get("bias"):
        arrays.append(rng.normal(0, 1, filters))
    attributes = {
        "num_filter": filters, "kernel": kernel, "stride": stride, "pad": pad, "dilate": dilate,
        "num_group": conv_groups, "num_deformable_group": groups,
    }  # fmt: skip
    return attributes, arrays, rng.normal(0, 1, (images, filters, *cells))


def passes(operator, attributes, arrays, head):
    """The output and the gradients of all inputs."""
    tensors = [mx.nd.array(array) for array in arrays]
    for tensor in tensors:
        tensor.attach_grad()
    with mx.autograd.record():
        output = operator(*tensors, **attributes)
    output.backward(mx.nd.array(head))
    return [output.asnumpy(), *(tensor.grad.asnumpy() for tensor in tensors)]


def of_mxnet(*tensors, **attributes):
    no_bias = len(tensors) < len(NAMES)
    return mx.nd.contrib.DeformableConvolution(*tensors, no_bias=no_bias, **attributes)


def assert_equal_to_mxnet(case):
    attributes, arrays, head = inputs_of(case)
    wanted = passes(of_mxnet, attributes, arrays, head)
    for name, array, expected in zip(
        ("output", *NAMES), passes(ops.deformable_convolution, attributes, arrays, head), wanted
    ):
        assert array.shape == expected.shape
        largest = np.abs(expected).max()
        assert largest > 0, name
        np.testing.assert_allclose(array, expected, rtol=0, atol=1e-5 * largest, err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_those_of_mxnet(name):
    assert_equal_to_mxnet(CASES[name])


def test_without_wide_registers_the_numbers_are_the_same_but_for_rounding():
    code = (
        "import sniper\n"
        "from tests.ops.test_deformable_convolution import CASES, assert_equal_to_mxnet\n"
        "from sniper import native\n"
        "assert native.isa() == 'baseline'\n"
        "for name in ('batch', 'groups of channels'): assert_equal_to_mxnet(CASES[name])\n"
    )
    environment = {**os.environ, "SNIPER_MAX_ISA": "baseline"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "lib"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_bits_do_not_depend_on_the_number_of_threads():
    code = (
        "import hashlib, sniper\n"
        "from tests.ops.test_deformable_convolution import CASES, inputs_of, ops, passes\n"
        "for name in ('dilated, as in stage 4', 'batch'):\n"
        "    for array in passes(ops.deformable_convolution, *inputs_of(CASES[name])):\n"
        "        print(hashlib.sha256(array.tobytes()).hexdigest())\n"
    )
    found = set()
    for threads in ("1", "3"):
        # More threads than cores would spin.
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "passive"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "lib"), str(ROOT)])
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True,
            timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1


def test_numbers_do_not_depend_on_the_batch():
    attributes, (data, offset, weight), head = inputs_of(CASES["batch"])
    together = passes(ops.deformable_convolution, attributes, [data, offset, weight], head)
    for image in range(3):
        part = slice(image, image + 1)
        arrays = [data[part], offset[part], weight]
        alone = passes(ops.deformable_convolution, attributes, arrays, head[part])
        for index in range(3):
            np.testing.assert_array_equal(alone[index], together[index][part])


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf, 1e30])
def test_offsets_that_lead_nowhere_count_zero(broken):
    """MXNet reads anywhere for the gradient of a NaN."""
    attributes, (data, offset, weight), head = inputs_of(CASES["batch"])
    offset[:, 2] = broken
    outside = offset.copy()
    outside[:, 2] = -100
    results = [
        passes(ops.deformable_convolution, attributes, [data, field, weight], head)
        for field in (offset, outside)
    ]
    for array, expected in zip(*results):
        np.testing.assert_array_equal(array, expected)
        assert np.isfinite(array).all()


def test_a_map_that_is_not_finite_spoils_no_other_image():
    attributes, (data, offset, weight), _ = inputs_of(CASES["batch"])
    tensors = [mx.nd.array(array) for array in (data, offset, weight)]
    expected = ops.deformable_convolution(*tensors, **attributes).asnumpy()
    tensors[0][1] = np.nan
    found = ops.deformable_convolution(*tensors, **attributes).asnumpy()
    np.testing.assert_array_equal(found[[0, 2]], expected[[0, 2]])
    assert np.isnan(found[1]).any()


@pytest.mark.parametrize(
    "requests",
    [("write", "write", "null"), ("null", "null", "write"), ("null", "write", "null")],
)
def test_gradients_that_nobody_asks_for(requests):
    attributes, arrays, head = inputs_of(CASES["batch"])
    wanted = passes(of_mxnet, attributes, arrays, head)[1:]
    inputs = [mx.sym.Variable(name) for name in NAMES[:3]]
    symbol = ops.deformable_convolution(*inputs, **attributes, name="layer")
    assert symbol.list_outputs() == ["layer_output"]
    shapes = {"data": arrays[0].shape, "offset": arrays[1].shape}  # the weight's is inferred
    executor = symbol.simple_bind(mx.cpu(), grad_req=dict(zip(NAMES, requests)), **shapes)
    for name, array in zip(NAMES, arrays):
        executor.arg_dict[name][:] = array
    executor.forward(is_train=True)
    executor.backward([mx.nd.array(head)])
    for name, request, expected in zip(NAMES, requests, wanted):
        gradient = executor.grad_dict[name]
        if request == "null":
            assert gradient is None
        else:
            scale = np.abs(expected).max()
            np.testing.assert_allclose(gradient.asnumpy(), expected, rtol=0, atol=1e-5 * scale)


def test_gradients_can_be_added_up():
    attributes, arrays, head = inputs_of(CASES["batch"])
    once = passes(ops.deformable_convolution, attributes, arrays, head)[1:]
    tensors = [mx.nd.array(array) for array in arrays]
    for tensor in tensors:
        tensor.attach_grad(grad_req="add")
    for _ in range(2):
        with mx.autograd.record():
            output = ops.deformable_convolution(*tensors, **attributes)
        output.backward(mx.nd.array(head))
    for tensor, expected in zip(tensors, once):
        np.testing.assert_array_equal(tensor.grad.asnumpy(), 2 * expected)


@pytest.mark.parametrize("name", ["dilated, as in stage 4", "strides and a flat kernel", "batch"])
def test_columns_times_weights_are_the_convolution(name):
    attributes, (data, offset, weight), _ = inputs_of(CASES[name])
    tensors = [mx.nd.array(array) for array in (data, offset, weight)]
    expected = of_mxnet(*tensors, **attributes).asnumpy()
    filters = attributes.pop("num_filter")
    attributes.pop("num_group")
    columns = ops.deformable_columns(*tensors[:2], **attributes)
    found = mx.nd.Convolution(
        columns, tensors[2].reshape((0, -1, 1, 1)), num_filter=filters, kernel=(1, 1), no_bias=True
    ).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "change, words",
    [
        ({"kernel": (9, 9)}, "as large as the window"),
        ({"kernel": (3,)}, "'kernel' has 1 number, expected 2"),
        ({"kernel": (0, 3)}, "'kernel'"),
        ({"num_deformable_group": 3}, "num_deformable_group = 3 divides"),
        ({"num_group": 3}, "num_group = 3 divides"),
        ({"num_filter": 18}, "'weight' has shape"),
        ({"dilate": (2, 2)}, "'offset' has shape"),
    ],
)
def test_what_does_not_fit_is_said(change, words):
    attributes, arrays, _ = inputs_of(CASES["batch"])
    tensors = [mx.nd.array(array) for array in arrays]
    with pytest.raises(OpsError, match=words):
        ops.deformable_convolution(*tensors, **{**attributes, **change}).wait_to_read()
