"""Every network with all its heads runs for real: gradients, falling losses, masks at test."""

import mxnet as mx
import numpy as np
import pytest

from sniper.models.assembly import (
    DetectorSpec,
    ProposalSettings,
    build_detector,
    build_mask_head,
    inference_input_shapes,
    short_output_names,
    train_input_shapes,
)
from sniper.models.heads.mask import mask_loss, mask_probabilities
from sniper.models.networks import network_names
from sniper.models.weights import initialise

CHIP = 64
CLASSES = 4
ROIS = 12
MASKS = 6
MASK_SIZE = 8
THOUSANDS = ("resnet_mx_101_3k", "resnet_mx_18_3k", "mobilenetv2_3k")


def make_spec(symbol, **values):
    masks = symbol.endswith("_mask")
    base = {
        "num_classes": CLASSES,
        "anchor_scales": (1, 2),
        "anchor_ratios": (0.5, 1, 2),
        "feature_stride": 32 if symbol.startswith("mobilenetv2") else 16,
        "batch_images": 2,
        "rpn_batch_size": 16,
        "width": 0.1,
        "roi_channels": 16,
        "fc_channels": 32,
        "proposal": ProposalSettings(-1, 0.7, 3, ROIS),
        "max_gt": 5,
        "auto_focus": "_e2e" in symbol,
        "with_masks": masks,
        "max_masks": MASKS,
        "mask_size": MASK_SIZE,
        "mask_row_length": 40,
    }
    return DetectorSpec(symbol, **{**base, **values})


