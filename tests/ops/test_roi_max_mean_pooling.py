"""RoI max-pooling with a mean over the bins: the stock operator and its mean are the reference."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

import sniper
from sniper.errors import OpsError
from sniper.ops import roi_max_mean_pooling

F = np.float32


def random_case(seed):
    """Maps with and without ties, RoIs of all sizes, partly or wholly outside the map."""
    rng = np.random.default_rng(seed)
    images, channels, height, width = (int(n) for n in rng.integers(1, [4, 80, 20, 20]))
    count, scale = int(rng.integers(1, 30)), float(rng.choice([1 / 16, 1 / 8, 0.07]))
    data = rng.standard_normal((images, channels, height, width))
    corners = rng.uniform(-60, max(height, width) / scale + 50, (count, 2, 2))
    corners.sort(axis=1)
    rois = np.hstack([rng.integers(0, images, (count, 1)), corners.reshape(count, 4)])
    head = rng.standard_normal((count, channels))
    arrays = [np.round(data) if seed % 2 else data, rois, head]
    return [array.astype(F) for array in arrays], int(rng.choice([1, 3, 7])), scale


def stock(data, rois, *, spatial_scale, pooled_size):
    size = (pooled_size, pooled_size)
    bins = mx.nd.ROIPooling(data, rois, pooled_size=size, spatial_scale=spatial_scale)
    return bins.mean(axis=(2, 3))


def run(operator, data, rois, head, pooled=7, scale=1.0):
    """Output, and the gradient of the data."""
    tensor = mx.nd.array(data)
    tensor.attach_grad()
    with mx.autograd.record():
        output = operator(tensor, mx.nd.array(rois), spatial_scale=scale, pooled_size=pooled)
    output.backward(mx.nd.array(head))
    return output.asnumpy(), tensor.grad.asnumpy()


@pytest.mark.parametrize("seed", range(16))
def test_equals_the_stock_operator_and_its_mean(seed):
    (data, rois, head), pooled, scale = random_case(seed)
    own = run(roi_max_mean_pooling, data, rois, head, pooled, scale)
    wanted = run(stock, data, rois, head, pooled, scale)
    for array, reference in zip(own, wanted):
        np.testing.assert_allclose(array, reference, rtol=1e-5, atol=1e-5)


def test_of_equal_maxima_the_first_one_takes_the_gradient():
    data = np.zeros((1, 1, 2, 2), F)
    _, gradient = run(roi_max_mean_pooling, data, F([[0, 0, 0, 1, 1]]), F([[3]]), pooled=1)
    np.testing.assert_array_equal(gradient, [[[[3, 0], [0, 0]]]])


def test_what_is_no_number_is_left_out():
    data = np.full((1, 1, 2, 2), np.nan, F)
    data[0, 0, 1, 1] = -2
    output, gradient = run(roi_max_mean_pooling, data, F([[0, 0, 0, 1, 1]]), F([[3]]), pooled=1)
    np.testing.assert_array_equal(output, [[-2]])
    np.testing.assert_array_equal(gradient, [[[[0, 0], [0, 3]]]])


@pytest.mark.parametrize(
    ("column", "bad"),
    [(0, -1), (0, 2), (0, np.nan), (0, np.inf), (1, np.nan), (1, -np.inf), (4, 3e38), (4, np.inf)],
)
def test_rois_of_no_image_and_no_place_give_zeros_and_no_gradient(column, bad):
    data = np.random.default_rng(0).standard_normal((2, 40, 8, 8)).astype(F)
    rois = F([[0, 1, 1, 3, 3], [0, 1, 1, 3, 3]])
    rois[1, column] = bad
    head = np.ones((2, 40), F)
    output, gradient = run(roi_max_mean_pooling, data, rois, head)
    alone, alone_gradient = run(roi_max_mean_pooling, data, rois[:1], head[:1])
    np.testing.assert_array_equal(output, np.concatenate([alone, np.zeros_like(alone)]))
    np.testing.assert_array_equal(gradient, alone_gradient)


MEMORY_SCRIPT = """
import resource
import numpy as np
import sniper
import mxnet as mx
from sniper.ops import roi_max_mean_pooling
peak_mb = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
data = mx.nd.ones((1, 3130, 8, 8))
rois = mx.nd.array(np.tile(np.float32([0, 3, 3, 90, 90]), (300, 1)))
data.attach_grad()
roi_max_mean_pooling(data[:, :2], rois, spatial_scale=1 / 16).wait_to_read()
before = peak_mb()
with mx.autograd.record():
    output = roi_max_mean_pooling(data, rois, spatial_scale=1 / 16)
output.backward()
mx.nd.waitall()
print(peak_mb() - before)
"""


def test_the_bins_are_never_in_memory():
    """300 RoIs of 3130 classes: 3.8 MB of output, 184 MB of bins and as much of argmax."""
    library = str(Path(sniper.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_SCRIPT],
        env={**os.environ, "PYTHONPATH": library}, capture_output=True, text=True, timeout=240,
        check=True,
    )  # fmt: skip
    assert float(done.stdout) < 60


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pooled_size": 0}, "argument 'pooled_size' is '0', expected an integer from 1 to 64"),
        ({"spatial_scale": float("nan")}, "spatial_scale"),
        ({"rois": mx.nd.zeros((3, 4))}, "input 'rois' has shape (3, 4), expected (R, 5)"),
        ({"data": mx.nd.zeros((3, 4))}, "input 'data' has shape (3, 4), expected (N, C, h, w)"),
        ({"data": mx.nd.zeros((1, 2, 3, 3), dtype="float16")}, "float32"),
    ],
)
def test_wrong_arguments_are_refused(change, words):
    tensors = {"data": mx.nd.zeros((1, 2, 3, 3)), "rois": mx.nd.zeros((1, 5))}
    with pytest.raises(OpsError) as caught:
        roi_max_mean_pooling(**{**tensors, "spatial_scale": 1.0, **change})
    assert "roi_max_mean_pooling" in str(caught.value) and words in str(caught.value)
