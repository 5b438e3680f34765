"""CUDA kernels of RoI max-pooling with a mean over the bins, against the operator on the CPU."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from sniper.ops import roi_max_mean_pooling
from tests.native import cuda_sources
from tests.native.cuda_calls import RoiMaxMeanParams, roi_max_mean_backward, roi_max_mean_forward
from tests.native.cuda_cases import random_roi_maxima


def on_cpu(data, rois, head, attributes):
    tensor = mx.nd.array(data)
    tensor.attach_grad()
    with mx.autograd.record():
        output = roi_max_mean_pooling(tensor, mx.nd.array(rois), **attributes)
    output.backward(mx.nd.array(head))
    return output.asnumpy(), tensor.grad.asnumpy()


def check(cuda, arrays, attributes):
    data, rois, head = arrays
    output = roi_max_mean_forward(cuda, data, rois, attributes)
    gradient = roi_max_mean_backward(cuda, data, rois, head, attributes)
    wanted, wanted_gradient = on_cpu(*arrays, attributes)
    np.testing.assert_array_equal(output, wanted)
    np.testing.assert_array_equal(gradient, wanted_gradient)
    return output, gradient


def test_structure(tmp_path):
    header = "roi_max_mean_pooling/roi_max_mean_pooling.h"
    cuda_sources.check_layouts(tmp_path, header, {"RoiMaxMeanParams": RoiMaxMeanParams})


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"pooled": 3, "images": 3, "rois": 40},
        {"channels": 33, "height": 5, "width": 37},
        {"channels": 100, "height": 30, "width": 30, "rois": 4},  # several blocks of channels
        {"height": 1, "width": 1, "channels": 1},
    ],
    ids=str,
)
def test_equals_the_cpu(cuda, sizes):
    output, gradient = check(cuda, *random_roi_maxima(len(str(sizes)), **sizes))
    assert output.any() and gradient.any()


def test_strange_rois(cuda):
    arrays, attributes = random_roi_maxima(3, rois=8)
    arrays[1][:5] = [
        [np.nan, 0, 0, 9, 9], [-1, 0, 0, 9, 9], [2, 0, 0, 9, 9], [0, np.inf, 0, 9, 9],
        [0, 0, 0, 3e38, 9],
    ]  # fmt: skip
    output, _ = check(cuda, arrays, attributes)
    assert not output[:5].any() and output[5:].any()
