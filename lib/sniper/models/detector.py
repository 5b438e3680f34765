"""From a description to the symbol of a whole detector: backbone, RPN, heads, losses."""

from __future__ import annotations

from collections.abc import Iterable

import mxnet as mx

from sniper.errors import ConfigError
from sniper.models.graph_parts import build_features
from sniper.models.inference_graph import build_mask_head, inference_graph
from sniper.models.spec import (
    DetectorSpec,
    ProposalSettings,
    data_names,
    inference_input_shapes,
    label_names,
    train_input_shapes,
)
from sniper.models.train_graph import MASK_TARGETS, ROI_LABEL, train_graph

__all__ = [
    "DetectorSpec",
    "ProposalSettings",
    "build_detector",
    "build_mask_head",
    "data_names",
    "inference_input_shapes",
    "label_names",
    "short_output_names",
    "train_input_shapes",
]

OUTPUT_SUFFIX = "_output"
MEANINGS = {ROI_LABEL: "roi_label", MASK_TARGETS: "mask_targets"}


def build_detector(
    spec: DetectorSpec, *, train: bool, rpn_only: bool = False, roi_map: bool = False
) -> mx.sym.Symbol:
    """Symbol of a detector.

    Outputs in training, with shapes for N images, R rois per image and C classes:
    `rpn_cls_prob_output`, `rpn_bbox_loss_output`; end to end also [`cls_scale_prob_output`
    (N, 2, h*w) with `spec.auto_focus`], `cls_prob_reshape_output` (N, R, C),
    `bbox_loss_reshape_output` (N, R, 4), the roi labels (N*R,), and [`mask_cls_prob_output`
    (N*max_masks, 2, m, m), the mask targets (N*max_masks, m, m) with `spec.with_masks`].

    At test: `rois_output` (N*R, 5), `cls_prob_reshape_output`, `bbox_pred_reshape_output`,
    `im_ids`, [`scale_prob_output` (N, 2, h, w) with `spec.auto_focus`], `im_info`, `chip_ids`,
    [`conv_new_1_relu_output` (N, roi_channels, h, w) with `roi_map`]; RPN only: `rois_output`,
    `rois_score_output` (N*R,), `im_ids`.

    The inputs are those of `data_names` and `label_names`.

    Args:
        spec: the network.
        train: with losses; otherwise with probabilities and boxes.
        rpn_only: without the other heads, and without layers that only they need.
        roi_map: at test, the map that `build_mask_head` reads is an output as well.

    Raises:
        ConfigError: `roi_map` is asked for where there is none.
    """
    if roi_map and (train or rpn_only):
        raise ConfigError("only the test graph of a whole detector puts out its RoI map")
    features = build_features(mx.sym.Variable("data"), spec, train=train)
    if train:
        return train_graph(spec, features, rpn_only=rpn_only)
    return inference_graph(spec, features, rpn_only=rpn_only, roi_map=roi_map)


def short_output_names(names: Iterable[str]) -> list[str]:
    """Output names without `_output`; `roi_label` and `mask_targets` for those without a name."""
    short = [name.removesuffix(OUTPUT_SUFFIX) for name in names]
    return [MEANINGS.get(name, name) for name in short]
