"""Deformable PSROI pooling: the stock operator and finite differences are the references."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

import sniper
from sniper.errors import OpsError
from sniper.ops.psroi import deformable_psroi_pooling

FRONT = {"spatial_scale": 1 / 16, "output_dim": 6, "pooled_size": 3, "trans_std": 0.1}


def random_case(rng, classes=1):
    """Arrays and attributes with RoIs of all sizes, partly or wholly outside the map."""
    group, pooled, part = (int(n) for n in rng.integers(1, [4, 8, 8]))
    output_dim = max(classes, 1) * int(rng.integers(1, 90))
    images, height, width = (int(n) for n in rng.integers(1, [4, 20, 20]))
    count, scale = int(rng.integers(1, 30)), float(rng.choice([1 / 16, 1 / 8, 0.07]))
    corners = rng.uniform(-80, max(height, width) / scale + 50, (count, 2, 2))
    corners.sort(axis=1)
    image = rng.integers(0, images, (count, 1))
    arrays = [
        rng.standard_normal((images, output_dim * group**2, height, width)),
        np.hstack([image, corners.reshape(count, 4)]),
    ]
    if classes:
        arrays.append(rng.standard_normal((count, 2 * classes, part, part)))
    attributes = {
        "spatial_scale": scale,
        "output_dim": output_dim,
        "pooled_size": pooled,
        "group_size": group,
        "part_size": part if classes else 0,
        "sample_per_part": int(rng.integers(1, 6)),
        "trans_std": 0.1,
    }
    return [a.astype(np.float32) for a in arrays], attributes


def stock(*inputs, **attributes):
    return mx.nd.contrib.DeformablePSROIPooling(*inputs, no_trans=len(inputs) < 3, **attributes)


def run(operator, arrays, attributes, head=None):
    """Output and input gradients (of `head`, default ones)."""
    inputs = [mx.nd.array(array) for array in arrays]
    for tensor in inputs:
        tensor.attach_grad()
    with mx.autograd.record():
        output = operator(*inputs, **attributes)
    output.backward(None if head is None else mx.nd.array(head))
    return output.asnumpy(), [tensor.grad.asnumpy() for tensor in inputs]


@pytest.mark.parametrize("seed", range(24))
def test_equals_the_stock_operator(seed):
    rng = np.random.default_rng(seed)
    arrays, attributes = random_case(rng, classes=seed % 3)
    expected = run(stock, arrays, attributes)[0]
    head = rng.standard_normal(expected.shape).astype(np.float32)
    expected, expected_grads = run(stock, arrays, attributes, head)
    output, grads = run(deformable_psroi_pooling, arrays, attributes, head)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=2e-6)
    np.testing.assert_array_equal(grads[1], 0)
    for k in (0, 2)[: len(grads) - 1]:
        scale = max(1.0, np.abs(expected_grads[k]).max())
        np.testing.assert_allclose(grads[k] / scale, expected_grads[k] / scale, atol=1e-5)


@pytest.mark.parametrize("output_dim", [2, 4, 8])
@pytest.mark.parametrize(("group", "pooled"), [(7, 7), (3, 5), (4, 2), (1, 3)])
def test_few_channels_without_offsets_have_the_bits_of_the_general_path(output_dim, group, pooled):
    """Offsets of zero choose that path; the stock operator judges both."""
    rng = np.random.default_rng(group)
    count = 40
    corners = rng.uniform(-60, 300, (count, 2, 2))
    corners.sort(axis=1)
    image = rng.integers(-1, 3, (count, 1))
    arrays = [
        rng.standard_normal((3, output_dim * group**2, 11, 13)).astype(np.float32),
        np.hstack([image, corners.reshape(count, 4)]).astype(np.float32),
    ]
    attributes = {
        "spatial_scale": 1 / 16, "output_dim": output_dim, "pooled_size": pooled,
        "group_size": group, "sample_per_part": 4,
    }  # fmt: skip
    head = rng.standard_normal((count, output_dim, pooled, pooled)).astype(np.float32)
    output, grads = run(deformable_psroi_pooling, arrays, attributes, head)
    zeros = np.zeros((count, 2, pooled, pooled), np.float32)
    general, general_grads = run(deformable_psroi_pooling, [*arrays, zeros], attributes, head)
    np.testing.assert_array_equal(output, general)
    np.testing.assert_array_equal(grads[0], general_grads[0])
    there = image[:, 0] >= 0  # the stock operator reads beside its memory for the others
    expected, expected_grads = run(stock, [arrays[0], arrays[1][there]], attributes, head[there])
    np.testing.assert_allclose(output[there], expected, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(grads[0], expected_grads[0], rtol=1e-5, atol=1e-5)


def test_golden_position_sensitive_pooling(golden):
    """Of 2018's R-FCN-3K, written down with five digits."""
    case = json.loads((golden / "golden_rfcn3k.json").read_text())["psroi_pool"]
    pooled = deformable_psroi_pooling(
        mx.nd.array([case["feature"]]), mx.nd.array([case["roi"]]), spatial_scale=1 / 16,
        output_dim=case["output_dim"], pooled_size=case["pooled_size"],
        group_size=case["pooled_size"],
    )  # fmt: skip
    np.testing.assert_allclose(pooled[0].asnumpy(), case["out"], atol=1e-5)


