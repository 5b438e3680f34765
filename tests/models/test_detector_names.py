"""Graphs of the networks: what their options change, and what is refused."""

import json

import pytest

from sniper.errors import ConfigError
from sniper.models.assembly import (
    DetectorSpec,
    ProposalSettings,
    build_detector,
    build_mask_head,
    data_names,
    inference_input_shapes,
    short_output_names,
    train_input_shapes,
)
from sniper.models.backbones.blocks import CHANNEL_MULTIPLE, scale_channels
from sniper.models.heads.mask import MaskHead
from sniper.models.networks import network_names, network_of
from sniper.models.spec import TargetSettings

RESNET_SCALES = (2, 4, 7, 10, 13, 16, 24)
MOBILE_SCALES = (1, 2, 4, 8, 12)


def make_spec(symbol, **values):
    # SSH has two classes, its maps have the strides 8, 16 and 32 on every backbone.
    ssh = symbol.endswith("_ssh")
    mobile = symbol.startswith("mobilenetv2") and not ssh
    scales = MOBILE_SCALES if mobile else RESNET_SCALES
    base = {
        "num_classes": 2 if ssh else 81,
        "anchor_scales": scales[:6] if ssh else scales,
        "anchor_ratios": (0.5, 1, 2),
        "feature_stride": 32 if mobile else 16,
        "batch_images": 2,
    }
    return DetectorSpec(symbol=symbol, **{**base, **values})


@pytest.mark.parametrize("symbol", network_names())
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("rpn_only", [True, False])
def test_inputs_of_the_graph_are_the_declared_ones(symbol, train, rpn_only):
    masks, focus = symbol.endswith("_mask"), "_e2e" in symbol
    spec = make_spec(symbol, auto_focus=focus, with_masks=masks)
    graph = build_detector(spec, train=train, rpn_only=rpn_only)
    declared = data_names(spec, rpn_only=rpn_only)
    if train:
        declared = list(train_input_shapes(spec, 64, rpn_only=rpn_only))
    found = [n for n in graph.list_arguments() if not n.endswith(("bias", "gamma", "beta"))]
    found = [n for n in found if n == "bbox_weight" or not n.endswith("_weight")]
    assert sorted(found) == sorted(declared)


def test_outputs_of_every_network_are_in_the_order_of_2018():
    """Those of R-FCN-3K: `test_networks_3k.py`."""
    for symbol in [name for name in network_names() if "_e2e" in name]:
        masks = network_of(symbol).has(MaskHead)
        spec = make_spec(symbol, auto_focus=True, with_masks=masks)
        train = build_detector(spec, train=True)
        assert short_output_names(train.list_outputs(), spec) == [
            "rpn_cls_prob",
            "rpn_bbox_loss",
            "cls_scale_prob",
            "cls_prob_reshape",
            "bbox_loss_reshape",
            "roi_label",
            *(["mask_cls_prob", "mask_targets"] if masks else []),
        ]
        train = build_detector(spec, train=True, rpn_only=True)
        assert train.list_outputs() == ["rpn_cls_prob_output", "rpn_bbox_loss_output"]
        test = build_detector(spec, train=False, roi_map=True)
        assert short_output_names(test.list_outputs()) == [
            "rois",
            "cls_prob_reshape",
            "bbox_pred_reshape",
            "im_ids",
            "scale_prob",
            "im_info",
            "chip_ids",
            "conv_new_1_relu",
        ]
        assert test.list_outputs()[-1] == "conv_new_1_relu_output"
        test = build_detector(spec, train=False, rpn_only=True)
        assert test.list_outputs() == ["rois_output", "rois_score_output", "im_ids"]


def test_mask_network_without_masks_trains_like_the_others():
    graph = build_detector(make_spec("resnet_mx_50_e2e_mask"), train=True)
    plain = build_detector(make_spec("resnet_mx_50_e2e"), train=True)
    assert graph.list_outputs() == plain.list_outputs()
    assert sorted(graph.list_arguments()) == sorted(plain.list_arguments())
    assert "gt_masks" not in graph.list_arguments()


