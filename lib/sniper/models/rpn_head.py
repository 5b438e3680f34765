"""The region proposal network and its losses. Names and gradient scales are those of 2018."""

from __future__ import annotations

from dataclasses import dataclass

import mxnet as mx

from sniper.models.head_layers import conv, map_softmax_loss, relu

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


def rpn_head(features: mx.sym.Symbol, num_anchors: int, channels: int) -> RpnHead:
    """3x3 convolution with `channels` outputs, then scores and deltas of every anchor."""
    body = relu(conv(features, "rpn_conv_3x3", channels, kernel=3), "rpn_relu")
    scores = conv(body, "rpn_cls_score", 2 * num_anchors)
    deltas = conv(body, "rpn_bbox_pred", 4 * num_anchors)
    scores = mx.sym.Reshape(scores, shape=(0, 2, -1, 0), name="rpn_cls_score_reshape")
    return RpnHead(scores, deltas)


def rpn_losses(
    head: RpnHead, *, loss_scale: float, batch_images: int, rpn_batch_size: int
) -> tuple[mx.sym.Symbol, mx.sym.Symbol]:
    """Class probabilities (N, 2, A*h, w), which carry their loss, and box loss (N, 4A, h, w)."""
    label = mx.sym.Variable("label")
    probabilities = map_softmax_loss(head.scores, label, loss_scale, "rpn_cls_prob")
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