@pytest.mark.parametrize("classes", [1, 40])
def test_more_rois_than_one_chunk_equal_the_stock_operator(classes):
    rng = np.random.default_rng(3)
    arrays, attributes = random_case(rng, classes)
    arrays[1] = np.tile(arrays[1], (1300 // len(arrays[1]) + 1, 1))
    arrays[2] = rng.standard_normal((len(arrays[1]), *arrays[2].shape[1:])).astype(np.float32)
    expected, expected_grads = run(stock, arrays, attributes)
    output, grads = run(deformable_psroi_pooling, arrays, attributes)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=2e-6)
    for k in (0, 2):
        scale = np.abs(expected_grads[k]).max()
        np.testing.assert_allclose(grads[k] / scale, expected_grads[k] / scale, atol=1e-5)


def test_gradients_equal_finite_differences():
    """On a map that is bilinear in x and y, so that every cell has the same slopes."""
    y, x = np.mgrid[0:12, 0:12].astype(np.float32)
    data = np.stack([0.3 * x - 0.2 * y, 0.1 * x * y])[None].astype(np.float32)
    rois = np.float32([[0, 30, 34, 120, 101], [0, 20, 50, 90, 130]])
    trans = np.random.default_rng(0).uniform(-1, 1, (2, 2, 2, 2)).astype(np.float32)
    attributes = {"spatial_scale": 1 / 16, "output_dim": 2, "pooled_size": 2, "trans_std": 0.1}
    head = np.random.default_rng(1).standard_normal((2, 2, 2, 2)).astype(np.float32)
    _, (data_grad, _, trans_grad) = run(
        deformable_psroi_pooling, [data, rois, trans], attributes, head
    )

    def loss(data, trans):
        inputs = (mx.nd.array(data), mx.nd.array(rois), mx.nd.array(trans))
        output = deformable_psroi_pooling(*inputs, **attributes).asnumpy()
        return float((output.astype(np.float64) * head).sum())

    step = 0.02
    for index in np.ndindex(trans.shape):
        high, low = trans.copy(), trans.copy()
        high[index] += step
        low[index] -= step
        slope = (loss(data, high) - loss(data, low)) / (2 * step)
        assert trans_grad[index] == pytest.approx(slope, rel=2e-3, abs=2e-3)
    direction = np.random.default_rng(2).standard_normal(data.shape).astype(np.float32)
    slope = loss(data + direction, trans) - loss(data, trans)  # linear in the data
    assert (data_grad * direction).sum() == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("image", [-1, 2, 100, np.nan, np.inf, -np.inf, 3e38])
def test_rois_of_no_image_give_zeros_and_no_gradient(image):
    rng = np.random.default_rng(0)
    data = rng.standard_normal((2, 6, 8, 8)).astype(np.float32)
    rois = np.float32([[1, 10, 10, 60, 60], [image, 10, 10, 60, 60]])
    trans = rng.standard_normal((2, 2, 3, 3)).astype(np.float32)
    output, (data_grad, _, trans_grad) = run(deformable_psroi_pooling, [data, rois, trans], FRONT)
    alone, (alone_data_grad, _, alone_trans_grad) = run(
        deformable_psroi_pooling, [data, rois[:1], trans[:1]], FRONT
    )
    np.testing.assert_array_equal(output, np.concatenate([alone, np.zeros_like(alone)]))
    np.testing.assert_array_equal(data_grad, alone_data_grad)
    np.testing.assert_array_equal(trans_grad[0], alone_trans_grad[0])
    np.testing.assert_array_equal(trans_grad[1], 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_coordinates_and_offsets_that_are_not_finite_pool_nothing(bad):
    data = np.ones((1, 6, 8, 8), np.float32)
    rois = np.float32([[0, bad, 10, bad, 60], [0, 10, 10, 60, 60]])
    trans = np.zeros((2, 2, 3, 3), np.float32)
    trans[1, 0, 0, 0] = bad
    output, grads = run(deformable_psroi_pooling, [data, rois, trans], FRONT)
    np.testing.assert_array_equal(output[0], 0)
    np.testing.assert_array_equal(output[1, :, 0, 0], 0)
    np.testing.assert_allclose(output[1, :, 1:], 1, rtol=1e-6)
    assert all(np.isfinite(grad).all() for grad in grads)


def bind(symbol, arrays, grad_req="write", context=None):
    shapes = {name: array.shape for name, array in arrays.items()}
    executor = symbol.simple_bind(context or mx.cpu(), grad_req=grad_req, **shapes)
    for name, array in arrays.items():
        executor.arg_dict[name][:] = array
    return executor


def graph_arrays(seed=0):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 120, (5, 2, 2)), axis=1).reshape(5, 4)
    return {
        "data": rng.standard_normal((1, 6, 8, 8)).astype(np.float32),
        "rois": np.hstack([np.zeros((5, 1)), corners]).astype(np.float32),
        "trans": rng.standard_normal((5, 2, 3, 3)).astype(np.float32),
    }


