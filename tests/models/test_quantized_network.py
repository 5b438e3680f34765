"""INT8 networks and fused graphs: what is fused, what is quantised, how close the numbers are."""

from __future__ import annotations

import json
from collections import Counter

import mxnet as mx
import numpy as np
import pytest

from sniper.errors import ConfigError, DataError
from sniper.models import int8_support
from sniper.models.archive import ModelArchive, WeightedGraph, read_archive, write_archive
from sniper.models.assembly import (
    DetectorSpec,
    ProposalSettings,
    build_detector,
    build_mask_head,
    inference_input_shapes,
)
from sniper.models.quantize import fusable_layers, quantize_network
from sniper.models.weights import initialise

HEIGHT, WIDTH = 96, 128
ROI_MAP = "conv_new_1_relu_output"


def spec_of(symbol, **changes):
    common = {"anchor_scales": (2, 4), "anchor_ratios": (1,), "feature_stride": 16}
    proposal = ProposalSettings(300, 0.7, 3, 12)
    return DetectorSpec(
        symbol, 5, batch_images=1, proposal=proposal, roi_channels=16, **{**common, **changes}
    )


SMALL = {
    "mobilenetv2_e2e": spec_of("mobilenetv2_e2e", width=0.25, fc_channels=32, rpn_channels=16),
    "resnet_mx_18_e2e": spec_of("resnet_mx_18_e2e", width=0.25, fc_channels=32, rpn_channels=16),
}


def network_of(spec):
    symbol = build_detector(spec, train=False, roi_map=True)
    shapes = inference_input_shapes(spec, 1, HEIGHT, WIDTH)
    arg, aux, _ = initialise(symbol, shapes, None, 1, init="scratch")
    for name, value in arg.items():
        # Residual blocks that take part, without growing from block to block.
        if name.endswith(("_bn2_gamma", "linear-batchnorm_gamma")):
            value[:] = 0.5
    return WeightedGraph(symbol, arg, aux)


def feed(seed, images=1, height=HEIGHT, width=WIDTH):
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 60, (images, 3, height // 8, width // 8)).astype(np.float32)
    ids = np.zeros(images, np.float32)
    info = np.array([[height, width, 1]] * images, np.float32)
    data = coarse.repeat(8, axis=2).repeat(8, axis=3)
    return {"data": data, "im_info": info, "im_ids": ids, "chip_ids": ids}


def run(network, inputs):
    shapes = {name: array.shape for name, array in inputs.items()}
    executor = network.symbol.simple_bind(mx.cpu(), grad_req="null", **shapes)
    executor.copy_params_from(network.arg, network.aux)
    outputs = executor.forward(is_train=False, **inputs)
    return dict(zip(network.symbol.list_outputs(), [array.asnumpy() for array in outputs]))


def operators(symbol, **attributes):
    nodes = json.loads(symbol.tojson())["nodes"]
    return Counter(
        node["op"]
        for node in nodes
        if all(node.get("attrs", {}).get(key, "").lower() == v for key, v in attributes.items())
    )


@pytest.fixture(scope="module", params=sorted(SMALL))
def pair(request):
    network = network_of(SMALL[request.param])
    sizes = [(HEIGHT, WIDTH), (64, 64)]
    inputs = [feed(seed, 1, *size) for seed in range(2) for size in sizes]
    return network, quantize_network(network, inputs)


@pytest.mark.instruction_sets
def test_outputs_are_those_of_fp32_but_for_rounding(pair):
    network, int8 = pair
    assert int8.symbol.list_outputs() == network.symbol.list_outputs()
    inputs = feed(7)
    ours, theirs = run(int8, inputs), run(network, inputs)
    assert {n: a.shape for n, a in ours.items()} == {n: a.shape for n, a in theirs.items()}
    difference = np.linalg.norm(ours[ROI_MAP] - theirs[ROI_MAP]) / np.linalg.norm(theirs[ROI_MAP])
    # Random weights lose more than trained ones: their maps are nearly noise. Without VNNI weights
    # have 7 bits where a map is signed, and large sums are cut off.
    assert 1e-4 < difference < (0.25 if int8_support.has_int8_instructions() else 0.5)


@pytest.mark.instruction_sets
def test_large_sums_are_exact_or_cut_off():
    """What `int8_support` promises, with sums of two products on both sides of 16 bits."""
    layer = {"kernel": (1, 1), "num_filter": 4, "no_bias": True}
    symbol = mx.sym.Convolution(mx.sym.Variable("data"), **layer, name="conv")
    signs = np.array([[1] * 16, [-1] * 16, [1, -1] * 8, [1, 1, -1, -1] * 4], np.float32)
    network = WeightedGraph(symbol, {"conv_weight": mx.nd.array(signs.reshape(4, 16, 1, 1))}, {})
    large, small = (np.full((1, 16, 8, 8), value, np.float32) for value in (1, 0.5))
    int8 = quantize_network(network, [{"data": large}])
    assert operators(int8.symbol, quantized="true")["_sg_mkldnn_conv"] == 1
    found = run(int8, {"data": small})["conv_output"]
    expected = np.array([8, -8, 0, 0]).reshape(1, 4, 1, 1)
    np.testing.assert_allclose(found, expected.repeat(64).reshape(found.shape), atol=0.1)
    # Of the large ones those sums of two that fit are right everywhere.
    found = run(int8, {"data": large})["conv_output"]
    np.testing.assert_allclose(found[:, 2], 0, atol=0.1)
    lowest = 15.8 if int8_support.has_int8_instructions() else 8
    assert (found[:, 0] >= lowest).all() and (found[:, 0] <= 16.2).all()
    assert (found[:, 1] <= -lowest).all() and (found[:, 1] >= -16.2).all()


@pytest.mark.instruction_sets
def test_an_image_has_the_same_result_in_any_batch(pair):
    _, int8 = pair
    three = run(int8, feed(3, images=3))[ROI_MAP]
    single = feed(3, images=3)
    for row in range(3):
        alone = {name: array[row : row + 1] for name, array in single.items()}
        np.testing.assert_array_equal(run(int8, alone)[ROI_MAP][0], three[row])


def test_archives_hold_int8_networks(pair, tmp_path):
    _, int8 = pair
    write_archive(tmp_path / "model.zip", ModelArchive(int8, None, {"precision": "int8"}))
    archive = read_archive(tmp_path / "model.zip")
    assert archive.is_int8
    ours, theirs = run(archive.detector, feed(5)), run(int8, feed(5))
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)


