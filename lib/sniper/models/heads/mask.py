"""The mask head. Names and gradient scales are those of 2018."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sniper.errors import ConfigError
from sniper.models.backbones.blocks import cast
from sniper.models.heads.layers import RoiMap, conv, map_softmax_loss, pool_rois, relu
from sniper.models.lazy import mx, ops
from sniper.models.parts import Arrays, Graph, Head, Start, Sums, classification_metrics
from sniper.targets.masks import MaskLabels

if TYPE_CHECKING:
    from sniper.models.spec import DetectorSpec

NUM_CONVS = 4
UPSAMPLING = 2
# In 2018 this output had no name of its own; this is what MXNet called it.
MASK_TARGETS = "blockgrad1"


@dataclass(frozen=True)
class MaskHead(Head):
    """Deformable RoI pooling, 3x3 convolutions and an upsampling by two.

    At test it is a network of its own (`build_mask_head`), for boxes that have been merged.
    """

    needs = ("mask_rois", "roi_map")
    output_names: ClassVar = {MASK_TARGETS: "mask_targets"}
    when_inactive = (
        "without TRAIN.WITH_MASK trains and finds boxes only, with the RPN of the mask networks "
        "(in a ResNet it reads stage 3 alone)"
    )
    layers: ClassVar = {
        "mask_offset": Start.OFFSET,
        **{f"mask_conv_3x3_{n}": Start.HIDDEN for n in range(1, NUM_CONVS + 1)},
        "mask_deconv": Start.UPSAMPLING,
        "mask_out": Start.OUTPUT,
    }

    def is_active(self, spec: DetectorSpec) -> bool:
        """TRAIN.WITH_MASK."""
        return spec.with_masks

    def labels(self, spec: DetectorSpec, chip_size: int) -> MaskLabels:
        """`gt_masks`, a row for every row of `gt_boxes`."""
        return MaskLabels(spec.max_gt, spec.mask_row_length)

    def losses(self, graph: Graph) -> list[mx.sym.Symbol]:
        """Probabilities (N*max_masks, 2, m, m) with their loss, targets (N*max_masks, m, m)."""
        spec, rois = graph.spec, graph.get("mask_rois")
        scores = mask_scores(spec, graph.get("roi_map"), rois.rois)
        polygons = graph.input("gt_masks")
        targets, classes = ops.mask_rcnn_target(
            rois.rois, polygons, rois.rows, mask_size=spec.mask_size
        )
        probabilities = mask_loss(
            scores, classes, targets, num_classes=spec.num_classes, loss_scale=spec.loss_scale
        )
        return [probabilities, mx.sym.BlockGrad(targets, name=MASK_TARGETS)]

    def results(self, graph: Graph) -> list[mx.sym.Symbol]:
        """None, see above."""
        return []

    def metrics(self, outputs: Arrays, labels: Arrays) -> Sums:
        """MaskLogLoss."""
        prob = np.moveaxis(outputs["mask_cls_prob"], 1, -1)  # (rois, m, m, 2)
        sums = classification_metrics("Mask", prob, outputs["mask_targets"])
        return {"MaskLogLoss": sums["MaskLogLoss"]}


def build_mask_head(spec: DetectorSpec) -> mx.sym.Symbol:
    """The mask head alone, for boxes that detection has found.

    Inputs: `roi_map` (N, roi_channels, h, w), the last output of `build_detector(...,
    roi_map=True)`; `mask_rois` (R, 5), index into that batch and box in px of the network's input;
    `mask_classes` (R,), 1 ... C-1. Output: `mask_prob_output` (R, mask_size, mask_size), the
    probability that a pixel belongs to an object of that class. Parameters have the names of
    training.

    Raises:
        ConfigError: the network has no trained mask head.
    """
    if not spec.with_masks:
        raise ConfigError(
            "this network has no trained mask head",
            where="TRAIN.WITH_MASK",
            got=spec.symbol,
            fix="train a *_mask network with TRAIN.WITH_MASK true",
        )
    roi_map = RoiMap(mx.sym.Variable("roi_map"), spec.roi_channels, spec.feature_stride)
    scores = mask_scores(spec, roi_map, mx.sym.Variable("mask_rois"))
    return mask_probabilities(
        scores,
        mx.sym.Variable("mask_classes"),
        num_classes=spec.num_classes,
        mask_size=spec.mask_size,
    )


def mask_scores(spec: DetectorSpec, roi_map: RoiMap, rois: mx.sym.Symbol) -> mx.sym.Symbol:
    """Scores (R, 2K, mask_size, mask_size) of the K classes without background.

    Channel c is the score for "not an object of class c + 1", channel K + c for "part of it".

    Args:
        spec: the network; with fp16 the 3x3 convolutions are float16.
        roi_map: what the RoI head pools from, too.
        rois: (R, 5) image index and box in image px.
    """
    body = pool_rois(roi_map, rois, spec.mask_size // UPSAMPLING, prefix="mask_")
    body = cast(body, "float16", enabled=spec.fp16, name="mask_cast_fp16")
    for n in range(1, NUM_CONVS + 1):
        body = conv(body, f"mask_conv_3x3_{n}", roi_map.channels, kernel=3)
        body = relu(body, f"mask_relu_{n}")
    body = cast(body, "float32", enabled=spec.fp16, name="mask_cast_fp32")
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
    return conv(body, "mask_out", 2 * (spec.num_classes - 1))


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
        scores: (R, 2K, m, m), see `mask_scores`.
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
        scores: (R, 2K, mask_size, mask_size), see `mask_scores`.
        classes: (R,), 1 ... num_classes - 1.
        num_classes: classes with background.
        mask_size: pixels per side.
    """
    side = (mask_size, mask_size)
    classes = mx.sym.Reshape(classes - 1, shape=(-1, 1, 1))
    classes = mx.sym.broadcast_axis(classes, axis=(1, 2), size=side)  # (R, m, m)
    background, foreground = _scores_of_class(scores, classes, num_classes)
    # The softmax of two classes is the sigmoid of their difference.
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
