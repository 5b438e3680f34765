"""The training graph: losses of the RPN, the RoI head and, where asked for, focus and masks."""

from __future__ import annotations

import mxnet as mx

from sniper.models.focus_head import focus_head, focus_loss
from sniper.models.graph_parts import (
    Features,
    build_mask_scores,
    build_roi_head,
    build_roi_map,
    build_rpn,
    per_image,
    proposal_arguments,
)
from sniper.models.mask_head import mask_loss
from sniper.models.roi_head import RoiLossScales, roi_losses
from sniper.models.rpn_head import rpn_losses
from sniper.models.spec import DetectorSpec
from sniper.ops import mask_rcnn_target, multi_proposal_target, multi_proposal_target_mask

# 2018 divided the box loss by 188 * 16 (ResNets, whatever the batch) or 188 * images (MobileNetV2).
BOX_LOSS_ROIS = 188
BOX_LOSS_IMAGES = 16
# In 2018 these two outputs had no names of their own; this is what MXNet called them.
ROI_LABEL = "blockgrad0"
MASK_TARGETS = "blockgrad1"


def train_graph(spec: DetectorSpec, features: Features, *, rpn_only: bool) -> mx.sym.Symbol:
    """All losses of `spec`, in the order of 2018 (see `build_detector`)."""
    rpn = build_rpn(spec, features)
    rpn_prob, rpn_box_loss = rpn_losses(
        rpn,
        loss_scale=spec.loss_scale,
        batch_images=spec.batch_images,
        rpn_batch_size=spec.rpn_batch_size,
    )
    outputs = [rpn_prob, rpn_box_loss]
    if rpn_only:
        return mx.sym.Group(outputs)
    if spec.auto_focus:
        scores = focus_head(features.heads, spec.roi_channels)
        outputs.append(focus_loss(scores, spec.loss_scale))
    roi_map = build_roi_map(spec, features)
    rois, label, box_target, box_weight, *mask_rois = _proposal_targets(spec, rpn_prob, rpn.deltas)
    head = build_roi_head(spec, roi_map, rois)
    targets = (label, box_target, box_weight)
    probabilities, box_loss, label = roi_losses(head, targets, _roi_loss_scales(spec))
    outputs += [
        per_image(probabilities, spec, spec.num_classes, "cls_prob_reshape"),
        per_image(box_loss, spec, 4, "bbox_loss_reshape"),
        mx.sym.BlockGrad(label, name=ROI_LABEL),
    ]
    if spec.with_masks:
        scores = build_mask_scores(spec, roi_map, mask_rois[0])
        outputs += _mask_losses(spec, scores, *mask_rois)
    return mx.sym.Group(outputs)


def _proposal_targets(
    spec: DetectorSpec, rpn_prob: mx.sym.Symbol, deltas: mx.sym.Symbol
) -> tuple[mx.sym.Symbol, ...]:
    """Rois, labels, box targets, box weights; with masks also their rois and ground-truth rows."""
    names = ("im_info", "gt_boxes", "valid_ranges")
    inputs = (rpn_prob, deltas, *map(mx.sym.Variable, names))
    arguments = {
        **proposal_arguments(spec),
        "legacy_gt_centre": spec.legacy_gt_centre,
        "legacy_areas": spec.legacy_areas,
        "legacy_min_size": spec.legacy_min_size,
    }
    if spec.with_masks:
        return multi_proposal_target_mask(*inputs, **arguments, max_masks=spec.max_masks)
    return multi_proposal_target(*inputs, **arguments)


def _mask_losses(
    spec: DetectorSpec, scores: mx.sym.Symbol, rois: mx.sym.Symbol, rows: mx.sym.Symbol
) -> list[mx.sym.Symbol]:
    polygons = mx.sym.Variable("gt_masks")
    targets, classes = mask_rcnn_target(rois, polygons, rows, mask_size=spec.mask_size)
    probabilities = mask_loss(
        scores, classes, targets, num_classes=spec.num_classes, loss_scale=spec.loss_scale
    )
    return [probabilities, mx.sym.BlockGrad(targets, name=MASK_TARGETS)]


def _roi_loss_scales(spec: DetectorSpec) -> RoiLossScales:
    rois = spec.proposal.post_nms_top_n * spec.batch_images
    mobile = spec.traits.backbone.mobile
    box_images = spec.batch_images if mobile else BOX_LOSS_IMAGES
    divisor = spec.bbox_loss_divisor or BOX_LOSS_ROIS * box_images
    return RoiLossScales(
        cls=spec.loss_scale / rois if mobile else spec.loss_scale,
        normalise_valid=not mobile,
        box=spec.loss_scale / divisor,
    )
