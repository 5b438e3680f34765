"""The RoI head (classes and boxes) and its losses. Names and gradient scales are those of 2018."""

from __future__ import annotations

from dataclasses import dataclass

import mxnet as mx

from sniper.models.head_layers import IGNORE, RoiMap, conv, fc, pool_rois, relu

POOLED_SIZE = 7


@dataclass(frozen=True)
class RoiHead:
    """Raw outputs of the RoI head: `scores` (R, C) and class-agnostic `deltas` (R, 4)."""

    scores: mx.sym.Symbol
    deltas: mx.sym.Symbol


def roi_features(features: mx.sym.Symbol, channels: int) -> mx.sym.Symbol:
    """1x1 convolution in front of the RoI pooling."""
    return relu(conv(features, "conv_new_1", channels), "conv_new_1_relu")


def roi_head(
    roi_map: RoiMap, rois: mx.sym.Symbol, *, fc_channels: int, num_classes: int
) -> RoiHead:
    """Deformable RoI pooling and two fully connected layers.

    Args:
        roi_map: output of `roi_features`.
        rois: (R, 5) image index and box in image px.
        fc_channels: width of the two layers.
        num_classes: classes with background.
    """
    body = pool_rois(roi_map, rois, POOLED_SIZE)
    for name in ("fc_new_1", "fc_new_2"):
        body = relu(fc(body, name, fc_channels), f"{name}_relu")
    return RoiHead(fc(body, "cls_score", num_classes), fc(body, "bbox_pred", 4))


@dataclass(frozen=True)
class RoiLossScales:
    """Gradient scales of the RoI losses.

    Args:
        cls: scale of the classification loss.
        normalise_valid: the classification loss is also divided by the number of labelled rois.
        box: scale of the box loss.
    """

    cls: float
    normalise_valid: bool
    box: float


def roi_losses(
    head: RoiHead,
    targets: tuple[mx.sym.Symbol, mx.sym.Symbol, mx.sym.Symbol],
    scales: RoiLossScales,
) -> tuple[mx.sym.Symbol, mx.sym.Symbol, mx.sym.Symbol]:
    """Class probabilities (R, C) with their loss, box loss (R, 4) and the labels (R,).

    `targets` are label (R, 1), box target (R, 4) and box weight (R, 4) of the target operator.
    """
    label, target, weight = targets
    label = mx.sym.Reshape(label, shape=(-1,), name="label_reshape")
    probabilities = mx.sym.SoftmaxOutput(
        head.scores,
        label=label,
        normalization="valid" if scales.normalise_valid else "null",
        grad_scale=scales.cls,
        name="cls_prob",
        **IGNORE,
    )
    error = mx.sym.smooth_l1(head.deltas - target, scalar=1.0, name="bbox_loss_")
    box_loss = mx.sym.MakeLoss(weight * error, grad_scale=scales.box, name="bbox_loss")
    return probabilities, box_loss, label
