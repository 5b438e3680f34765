"""R-FCN and R-FCN-3K run for real: labels, gradients of classes, scores at test."""

import mxnet as mx
import numpy as np
import pytest

from sniper.models.assembly import (
    WindowOutputs,
    batch_metrics,
    build_detector,
    decode,
    inference_input_shapes,
    short_output_names,
)
from sniper.models.class_scores import MIN_SCORE
from sniper.models.spec import FineSettings
from sniper.models.weights import initialise
from tests.models.test_heads_run import CHIP, ROIS, bind_train, make_spec

CLASSES = 4  # with background; the batch holds objects of the classes 1 and 3
FINE_ROIS = 6
TWO = FineSettings(
    super_classes=(("odd", ("class 1", "class 3")), ("even", ("class 2",))),
    super_of=(1, 2, 1),
    rois=FINE_ROIS,
)
ONE = FineSettings(rois=FINE_ROIS)


def trained(symbol, **values):
    """Outputs, gradients and labels of one training step."""
    spec = make_spec(symbol, feature_stride=16, **values)
    graph, executor, batch = bind_train(spec)
    outputs = [output.asnumpy() for output in executor.forward(is_train=True)]
    executor.backward()
    named = dict(zip(short_output_names(graph.list_outputs(), spec), outputs))
    gradients = {name: grad.asnumpy() for name, grad in executor.grad_dict.items()}
    return spec, named, gradients, batch


@pytest.mark.parametrize("fine", [ONE, TWO], ids=["one super-class", "two"])
def test_rois_learn_super_classes_and_positives_their_class(fine):
    spec, outputs, _, batch = trained("resnet_mx_18_3k", fine=fine)
    supers = 1 + max(1, len(fine.super_classes))
    assert outputs["cls_prob_reshape"].shape == (2, ROIS, supers)
    assert set(np.unique(outputs["roi_label"])) == {0, 1}  # both classes of the batch are odd
    assert outputs["subcls_prob"].shape == (2 * FINE_ROIS, CLASSES - 1)
    np.testing.assert_allclose(outputs["subcls_prob"].sum(axis=1), 1, rtol=1e-5)
    assert set(np.unique(outputs["fine_label"])) == {-1, 0, CLASSES - 2}
    prob, label = outputs["subcls_prob"], outputs["fine_label"].astype(int)
    sums = batch_metrics(spec)(outputs, batch)
    assert sums["FineLogLoss"][1] == (label >= 0).sum() > 0
    assert sums["FineLogLoss"][0] == pytest.approx(
        -np.log(prob[label >= 0, label[label >= 0]]).sum()
    )
    names = ["RPNAcc", "RPNLogLoss", "RPNL1Loss", "RCNNAcc", "RCNNLogLoss", "FineAcc"]
    assert list(sums) == [*names, "FineLogLoss", "RCNNL1LossCRCNN"]
    assert sums["RCNNLogLoss"][1] == 2 * ROIS


@pytest.mark.parametrize("klass", [1, CLASSES - 1])
def test_a_class_raises_the_score_of_its_own_output(klass):
    """The first class has the first output, and the last one the last (2018: one too low)."""
    _, executor, _ = bind_train(make_spec("resnet_mx_18_3k", feature_stride=16, fine=ONE))
    executor.arg_dict["gt_boxes"][:, :2, 4] = klass
    executor.forward(is_train=True)
    executor.backward()
    raised = executor.grad_dict["conv_new_3_bias"].asnumpy() < 0
    assert np.flatnonzero(raised).tolist() == [klass - 1]


def test_plain_rfcn_learns_all_classes():
    spec, outputs, gradients, batch = trained("resnet_mx_18_rfcn")
    assert outputs["cls_prob_reshape"].shape == (2, ROIS, CLASSES)
    assert set(np.unique(outputs["roi_label"])) == {0, 1, CLASSES - 1}
    assert gradients["rfcn_cls_weight"].shape[0] == 49 * CLASSES
    assert "FineAcc" not in batch_metrics(spec)(outputs, batch)


def test_a_background_batch_teaches_no_class():
    spec = make_spec("resnet_mx_18_3k", feature_stride=16, fine=ONE)
    graph, executor, _ = bind_train(spec)
    executor.arg_dict["gt_boxes"][:] = -1
    outputs = [output.asnumpy() for output in executor.forward(is_train=True)]
    executor.backward()
    named = dict(zip(short_output_names(graph.list_outputs(), spec), outputs))
    assert (named["fine_label"] == -1).all() and (named["roi_label"] == 0).all()
    assert all(np.isfinite(output).all() for output in outputs)
    for name in ("conv_new_3_weight", "conv_new_2_weight", "rfcn_bbox_weight"):
        assert not executor.grad_dict[name].asnumpy().any(), name
    assert executor.grad_dict["rfcn_cls_weight"].asnumpy().any()


