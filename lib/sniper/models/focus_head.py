"""The FocusPixel branch of AutoFocus: which feature cells hold small objects."""

from __future__ import annotations

import mxnet as mx

from sniper.models.head_layers import conv, map_softmax_loss, relu


def focus_head(features: mx.sym.Symbol, channels: int) -> mx.sym.Symbol:
    """Scores (N, 2, h, w) of every feature cell, plane 1 for focus (AutoFocus, section 3.1)."""
    body = relu(conv(features, "conv_new_2", channels, kernel=3), "conv_new_2_relu")
    body = relu(conv(body, "conv_new_3", channels), "conv_new_3_relu")
    return conv(body, "conv_new_out", 2)


def focus_loss(scores: mx.sym.Symbol, loss_scale: float) -> mx.sym.Symbol:
    """Probabilities (N, 2, h*w), which carry the loss for the input `scale_label` (N, h*w)."""
    scores = mx.sym.Reshape(scores, shape=(0, 2, -1), name="conv_new_out_reshape")
    return map_softmax_loss(scores, mx.sym.Variable("scale_label"), loss_scale, "cls_scale_prob")


def focus_probabilities(scores: mx.sym.Symbol) -> mx.sym.Symbol:
    """Probabilities (N, 2, h, w) at test time."""
    return mx.sym.SoftmaxActivation(scores, mode="channel", name="scale_prob")
