"""RPN head, RoI head and their losses. Names, layouts and gradient scales are those of 2018."""

from __future__ import annotations

from dataclasses import dataclass

import mxnet as mx

from sniper.ops import deformable_psroi_pooling

POOLED_SIZE = 7
SAMPLES_PER_BIN = 4
OFFSET_STD = 0.1
OFFSET_LR_MULT = "0.01"
RPN_BOX_LOSS_FACTOR = 3.0


@dataclass(frozen=True)
class RpnHead:
    """Raw outputs of the RPN.

    Args:
        scores: (N, 2, A*h, w), plane 0 background, plane 1 foreground.
        deltas: (N, 4A, h, w), channel 4*anchor + coordinate.
    """

    scores: mx.sym.Symbol
    deltas: mx.sym.Symbol


@dataclass(frozen=True)
class RoiHead:
    """Raw outputs of the RoI head: `scores` (R, C) and class-agnostic `deltas` (R, 4)."""

    scores: mx.sym.Symbol
    deltas: mx.sym.Symbol


def rpn_head(features: mx.sym.Symbol, num_anchors: int, channels: int) -> RpnHead:
    """3x3 convolution with `channels` outputs, then scores and deltas of every anchor."""
    body = _conv(features, "rpn_conv_3x3", channels, kernel=3)
    body = mx.sym.Activation(body, act_type="relu", name="rpn_relu")
    scores = _conv(body, "rpn_cls_score", 2 * num_anchors)
    deltas = _conv(body, "rpn_bbox_pred", 4 * num_anchors)
    scores = mx.sym.Reshape(scores, shape=(0, 2, -1, 0), name="rpn_cls_score_reshape")
    return RpnHead(scores, deltas)


def rpn_losses(
    head: RpnHead, *, loss_scale: float, batch_images: int, rpn_batch_size: int
) -> tuple[mx.sym.Symbol, mx.sym.Symbol]:
    """Class probabilities (N, 2, A*h, w), which carry their loss, and box loss (N, 4A, h, w)."""
    probabilities = mx.sym.SoftmaxOutput(
        head.scores,
        label=mx.sym.Variable("label"),
        multi_output=True,
        normalization="valid",
        use_ignore=True,
        ignore_label=-1,
        grad_scale=loss_scale,
        name="rpn_cls_prob",
    )
    error = mx.sym.smooth_l1(
        head.deltas - mx.sym.Variable("bbox_target"), scalar=1.0, name="rpn_bbox_loss_"
    )
    box_loss = mx.sym.MakeLoss(
        mx.sym.Variable("bbox_weight") * error,
        grad_scale=RPN_BOX_LOSS_FACTOR * loss_scale / (batch_images * rpn_batch_size),
        name="rpn_bbox_loss",
    )
    return probabilities, box_loss


def rpn_probabilities(head: RpnHead, num_anchors: int) -> mx.sym.Symbol:
    """Anchor probabilities at test time: (N, 2A, h, w), first A channels background."""
    probabilities = mx.sym.SoftmaxActivation(head.scores, mode="channel", name="rpn_cls_prob")
    shape = (0, 2 * num_anchors, -1, 0)
    return mx.sym.Reshape(probabilities, shape=shape, name="rpn_cls_prob_reshape")


def roi_features(features: mx.sym.Symbol, channels: int) -> mx.sym.Symbol:
    """1x1 convolution in front of the RoI pooling."""
    body = _conv(features, "conv_new_1", channels)
    return mx.sym.Activation(body, act_type="relu", name="conv_new_1_relu")


def roi_head(
    features: mx.sym.Symbol,
    rois: mx.sym.Symbol,
    *,
    feature_stride: int,
    channels: int,
    fc_channels: int,
    num_classes: int,
) -> RoiHead:
    """Deformable RoI pooling and two fully connected layers.

    Args:
        features: (N, channels, h, w), output of `roi_features`.
        rois: (R, 5) image index and box in image px.
        feature_stride: px of the image per feature cell.
        channels: channels of `features`.
        fc_channels: width of the two layers.
        num_classes: classes with background.
    """
    pooling = {
        "spatial_scale": 1.0 / feature_stride,
        "output_dim": channels,
        "pooled_size": POOLED_SIZE,
        "group_size": 1,
        "part_size": POOLED_SIZE,
        "sample_per_part": SAMPLES_PER_BIN,
    }
    plain = deformable_psroi_pooling(features, rois, name="offset_t", **pooling)
    # The automatic weight and bias inherit the multiplier.
    with mx.AttrScope(__lr_mult__=OFFSET_LR_MULT):
        offset = _fc(plain, "offset", 2 * POOLED_SIZE * POOLED_SIZE)
    shape = (-1, 2, POOLED_SIZE, POOLED_SIZE)
    offset = mx.sym.Reshape(offset, shape=shape, name="offset_reshape")
    pooled = deformable_psroi_pooling(
        features, rois, offset, trans_std=OFFSET_STD, name="deformable_roi_pool", **pooling
    )
    body = pooled
    for name in ("fc_new_1", "fc_new_2"):
        body = _fc(body, name, fc_channels)
        body = mx.sym.Activation(body, act_type="relu", name=f"{name}_relu")
    return RoiHead(_fc(body, "cls_score", num_classes), _fc(body, "bbox_pred", 4))


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
        use_ignore=True,
        ignore_label=-1,
        grad_scale=scales.cls,
        name="cls_prob",
    )
    error = mx.sym.smooth_l1(head.deltas - target, scalar=1.0, name="bbox_loss_")
    box_loss = mx.sym.MakeLoss(weight * error, grad_scale=scales.box, name="bbox_loss")
    return probabilities, box_loss, label


def _conv(data: mx.sym.Symbol, name: str, channels: int, *, kernel: int = 1) -> mx.sym.Symbol:
    pad = kernel // 2
    return mx.sym.Convolution(
        data, num_filter=channels, kernel=(kernel, kernel), pad=(pad, pad), name=name
    )


def _fc(data: mx.sym.Symbol, name: str, outputs: int) -> mx.sym.Symbol:
    return mx.sym.FullyConnected(data, num_hidden=outputs, name=name)
