"""Soft Sampling and crowd regions in whole networks: what they do to gradients, and no more.

In 2018 the weight stood behind the softmax, where it changed no gradient.
"""

import mxnet as mx
import numpy as np
import pytest

from sniper.errors import ConfigError
from sniper.models.assembly import batch_contract, batch_metrics, short_output_names
from sniper.models.heads.layers import IGNORE, weigh_gradient
from sniper.models.spec import FineSettings, TargetSettings
from tests.models.test_heads_run import CHIP, bind_train, make_spec

PAPER = (0.25, 50.0, 20.0)
SYMBOLS = ("resnet_mx_18_e2e", "mobilenetv2_e2e", "resnet_mx_18_e2e_mask", "mobilenetv2_3k",
           "resnet_mx_18_rfcn", "resnet_mx_18_e2e_c4")  # fmt: skip


def train_once(spec):
    """Outputs by name and gradients by parameter of one step."""
    graph, executor, batch = bind_train(spec)
    outputs = executor.forward(is_train=True)
    executor.backward()
    names = short_output_names(graph.list_outputs(), spec)
    by_name = {name: output.asnumpy() for name, output in zip(names, outputs)}
    gradients = {k: g.asnumpy() for k, g in executor.grad_dict.items() if k not in batch}
    return by_name, gradients, batch


def test_gradient_rows_scale_with_the_weights_and_nothing_else_changes():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 3, (7, 5)).astype(np.float32)
    label = np.array([0, 1, 4, -1, 2, 0, 3], np.float32)
    weight = np.array([1, 0.25, 0.5, 0.5, 0, 2, 1], np.float32)[:, None]
    results = []
    for values in (None, weight):
        data, given = mx.sym.Variable("scores"), mx.sym.Variable("weight")
        gate = weigh_gradient(data, None if values is None else given)
        symbol = mx.sym.SoftmaxOutput(
            gate, label=mx.sym.Variable("label"), normalization="valid", grad_scale=3.0, **IGNORE
        )
        arrays = {"scores": scores, "label": label}
        if values is not None:
            arrays["weight"] = values
        executor = symbol.simple_bind(mx.cpu(), **{k: v.shape for k, v in arrays.items()})
        for name, array in arrays.items():
            executor.arg_dict[name][:] = array
        (probability,) = executor.forward(is_train=True)
        executor.backward()
        gradients = {name: g.asnumpy() for name, g in executor.grad_dict.items()}
        results.append((probability.asnumpy(), gradients))
    (plain, without), (weighted, with_weight) = results
    np.testing.assert_array_equal(weighted, plain)
    assert without["scores"].any(axis=1).tolist() == [True, True, True, False, True, True, True]
    # Factors that are powers of two: equal to the bit.
    np.testing.assert_array_equal(with_weight["scores"], weight * without["scores"])
    assert not with_weight["weight"].any()


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_weights_of_one_train_to_the_bit_as_without(symbol):
    outputs, gradients, _ = train_once(make_spec(symbol))
    soft_outputs, soft_gradients, _ = train_once(make_spec(symbol, soft_sampling=(1.0, 50, 20)))
    weight = soft_outputs.pop("roi_weight")
    assert (weight == 1).all() and len(weight)
    assert outputs.keys() == soft_outputs.keys() and gradients.keys() == soft_gradients.keys()
    for name in outputs:
        np.testing.assert_array_equal(soft_outputs[name], outputs[name], err_msg=name)
    for name in gradients:
        np.testing.assert_array_equal(soft_gradients[name], gradients[name], err_msg=name)


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_class_loss_alone_is_weighted(symbol):
    """The gradient of the scores' bias is the sum of what every RoI says; boxes do not change."""
    spec = make_spec(symbol, soft_sampling=PAPER)
    plain, without, _ = train_once(make_spec(symbol))
    outputs, gradients, _ = train_once(spec)
    for name in plain:
        np.testing.assert_array_equal(outputs[name], plain[name], err_msg=name)
    probability = outputs["cls_prob_reshape"].reshape(len(outputs["roi_weight"]), -1)
    label, weight = outputs["roi_label"].reshape(-1), outputs["roi_weight"]
    assert (weight[label > 0] == 1).all() and weight[label == 0].min() < 0.8
    rfcn = symbol.endswith(("_3k", "_rfcn"))
    over_all = rfcn or spec.network.backbone.class_loss_over_all_rois
    divisor = len(label) if over_all else (label != -1).sum()
    rows = (probability - np.eye(probability.shape[1])[label.astype(int)]) / divisor

    def bias(of):
        values = of["rfcn_cls_bias" if rfcn else "cls_score_bias"]
        return values.reshape(probability.shape[1], -1).sum(axis=1)

    np.testing.assert_allclose(bias(without), rows.sum(axis=0), atol=1e-5)
    np.testing.assert_allclose(bias(gradients), (weight * rows).sum(axis=0), atol=1e-5)
    assert np.abs(bias(gradients) - bias(without)).max() > 1e-4
    boxes = "rfcn_bbox_weight" if rfcn else "bbox_pred_weight"
    np.testing.assert_array_equal(gradients[boxes], without[boxes])
    np.testing.assert_array_equal(gradients["rpn_cls_score_bias"], without["rpn_cls_score_bias"])


def test_the_mean_weight_of_background_is_a_metric():
    spec = make_spec("mobilenetv2_e2e", soft_sampling=PAPER)
    outputs, _, batch = train_once(spec)
    total, count = batch_metrics(spec)(outputs, batch)["SoftWeight"]
    background = outputs["roi_label"].reshape(-1) == 0
    assert count == background.sum() > 0
    assert total / count == pytest.approx(outputs["roi_weight"][background].mean())
    plain = make_spec("mobilenetv2_e2e")
    assert "SoftWeight" not in batch_metrics(plain)(train_once(plain)[0], batch)


def test_regions_of_many_objects_are_an_input_where_they_are_asked_for():
    spec = make_spec("resnet_mx_18_e2e", crowd_ioa=0.9, max_crowd=3)
    shapes = batch_contract(spec, CHIP).shapes
    assert shapes["crowd_boxes"] == (3, 5)
    assert list(shapes)[-3:-1] == ["gt_boxes", "crowd_boxes"]  # FocusPixels behind them
    assert "crowd_boxes" not in batch_contract(make_spec("resnet_mx_18_e2e"), CHIP).shapes


@pytest.mark.parametrize("symbol", ["mobilenetv2_e2e", "mobilenetv2_3k"])
def test_background_in_a_region_of_many_objects_is_not_trained(symbol):
    plain, _, _ = train_once(make_spec(symbol))
    graph, executor, _ = bind_train(make_spec(symbol, crowd_ioa=0.9, max_crowd=2))
    outputs = executor.forward(is_train=True)
    names = short_output_names(graph.list_outputs(), make_spec(symbol))
    label = dict(zip(names, outputs))["roi_label"].asnumpy()
    expected = plain["roi_label"]
    np.testing.assert_array_equal(label, np.where(expected > 0, expected, -1))
    assert (expected == 0).any() and (expected > 0).any()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"RPN_IGNORE_CROWD"):
        make_spec("mobilenetv2_e2e", targets=TargetSettings(rpn_ignore_crowd=True))
    with pytest.raises(ConfigError, match=r"MAX_CROWD|too small"):
        make_spec("mobilenetv2_e2e", max_crowd=0)
    make_spec("mobilenetv2_3k", fine=FineSettings(rois=3), crowd_ioa=0.5)
