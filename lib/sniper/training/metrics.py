"""Training metrics (spec: pipeline 8.3): sums of numerators and denominators, never NaN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

LOG_EPSILON = 1e-14


@dataclass
class Ratio:
    """A running sum divided by a running count."""

    numerator: float = 0.0
    denominator: float = 0.0

    def add(self, numerator: float, denominator: float) -> None:
        """Adds one batch."""
        self.numerator += float(numerator)
        self.denominator += float(denominator)

    @property
    def value(self) -> float:
        """The ratio; 0 where nothing was counted."""
        return self.numerator / self.denominator if self.denominator else 0.0


@dataclass
class Metrics:
    """Accuracy, log loss and L1 loss of all heads over a window and over the epoch.

    Who reads a window or an epoch starts the next one with empty sums.

    Names and order are those of 2018: RPNAcc RPNLogLoss RPNL1Loss RCNNAcc RCNNLogLoss
    RCNNL1LossCRCNN AutoFocusAcc AutoFocusLogLoss MaskLogLoss, as far as the network has the heads.
    """

    window: dict[str, Ratio] = field(default_factory=dict)
    epoch: dict[str, Ratio] = field(default_factory=dict)

    def update(self, outputs: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> dict:
        """Adds a batch and returns its own values.

        Args:
            outputs: network outputs by name (`sniper.models.detector.short_output_names`).
            labels: label tensors of the batch by name.
        """
        batch = batch_metrics(outputs, labels)
        for name, (numerator, denominator) in batch.items():
            for sums in (self.window, self.epoch):
                sums.setdefault(name, Ratio()).add(numerator, denominator)
        return {name: n / d if d else 0.0 for name, (n, d) in batch.items()}


def batch_metrics(
    outputs: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]
) -> dict[str, tuple[float, float]]:
    """(numerator, denominator) of every metric that the outputs allow, in printing order."""
    rpn_label = labels["label"]
    rpn_prob = outputs["rpn_cls_prob"]  # (N, 2, A*h, w)
    result = _classification("RPN", np.moveaxis(rpn_prob, 1, -1), rpn_label)
    counted = float((rpn_label != -1).sum())
    result["RPNL1Loss"] = (float(outputs["rpn_bbox_loss"].sum(dtype=np.float64)), counted)
    if "cls_prob_reshape" in outputs:
        roi_label = outputs["roi_label"].reshape(-1)
        prob = outputs["cls_prob_reshape"]  # (N, R, C)
        result.update(_classification("RCNN", prob.reshape(-1, prob.shape[-1]), roi_label))
        counted = float((roi_label != -1).sum())
        loss = outputs["bbox_loss_reshape"].sum(dtype=np.float64)
        result["RCNNL1LossCRCNN"] = (float(loss), counted)
    if "cls_scale_prob" in outputs:
        prob = outputs["cls_scale_prob"]  # (N, 2, h*w)
        result.update(_classification("AutoFocus", np.moveaxis(prob, 1, -1), labels["scale_label"]))
    if "mask_cls_prob" in outputs:
        prob = outputs["mask_cls_prob"]  # (rois, 2, m, m)
        of_masks = _classification("Mask", np.moveaxis(prob, 1, -1), outputs["mask_targets"])
        result["MaskLogLoss"] = of_masks["MaskLogLoss"]
    return result


def _classification(
    prefix: str, prob: np.ndarray, label: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Accuracy and log loss of `prob` (..., C) for `label` (...), -1 ignored."""
    prob = prob.reshape(-1, prob.shape[-1])
    label = label.reshape(-1)
    kept = label != -1
    prob, label = prob[kept], label[kept].astype(np.int64)
    of_label = prob[np.arange(len(label)), label].astype(np.float64)
    correct = float((prob.argmax(axis=1) == label).sum())
    log_loss = float(-np.log(of_label + LOG_EPSILON).sum())
    return {
        f"{prefix}Acc": (correct, float(len(label))),
        f"{prefix}LogLoss": (log_loss, float(len(label))),
    }
