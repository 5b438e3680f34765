"""Names, shapes, order and attributes of the networks against those of 2018 (golden facts)."""

import gzip
import json
import math

import pytest

from sniper.errors import ConfigError
from sniper.models.blocks import CHANNEL_MULTIPLE, scale_channels
from sniper.models.detector import (
    DetectorSpec,
    ProposalSettings,
    build_detector,
    data_names,
    inference_input_shapes,
    label_names,
    train_input_shapes,
)
from sniper.models.weights import fixed_names

RESNET_SCALES = (2, 4, 7, 10, 13, 16, 24)
MOBILE_SCALES = (1, 2, 4, 8, 12)
NETWORKS = ("resnet_mx_101_e2e", "resnet_mx_50_e2e", "mobilenetv2_e2e")
VARIANTS = [
    f"{network}/{variant}"
    for network in NETWORKS
    for variant in ("train", "test", "train_rpn", "test_rpn")
    if not (network == "mobilenetv2_e2e" and variant.endswith("rpn"))
]
# The extension interface cannot name an operator's second output like 2018 did.
RENAMED = {"rois_score": "rois_score_output"}
# Attributes that MXNet fills in when they are absent.
DEFAULTS = {
    "Convolution": {"pad": "(0, 0)", "stride": "(1, 1)", "dilate": "(1, 1)", "num_group": "1"},
    "SoftmaxOutput": {"normalization": "null"},
    "Concat": {"dim": "1"},
}


def make_spec(symbol, **values):
    mobile = symbol == "mobilenetv2_e2e"
    base = {
        "num_classes": 81,
        "anchor_scales": MOBILE_SCALES if mobile else RESNET_SCALES,
        "anchor_ratios": (0.5, 1, 2),
        "feature_stride": 32 if mobile else 16,
        "batch_images": 2,
    }
    return DetectorSpec(symbol=symbol, **{**base, **values})


def build(key, **values):
    network, variant = key.split("/")
    train, rpn_only = variant.startswith("train"), variant.endswith("rpn")
    spec = make_spec(network, **values)
    symbol = build_detector(spec, train=train, rpn_only=rpn_only)
    if train:
        return symbol, train_input_shapes(spec, 512, 100, rpn_only)
    return symbol, inference_input_shapes(2, 512, 512, rpn_only)