def test_layers_can_stay_in_fp32():
    network = network_of(SMALL["mobilenetv2_e2e"])
    layers = fusable_layers(network.symbol)
    assert layers[0] == "first-3x3-conv-conv2d"
    assert {"rpn_cls_score", "conv_new_1", "fc_new_1", "bbox_pred"} < set(layers)

    def quantised(**settings):
        symbol = quantize_network(network, [feed(0)], **settings).symbol
        return operators(symbol, quantized="true")

    everything = quantised()
    assert everything["_sg_mkldnn_conv"] + everything["_sg_mkldnn_fully_connected"] == len(layers)
    less = quantised(fp32_layers=["rpn_cls_score", "fc_new_1"])
    assert everything - less == {"_sg_mkldnn_conv": 1, "_sg_mkldnn_fully_connected": 1}


def test_entropy_ranges_clip_rare_values():
    spec = SMALL["resnet_mx_18_e2e"]
    network = network_of(spec)
    inputs = [feed(0)]
    inputs[0]["data"][0, 0, 40, 40] = 5000.0  # one broken pixel

    def difference(calibration):
        int8 = quantize_network(network, inputs, calibration=calibration)
        ours, theirs = (run(n, feed(1))[ROI_MAP] for n in (int8, network))
        return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)

    assert difference("entropy") < 0.5 * difference("naive")


@pytest.mark.parametrize(
    "inputs, settings, error, words",
    [
        ([], {}, DataError, "at least one image"),
        ([feed(0)], {"calibration": "best"}, ConfigError, "naive or entropy"),
        ([feed(0)], {"fp32_layers": ["conv9"]}, ConfigError, "rpn_cls_score"),
        ([{**feed(0), "data": feed(0)["data"] * np.nan}], {}, DataError, "finite"),
    ],
)
def test_what_cannot_be_quantised_is_said(inputs, settings, error, words):
    with pytest.raises(error, match=words):
        quantize_network(network_of(SMALL["resnet_mx_18_e2e"]), inputs, **settings)


def test_inference_graphs_are_fused():
    """Convolution, norm, activation and sum become one node wherever oneDNN can do that."""
    mobile = spec_of("mobilenetv2_e2e", padding="tf_same")
    fused = operators(build_detector(mobile, train=False).get_backend_symbol("MKLDNN"))
    assert fused["_sg_mkldnn_conv"] == 57
    assert not fused.keys() & {"Convolution", "BatchNorm", "clip", "Activation", "elemwise_add"}
    residual = operators(
        build_detector(spec_of("resnet_mx_50_e2e"), train=False).get_backend_symbol("MKLDNN")
    )
    # Before a unit comes norm and ReLU of a sum that others need as it is; bn_data pads behind
    # itself; deformable convolutions are no part of oneDNN.
    assert residual["BatchNorm"] == 16 + 3 + 1
    assert residual["Activation"] == 16 + 3
    assert not residual.keys() & {"Convolution", "elemwise_add", "FullyConnected"}
    masks = spec_of("mobilenetv2_e2e_mask", with_masks=True)
    head = operators(build_mask_head(masks).get_backend_symbol("MKLDNN"))
    assert head["_sg_mkldnn_conv"] == 5 and head["Activation"] == 1  # that of the deconvolution


def test_processors_without_the_instructions_are_known(tmp_path, monkeypatch):
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    info = tmp_path / "cpuinfo"
    info.write_text("model name : x\nflags : fpu avx512f avx512_vnni avx2\n")
    assert int8_support.has_int8_instructions(info)
    for limit, is_left in (("avx2", False), ("AVX512_CORE", False), ("AVX512_CORE_VNNI", True)):
        monkeypatch.setenv("DNNL_MAX_CPU_ISA", limit)
        assert int8_support.has_int8_instructions(info) == is_left
    info.write_text("model name : x avx512_vnni\nflags : fpu avx512f avx512_vnnix\n")
    assert not int8_support.has_int8_instructions(info)
    assert not int8_support.has_int8_instructions(tmp_path / "missing")