def detected(symbol, **values):
    spec = make_spec(symbol, feature_stride=16, batch_images=1, **values)
    graph = build_detector(spec, train=False, feature_map=True)
    shapes = inference_input_shapes(spec, 2, CHIP, CHIP)
    arg, aux, _ = initialise(*(graph, shapes, None, 0), init="scratch", heads=spec.network.heads)
    rng = np.random.default_rng(1)
    for name in ("rfcn_cls", "rfcn_bbox", "conv_new_3"):
        if f"{name}_bias" in arg:
            arg[f"{name}_bias"][:] = rng.normal(0, 1, arg[f"{name}_bias"].shape)
    executor = graph.simple_bind(mx.cpu(), grad_req="null", **shapes)
    executor.copy_params_from(arg, aux)
    executor.arg_dict["data"][:] = rng.normal(0, 50, shapes["data"])
    executor.arg_dict["im_info"][:] = (CHIP, CHIP, 1)
    outputs = [output.asnumpy() for output in executor.forward(is_train=False)]
    return spec, dict(zip(short_output_names(graph.list_outputs()), outputs))


def dense(found):
    """(R, C+1) scores of what a window holds; what is below the floor is 0."""
    scores = np.zeros((len(found.boxes), CLASSES), np.float32)
    scores[found.scores.boxes, found.scores.classes] = found.scores.scores
    return scores


def test_score_is_super_class_times_class():
    spec, outputs = detected("resnet_mx_18_3k", fine=TWO)
    info = np.array([CHIP, CHIP, 1.0])
    found = decode(WindowOutputs(spec, outputs, 1, info))
    supers, fine = outputs["cls_prob_reshape"][1], outputs["subcls_prob_reshape"][1]
    filled = outputs["rois"].reshape(2, ROIS, 5)[1, :, 1:].any(axis=1)
    assert 0 < filled.sum() == len(found.scores)
    expected = np.column_stack(
        [0 * supers[:, 0], *(supers[:, k] * fine[:, c] for c, k in enumerate(TWO.super_of))]
    )[filled]
    np.testing.assert_allclose(dense(found), expected * (expected > MIN_SCORE), rtol=1e-6)
    assert (expected[:, 1:] > MIN_SCORE).any()
    assert found.boxes.shape == (len(found.scores), 4)
    assert found.maps["features"].shape == outputs["feature_map"].shape[1:]


def made_outputs():
    """Of a test graph of one window, with a likely object in every RoI."""
    rois = np.tile(np.float32([0, 1, 2, 30, 40]), (ROIS, 1))
    return {
        "rois": rois,
        "cls_prob_reshape": np.tile(np.float32([0.2, 0.8]), (1, ROIS, 1)),
        "bbox_pred_reshape": np.tile(np.float32([1, 0, 0, 0]), (1, ROIS, 1)),
        "subcls_prob_reshape": np.tile(np.float32([0.5, 0.3, 0.2]), (1, ROIS, 1)),
    }


def found_in(outputs, fine):
    spec = make_spec("resnet_mx_18_3k", fine=fine)
    return decode(WindowOutputs(spec, outputs, 0, np.array([CHIP, CHIP, 1.0])))


def test_other_ids_of_released_weights():
    """Classes that were counted from 0 in training: the first has no output, the last no class."""
    found = found_in(made_outputs(), FineSettings(id_offset=1))
    np.testing.assert_allclose(dense(found)[0], [0, 0, 0.4, 0.24], rtol=1e-6)


def test_what_is_hardly_an_object_is_left_out():
    outputs = made_outputs()
    outputs["cls_prob_reshape"][0, 3] = 0.991, 0.009
    outputs["cls_prob_reshape"][0, 4] = 0.989, 0.011
    found = found_in(outputs, ONE)
    assert len(found.boxes) == len(found.scores) == ROIS - 1
    np.testing.assert_allclose(dense(found)[0], [0, 0.4, 0.24, 0.16], rtol=1e-6)
    np.testing.assert_allclose(dense(found)[3], [0, 0.0055, 0.0033, 0.0022], rtol=1e-5)
    np.testing.assert_allclose(found.scores.objectness[[0, 3]], [0.8, 0.011], rtol=1e-4)
    # Deltas come divided by their standard deviations: 1 moves a box of 30 px by 3 px.
    np.testing.assert_allclose(found.boxes[0], [4, 2, 33, 40], atol=1e-4)
