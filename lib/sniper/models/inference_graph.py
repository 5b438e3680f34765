"""The test graphs: proposals, classes, boxes and focus map of an image batch; masks of boxes."""

from __future__ import annotations

import mxnet as mx

from sniper.errors import ConfigError
from sniper.models.focus_head import focus_head, focus_probabilities
from sniper.models.graph_parts import (
    Features,
    build_mask_scores,
    build_roi_head,
    build_roi_map,
    build_rpn,
    per_image,
    proposal_arguments,
)
from sniper.models.head_layers import RoiMap
from sniper.models.mask_head import mask_probabilities
from sniper.models.rpn_head import rpn_probabilities
from sniper.models.spec import DetectorSpec
from sniper.ops import multi_proposal


def inference_graph(
    spec: DetectorSpec, features: Features, *, rpn_only: bool, roi_map: bool
) -> mx.sym.Symbol:
    """All results of `spec`, in the order of 2018 (see `build_detector`)."""
    rpn = build_rpn(spec, features)
    im_info, im_ids = mx.sym.Variable("im_info"), mx.sym.Variable("im_ids")
    rois, roi_scores = multi_proposal(
        rpn_probabilities(rpn, spec.num_anchors),
        rpn.deltas,
        im_info,
        **proposal_arguments(spec),
        name="rois",
    )
    if rpn_only:
        return mx.sym.Group([rois, roi_scores, im_ids])
    pooled_from = build_roi_map(spec, features)
    head = build_roi_head(spec, pooled_from, rois)
    probabilities = mx.sym.SoftmaxActivation(head.scores, name="cls_prob")
    outputs = [
        rois,
        per_image(probabilities, spec, spec.num_classes, "cls_prob_reshape"),
        per_image(head.deltas, spec, 4, "bbox_pred_reshape"),
        im_ids,
    ]
    if spec.auto_focus:
        outputs.append(focus_probabilities(focus_head(features.heads, spec.roi_channels)))
    outputs += [im_info, mx.sym.Variable("chip_ids")]
    return mx.sym.Group([*outputs, pooled_from.features] if roi_map else outputs)


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
    scores = build_mask_scores(spec, roi_map, mx.sym.Variable("mask_rois"))
    return mask_probabilities(
        scores,
        mx.sym.Variable("mask_classes"),
        num_classes=spec.num_classes,
        mask_size=spec.mask_size,
    )
