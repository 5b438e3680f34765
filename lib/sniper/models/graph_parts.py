"""What the training and the test graph share: a spec turned into backbone and heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mxnet as mx

from sniper.models import mobilenetv2, resnet
from sniper.models.blocks import NormSettings
from sniper.models.head_layers import RoiMap
from sniper.models.mask_head import mask_head
from sniper.models.roi_head import RoiHead, roi_features, roi_head
from sniper.models.rpn_head import RpnHead, rpn_head
from sniper.models.spec import DetectorSpec


@dataclass(frozen=True)
class Features:
    """Feature maps (N, K, h, w) float32: what the RPN reads, and what all other heads read."""

    rpn: mx.sym.Symbol
    heads: mx.sym.Symbol


def build_features(data: mx.sym.Symbol, spec: DetectorSpec, *, train: bool) -> Features:
    """Feature maps of the backbone that `spec` names."""
    norm = NormSettings(spec.bn_momentum, frozen=spec.bn_mode == "frozen")
    traits = spec.traits
    if traits.backbone.resnet:
        maps = resnet.resnet_features(
            data, traits.backbone.resnet, norm, width=spec.width, fp16=spec.fp16
        )
        return Features(maps.stage3 if traits.heads.rpn_on_stage3 else maps.both, maps.both)
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
    features = mobilenetv2.mobilenetv2_features(data, options)
    return Features(features, features)


def build_rpn(spec: DetectorSpec, features: Features) -> RpnHead:
    """The RPN."""
    channels = spec.rpn_channels or spec.traits.backbone.rpn_channels
    return rpn_head(features.rpn, spec.num_anchors, channels)


def build_roi_map(spec: DetectorSpec, features: Features) -> RoiMap:
    """The map that all RoIs are pooled from."""
    channels = spec.roi_channels
    return RoiMap(roi_features(features.heads, channels), channels, spec.feature_stride)


def build_roi_head(spec: DetectorSpec, roi_map: RoiMap, rois: mx.sym.Symbol) -> RoiHead:
    """Classes and boxes of `rois` (R, 5)."""
    fc_channels = spec.fc_channels or spec.traits.backbone.fc_channels
    return roi_head(roi_map, rois, fc_channels=fc_channels, num_classes=spec.num_classes)


def build_mask_scores(
    spec: DetectorSpec, roi_map: RoiMap, mask_rois: mx.sym.Symbol
) -> mx.sym.Symbol:
    """Scores (R, 2K, mask_size, mask_size) of the mask head for `mask_rois` (R, 5)."""
    return mask_head(
        roi_map,
        mask_rois,
        mask_size=spec.mask_size,
        num_classes=spec.num_classes,
        fp16=spec.fp16,
    )


def proposal_arguments(spec: DetectorSpec) -> dict[str, Any]:
    """Arguments that all proposal operators take."""
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


def per_image(data: mx.sym.Symbol, spec: DetectorSpec, columns: int, name: str) -> mx.sym.Symbol:
    """(N*rois, columns) -> (N, rois, columns); any batch size fits."""
    shape = (-1, spec.proposal.post_nms_top_n, columns)
    return mx.sym.Reshape(data, shape=shape, name=name)
