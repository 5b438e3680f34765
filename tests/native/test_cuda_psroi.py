"""CUDA kernels of deformable PSROI pooling against the operator on the CPU."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from sniper.ops.psroi import deformable_psroi_pooling
from tests.native.cuda_calls import psroi_backward, psroi_forward, psroi_shape
from tests.native.cuda_cases import random_pooling as make_case


def on_device(cuda, data, rois, trans, head, attributes):
    """Output and gradients of data and trans (None without)."""
    output = psroi_forward(cuda, data, rois, trans, attributes)
    grads = psroi_backward(cuda, data, rois, trans, head, attributes)
    return (output, grads, None) if trans is None else (output, *grads)


def on_cpu(data, rois, trans, head, attributes):
    inputs = [mx.nd.array(array) for array in (data, rois, trans) if array is not None]
    for tensor in inputs:
        tensor.attach_grad()
    with mx.autograd.record():
        output = deformable_psroi_pooling(*inputs, **attributes)
    output.backward(mx.nd.array(head))
    grads = [tensor.grad.asnumpy() for tensor in inputs]
    return output.asnumpy(), grads[0], None if trans is None else grads[2]


def check(cuda, arrays, attributes):
    """The same bits, but for the order in which offset gradients are summed over the channels."""
    output, data_grad, trans_grad = on_device(cuda, *arrays, attributes)
    expected, expected_data_grad, expected_trans_grad = on_cpu(*arrays, attributes)
    np.testing.assert_array_equal(output, expected)
    np.testing.assert_array_equal(data_grad, expected_data_grad)
    if trans_grad is not None:
        size = max(1.0, float(np.abs(expected_trans_grad).max()))
        np.testing.assert_allclose(trans_grad / size, expected_trans_grad / size, atol=2e-6)
    return output, data_grad, trans_grad


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"classes": 0},
        {"classes": 0, "channels": 2, "group": 7, "pooled": 7, "samples": 4},
        {"classes": 0, "channels": 3, "group": 2, "pooled": 5, "rois": 40},
        {"classes": 0, "channels": 1, "height": 120, "width": 110},  # no room in shared memory
        {"classes": 0, "channels": 9, "group": 2, "pooled": 2},  # many channels: the general path
        {"group": 3, "pooled": 5, "part": 2},
        {"group": 2, "pooled": 3, "part": 7, "classes": 3, "channels": 2},
        {"channels": 1, "classes": 4},
        {"channels": 40, "samples": 4, "pooled": 7, "rois": 4},  # two blocks of channels
        {"channels": 33, "classes": 2, "height": 3, "width": 70, "rois": 4},  # three strips a row
        {"pooled": 9, "channels": 3, "classes": 2, "rois": 5},  # two tiles per RoI and class
        {"rois": 40, "images": 3, "channels": 2, "height": 4, "width": 5},  # more than a warp
    ],
    ids=str,
)
def test_equals_the_cpu(cuda, sizes):
    output, data_grad, _ = check(cuda, *make_case(len(str(sizes)), **sizes))
    assert np.abs(output).max() > 0
    assert np.abs(data_grad).max() > 0


def test_geometry_that_does_not_fit_into_scratch_memory_comes_in_chunks(cuda):
    """1024 samples per axis: 16 RoIs fill the taps' share, so that there are two rounds."""
    arrays, attributes = make_case(
        0, pooled=8, samples=1024, rois=20, channels=1, images=1, height=5, width=6, part=2
    )
    params = psroi_shape(*arrays[:3], attributes)
    asked = cuda.workspace_bytes("deformable_psroi_pooling", params)
    assert asked < 20 * 64 * 2 * 2048 * 12
    check(cuda, arrays, attributes)


def test_map_of_one_pixel(cuda):
    arrays, attributes = make_case(6, height=1, width=1, rois=3, scale=1.0)
    arrays[1][:, 1:] = [[0, 0, 0, 0], [-1, -1, 1, 1], [0, 1, 2, 2]]
    output, _, _ = check(cuda, arrays, attributes)
    assert np.abs(output).max() > 0


@pytest.mark.parametrize("image", [-1, 2, 100, np.nan, np.inf, -np.inf, 3e38])
def test_rois_of_no_image_give_zeros_and_no_gradient(cuda, image):
    arrays, attributes = make_case(1, rois=3)
    arrays[1][1, 0] = image
    output, _, trans_grad = check(cuda, arrays, attributes)
    np.testing.assert_array_equal(output[1], 0)
    np.testing.assert_array_equal(trans_grad[1], 0)


def test_all_rois_of_no_image(cuda):
    arrays, attributes = make_case(2)
    arrays[1][:, 0] = -1
    for result in on_device(cuda, *arrays, attributes):
        np.testing.assert_array_equal(result, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, -3e38])
def test_values_that_are_not_finite_pool_nothing(cuda, bad):
    arrays, attributes = make_case(3, rois=4)
    arrays[1][0] = [0, bad, 10, bad, 60]
    arrays[1][1] = [0, 10, bad, 60, 70]
    arrays[2][2, 0, 0, 0] = bad
    output, data_grad, trans_grad = check(cuda, arrays, attributes)
    np.testing.assert_array_equal(output[:2], 0)
    assert np.isfinite(data_grad).all()
    assert np.isfinite(trans_grad).all()


def test_a_roi_of_infinite_size_has_no_gradient(cuda):
    arrays, attributes = make_case(4, rois=2)
    arrays[1][0, 1:] = [-np.inf, -np.inf, np.inf, np.inf]
    _, data_grad, trans_grad = check(cuda, arrays, attributes)
    np.testing.assert_array_equal(trans_grad[0], 0)
    assert np.isfinite(data_grad).all()


def test_no_rois(cuda):
    arrays, attributes = make_case(7, rois=0)
    output, data_grad, trans_grad = on_device(cuda, *arrays, attributes)
    assert output.size == trans_grad.size == 0
    np.testing.assert_array_equal(data_grad, np.zeros_like(arrays[0]))


def test_gradients_are_overwritten_where_no_roi_is(cuda):
    arrays, attributes = make_case(5, rois=1, height=12, width=40)
    arrays[1][0] = [1, 8, 8, 40, 40]
    _, data_grad, _ = check(cuda, arrays, attributes)
    np.testing.assert_array_equal(data_grad[0], 0)
    np.testing.assert_array_equal(data_grad[1, :, :, 20:], 0)