@pytest.fixture(scope="module")
def facts(golden):
    with gzip.open(golden / "networks_2018.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)


@pytest.mark.parametrize("key", VARIANTS)
def test_arguments_aux_and_outputs_are_those_of_2018(key, facts):
    symbol, inputs = build(key)
    arg, out, aux = symbol.infer_shape(**inputs)

    def listed(names, shapes):
        return [[RENAMED.get(name, name), list(shape)] for name, shape in zip(names, shapes)]

    assert listed(symbol.list_arguments(), arg) == facts[key]["arguments"]
    assert listed(symbol.list_auxiliary_states(), aux) == facts[key]["aux"]
    expected = [[RENAMED.get(name, name), shape] for name, shape in facts[key]["outputs"]]
    assert listed(symbol.list_outputs(), out) == expected


@pytest.mark.parametrize("key", VARIANTS)
def test_learning_rate_multipliers_and_fixed_names(key, facts):
    symbol, _ = build(key)
    attributes = symbol.attr_dict()
    found = {
        name: attributes[name]["__lr_mult__"]
        for name in symbol.list_arguments()
        if "__lr_mult__" in attributes.get(name, {})
    }
    assert found == facts[key]["lr_mult"]
    assert fixed_names(symbol, facts[key]["fixed_patterns"]) == facts[key]["fixed"]


@pytest.mark.parametrize("key", VARIANTS)
def test_half_precision_tensors_only_when_asked(key, facts):
    for fp16, expected in ((True, facts[key]["fp16"]), (False, [])):
        symbol, inputs = build(key, fp16=fp16)
        types, _, aux_types = symbol.infer_type(**dict.fromkeys(inputs, "float32"))
        half = [n for n, t in zip(symbol.list_arguments(), types) if t.__name__ == "float16"]
        assert half == expected
        assert all(kind.__name__ == "float32" for kind in aux_types)
        assert ('"op": "Cast"' in symbol.tojson()) == fp16


@pytest.mark.parametrize("key", VARIANTS)
def test_layers_and_attributes_are_those_of_2018(key, facts):
    expected = facts[key]["nodes"]
    kinds = {kind for kind, _, _ in expected}
    symbol, _ = build(key, fp16=True, loss_scale=100.0)
    nodes = [n for n in json.loads(symbol.tojson())["nodes"] if n["op"] in kinds]

    def normal(kind, name, attrs):
        values = {**DEFAULTS.get(kind, {}), **attrs}
        values = {k: v for k, v in values.items() if not k.startswith("__")}
        return kind, name, values

    found = [
        normal(n["op"], "" if n["op"] == "Pooling" else n["name"], n.get("attrs", {}))
        for n in nodes
    ]
    wanted = [normal(*node) for node in expected]
    # Two orders of the same graph: the wiring is checked by the argument order above.
    assert sorted(map(str, map(_sorted_attrs, found))) == sorted(
        map(str, map(_sorted_attrs, wanted))
    )


def _sorted_attrs(node):
    kind, name, attrs = node
    return kind, name, sorted((key, _number(value)) for key, value in attrs.items())


def _number(text):
    try:
        return float(text)
    except ValueError:
        return text


def test_parameter_counts_are_those_of_2018():
    def millions(key):
        symbol, inputs = build(key)
        shapes, _, _ = symbol.infer_shape(**inputs)
        names = zip(symbol.list_arguments(), shapes)
        return sum(math.prod(shape) for name, shape in names if name not in inputs) / 1e6

    assert millions("resnet_mx_101_e2e/train") == pytest.approx(73.70, abs=0.01)
    assert millions("resnet_mx_50_e2e/train") == pytest.approx(54.71, abs=0.01)
    assert millions("mobilenetv2_e2e/train") == pytest.approx(13.48, abs=0.01)


@pytest.mark.parametrize("symbol", [*NETWORKS, "resnet_mx_18_e2e"])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("rpn_only", [True, False])
def test_inputs_of_the_graph_are_the_declared_ones(symbol, train, rpn_only):
    spec = make_spec(symbol)
    graph = build_detector(spec, train=train, rpn_only=rpn_only)
    declared = data_names(train, rpn_only) + (label_names(rpn_only) if train else [])
    found = [n for n in graph.list_arguments() if not n.endswith(("bias", "gamma", "beta"))]
    found = [n for n in found if n == "bbox_weight" or not n.endswith("_weight")]
    assert sorted(found) == sorted(declared)


def test_outputs_of_mobilenet_without_roi_head():
    spec = make_spec("mobilenetv2_e2e")
    train = build_detector(spec, train=True, rpn_only=True)
    assert train.list_outputs() == ["rpn_cls_prob_output", "rpn_bbox_loss_output"]
    test = build_detector(spec, train=False, rpn_only=True)
    assert test.list_outputs() == ["rois_output", "rois_score_output", "im_ids"]


def test_mobilenet_at_stride_16_has_the_same_weights():
    shapes = []
    for stride in (32, 16):
        spec = make_spec("mobilenetv2_e2e", feature_stride=stride)
        symbol = build_detector(spec, train=False)
        inputs = inference_input_shapes(1, 256, 256)
        arg, out, _ = symbol.infer_shape(**inputs)
        shapes.append(dict(zip(symbol.list_arguments(), arg)))
        rois = dict(zip(symbol.list_outputs(), out))["rois_output"]
        assert rois == (300, 5)
    assert shapes[0] == shapes[1]


def test_dilation_is_an_option_at_stride_16_only():
    def dilated(**values):
        symbol = build_detector(make_spec("mobilenetv2_e2e", **values), train=True)
        found = [n for n, a in symbol.attr_dict().items() if a.get("dilate") == "(2, 2)"]
        return sorted(name for name in found if name.endswith("-conv2d"))

    assert dilated(feature_stride=16) == [
        "seq-5-block1-depthwise-conv2d",
        "seq-5-block2-depthwise-conv2d",
        "seq-6-block0-depthwise-conv2d",
    ]
    assert dilated(feature_stride=16, dilate=False) == []
    assert dilated(feature_stride=32) == []


@pytest.mark.parametrize("symbol", ["mobilenetv2_e2e", "resnet_mx_18_e2e"])
def test_rpn_channels_can_be_chosen(symbol):
    for asked, expected in ((0, 256), (48, 48)):
        network = build_detector(make_spec(symbol, rpn_channels=asked), train=False)
        shapes, _, _ = network.infer_shape(**inference_input_shapes(1, 64, 64))
        names = dict(zip(network.list_arguments(), shapes))
        assert names["rpn_conv_3x3_weight"][0] == expected


def gradient_scales(symbol, **values):
    graph = build_detector(make_spec(symbol, **values), train=True)
    attributes = graph.attr_dict()
    names = ("rpn_cls_prob", "rpn_bbox_loss", "cls_prob", "bbox_loss")
    return [float(attributes[name]["grad_scale"]) for name in names]


def test_gradient_scales_follow_batch_and_loss_scale():
    values = {"batch_images": 8, "rpn_batch_size": 64, "loss_scale": 4.0}
    box = 3 * 4 / (8 * 64)
    assert gradient_scales("resnet_mx_18_e2e", **values) == pytest.approx([4, box, 4, 4 / 3008])
    values["proposal"] = ProposalSettings(post_nms_top_n=100)
    assert gradient_scales("mobilenetv2_e2e", **values) == pytest.approx(
        [4, box, 4 / (100 * 8), 4 / (188 * 8)]
    )
    for symbol in ("resnet_mx_18_e2e", "mobilenetv2_e2e"):
        assert gradient_scales(symbol, **values, bbox_loss_divisor=20)[3] == pytest.approx(0.2)


def test_anchors_and_proposal_settings_reach_the_operators():
    settings = ProposalSettings(777, 0.6, 5, 50)
    values = {"anchor_scales": (3, 5), "anchor_ratios": (1.5,), "proposal": settings}
    for train in (True, False):
        graph = build_detector(make_spec("mobilenetv2_e2e", **values), train=train)
        (attrs,) = [
            node["attrs"]
            for node in json.loads(graph.tojson())["nodes"]
            if node["op"].startswith("MultiProposal")
        ]
        text = str(sorted(attrs.items()))
        for value in ("777", "0.6", "50", "32", "(3", "1.5"):
            assert value in text, (value, text)


def test_frozen_batch_norms_are_frozen_everywhere():
    for symbol in ("resnet_mx_50_e2e", "resnet_mx_18_e2e", "mobilenetv2_e2e"):
        graph = build_detector(make_spec(symbol, bn_mode="frozen"), train=True, rpn_only=True)
        norms = [n for n in json.loads(graph.tojson())["nodes"] if n["op"] == "BatchNorm"]
        assert norms
        assert all(n["attrs"]["use_global_stats"] == "True" for n in norms)


def test_small_resnet_has_trainable_norms_and_no_deformable_layer():
    graph = build_detector(make_spec("resnet_mx_18_e2e", bn_momentum=0.9), train=True)
    nodes = json.loads(graph.tojson())["nodes"]
    norms = [n for n in nodes if n["op"] == "BatchNorm"]
    assert len(norms) == 2 + 2 * 8
    assert all(n["attrs"]["momentum"] == "0.9" for n in norms)
    assert not any("Deformable" in n["op"] and "Convolution" in n["op"] for n in nodes)
    arguments = graph.list_arguments()
    assert "stage1_unit1_sc_weight" in arguments
    assert "stage4_unit2_conv2_weight" in arguments


def test_width_scales_channels_to_whole_blocks():
    spec = make_spec("resnet_mx_18_e2e", width=0.5, roi_channels=64, fc_channels=128)
    graph = build_detector(spec, train=True)
    shapes, _, _ = graph.infer_shape(**train_input_shapes(spec, 512))
    shape = dict(zip(graph.list_arguments(), shapes))
    assert shape["conv0_weight"] == (32, 3, 7, 7)
    assert shape["stage4_unit2_conv2_weight"] == (256, 256, 3, 3)
    assert shape["conv_new_1_weight"] == (64, 384, 1, 1)
    assert shape["fc_new_1_weight"] == (128, 64 * 49)
    assert shape["fc_new_2_weight"] == (128, 128)
    spec = make_spec("mobilenetv2_e2e", width=0.35)
    graph = build_detector(spec, train=True, rpn_only=True)
    shapes, _, _ = graph.infer_shape(**train_input_shapes(spec, 512, rpn_only=True))
    weights = dict(zip(graph.list_arguments(), shapes))
    assert weights["first-3x3-conv-conv2d_weight"][0] == 16
    unit = CHANNEL_MULTIPLE
    assert all(s[0] % unit == 0 for n, s in weights.items() if n.endswith("conv2d_weight"))
    assert scale_channels(24, 1.0) == 24
    for channels in (16, 24, 320):
        for width in (0.3, 0.5, 0.75, 1.4):
            scaled = scale_channels(channels, width)
            assert scaled % unit == 0 and scaled >= 0.9 * channels * width
            assert abs(scaled - channels * width) <= unit


@pytest.mark.parametrize(
    ("symbol", "values", "word"),
    [
        ("resnet_mx_101_e2e_mask", {}, "resnet_mx_50_e2e"),
        ("resnet_mx_50_e2e", {"feature_stride": 32}, "RPN_FEAT_STRIDE"),
        ("mobilenetv2_e2e", {"feature_stride": 8}, "RPN_FEAT_STRIDE"),
        ("resnet_mx_50_e2e", {"padding": "tf_same"}, "PADDING"),
        ("resnet_mx_50_e2e", {"width": 0.5}, "WIDTH"),
        ("resnet_mx_18_e2e", {"activation": "relu"}, "ACTIVATION"),
        ("resnet_mx_18_e2e", {"width": 0}, "WIDTH"),
        ("resnet_mx_18_e2e", {"width": float("nan")}, "WIDTH"),
        ("mobilenetv2_e2e", {"bn_mode": "off"}, "BN_MODE"),
        ("mobilenetv2_e2e", {"num_classes": 1}, "NUM_CLASSES"),
        ("mobilenetv2_e2e", {"anchor_scales": ()}, "ANCHOR_SCALES"),
        ("mobilenetv2_e2e", {"proposal": ProposalSettings(post_nms_top_n=0)}, "post_nms_top_n"),
        ("mobilenetv2_e2e", {"batch_images": 0}, "BATCH_IMAGES"),
    ],
)
def test_values_that_do_not_fit_are_refused(symbol, values, word):
    with pytest.raises(ConfigError, match=word):
        make_spec(symbol, **values)


def test_chip_must_be_made_of_whole_cells():
    with pytest.raises(ConfigError, match="CHIP_SIZE"):
        train_input_shapes(make_spec("mobilenetv2_e2e"), 500)
