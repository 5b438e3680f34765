"""Networks as CPUs run them: the same names and parameters, and the numbers of MXNet's operator."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest

from sniper.models.archive import ModelArchive, WeightedGraph, read_archive, write_archive
from sniper.models.assembly import (
    DetectorSpec,
    ProposalSettings,
    build_detector,
    inference_input_shapes,
)
from sniper.models.cpu_graph import (
    deformable_layers,
    for_cpu,
    for_detection_on_cpu,
    with_columns,
)
from sniper.models.quantize import fusable_layers, quantize_network
from sniper.models.weights import initialise

SIDE = 96
SPEC = DetectorSpec(
    "resnet_mx_50_e2e", 5, batch_images=1, proposal=ProposalSettings(300, 0.7, 3, 12),
    roi_channels=16, width=0.25, fc_channels=32, rpn_channels=16, anchor_scales=(2, 4),
    anchor_ratios=(1,), feature_stride=16,
)  # fmt: skip
LAYERS = [f"stage4_unit{unit}_conv2" for unit in (1, 2, 3)]
ROI_MAP = "conv_new_1_relu_output"


@pytest.fixture(scope="module")
def network():
    """Random weights whose deformable layers move their taps."""
    symbol = build_detector(SPEC, train=False, roi_map=True)
    arg, aux, _ = initialise(
        symbol, inference_input_shapes(SPEC, 1, SIDE, SIDE), None, 1, init="scratch"
    )
    for name, value in arg.items():
        # Training starts with residual branches, and offsets, of 0.
        if name.startswith("stage4") and name.endswith(("_conv3_weight", "_offset_weight")):
            value[:] = mx.nd.array(np.random.default_rng(0).normal(0, 0.1, value.shape))
    return WeightedGraph(symbol, arg, aux)


def feed(seed=0):
    rng = np.random.default_rng(seed)
    data = rng.normal(0, 60, (1, 3, SIDE // 8, SIDE // 8)).repeat(8, axis=2).repeat(8, axis=3)
    ids = np.zeros(1, np.float32)
    info = np.array([[SIDE, SIDE, 1]], np.float32)
    return {"data": data.astype(np.float32), "im_info": info, "im_ids": ids, "chip_ids": ids}


def executed(network, inputs):
    shapes = {name: array.shape for name, array in inputs.items()}
    executor = network.symbol.simple_bind(mx.cpu(), grad_req="null", **shapes)
    executor.copy_params_from(network.arg, network.aux)
    return executor.forward(is_train=False, **inputs)


def roi_map(network, inputs):
    outputs = executed(network, inputs)
    return dict(zip(network.symbol.list_outputs(), outputs))[ROI_MAP].asnumpy()


def operators(symbol):
    return {node["name"]: node["op"] for node in json.loads(symbol.tojson())["nodes"]}


@pytest.mark.instruction_sets
def test_names_shapes_and_numbers_stay(network):
    ours = WeightedGraph(for_cpu(network.symbol), network.arg, network.aux)
    assert deformable_layers(network.symbol) == LAYERS
    assert {operators(ours.symbol)[name] for name in LAYERS} == {"DeformableConvolution"}
    for listing in ("list_arguments", "list_outputs", "list_auxiliary_states"):
        assert getattr(ours.symbol, listing)() == getattr(network.symbol, listing)()
    shapes = inference_input_shapes(SPEC, 1, SIDE, SIDE)
    assert ours.symbol.infer_shape(**shapes) == network.symbol.infer_shape(**shapes)
    wanted = roi_map(network, feed())
    np.testing.assert_allclose(roi_map(ours, feed()), wanted, rtol=0, atol=1e-4 * wanted.max())


def test_a_graph_without_such_layers_is_the_same_object():
    symbol = mx.sym.Convolution(mx.sym.Variable("data"), num_filter=2, kernel=(1, 1))
    assert for_cpu(symbol) is symbol
    assert with_columns(symbol, ())[0] is symbol


def test_attributes_of_variables_stay():
    """Learning rates of parameters are in the graph."""
    with mx.AttrScope(__lr_mult__="0.01"):
        offset = mx.sym.Convolution(
            mx.sym.Variable("data"), num_filter=18, kernel=(3, 3), pad=(1, 1), name="offset"
        )
    layer = mx.sym.contrib.DeformableConvolution(
        mx.sym.Variable("data2"), offset, num_filter=2, kernel=(3, 3), pad=(1, 1), name="layer"
    )
    attributes = for_cpu(layer).attr_dict()["offset_weight"]
    assert attributes == layer.attr_dict()["offset_weight"]
    assert attributes["__lr_mult__"] == "0.01"


def test_training_gradients_are_those_of_mxnets_operator(network):
    """Of a whole network, each layer's gradient passing through the deformable ones."""
    outputs = network.symbol.get_internals()["cat4_output"]
    shapes = {"data": (1, 3, SIDE, SIDE)}
    gradients = []
    for symbol in (outputs, for_cpu(outputs)):
        executor = symbol.simple_bind(mx.cpu(), grad_req="write", **shapes)
        executor.copy_params_from(network.arg, network.aux, allow_extra_params=True)
        executor.forward(is_train=True, data=feed()["data"])
        head = np.random.default_rng(1).normal(size=executor.outputs[0].shape)
        executor.backward([mx.nd.array(head)])
        gradients.append({n: g.asnumpy() for n, g in executor.grad_dict.items()})
    wanted, found = gradients
    for layer in LAYERS:
        for name in (f"{layer}_weight", f"{layer.replace('conv2', 'offset')}_weight"):
            scale = np.abs(wanted[name]).max()
            assert scale > 0
            np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=1e-3 * scale)