def graph(name="pool"):
    data, rois, trans = (mx.sym.Variable(n) for n in ("data", "rois", "trans"))
    return deformable_psroi_pooling(data, rois, trans, name=name, **FRONT)


def test_symbol_has_the_given_name_and_survives_json():
    symbol = graph("offset_pool")
    assert symbol.list_outputs() == ["offset_pool_output"]
    assert symbol.list_arguments() == ["data", "rois", "trans"]
    arrays = graph_arrays()
    again = mx.sym.load_json(symbol.tojson())
    outputs = [bind(s, arrays).forward()[0].asnumpy() for s in (symbol, again)]
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_graph_equals_the_imperative_form():
    arrays = graph_arrays()
    executor = bind(graph(), arrays)
    output = executor.forward(is_train=True)[0].asnumpy()
    head = np.random.default_rng(4).standard_normal(output.shape).astype(np.float32)
    executor.backward([mx.nd.array(head)])
    expected, grads = run(deformable_psroi_pooling, list(arrays.values()), FRONT, head)
    np.testing.assert_array_equal(output, expected)
    for name, grad in zip(arrays, grads):
        np.testing.assert_array_equal(executor.grad_dict[name].asnumpy(), grad)


def test_grad_req_add_adds():
    arrays = graph_arrays()
    executor = bind(graph(), arrays, grad_req="add")
    start = {name: np.full(array.shape, 2, np.float32) for name, array in arrays.items()}
    for name, array in start.items():
        executor.grad_dict[name][:] = array
    head = mx.nd.ones(executor.forward(is_train=True)[0].shape)
    executor.backward([head])
    _, grads = run(deformable_psroi_pooling, list(arrays.values()), FRONT)
    for name, grad in zip(arrays, grads):
        np.testing.assert_allclose(
            executor.grad_dict[name].asnumpy(), grad + 2, rtol=1e-5, atol=1e-6
        )


def test_nine_uses_of_one_variable_sum_their_gradients():
    """With 8 and more uses MXNet may sum in place, which an extension operator cannot see."""
    data, rois, trans = (mx.sym.Variable(n) for n in ("data", "rois", "trans"))
    pooled = [
        deformable_psroi_pooling(data, rois, trans, name=f"pool{k}", **FRONT) * (k + 1)
        for k in range(9)
    ]
    arrays = graph_arrays()
    executor = bind(mx.sym.add_n(*pooled), arrays)
    head = mx.nd.ones(executor.forward(is_train=True)[0].shape)
    executor.backward([head])
    _, grads = run(deformable_psroi_pooling, list(arrays.values()), FRONT)
    for name, grad in zip(arrays, grads):
        np.testing.assert_allclose(
            executor.grad_dict[name].asnumpy(), 45 * grad, rtol=1e-4, atol=1e-4
        )


