"""The mask head, its loss and its probabilities. Names and gradient scales are those of 2018."""

from __future__ import annotations

import mxnet as mx

from sniper.models.blocks import cast
from sniper.models.head_layers import RoiMap, conv, map_softmax_loss, pool_rois, relu

NUM_CONVS = 4
UPSAMPLING = 2


def mask_head(
    roi_map: RoiMap, rois: mx.sym.Symbol, *, mask_size: int, num_classes: int, fp16: bool
) -> mx.sym.Symbol:
    """Scores (R, 2K, mask_size, mask_size) of the K classes without background.

    Channel c is the score for "not an object of class c + 1", channel K + c for "part of it".

    Args:
        roi_map: what the RoI head pools from, too.
        rois: (R, 5) image index and box in image px.
        mask_size: pixels per side, even.
        num_classes: classes with background.
        fp16: the 3x3 convolutions are float16.
    """
    body = pool_rois(roi_map, rois, mask_size // UPSAMPLING, prefix="mask_")
    body = cast(body, "float16", enabled=fp16, name="mask_cast_fp16")
    for n in range(1, NUM_CONVS + 1):
        body = conv(body, f"mask_conv_3x3_{n}", roi_map.channels, kernel=3)
        body = relu(body, f"mask_relu_{n}")
    body = cast(body, "float32", enabled=fp16, name="mask_cast_fp32")
    body = mx.sym.Deconvolution(
        body,
        num_filter=roi_map.channels,
        kernel=(UPSAMPLING, UPSAMPLING),
        stride=(UPSAMPLING, UPSAMPLING),
        pad=(0, 0),
        no_bias=True,
        name="mask_deconv",
    )
    body = relu(body, "mask_deconv_relu")
    return conv(body, "mask_out", 2 * (num_classes - 1))


def mask_loss(
    scores: mx.sym.Symbol,
    classes: mx.sym.Symbol,
    targets: mx.sym.Symbol,
    *,
    num_classes: int,
    loss_scale: float,
) -> mx.sym.Symbol:
    """Probabilities (R, 2, m, m) of background and foreground, which carry their loss.

    Args:
        scores: (R, 2K, m, m), output of `mask_head`.
        classes: (R, m, m), class of the roi minus one, in every pixel.
        targets: (R, m, m), 0, 1 or -1 (not trained).
        num_classes: classes with background.
        loss_scale: factor on the gradient.
    """
    background, foreground = _scores_of_class(scores, classes, num_classes)
    pair = mx.sym.Concat(background, foreground, name="pred_cat")
    return map_softmax_loss(pair, targets, loss_scale, "mask_cls_prob")


def mask_probabilities(
    scores: mx.sym.Symbol, classes: mx.sym.Symbol, *, num_classes: int, mask_size: int
) -> mx.sym.Symbol:
    """Foreground probability `mask_prob` (R, mask_size, mask_size) of one class per roi.

    Args:
        scores: (R, 2K, mask_size, mask_size), output of `mask_head`.
        classes: (R,), 1 ... num_classes - 1.
        num_classes: classes with background.
        mask_size: pixels per side.
    """
    side = (mask_size, mask_size)
    classes = mx.sym.Reshape(classes - 1, shape=(-1, 1, 1))
    classes = mx.sym.broadcast_axis(classes, axis=(1, 2), size=side)  # (R, m, m)
    background, foreground = _scores_of_class(scores, classes, num_classes)
    difference = mx.sym.Reshape(foreground - background, shape=(-1, *side))
    return mx.sym.sigmoid(difference, name="mask_prob")


def _scores_of_class(
    scores: mx.sym.Symbol, classes: mx.sym.Symbol, num_classes: int
) -> tuple[mx.sym.Symbol, mx.sym.Symbol]:
    """Background and foreground scores (R, 1, m, m) of the classes (R, m, m), counted from 0."""
    offset = num_classes - 1
    background = mx.sym.pick(scores, classes, axis=1, keepdims=True, name="mask_background")
    foreground = mx.sym.pick(
        scores, classes + offset, axis=1, keepdims=True, name="mask_foreground"
    )
    return background, foreground
