"""From a description to the symbol of a whole detector: backbone, RPN head, RoI head, losses."""

from __future__ import annotations

import mxnet as mx

from sniper.models import heads, mobilenetv2, resnet
from sniper.models.blocks import NormSettings
from sniper.models.inputs import (
    data_names,
    inference_input_shapes,
    label_names,
    train_input_shapes,
)
from sniper.models.spec import DetectorSpec, ProposalSettings
from sniper.ops import multi_proposal, multi_proposal_target

__all__ = [
    "DetectorSpec",
    "ProposalSettings",
    "build_detector",
    "data_names",
    "inference_input_shapes",
    "label_names",
    "train_input_shapes",
]

# 2018 divided the box loss by 188 * 16 (ResNets, whatever the batch) or 188 * images (MobileNetV2).
BOX_LOSS_ROIS = 188
BOX_LOSS_IMAGES = 16

RESNETS = {
    "resnet_mx_101_e2e": resnet.RESNET_101,
    "resnet_mx_50_e2e": resnet.RESNET_50,
    "resnet_mx_18_e2e": resnet.RESNET_18,
}


def build_detector(spec: DetectorSpec, *, train: bool, rpn_only: bool = False) -> mx.sym.Symbol:
    """Symbol of a detector.

    Outputs in training: `rpn_cls_prob_output`, `rpn_bbox_loss_output`, and end to end also
    `cls_prob_reshape_output` (N, rois, C), `bbox_loss_reshape_output` (N, rois, 4) and the roi
    labels (N*rois,). At test: `rois_output` (N*rois, 5), `cls_prob_reshape_output`,
    `bbox_pred_reshape_output`, `im_ids`, `im_info`, `chip_ids`; RPN only: `rois_output`,
    `rois_score_output` (N*rois,), `im_ids`. The inputs are those of `data_names`, `label_names`.

    Args:
        spec: the network.
        train: with losses; otherwise with probabilities and boxes.
        rpn_only: without the RoI head.
    """
    features = build_features(mx.sym.Variable("data"), spec, train=train)
    rpn = heads.rpn_head(features, spec.num_anchors, spec.rpn_channels or spec.traits.rpn_channels)
    make_graph = _train_graph if train else _test_graph
    return make_graph(spec, features, rpn, rpn_only)


def build_features(data: mx.sym.Symbol, spec: DetectorSpec, *, train: bool) -> mx.sym.Symbol:
    """Feature map (N, K, h, w) float32 of the backbone that `spec` names."""
    norm = NormSettings(spec.bn_momentum, frozen=spec.bn_mode == "frozen")
    if spec.symbol in RESNETS:
        arch = RESNETS[spec.symbol]
        return resnet.resnet_features(data, arch, norm, width=spec.width, fp16=spec.fp16)
    options = mobilenetv2.MobileNetOptions(
        norm=norm,
        width=spec.width,
        activation=spec.activation,
        padding=spec.padding,
        stride=spec.feature_stride,
        dilate=spec.dilate,
        fp16=spec.fp16,
        train=train,
    )
    return mobilenetv2.mobilenetv2_features(data, options)


