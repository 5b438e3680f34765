"""Every network converted to ONNX: the same outputs as MXNet's, maps and RoIs of odd sizes."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from sniper.models.assembly import build_detector, build_mask_head, inference_input_shapes
from sniper.models.networks import BACKBONES, HEADS
from sniper.ops import load_library

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from sniper.models.onnx.program import NativeStep, OnnxStep, convert  # noqa: E402  (needs onnx)
from tests.models.onnx_help import any_params, run_program, spec_of  # noqa: E402

# What all heads are tried with; the other backbones are tried with the heads of 2018, which read
# all their maps. Wide ones take minutes together.
SMALL = ("resnet_mx_18", "mobilenetv2")
NETWORKS = [f"{backbone}_{heads}" for backbone in SMALL for heads in HEADS]
SLOW = [f"{name}_{heads}" for name in BACKBONES if name not in SMALL for heads in HEADS]
SIDES = (96, 32)  # 3 x 1 cells of stride 32
TOLERANCE = 1e-4  # of a probability; of the largest value in maps that have values above 1


def converted(spec, seed=0, **outputs):
    """Symbol, parameters, inputs and program of a test network."""
    load_library()
    with mx.name.NameManager():
        symbol = build_detector(spec, train=False, **outputs)
    shapes = inference_input_shapes(spec, 2, *SIDES, rpn_only=outputs.get("rpn_only", False))
    rng = np.random.default_rng(seed)
    params = any_params(symbol, shapes, rng)
    inputs = {name: np.arange(2, dtype=np.float32) for name in shapes}
    inputs["data"] = rng.normal(size=shapes["data"]).astype(np.float32)
    # The content of the first window ends inside of it.
    inputs["im_info"] = np.array([[83, 31, 0.5], [*SIDES, 1]], np.float32)
    ranks = {name: value.ndim for name, value in inputs.items()}
    return symbol, params, inputs, convert(symbol.tojson(), params, ranks)


def of_mxnet(symbol, params, inputs):
    """Outputs of MXNet by name."""
    bound = {name: mx.nd.array(value) for name, value in {**inputs, **params}.items()}
    aux = {name: bound[name] for name in symbol.list_auxiliary_states()}
    arg = {name: bound[name] for name in symbol.list_arguments()}
    outputs = symbol.bind(mx.cpu(), arg, aux_states=aux).forward()
    return dict(zip(symbol.list_outputs(), (array.asnumpy() for array in outputs)))


def check(outputs, expected):
    assert list(outputs) == list(expected)
    for name, values in expected.items():
        assert outputs[name].shape == values.shape, name
        assert outputs[name].dtype == np.float32, name
        most = max(1, np.abs(values).max())
        np.testing.assert_allclose(outputs[name], values, rtol=0, atol=TOLERANCE * most)


def check_network(spec, **which):
    symbol, params, inputs, program = converted(spec, **which)
    expected = of_mxnet(symbol, params, inputs)
    # Which proposals there are may turn on the last bit of a score: the heads get the same ones.
    proposals = [
        step
        for step in program.steps
        if isinstance(step, NativeStep) and step.op == "MultiProposal"
    ]
    known = {step.outputs[0]: expected["rois_output"] for step in proposals}
    if which.get("rpn_only") and proposals:
        known[proposals[0].outputs[1]] = expected["rois_score_output"]
    check(run_program(program, inputs, known), expected)
    # And so their scores and boxes are compared by themselves.
    for step in proposals:
        internals = symbol.get_internals()
        maps = mx.sym.Group([internals[f"{name.split(':')[0]}_output"] for name in step.inputs[:2]])
        needed = {name: inputs[name] for name in maps.list_arguments() if name in inputs}
        tensors = {**inputs}
        first = program.steps[0]
        assert isinstance(first, OnnxStep)
        program_of_maps = type(program)(
            program.inputs, (first,), tuple((name, name) for name in step.inputs[:2])
        )
        ours = run_program(program_of_maps, tensors)
        theirs = of_mxnet(maps, params, needed)
        check(dict(zip(theirs, ours.values())), theirs)


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_mxnet(name):
    spec = spec_of(name)
    check_network(spec, roi_map=spec.with_masks)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_outputs_of_wide_networks_are_those_of_mxnet(name):
    spec = spec_of(name)
    check_network(spec, roi_map=spec.with_masks)


@pytest.mark.parametrize(
    "values",
    [
        {"padding": "tf_same"},
        {"padding": "tf_same", "activation": "relu", "feature_stride": 16},
        {"feature_stride": 16, "dilate": False},
    ],
)
def test_options_of_mobilenetv2(values):
    check_network(spec_of("mobilenetv2_e2e", **values))


@pytest.mark.parametrize("name", ["mobilenetv2_e2e", "mobilenetv2_ssh"])
def test_proposals_alone(name):
    check_network(spec_of(name), rpn_only=True)


def test_features_of_rois():
    check_network(spec_of("mobilenetv2_3k"), roi_features=True, feature_map=True)


def test_mask_head():
    load_library()
    spec = spec_of("resnet_mx_18_e2e_mask")
    with mx.name.NameManager():
        symbol = build_mask_head(spec)
    shapes = {"roi_map": (1, spec.roi_channels, 5, 7), "mask_rois": (3, 5), "mask_classes": (3,)}
    rng = np.random.default_rng(0)
    params = any_params(symbol, shapes, rng)
    corners = [[0, 0, 0, 50, 40], [0, 20, 10, 100, 70], [0, -8, 30, 5, 33]]
    inputs = {
        "roi_map": rng.normal(size=shapes["roi_map"]).astype(np.float32),
        "mask_rois": np.array(corners, np.float32),
        "mask_classes": np.array([1, 3, 2], np.float32),
    }
    ranks = {name: value.ndim for name, value in inputs.items()}
    program = convert(symbol.tojson(), params, ranks)
    check(run_program(program, inputs), of_mxnet(symbol, params, inputs))


def test_the_same_network_gives_the_same_bytes():
    spec = spec_of("mobilenetv2_e2e")
    first, second = converted(spec)[-1], converted(spec)[-1]
    assert first == second
