"""Small detectors run for real: losses, gradients, frozen norms, batch independence."""

import json

import mxnet as mx
import numpy as np
import pytest

from sniper.models.assembly import (
    DetectorSpec,
    ProposalSettings,
    batch_contract,
    build_detector,
    data_names,
    inference_input_shapes,
    train_input_shapes,
)
from sniper.models.backbones.blocks import NormSettings
from sniper.models.backbones.mobilenetv2 import MobileNetOptions, mobilenetv2_features
from sniper.models.weights import fixed_names, for_test, initialise, with_test_params

CHIP = 64
CLASSES = 4
ROIS = 12


def make_spec(symbol, **values):
    base = {
        "num_classes": CLASSES,
        "anchor_scales": (1, 2),
        "anchor_ratios": (0.5, 1, 2),
        "feature_stride": 32 if symbol == "mobilenetv2_e2e" else 16,
        "batch_images": 2,
        "rpn_batch_size": 16,
        "width": 0.25,
        "roi_channels": 16,
        "fc_channels": 32,
        "proposal": ProposalSettings(-1, 0.7, 3, ROIS),
        "max_gt": 5,
    }
    return DetectorSpec(symbol, **{**base, **values})


def make_batch(shapes, seed=0):
    """One plausible training batch: two boxes per chip, some RPN labels of each kind."""
    rng = np.random.default_rng(seed)
    batch = {"data": rng.normal(0, 50, shapes["data"])}
    batch["label"] = rng.integers(-1, 2, shapes["label"])
    images, channels, height, width = shapes["bbox_weight"]
    positive = (batch["label"] == 1).reshape(images, channels // 4, 1, height, width)
    batch["bbox_weight"] = np.broadcast_to(
        positive, (images, channels // 4, 4, height, width)
    ).reshape(shapes["bbox_weight"])
    batch["bbox_target"] = rng.normal(0, 0.5, shapes["bbox_target"]) * batch["bbox_weight"]
    if "gt_boxes" in shapes:
        batch["im_info"] = np.tile([CHIP, CHIP, 1.0], (images, 1))
        batch["valid_ranges"] = np.tile([0.0, 512.0], (images, 1))
        boxes = np.full(shapes["gt_boxes"], -1.0)
        boxes[:, 0] = (4, 6, 30, 40, 1)
        boxes[:, 1] = (20, 10, 60, 50, CLASSES - 1)
        batch["gt_boxes"] = boxes
    return {name: value.astype(np.float32) for name, value in batch.items()}


def bind_train(spec, rpn_only=False, seed=0):
    symbol = build_detector(spec, train=True, rpn_only=rpn_only)
    shapes = train_input_shapes(spec, CHIP, rpn_only=rpn_only)
    arg, aux, _ = initialise(symbol, shapes, None, seed)
    executor = symbol.simple_bind(mx.cpu(), grad_req="write", **shapes)
    executor.copy_params_from(arg, aux)
    return symbol, executor, make_batch(shapes)


def run(executor, batch):
    for name, value in batch.items():
        executor.arg_dict[name][:] = value
    outputs = executor.forward(is_train=True)
    executor.backward()
    return [output.asnumpy() for output in outputs]


@pytest.mark.instruction_sets
@pytest.mark.parametrize("symbol", ["mobilenetv2_e2e", "resnet_mx_18_e2e"])
def test_loss_gradients_equal_their_formulas(symbol):
    spec = make_spec(symbol, loss_scale=8.0, bbox_loss_divisor=5.0)
    _, executor, batch = bind_train(spec)
    executor.arg_dict["rpn_bbox_pred_weight"][:] = 0
    rpn_prob, _, cls_prob, box_loss, label = run(executor, batch)
    # d(loss)/d(bias) is the gradient of the raw scores summed over rows.
    onehot = np.eye(CLASSES)[label.astype(int)]
    cls = (cls_prob.reshape(-1, CLASSES) - onehot).sum(axis=0) * 8 / (2 * ROIS)
    np.testing.assert_allclose(
        executor.grad_dict["cls_score_bias"].asnumpy(), cls, rtol=1e-3, atol=1e-5
    )
    flat = batch["label"].reshape(rpn_prob[:, 0].shape)
    foreground = (rpn_prob[:, 1] - (flat == 1)) * (flat != -1) * 8 / (flat != -1).sum()
    anchors = spec.num_anchors
    by_anchor = foreground.reshape(2, anchors, -1).sum(axis=(0, 2))
    gradient = executor.grad_dict["rpn_cls_score_bias"].asnumpy()
    np.testing.assert_allclose(gradient[anchors:], by_anchor, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(gradient[:anchors], -by_anchor, rtol=1e-3, atol=1e-5)
    # The predictions are 0: smooth L1 has the slope of its clipped target.
    slope = np.clip(-batch["bbox_target"], -1, 1) * batch["bbox_weight"]
    np.testing.assert_allclose(
        executor.grad_dict["rpn_bbox_pred_bias"].asnumpy(),
        slope.sum(axis=(0, 2, 3)) * 3 * 8 / (2 * 16),
        rtol=1e-4,
        atol=1e-5,
    )
    assert box_loss.shape == (2, ROIS, 4)


def test_roi_box_gradient_is_divided_by_the_divisor():
    gradients = {}
    for divisor in (0.0, 10.0):
        _, executor, batch = bind_train(make_spec("resnet_mx_18_e2e", bbox_loss_divisor=divisor))
        run(executor, batch)
        gradients[divisor] = executor.grad_dict["bbox_pred_bias"].asnumpy()
    assert gradients[10.0].any()
    np.testing.assert_allclose(gradients[10.0] * 10, gradients[0.0] * 188 * 16, rtol=1e-3)


def test_frozen_norms_keep_statistics_and_batch_norms_move_them():
    for symbol in ("mobilenetv2_e2e", "resnet_mx_18_e2e"):
        for mode in ("frozen", "batch"):
            spec = make_spec(symbol, bn_mode=mode, bn_momentum=0.5)
            _, executor, batch = bind_train(spec, rpn_only=True)
            before = {name: value.asnumpy() for name, value in executor.aux_dict.items()}
            run(executor, batch)
            mx.nd.waitall()
            moved = [n for n, v in executor.aux_dict.items() if (v.asnumpy() != before[n]).any()]
            assert len(moved) == (0 if mode == "frozen" else len(before))


def test_fixed_parameters_stay_put_in_a_module():
    spec = make_spec("mobilenetv2_e2e", bn_mode="frozen")
    symbol = build_detector(spec, train=True, rpn_only=True)
    shapes = train_input_shapes(spec, CHIP, rpn_only=True)
    arg, aux, _ = initialise(symbol, shapes, None, seed=0)
    fixed = fixed_names(symbol, ["gamma", "beta"])
    labels = [name for name in shapes if name != "data"]
    module = mx.mod.Module(symbol, ["data"], labels, fixed_param_names=fixed)
    module.bind([("data", shapes["data"])], [(name, shapes[name]) for name in labels])
    module.set_params(arg, aux)
    module.init_optimizer(optimizer="sgd", optimizer_params={"learning_rate": 0.01, "wd": 0.1})
    batch = make_batch(shapes)
    data = mx.io.DataBatch(
        [mx.nd.array(batch["data"])], [mx.nd.array(batch[name]) for name in labels]
    )
    module.forward_backward(data)
    module.update()
    new, _ = module.get_params()
    changed = {name for name in arg if (new[name].asnumpy() != arg[name].asnumpy()).any()}
    # A zero bias whose gradient happens to vanish may stay; nothing that is fixed may move.
    assert changed.isdisjoint(fixed)
    assert {n for n in arg if n.endswith("_weight")} <= changed


def bind_test(spec, side=(96, 64), rpn_only=False, **params):
    symbol = build_detector(spec, train=False, rpn_only=rpn_only)
    shapes = inference_input_shapes(spec, spec.batch_images, *side, rpn_only=rpn_only)
    executor = symbol.simple_bind(mx.cpu(), grad_req="null", **shapes)
    executor.copy_params_from(params["arg"], params["aux"], allow_extra_params=True)
    return symbol, executor


def infer(symbol, executor, images):
    count, _, height, width = images.shape
    inputs = {
        "data": images,
        "im_info": np.tile([height, width, 1.0], (count, 1)),
        "im_ids": np.arange(count) + 10,
        "chip_ids": np.arange(count) + 20,
    }
    for name, value in inputs.items():
        if name in executor.arg_dict:
            executor.arg_dict[name][:] = value
    outputs = executor.forward(is_train=False)
    return dict(zip(symbol.list_outputs(), (output.asnumpy() for output in outputs)))


@pytest.fixture(scope="module")
def trained():
    """Random weights of both networks, large enough in the heads to give varied results."""
    weights = {}
    for name in ("mobilenetv2_e2e", "resnet_mx_18_e2e"):
        spec = make_spec(name)
        symbol = build_detector(spec, train=True)
        arg, aux, _ = initialise(symbol, train_input_shapes(spec, CHIP), None, seed=4)
        for tensor in ("rpn_bbox_pred_weight", "bbox_pred_weight", "cls_score_weight"):
            arg[tensor] = arg[tensor] * 10
        weights[name] = arg, aux
    return weights


@pytest.mark.instruction_sets
@pytest.mark.parametrize("symbol", ["mobilenetv2_e2e", "resnet_mx_18_e2e"])
def test_inference_outputs_pass_ids_through_and_ignore_the_batch(symbol, trained):
    arg, aux = trained[symbol]
    images = np.random.default_rng(0).normal(0, 50, (2, 3, 96, 64)).astype(np.float32)
    graph, executor = bind_test(make_spec(symbol), arg=arg, aux=aux)
    both = infer(graph, executor, images)
    np.testing.assert_array_equal(both["im_ids"], [10, 11])
    np.testing.assert_array_equal(both["chip_ids"], [20, 21])
    assert list(both) == graph.list_outputs()
    np.testing.assert_allclose(both["cls_prob_reshape_output"].sum(axis=2), 1, rtol=1e-5)
    assert both["bbox_pred_reshape_output"].shape == (2, ROIS, 4)
    graph, executor = bind_test(make_spec(symbol, batch_images=1), arg=arg, aux=aux)
    alone = infer(graph, executor, images[1:])
    rois = both["rois_output"].reshape(2, ROIS, 5)
    np.testing.assert_allclose(alone["rois_output"][:, 1:], rois[1, :, 1:], atol=1e-2)
    np.testing.assert_allclose(
        alone["cls_prob_reshape_output"][0], both["cls_prob_reshape_output"][1], atol=1e-4
    )


@pytest.mark.instruction_sets
def test_rpn_only_graph_gives_the_same_proposals_with_scores(trained):
    arg, aux = trained["resnet_mx_18_e2e"]
    images = np.random.default_rng(0).normal(0, 50, (2, 3, 96, 64)).astype(np.float32)
    full = infer(*bind_test(make_spec("resnet_mx_18_e2e"), arg=arg, aux=aux), images)
    spec = make_spec("resnet_mx_18_e2e")
    rpn = infer(*bind_test(spec, rpn_only=True, arg=arg, aux=aux), images)
    np.testing.assert_allclose(rpn["rois_output"], full["rois_output"], atol=1e-2)
    scores = rpn["rois_score_output"].reshape(2, ROIS)
    assert (np.diff(scores, axis=1) <= 0).all() and scores.max() <= 1


def test_test_weights_give_scaled_deltas(trained):
    arg, aux = trained["resnet_mx_18_e2e"]
    images = np.random.default_rng(0).normal(0, 50, (2, 3, 96, 64)).astype(np.float32)
    spec = make_spec("resnet_mx_18_e2e")
    raw = infer(*bind_test(spec, arg=arg, aux=aux), images)["bbox_pred_reshape_output"]
    plain = infer(*bind_test(spec, arg=for_test(with_test_params(arg)), aux=aux), images)
    expected = raw * np.array([0.1, 0.1, 0.2, 0.2], np.float32)
    assert np.abs(raw).max() > 0.01
    np.testing.assert_allclose(plain["bbox_pred_reshape_output"], expected, rtol=1e-3, atol=1e-6)


def test_network_graph_survives_json():
    spec = make_spec("mobilenetv2_e2e", padding="tf_same")
    for train in (True, False):
        symbol = build_detector(spec, train=train)
        again = mx.sym.load_json(symbol.tojson())
        assert again.list_arguments() == symbol.list_arguments()
        assert again.list_outputs() == symbol.list_outputs()
        assert again.tojson() == symbol.tojson()


@pytest.mark.instruction_sets
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_tf_same_equals_an_explicitly_padded_network(train, frozen):
    """Both places where the extra row and column are cut give what padded copies give."""
    options = MobileNetOptions(NormSettings(0.5, frozen), 0.25, padding="tf_same", train=train)
    ours = mobilenetv2_features(mx.sym.Variable("data"), options)
    reference = _padded_reference(ours)
    data = np.random.default_rng(0).normal(0, 50, (2, 3, 64, 96)).astype(np.float32)
    results = []
    for symbol in (ours, reference):
        executor = symbol.simple_bind(mx.cpu(), grad_req="write", data=data.shape)
        values, statistics, _ = initialise(ours, {"data": data.shape}, None, seed=2)
        executor.copy_params_from(values, statistics)
        executor.arg_dict["data"][:] = data
        (output,) = executor.forward(is_train=train)
        result = [output.asnumpy()]
        if train:
            executor.backward([mx.nd.ones(output.shape)])
            result += [
                executor.grad_dict[n].asnumpy() for n in ("data", "first-3x3-conv-conv2d_weight")
            ]
        mx.nd.waitall()
        result += [executor.aux_dict[n].asnumpy() for n in sorted(executor.aux_dict)]
        results.append(result)
    for one, other in zip(*results):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3 * np.abs(other).max() + 1e-6)


def _padded_reference(symbol):
    """The same network, with a padded copy in front of each strided convolution instead."""
    graph = json.loads(symbol.tojson())
    built = []
    for node in graph["nodes"]:
        inputs = [built[index] for index, _, _ in node["inputs"]]
        attrs = node.get("attrs", {})
        if node["op"] == "null":
            built.append(mx.sym.Variable(node["name"]))
        elif node["op"] == "slice":
            built.append(inputs[0])
        elif node["op"] == "Convolution":
            pad = (0, 0, 0, 0, 0, 1, 0, 1)
            if attrs["stride"] == "(2, 2)":
                inputs[0] = mx.sym.Pad(inputs[0], mode="constant", pad_width=pad)
                attrs = {**attrs, "pad": "(0, 0)"}
            built.append(mx.sym.Convolution(*inputs, name=node["name"], **attrs))
        else:
            built.append(getattr(mx.sym, node["op"])(*inputs, name=node["name"], **attrs))
    return built[-1]


@pytest.mark.instruction_sets
@pytest.mark.parametrize(("padding", "first"), [("symmetric", 0), ("tf_same", 1)])
def test_stride_16_gives_the_features_of_stride_32_and_those_between(padding, first):
    data = np.random.default_rng(0).normal(0, 50, (1, 3, 128, 96)).astype(np.float32)
    maps = {}
    for stride in (32, 16):
        options = MobileNetOptions(
            NormSettings(frozen=True), 0.25, padding=padding, stride=stride, train=False
        )
        symbol = mobilenetv2_features(mx.sym.Variable("data"), options)
        executor = symbol.simple_bind(mx.cpu(), grad_req="null", data=data.shape)
        values, statistics, _ = initialise(symbol, {"data": data.shape}, None, seed=2)
        executor.copy_params_from(values, statistics)
        maps[stride] = executor.forward(data=data)[0].asnumpy()
    assert maps[16].shape[2:] == (8, 6) and maps[32].shape[2:] == (4, 3)
    every_second = maps[16][:, :, first::2, first::2]
    np.testing.assert_allclose(every_second, maps[32], rtol=1e-3, atol=1e-3 * maps[32].max())


def test_relu_variant_has_no_upper_limit():
    data = np.random.default_rng(0).normal(0, 500, (1, 3, 64, 64)).astype(np.float32)
    highest = {}
    for activation in ("relu", "relu6"):
        options = MobileNetOptions(NormSettings(frozen=True), 0.25, activation, train=False)
        symbol = mobilenetv2_features(mx.sym.Variable("data"), options)
        executor = symbol.simple_bind(mx.cpu(), grad_req="null", data=data.shape)
        values, statistics, _ = initialise(symbol, {"data": data.shape}, None, seed=2)
        executor.copy_params_from(values, statistics)
        highest[activation] = executor.forward(data=data)[0].asnumpy().max()
    assert highest["relu6"] == 6 and highest["relu"] > 6


def test_inputs_are_listed_in_the_order_of_2018():
    spec = make_spec("resnet_mx_18_e2e")
    contract = batch_contract(spec, 64)
    assert contract.data_names == ("data", "valid_ranges", "im_info")
    assert contract.label_names == ("label", "bbox_target", "bbox_weight", "gt_boxes")
    assert batch_contract(spec, 64, rpn_only=True).data_names == ("data",)
    assert data_names(spec) == ["data", "im_info", "im_ids", "chip_ids"]
    assert data_names(spec, rpn_only=True) == ["data", "im_info", "im_ids"]