def make_batch(shapes, seed=0):
    """One plausible training batch: two objects per chip, labels of each kind."""
    rng = np.random.default_rng(seed)
    batch = {"data": rng.normal(0, 50, shapes["data"])}
    batch["label"] = rng.integers(-1, 2, shapes["label"])
    images, channels, height, width = shapes["bbox_weight"]
    positive = (batch["label"] == 1).reshape(images, channels // 4, 1, height, width)
    sides = (images, channels // 4, 4, height, width)
    batch["bbox_weight"] = np.broadcast_to(positive, sides).reshape(shapes["bbox_weight"])
    batch["bbox_target"] = rng.normal(0, 0.5, shapes["bbox_target"]) * batch["bbox_weight"]
    if "gt_boxes" in shapes:
        batch["im_info"] = np.tile([CHIP, CHIP, 1.0], (images, 1))
        batch["valid_ranges"] = np.tile([0.0, 512.0], (images, 1))
        batch["gt_boxes"] = np.full(shapes["gt_boxes"], -1.0)
        batch["gt_boxes"][:, 0] = (4, 6, 30, 40, 1)
        batch["gt_boxes"][:, 1] = (20, 10, 60, 50, CLASSES - 1)
    if "crowd_boxes" in shapes:
        batch["crowd_boxes"] = np.full(shapes["crowd_boxes"], -1.0)
        batch["crowd_boxes"][:, 0] = (0, 0, 400, 400, 0)
    if "scale_label" in shapes:
        # Both kinds in every chip, so that the branch has something to learn.
        batch["scale_label"] = rng.integers(-1, 2, shapes["scale_label"])
        batch["scale_label"][:, :2] = (0, 1)
    if "gt_masks" in shapes:
        batch["gt_masks"] = np.full(shapes["gt_masks"], -1.0)
        # A triangle and a quadrangle: class - 1, number of polygons, their lengths, points.
        triangle = (0, 1, 6, 4, 6, 30, 6, 4, 40)
        quadrangle = (CLASSES - 2, 1, 8, 40, 10, 60, 30, 40, 50, 20, 30)
        batch["gt_masks"][:, 0, : len(triangle)] = triangle
        batch["gt_masks"][:, 1, : len(quadrangle)] = quadrangle
    return {name: value.astype(np.float32) for name, value in batch.items()}


def bind_train(spec, rpn_only=False, init="scratch"):
    symbol = build_detector(spec, train=True, rpn_only=rpn_only)
    shapes = train_input_shapes(spec, CHIP, rpn_only=rpn_only)
    arg, aux, _ = initialise(symbol, shapes, None, seed=0, init=init)
    executor = symbol.simple_bind(mx.cpu(), grad_req="write", **shapes)
    executor.copy_params_from(arg, aux)
    batch = make_batch(shapes)
    assert set(batch) == set(shapes)
    for name, value in batch.items():
        executor.arg_dict[name][:] = value
    return symbol, executor, batch


def run(symbol, executor):
    spec = make_spec("resnet_mx_18_e2e_mask")
    outputs = executor.forward(is_train=True)
    executor.backward()
    return dict(
        zip(
            short_output_names(symbol.list_outputs(), spec),
            (output.asnumpy() for output in outputs),
        )
    )


# R-FCN has the RPN of the mask networks, and shares its heads with R-FCN-3K.
NETWORKS = [
    (symbol, rpn_only)
    for symbol in network_names()
    for rpn_only in (False, True)
    if "_e2e" in symbol or (not rpn_only and symbol in ("resnet_mx_18_rfcn", *THOUSANDS))
]


@pytest.mark.parametrize(("symbol", "rpn_only"), NETWORKS)
def test_training_step_is_finite_and_reaches_every_parameter(symbol, rpn_only):
    graph, executor, batch = bind_train(make_spec(symbol), rpn_only, init="legacy")
    outputs = run(graph, executor)
    assert all(np.isfinite(output).all() for output in outputs.values())
    np.testing.assert_allclose(outputs["rpn_cls_prob"].sum(axis=1), 1, rtol=1e-5)
    if not rpn_only and "_e2e" in symbol:
        assert outputs["cls_prob_reshape"].shape == (2, ROIS, CLASSES)
        assert set(np.unique(outputs["roi_label"])) == {0, 1, CLASSES - 1}
        assert outputs["bbox_loss_reshape"].max() > 0
        np.testing.assert_allclose(outputs["cls_scale_prob"].sum(axis=1), 1, rtol=1e-5)
    for name, gradient in executor.grad_dict.items():
        if name in batch:
            continue
        value = gradient.asnumpy()
        assert np.isfinite(value).all(), name
        # The scale of `bn_data` is fixed at 1 and has no gradient.
        assert value.any() or name == "bn_data_gamma", name


def test_mask_targets_belong_to_their_objects():
    graph, executor, _ = bind_train(make_spec("resnet_mx_18_e2e_mask"))
    outputs = run(graph, executor)
    targets, prob = outputs["mask_targets"], outputs["mask_cls_prob"]
    assert targets.shape == (2 * MASKS, MASK_SIZE, MASK_SIZE)
    assert prob.shape == (2 * MASKS, 2, MASK_SIZE, MASK_SIZE)
    used = targets[:, 0, 0] != -1
    assert used.sum() == min((outputs["roi_label"] > 0).sum(), len(targets))
    # Ground truth is among the rois: one of them sees the triangle in its own box, half filled.
    shares = targets[used].reshape(used.sum(), -1).mean(axis=1)
    assert np.abs(shares - 0.5).min() < 0.1


@pytest.mark.parametrize("symbol", ["resnet_mx_18_e2e_mask", "mobilenetv2_e2e_mask"])
def test_mask_and_focus_losses_fall_on_one_batch(symbol):
    spec = make_spec(symbol, width=0.25, feature_stride=16, roi_channels=32)
    graph, executor, batch = bind_train(spec)
    update = mx.optimizer.get_updater(mx.optimizer.create("adam", learning_rate=0.001))
    losses = []
    for _ in range(20):
        outputs = run(graph, executor)
        pairs = (
            (outputs["cls_scale_prob"], batch["scale_label"]),
            (outputs["mask_cls_prob"], outputs["mask_targets"]),
        )
        losses.append([cross_entropy(*pair) for pair in pairs])
        for name, gradient in executor.grad_dict.items():
            if name not in batch:
                update(name, gradient, executor.arg_dict[name])
    first, last = np.mean(losses[:2], axis=0), np.mean(losses[-3:], axis=0)
    assert np.isfinite(losses).all()
    assert (last < 0.7 * first).all(), (first, last)


def cross_entropy(prob, label):
    """Mean over all positions with a label; classes on axis 1."""
    prob = np.moveaxis(prob, 1, -1).reshape(-1, 2)
    label = label.reshape(-1).astype(int)
    kept = np.flatnonzero(label != -1)
    return -np.log(prob[kept, label[kept]] + 1e-14).mean()


@pytest.fixture
def mask_inputs():
    """Scores, classes and targets of three rois; one pixel and one roi are not trained."""
    rng = np.random.default_rng(3)
    scores = rng.normal(0, 1, (3, 2 * (CLASSES - 1), 4, 4)).astype(np.float32)
    roi_classes = np.array([2, 0, 1], np.float32)
    classes = np.broadcast_to(roi_classes[:, None, None], (3, 4, 4)).copy()
    targets = rng.integers(0, 2, (3, 4, 4)).astype(np.float32)
    targets[0, 1, 2] = -1
    targets[2] = -1
    return scores, classes, targets


def probabilities_by_loops(scores, classes):
    """Softmax of background and foreground score of the roi's class, pixel by pixel."""
    result = np.zeros((len(scores), 2, *scores.shape[2:]))
    for r, y, x in np.ndindex(len(scores), *scores.shape[2:]):
        k = int(classes[r, y, x])
        pair = np.exp(scores[r, [k, CLASSES - 1 + k], y, x].astype(np.float64))
        result[r, :, y, x] = pair / pair.sum()
    return result


@pytest.mark.instruction_sets
def test_mask_loss_and_gradient_equal_a_slow_reference(mask_inputs):
    scores, classes, targets = mask_inputs
    variables = [mx.sym.Variable(name) for name in ("scores", "classes", "targets")]
    symbol = mask_loss(*variables, num_classes=CLASSES, loss_scale=5.0)
    executor = symbol.bind(
        mx.cpu(),
        dict(zip(("scores", "classes", "targets"), map(mx.nd.array, mask_inputs))),
        args_grad={"scores": mx.nd.zeros(scores.shape)},
        grad_req={"scores": "write", "classes": "null", "targets": "null"},
    )
    (prob,) = executor.forward(is_train=True)
    executor.backward()
    expected = probabilities_by_loops(scores, classes)
    np.testing.assert_allclose(prob.asnumpy(), expected, rtol=1e-5)
    gradient = np.zeros(scores.shape)
    valid = (targets != -1).sum()
    for r, y, x in np.ndindex(*targets.shape):
        if targets[r, y, x] == -1:
            continue
        k = int(classes[r, y, x])
        for plane in (0, 1):
            error = expected[r, plane, y, x] - (targets[r, y, x] == plane)
            gradient[r, k + plane * (CLASSES - 1), y, x] = 5.0 * error / valid
    np.testing.assert_allclose(
        executor.grad_dict["scores"].asnumpy(), gradient, rtol=1e-4, atol=1e-7
    )


def test_mask_probabilities_are_the_foreground_of_training(mask_inputs):
    scores, classes, _ = mask_inputs
    symbol = mask_probabilities(
        mx.sym.Variable("scores"), mx.sym.Variable("classes"), num_classes=CLASSES, mask_size=4
    )
    assert symbol.list_outputs() == ["mask_prob_output"]
    inputs = {"scores": mx.nd.array(scores), "classes": mx.nd.array(classes[:, 0, 0] + 1)}
    (prob,) = symbol.bind(mx.cpu(), inputs).forward()
    expected = probabilities_by_loops(scores, classes)[:, 1]
    np.testing.assert_allclose(prob.asnumpy(), expected, rtol=1e-5)


@pytest.mark.instruction_sets
@pytest.mark.parametrize("symbol", ["resnet_mx_50_e2e_mask", "mobilenetv2_e2e_mask"])
def test_mask_head_at_test_gives_what_training_sees(symbol):
    """Same image, rois and weights: test graph and mask head against the training graph."""
    spec = make_spec(symbol, bn_mode="frozen")
    train, executor, batch = bind_train(spec)
    parts = train.get_internals()
    names = (
        "conv_new_1_relu_output",
        "multi_proposal_target_mask_mask_rois_output",
        "mask_rcnn_target_mask_cls_output",
        "mask_cls_prob_output",
    )
    weights = {**executor.arg_dict, **executor.aux_dict}
    group = mx.sym.Group([parts[name] for name in names])
    features, rois, classes, trained = evaluate(group, weights)
    test = build_detector(spec, train=False, roi_map=True)
    shapes = inference_input_shapes(spec, 2, CHIP, CHIP)
    inputs = {name: mx.nd.zeros(shape) for name, shape in shapes.items()}
    inputs["data"][:], inputs["im_info"][:] = batch["data"], batch["im_info"]
    roi_map = evaluate(test, {**weights, **inputs})[-1]
    np.testing.assert_allclose(roi_map, features, rtol=1e-3, atol=1e-4)
    head = build_mask_head(spec)
    assert head.list_outputs() == ["mask_prob_output"]
    masks = {"roi_map": roi_map, "mask_rois": rois, "mask_classes": classes[:, 0, 0] + 1}
    (prob,) = evaluate(head, {**weights, **{n: mx.nd.array(v) for n, v in masks.items()}})
    assert prob.shape == (2 * MASKS, MASK_SIZE, MASK_SIZE)
    np.testing.assert_allclose(prob, trained[:, 1], atol=1e-3)
    assert np.ptp(prob) > 0.01


def evaluate(symbol, values):
    """Outputs of a graph for arguments and auxiliary states by name (extra ones are ignored)."""
    arguments = {name: values[name] for name in symbol.list_arguments()}
    aux = {name: values[name] for name in symbol.list_auxiliary_states()}
    outputs = symbol.bind(mx.cpu(), arguments, aux_states=aux).forward(is_train=False)
    return [output.asnumpy() for output in outputs]


@pytest.mark.instruction_sets
@pytest.mark.parametrize("symbol", ["resnet_mx_18_e2e", "mobilenetv2_e2e"])
def test_focus_map_at_test_is_that_of_training(symbol):
    spec = make_spec(symbol, bn_mode="frozen")
    train, executor, batch = bind_train(spec)
    weights = {**executor.arg_dict, **executor.aux_dict}
    (flat,) = evaluate(train.get_internals()["cls_scale_prob_output"], weights)
    test = build_detector(spec, train=False)
    shapes = inference_input_shapes(spec, 2, CHIP, CHIP)
    inputs = {name: mx.nd.zeros(shape) for name, shape in shapes.items()}
    inputs["data"][:], inputs["im_info"][:] = batch["data"], batch["im_info"]
    values = evaluate(test, {**weights, **inputs})
    focus = dict(zip(short_output_names(test.list_outputs()), values))["scale_prob"]
    cells = CHIP // spec.feature_stride
    assert focus.shape == (2, 2, cells, cells)
    np.testing.assert_allclose(focus.reshape(flat.shape), flat, rtol=1e-3, atol=1e-5)


def test_focus_gradient_equals_its_formula():
    spec = make_spec("resnet_mx_18_e2e", loss_scale=8.0)
    graph, executor, batch = bind_train(spec)
    prob = run(graph, executor)["cls_scale_prob"]
    label = batch["scale_label"]
    valid = label != -1
    error = (prob[:, 1] - (label == 1)) * valid
    expected = 8 * error.sum() / valid.sum()
    gradient = executor.grad_dict["conv_new_out_bias"].asnumpy()
    np.testing.assert_allclose(gradient, [-expected, expected], rtol=1e-3)