def test_archives_keep_mxnets_operator(network, tmp_path):
    """So that they load on a GPU, and in programs that have only MXNet's part of the graph."""
    path = tmp_path / "model.zip"
    write_archive(path, ModelArchive(network, None, {}))
    assert deformable_layers(read_archive(path).detector.symbol) == LAYERS


@pytest.mark.instruction_sets
def test_deformable_layers_in_int8(network, tmp_path):
    inputs = [feed(seed) for seed in (0, 1)]
    assert set(LAYERS) <= set(fusable_layers(network.symbol))
    wanted = roi_map(network, feed(7))
    differences = []
    for fp32_layers in ((), LAYERS):
        int8 = quantize_network(network, inputs, fp32_layers=fp32_layers)
        nodes = operators(int8.symbol)
        columns = [name for name, op in nodes.items() if op == "DeformableColumns"]
        assert columns == ([] if fp32_layers else [f"{name}_columns" for name in LAYERS])
        assert deformable_layers(int8.symbol) == list(fp32_layers)
        assert set(int8.arg) == set(network.arg)
        write_archive(tmp_path / "int8.zip", ModelArchive(int8, None, {"precision": "int8"}))
        again = roi_map(read_archive(tmp_path / "int8.zip").detector, feed(7))
        np.testing.assert_array_equal(again, roi_map(int8, feed(7)))
        differences.append(np.linalg.norm(again - wanted) / np.linalg.norm(wanted))
    assert 1e-4 < differences[0] < 0.5, differences


def conv(data, name, **attributes):
    sizes = {"kernel": (3, 3), "pad": (1, 1), "num_filter": 32, **attributes}
    return mx.sym.Convolution(data, name=name, **sizes)


def relu(data):
    return mx.sym.Activation(data, act_type="relu")


def norm(data, name):
    return mx.sym.BatchNorm(data, name=name, fix_gamma=False, eps=2e-5)


def detecting(symbol):
    """The graph and, of random weights, its outputs and those of the given one."""
    shapes = {"data": (1, 32, 9, 14)}
    weights = dict(zip(symbol.list_arguments(), symbol.infer_shape(**shapes)[0]))
    changed = for_detection_on_cpu(symbol, weights)
    rng = np.random.default_rng(0)
    values = {
        name: rng.uniform(0.5, 2, shape) if name.endswith("gamma") else rng.normal(0, 0.2, shape)
        for name, shape in weights.items()
    }
    outputs = []
    for graph in (symbol, changed):
        assert graph.list_arguments() == symbol.list_arguments()
        assert graph.list_auxiliary_states() == symbol.list_auxiliary_states()
        executor = graph.simple_bind(mx.cpu(), grad_req="null", **shapes)
        for name, value in values.items():
            executor.arg_dict[name][:] = value
        for name, value in executor.aux_dict.items():
            value[:] = 1.5 if name.endswith("var") else 0.25
        outputs.append([output.asnumpy() for output in executor.forward(is_train=False)])
    for found, wanted in zip(outputs[1], outputs[0]):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())
    return [node for node in operators(changed).values() if node != "null"]


@pytest.mark.instruction_sets
def test_wide_3x3_convolutions_save_multiplications_and_take_their_relu():
    assert detecting(relu(conv(mx.sym.Variable("data"), "one"))) == ["WinogradConvolution"]
    body = conv(mx.sym.Variable("data"), "one", no_bias=True)
    assert detecting(relu(norm(body, "bn"))) == ["WinogradConvolution", "BatchNorm", "Activation"]


def test_a_convolution_that_is_read_twice_keeps_its_relu_behind_it():
    """Its numbers are not compared: MXNet fuses both, and cuts what the other reader gets."""
    body = conv(mx.sym.Variable("data"), "one")
    changed = for_detection_on_cpu(relu(body) + body, {"one_weight": (32, 32, 3, 3)})
    names = [op for op in operators(changed).values() if op != "null"]
    assert names == ["WinogradConvolution", "Activation", "elemwise_add"]


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel": (1, 1), "pad": (0, 0)}, {"stride": (2, 2)}, {"dilate": (2, 2), "pad": (2, 2)},
        {"num_group": 4}, {"num_filter": 31},
    ],
)  # fmt: skip
def test_other_convolutions_stay(attributes):
    assert detecting(conv(mx.sym.Variable("data"), "one", **attributes)) == ["Convolution"]


@pytest.mark.instruction_sets
def test_a_detector_keeps_its_names_and_numbers(network):
    shapes = {name: value.shape for name, value in network.arg.items()}
    changed = for_detection_on_cpu(network.symbol, shapes)
    found = list(operators(changed).values())
    assert found.count("WinogradConvolution") > 5
    assert found.count("DeformableConvolution") == len(LAYERS)
    for listing in ("list_arguments", "list_auxiliary_states"):
        assert getattr(changed, listing)() == getattr(network.symbol, listing)()
    outputs = [
        executed(WeightedGraph(symbol, network.arg, network.aux), feed())
        for symbol in (changed, network.symbol)
    ]
    # Those of the heads are per RoI, and proposals of close scores may change their places.
    place = network.symbol.list_outputs().index(ROI_MAP)
    found, wanted = (of_graph[place].asnumpy() for of_graph in outputs)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * wanted.max())