def test_roi_map_is_an_output_of_whole_test_graphs_only():
    spec = make_spec("resnet_mx_18_e2e_mask")
    for values in ({"train": True}, {"train": False, "rpn_only": True}):
        with pytest.raises(ConfigError, match="RoI map"):
            build_detector(spec, **values, roi_map=True)


def test_mask_head_needs_a_network_with_trained_masks():
    for symbol in ("resnet_mx_18_e2e", "resnet_mx_18_e2e_mask"):
        with pytest.raises(ConfigError, match="WITH_MASK"):
            build_mask_head(make_spec(symbol))


def test_mobilenet_at_stride_16_has_the_same_weights():
    shapes = []
    for stride in (32, 16):
        spec = make_spec("mobilenetv2_e2e", feature_stride=stride)
        symbol = build_detector(spec, train=False)
        inputs = inference_input_shapes(spec, 1, 256, 256)
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
        spec = make_spec(symbol, rpn_channels=asked)
        network = build_detector(spec, train=False)
        shapes, _, _ = network.infer_shape(**inference_input_shapes(spec, 1, 64, 64))
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
        spec = make_spec(f"{symbol}_mask", auto_focus=True, with_masks=True, **values)
        attributes = build_detector(spec, train=True).attr_dict()
        for name in ("cls_scale_prob", "mask_cls_prob"):
            assert float(attributes[name]["grad_scale"]) == 4


def test_sizes_of_masks_reach_the_operators():
    values = {"with_masks": True, "max_masks": 7, "mask_size": 10}
    graph = build_detector(make_spec("resnet_mx_18_e2e_mask", **values), train=True)
    attributes = graph.attr_dict()
    assert attributes["multi_proposal_target_mask"]["max_masks"] == "7"
    assert attributes["mask_rcnn_target"]["mask_size"] == "10"
    assert attributes["mask_deformable_roi_pool"]["pooled_size"] == "5"


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


@pytest.mark.parametrize("symbol", network_names())
def test_every_network_can_be_narrow(symbol):
    spec = make_spec(symbol, width=0.1, with_masks=symbol.endswith("_mask"), roi_channels=16)
    graph = build_detector(spec, train=True)
    arguments, _, _ = graph.infer_shape(**train_input_shapes(spec, 64))
    shapes = dict(zip(graph.list_arguments(), arguments))
    first_of_heads = ("conv_new_1_weight", "ssh_m1_red_conv_weight")
    last = next(s for n, s in shapes.items() if n in first_of_heads)
    assert last[1] < 400
    assert all(max(s) <= 512 for n, s in shapes.items() if n.endswith("gamma"))


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
        ("resnext_mx_101_e2e", {}, "resnet_mx_50_e2e"),
        ("resnet_mx_50_e2e", {"feature_stride": 32}, "RPN_FEAT_STRIDE"),
        ("mobilenetv2_e2e", {"feature_stride": 8}, "RPN_FEAT_STRIDE"),
        ("resnet_mx_50_e2e", {"padding": "tf_same"}, "PADDING"),
        ("resnet_mx_50_e2e", {"with_masks": True}, "WITH_MASK"),
        ("resnet_mx_50_e2e_mask", {"mask_size": 15}, "mask_size"),
        ("resnet_mx_50_e2e", {"max_gt": 0}, "MAX_GT"),
        ("resnet_mx_50_e2e", {"mask_row_length": 5}, "MAX_POLYGON_LEN"),
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


def test_how_labels_are_made_is_no_part_of_a_network_at_test():
    """Results that are kept on disk are known by the text of the network."""
    other = TargetSettings(rpn_positive_overlap=0.7)
    assert repr(make_spec("mobilenetv2_e2e")) == repr(make_spec("mobilenetv2_e2e", targets=other))
    assert make_spec("mobilenetv2_e2e") != make_spec("mobilenetv2_e2e", targets=other)