def test_two_contexts_at_once():
    executors = [bind(graph(), graph_arrays(k), context=mx.cpu(k)) for k in range(2)]
    for _ in range(5):
        for executor in executors:
            executor.forward(is_train=True)
            executor.backward([mx.nd.ones(executor.outputs[0].shape, ctx=executor._ctx)])
    for k, executor in enumerate(executors):
        expected, grads = run(deformable_psroi_pooling, list(graph_arrays(k).values()), FRONT)
        np.testing.assert_array_equal(executor.outputs[0].asnumpy(), expected)
        for name, grad in zip(("data", "rois", "trans"), grads):
            np.testing.assert_array_equal(executor.grad_dict[name].asnumpy(), grad)


THREADS_SCRIPT = """
import hashlib, sys
import numpy as np
import sniper
import mxnet as mx
from sniper.ops.psroi import deformable_psroi_pooling
rng = np.random.default_rng(0)
corners = np.sort(rng.uniform(0, 250, (60, 2, 2)), axis=1).reshape(60, 4)
arrays = (rng.standard_normal((2, 200, 16, 16)), np.hstack([rng.integers(0, 2, (60, 1)), corners]),
          rng.standard_normal((60, 2, 7, 7)))
inputs = [mx.nd.array(array) for array in arrays]
for tensor in inputs:
    tensor.attach_grad()
with mx.autograd.record():
    output = deformable_psroi_pooling(
        *inputs, spatial_scale=1 / 16, output_dim=200, pooled_size=7, trans_std=0.1)
output.backward(mx.nd.array(rng.standard_normal(output.shape)))
digest = hashlib.sha256()
for tensor in (output, *(i.grad for i in inputs)):
    digest.update(tensor.asnumpy().tobytes())
print(digest.hexdigest())
"""


def test_result_does_not_depend_on_the_number_of_threads():
    library = str(Path(sniper.__file__).parents[1])
    digests = set()
    for threads in ("1", "3"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": library}
        done = subprocess.run(
            [sys.executable, "-c", THREADS_SCRIPT],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1
    assert len(digests.pop()) == 64


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"output_dim": 5}, "data"),
        ({"output_dim": 0}, "output_dim"),
        ({"pooled_size": 2.5}, "pooled_size"),
        ({"group_size": 2}, "data"),
        ({"part_size": 2}, "trans"),
        ({"sample_per_part": 0}, "sample_per_part"),
        ({"spatial_scale": float("nan")}, "spatial_scale"),
        ({"trans_std": -1}, "trans_std"),
    ],
)
def test_wrong_attributes_are_refused(change, word):
    inputs = [mx.nd.array(array) for array in graph_arrays().values()]
    with pytest.raises(OpsError, match=word):
        deformable_psroi_pooling(*inputs, **{**FRONT, **change})


def test_wrong_tensors_are_refused():
    data, rois, trans = (mx.nd.array(array) for array in graph_arrays().values())
    for inputs, word in (
        ((data.astype("float16"), rois, trans), "float32"),
        ((data, rois[:, :4], trans), "rois"),
        ((data, rois, trans[:2]), "trans"),
        ((data, rois.asnumpy(), trans), "MXNet"),
        ((data, mx.sym.Variable("rois"), trans), "Symbols"),
    ):
        with pytest.raises(OpsError, match=word):
            deformable_psroi_pooling(*inputs, **FRONT)


@pytest.mark.parametrize(
    ("attributes", "inputs", "word"),
    [
        ({}, (0, 1, 2), "'spatial_scale' is missing"),
        ({"spatial_scale": 1, "output_dim": 6, "pooled_size": 3, "typo": 1}, (0, 1, 2), "typo"),
        (
            {"spatial_scale": 1, "output_dim": 4, "pooled_size": 3},
            (0, 1, 2),
            r"expected \(N, 4, h, w\)",
        ),
        ({"spatial_scale": 1, "output_dim": 6, "pooled_size": 2}, (0, 1, 2), "'trans'"),
        ({"spatial_scale": 1, "output_dim": 6, "pooled_size": 3}, (0, 2, 2), "'rois'"),
    ],
)
def test_operator_checks_what_a_json_file_may_hold(attributes, inputs, word):
    arrays = list(graph_arrays().values())
    with pytest.raises(mx.base.MXNetError, match=word):
        mx.nd.DeformablePSROIPooling(*(mx.nd.array(arrays[k]) for k in inputs), **attributes)
