"""Metrics against loops over single entries."""

import math

import numpy as np
import pytest

from sniper.models.assembly import DetectorSpec, batch_metrics
from sniper.models.parts import LOG_EPSILON
from sniper.training.metrics import Metrics

NETWORK = ("resnet_mx_18_e2e_mask", 3, (1,), (1,), 16, 2)
MEASURE = batch_metrics(DetectorSpec(*NETWORK))


def _batch(rng, all_ignored=False):
    prob = rng.dirichlet([1, 1], size=(2, 6, 4)).transpose(0, 3, 1, 2).astype(np.float32)
    roi_prob = rng.dirichlet([1, 1, 1], size=(2, 5)).astype(np.float32)
    outputs = {
        "rpn_cls_prob": prob,
        "rpn_bbox_loss": rng.random((2, 8, 2, 4), np.float32),
        "cls_prob_reshape": roi_prob,
        "bbox_loss_reshape": rng.random((2, 5, 4), np.float32),
        "roi_label": rng.integers(-1, 3, (10, 1)).astype(np.float32),
    }
    label = rng.integers(-1, 2, (2, 24)).astype(np.float32)
    return outputs, {"label": np.full_like(label, -1) if all_ignored else label}


def test_values_equal_a_slow_count():
    outputs, labels = _batch(np.random.default_rng(0))
    values = Metrics(MEASURE).update(outputs, labels)
    prob = outputs["rpn_cls_prob"].reshape(2, 2, 24)
    hits = losses = count = 0
    for n, k in np.ndindex(2, 24):
        label = int(labels["label"][n, k])
        if label != -1:
            hits += prob[n, :, k].argmax() == label
            losses -= math.log(prob[n, label, k] + LOG_EPSILON)
            count += 1
    assert values["RPNAcc"] == pytest.approx(hits / count)
    assert values["RPNLogLoss"] == pytest.approx(losses / count)
    assert values["RPNL1Loss"] == pytest.approx(outputs["rpn_bbox_loss"].sum() / count, rel=1e-5)
    roi_label = outputs["roi_label"].ravel().astype(int)
    kept = roi_label != -1
    picked = outputs["cls_prob_reshape"].reshape(10, 3)
    assert values["RCNNAcc"] == pytest.approx(
        (picked.argmax(1) == roi_label)[kept].sum() / kept.sum()
    )
    assert list(values) == [
        "RPNAcc",
        "RPNLogLoss",
        "RPNL1Loss",
        "RCNNAcc",
        "RCNNLogLoss",
        "RCNNL1LossCRCNN",
    ]


def test_rpn_only_outputs_give_the_rpn_metrics():
    outputs, labels = _batch(np.random.default_rng(1))
    rpn = {name: outputs[name] for name in ("rpn_cls_prob", "rpn_bbox_loss")}
    measure = batch_metrics(DetectorSpec(*NETWORK), rpn_only=True)
    assert list(measure(rpn, labels)) == ["RPNAcc", "RPNLogLoss", "RPNL1Loss"]


def test_focus_and_mask_metrics_equal_a_slow_count():
    rng = np.random.default_rng(5)
    outputs, labels = _batch(rng)
    focus = rng.dirichlet([1, 1], size=(2, 9)).transpose(0, 2, 1).astype(np.float32)
    labels["scale_label"] = rng.integers(-1, 2, (2, 9)).astype(np.float32)
    masks = rng.dirichlet([1, 1], size=(3, 4, 4)).transpose(0, 3, 1, 2).astype(np.float32)
    targets = rng.integers(-1, 2, (3, 4, 4)).astype(np.float32)
    targets[0] = -1
    outputs.update(cls_scale_prob=focus, mask_cls_prob=masks, mask_targets=targets)
    measure = batch_metrics(DetectorSpec(*NETWORK, auto_focus=True, with_masks=True))
    values = Metrics(measure).update(outputs, labels)
    assert list(values) == [
        *("RPNAcc", "RPNLogLoss", "RPNL1Loss", "RCNNAcc", "RCNNLogLoss", "RCNNL1LossCRCNN"),
        *("AutoFocusAcc", "AutoFocusLogLoss", "MaskLogLoss"),
    ]
    hits, losses = [], []
    for n, k in np.ndindex(2, 9):
        label = int(labels["scale_label"][n, k])
        if label != -1:
            hits.append(focus[n, :, k].argmax() == label)
            losses.append(-math.log(focus[n, label, k] + LOG_EPSILON))
    assert values["AutoFocusAcc"] == pytest.approx(np.mean(hits))
    assert values["AutoFocusLogLoss"] == pytest.approx(np.mean(losses))
    losses = [
        -math.log(masks[n, int(targets[n, y, x]), y, x] + LOG_EPSILON)
        for n, y, x in np.ndindex(3, 4, 4)
        if targets[n, y, x] != -1
    ]
    assert values["MaskLogLoss"] == pytest.approx(np.mean(losses))


def test_nothing_counted_is_zero_and_never_nan():
    metrics = Metrics(MEASURE)
    metrics.update(*_batch(np.random.default_rng(2), all_ignored=True))
    assert metrics.window["RPNAcc"].value == metrics.epoch["RPNAcc"].value == 0


def test_window_and_epoch_are_separate_averages():
    metrics, rng = Metrics(MEASURE), np.random.default_rng(3)
    batches = [_batch(rng) for _ in range(3)]
    for batch in batches[:2]:
        metrics.update(*batch)
    metrics.window = {}
    last = metrics.update(*batches[2])
    found = {name: ratio.value for name, ratio in metrics.window.items()}
    assert found == pytest.approx(last)
    sums = [MEASURE(*batch)["RPNLogLoss"] for batch in batches]
    expected = sum(n for n, _ in sums) / sum(d for _, d in sums)
    assert metrics.epoch["RPNLogLoss"].value == pytest.approx(expected)


def test_nan_is_passed_on():
    outputs, labels = _batch(np.random.default_rng(4))
    outputs["bbox_loss_reshape"][0, 0, 0] = np.nan
    assert math.isnan(Metrics(MEASURE).update(outputs, labels)["RCNNL1LossCRCNN"])
