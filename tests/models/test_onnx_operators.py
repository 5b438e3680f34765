"""Every operator of our test graphs computes in ONNX Runtime what it computes in MXNet."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest

from sniper.errors import DataError
from sniper.models.assembly import build_detector, build_mask_head
from sniper.models.networks import network_names
from sniper.ops import load_library

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from sniper.models.onnx.operators import OPERATORS, PASS_ON  # noqa: E402  (needs onnx)
from sniper.models.onnx.program import NATIVE, VARIABLE, convert  # noqa: E402
from tests.models.onnx_help import any_params, run_program, spec_of  # noqa: E402

sym = mx.sym
X, Y = sym.Variable("x"), sym.Variable("y")
MAP = (2, 6, 7, 9)


def bn(**values):
    return sym.BatchNorm(X, name="op", eps=2e-5, use_global_stats=True, **values)


def conv(**values):
    return sym.Convolution(X, name="op", kernel=(3, 3), **values)


def pool(**values):
    return sym.Pooling(X, name="op", pool_type="max", **values)


# The graph, and the shapes of its inputs.
CASES = {
    "relu": (sym.Activation(X, act_type="relu"), [MAP]),
    "tanh": (sym.Activation(X, act_type="tanh"), [MAP]),
    "bn": (bn(fix_gamma=False), [MAP]),
    "bn_gamma_of_one": (bn(fix_gamma=True), [MAP]),
    "concat": (sym.Concat(X, Y), [MAP, (2, 3, 7, 9)]),
    "concat_rows": (sym.Concat(X, Y, dim=2), [MAP, (2, 6, 2, 9)]),
    "conv": (conv(num_filter=5, pad=(1, 1)), [MAP]),
    "conv_stride": (conv(num_filter=5, stride=(2, 2), no_bias=True), [MAP]),
    "conv_dilated": (conv(num_filter=4, dilate=(2, 2), pad=(2, 2), num_group=2), [MAP]),
    "deconv": (sym.Deconvolution(X, name="op", kernel=(2, 2), stride=(2, 2), num_filter=5), [MAP]),
    "deconv_groups": (
        sym.Deconvolution(
            X, name="op", kernel=(4, 4), stride=(2, 2), pad=(1, 1), num_filter=6, num_group=6
        ),
        [MAP],
    ),
    "deconv_bias": (
        sym.Deconvolution(
            X, name="op", kernel=(3, 3), stride=(2, 2), adj=(1, 1), num_filter=5, no_bias=False
        ),
        [MAP],
    ),
    "fc": (sym.FullyConnected(X, name="op", num_hidden=5), [(4, 3, 2, 2)]),
    "fc_no_bias": (sym.FullyConnected(X, name="op", num_hidden=5, no_bias=True), [(4, 7)]),
    "pool": (pool(kernel=(3, 3), stride=(2, 2), pad=(1, 1)), [MAP]),
    "pool_up": (pool(kernel=(2, 2), stride=(2, 2), pooling_convention="full"), [MAP]),
    "pool_down": (pool(kernel=(2, 2), stride=(2, 2)), [MAP]),
    "reshape": (sym.Reshape(X, shape=(0, 2, -1, 0)), [MAP]),
    "reshape_rows": (sym.Reshape(X, shape=(-1, 3, 4)), [(6, 4)]),
    "softmax_rows": (sym.SoftmaxActivation(X), [(5, 7)]),
    "softmax_planes": (sym.SoftmaxActivation(X, mode="channel"), [MAP]),
    "minus_number": (X - 1, [MAP]),
    "plus_number": (X + 4.5, [MAP]),
    "minus": (sym.elemwise_sub(X, Y), [MAP, MAP]),
    "plus": (sym.elemwise_add(X, Y), [MAP, MAP]),
    "broadcast": (sym.broadcast_axis(X, axis=(1, 2), size=(4, 5)), [(3, 1, 1)]),
    "broadcast_one": (sym.broadcast_axis(X, axis=1, size=4), [(3, 1, 2)]),
    "clip": (sym.clip(X, a_min=0, a_max=1.5), [MAP]),
    "mean": (sym.mean(X, axis=(2, 3)), [MAP]),
    "mean_keeps": (sym.mean(X, axis=1, keepdims=True), [MAP]),
    # Indices below 0 and behind the last one are among them.
    "pick": (sym.pick(X, Y + 2, axis=1), [MAP, (2, 7, 9)]),
    "pick_keeps": (sym.pick(X, Y - 1, axis=1, keepdims=True), [MAP, (2, 7, 9)]),
    "sigmoid": (sym.sigmoid(X), [MAP]),
    "slice": (sym.slice(X, begin=(None, None, 1, 2), end=(None, None, None, -1)), [MAP]),
    "slice_like": (sym.slice_like(X, Y, axes=(2, 3)), [MAP, (1, 2, 3, 8)]),
}


def deformable(stride=1, dilate=2, pad=2, groups=3, no_bias=True):
    sides = {"kernel": (3, 3), "stride": (stride,) * 2, "dilate": (dilate,) * 2, "pad": (pad,) * 2}
    more = {"num_filter": 5, "num_deformable_group": groups, "no_bias": no_bias}
    return sym.contrib.DeformableConvolution(X, Y, name="op", **sides, **more)


for side, values in {"": {}, "_stride": {"stride": 2, "dilate": 1, "pad": 1}}.items():
    cells = (2, 54, 7, 9) if not values else (2, 54, 4, 5)
    CASES[f"deformable{side}"] = (deformable(**values), [MAP, cells])
CASES["deformable_bias"] = (deformable(groups=1, no_bias=False), [MAP, (2, 18, 7, 9)])


def compare(graph, shapes, seed=0, spread=2.0):
    """What ONNX Runtime puts out, and MXNet."""
    rng = np.random.default_rng(seed)
    inputs = {
        name: rng.normal(0, spread, shape).astype(np.float32) for name, shape in shapes.items()
    }
    params = any_params(graph, shapes, rng)
    bound = {name: mx.nd.array(value) for name, value in {**inputs, **params}.items()}
    aux = {name: bound.pop(name) for name in graph.list_auxiliary_states()}
    expected = [a.asnumpy() for a in graph.bind(mx.cpu(), bound, aux_states=aux).forward()]
    ranks = {name: value.ndim for name, value in inputs.items()}
    outputs = run_program(convert(graph.tojson(), params, ranks), inputs)
    assert list(outputs) == graph.list_outputs()
    return list(outputs.values()), expected


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_numbers_are_those_of_mxnet(case, seed):
    graph, shapes = CASES[case]
    (output,), (expected,) = compare(graph, dict(zip("xy", shapes)), seed)
    assert output.shape == expected.shape
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


def test_every_operator_has_a_case_and_every_network_is_made_of_them():
    load_library()
    tried = {op for graph, _ in CASES.values() for op in operators(graph)}
    assert tried == set(OPERATORS)
    used = set()
    specs = [spec_of(name) for name in network_names()]
    for spec in [*specs, spec_of("mobilenetv2_e2e", padding="tf_same")]:
        graphs = [build_detector(spec, train=False)]
        if spec.with_masks:
            graphs.append(build_mask_head(spec))
        used.update(op for graph in graphs for op in operators(graph))
    assert used - {*PASS_ON} == set(OPERATORS) | set(NATIVE)


def operators(graph):
    return [node["op"] for node in json.loads(graph.tojson())["nodes"] if node["op"] != VARIABLE]


def slow_deformable(data, offset, weight, pad, dilate):
    """The rule in the plainest words: one 3x3 tap after the other, one group of offsets."""
    images, channels, height, width = data.shape
    result = np.zeros((images, len(weight), height, width))
    for n, tap, y, x in np.ndindex(images, 9, height, width):
        row = np.float32(y - pad + tap // 3 * dilate) + offset[n, 2 * tap, y, x]
        column = np.float32(x - pad + tap % 3 * dilate) + offset[n, 2 * tap + 1, y, x]
        if not (0 <= row < height and 0 <= column < width):
            continue
        row, column = min(row, height - 1), min(column, width - 1)
        value = np.zeros(channels)
        for r, c in np.ndindex(height, width):
            share = max(0, 1 - abs(row - r)) * max(0, 1 - abs(column - c))
            value += share * data[n, :, r, c]
        result[n, :, y, x] += weight[:, :, tap // 3, tap % 3] @ value
    return result


def test_samples_at_the_border_follow_the_rule_of_mxnet():
    # Halves and whole cells: many samples lie exactly on a border.
    rng = np.random.default_rng(3)
    data = rng.normal(size=(1, 2, 4, 5)).astype(np.float32)
    offset = (rng.integers(-8, 9, (1, 18, 4, 5)) / 2).astype(np.float32)
    graph = deformable(dilate=1, pad=1, groups=1)
    params = any_params(graph, {"x": data.shape, "y": offset.shape}, rng)
    expected = slow_deformable(data, offset, params["op_weight"], 1, 1)
    inputs = {"x": data, "y": offset}
    ours = run_program(convert(graph.tojson(), params, {"x": 4, "y": 4}), inputs)["op_output"]
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    bound = {name: mx.nd.array(value) for name, value in {**inputs, **params}.items()}
    theirs = graph.bind(mx.cpu(), bound).forward()[0].asnumpy()
    np.testing.assert_allclose(theirs, expected, atol=1e-5)


def test_sizes_are_free():
    graph = conv(num_filter=5, pad=(1, 1))
    params = any_params(graph, {"x": MAP}, np.random.default_rng(0))
    program = convert(graph.tojson(), params, {"x": 4})
    for shape in [(1, 6, 3, 3), (3, 6, 5, 11)]:
        data = np.ones(shape, np.float32)
        assert run_program(program, {"x": data})["op_output"].shape == (shape[0], 5, *shape[2:])


@pytest.mark.parametrize(
    "graph, text",
    [
        (sym.Pooling(X, kernel=(2, 2), pool_type="avg"), "pool_type"),
        (pool(kernel=(3, 3), stride=(2, 2), pad=(1, 1), pooling_convention="full"), "rounded up"),
        (sym.Reshape(X, shape=(-2, -1)), "shape"),
        (sym.LeakyReLU(X, act_type="elu"), "LeakyReLU"),
        (sym.Activation(X, act_type="softsign"), "act_type"),
        (sym.BatchNorm(X, name="op", axis=2), "axis"),
        (sym.Pooling(X, kernel=(2, 2), pool_type="max", p_value=2), "p_value"),
    ],
)
def test_what_is_not_known_is_refused(graph, text):
    params = any_params(graph, {"x": MAP}, np.random.default_rng(0))
    with pytest.raises(DataError, match=text):
        convert(graph.tojson(), params, {"x": 4})


def test_missing_parameters_are_named():
    with pytest.raises(DataError, match="op_weight"):
        convert(conv(num_filter=5).tojson(), {}, {"x": 4})