def _train_graph(
    spec: DetectorSpec,
    features: mx.sym.Symbol,
    rpn: heads.RpnHead,
    rpn_only: bool,
) -> mx.sym.Symbol:
    rpn_prob, rpn_box_loss = heads.rpn_losses(
        rpn,
        loss_scale=spec.loss_scale,
        batch_images=spec.batch_images,
        rpn_batch_size=spec.rpn_batch_size,
    )
    if rpn_only:
        return mx.sym.Group([rpn_prob, rpn_box_loss])
    roi_map = heads.roi_features(features, spec.roi_channels)
    rois, *targets = multi_proposal_target(
        rpn_prob,
        rpn.deltas,
        mx.sym.Variable("im_info"),
        mx.sym.Variable("gt_boxes"),
        mx.sym.Variable("valid_ranges"),
        **_proposal_arguments(spec),
        legacy_gt_centre=spec.legacy_gt_centre,
        legacy_areas=spec.legacy_areas,
        legacy_min_size=spec.legacy_min_size,
        name="multi_proposal_target",
    )
    head = _roi_head(spec, roi_map, rois)
    scales = _roi_loss_scales(spec)
    probabilities, box_loss, label = heads.roi_losses(head, tuple(targets), scales)
    return mx.sym.Group(
        [
            rpn_prob,
            rpn_box_loss,
            _per_image(probabilities, spec, spec.num_classes, "cls_prob_reshape"),
            _per_image(box_loss, spec, 4, "bbox_loss_reshape"),
            # In 2018 this output had no name of its own; this is what MXNet called it.
            mx.sym.BlockGrad(label, name="blockgrad0"),
        ]
    )


def _test_graph(
    spec: DetectorSpec,
    features: mx.sym.Symbol,
    rpn: heads.RpnHead,
    rpn_only: bool,
) -> mx.sym.Symbol:
    im_info, im_ids = mx.sym.Variable("im_info"), mx.sym.Variable("im_ids")
    rois, roi_scores = multi_proposal(
        heads.rpn_probabilities(rpn, spec.num_anchors),
        rpn.deltas,
        im_info,
        **_proposal_arguments(spec),
        name="rois",
    )
    if rpn_only:
        return mx.sym.Group([rois, roi_scores, im_ids])
    roi_map = heads.roi_features(features, spec.roi_channels)
    head = _roi_head(spec, roi_map, rois)
    probabilities = mx.sym.SoftmaxActivation(head.scores, name="cls_prob")
    return mx.sym.Group(
        [
            rois,
            _per_image(probabilities, spec, spec.num_classes, "cls_prob_reshape"),
            _per_image(head.deltas, spec, 4, "bbox_pred_reshape"),
            im_ids,
            im_info,
            mx.sym.Variable("chip_ids"),
        ]
    )


def _proposal_arguments(spec: DetectorSpec) -> dict:
    # Anchors are always passed: in 2018 the operators' defaults silently won over the config.
    return {
        "scales": spec.anchor_scales,
        "ratios": spec.anchor_ratios,
        "feature_stride": spec.feature_stride,
        "pre_nms_top_n": spec.proposal.pre_nms_top_n,
        "post_nms_top_n": spec.proposal.post_nms_top_n,
        "nms_thresh": spec.proposal.nms_thresh,
        "min_size": spec.proposal.min_size,
    }


def _roi_head(spec: DetectorSpec, roi_map: mx.sym.Symbol, rois: mx.sym.Symbol) -> heads.RoiHead:
    return heads.roi_head(
        roi_map,
        rois,
        feature_stride=spec.feature_stride,
        channels=spec.roi_channels,
        fc_channels=spec.fc_channels or spec.traits.fc_channels,
        num_classes=spec.num_classes,
    )


def _roi_loss_scales(spec: DetectorSpec) -> heads.RoiLossScales:
    rois = spec.proposal.post_nms_top_n * spec.batch_images
    mobile = spec.traits.mobile
    box_images = spec.batch_images if mobile else BOX_LOSS_IMAGES
    divisor = spec.bbox_loss_divisor or BOX_LOSS_ROIS * box_images
    return heads.RoiLossScales(
        cls=spec.loss_scale / rois if mobile else spec.loss_scale,
        normalise_valid=not mobile,
        box=spec.loss_scale / divisor,
    )


def _per_image(data: mx.sym.Symbol, spec: DetectorSpec, columns: int, name: str) -> mx.sym.Symbol:
    """(N*rois, columns) -> (N, rois, columns); any batch size fits."""
    shape = (-1, spec.proposal.post_nms_top_n, columns)
    return mx.sym.Reshape(data, shape=shape, name=name)
