"""Fronts of the proposal operators: RPN maps in, regions of interest (and targets) out."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import mxnet as mx

from sniper.ops.checks import Tensor, frontend, integer, number, positives, require_tensor
from sniper.ops.library import load_library

MAX_ROIS = 100000  # per image; more than any detector uses
MAX_BOX_SIDE_PX = 1e6


def multi_proposal(
    cls_prob: Tensor,
    bbox_pred: Tensor,
    im_info: Tensor,
    *,
    scales: Iterable[float],
    ratios: Iterable[float],
    feature_stride: int,
    pre_nms_top_n: int = 12000,
    post_nms_top_n: int = 300,
    nms_thresh: float = 0.7,
    min_size: float = 3,
    name: str = "rois",
) -> tuple[Tensor, Tensor]:
    """The best boxes of each image after NMS, with their scores (2018 "exact" mode; no gradient).

    Args:
        cls_prob: (N, 2A, h, w), channels A..2A are the foreground probabilities.
        bbox_pred: (N, 4A, h, w), channel 4 * anchor + (dx, dy, dw, dh).
        im_info: (N, 3), height and width in px (boxes are clipped to them), scale (unused).
        scales: anchor sides in units of the stride.
        ratios: height / width of the anchors; A = len(scales) * len(ratios).
        feature_stride: px per cell.
        pre_nms_top_n: best boxes that enter the NMS; -1 means all.
        post_nms_top_n: rows per image in the result.
        nms_thresh: a box is dropped when its IoU with a better one exceeds this.
        min_size: px; boxes with a shorter side (+1 convention) are dropped.
        name: names the symbol's outputs `<name>_output` and `<name>_score_output`.

    Returns:
        rois (N * post_nms_top_n, 5), rows image index, x1, y1, x2, y2 in px, grouped by image and
        best first, and scores (N * post_nms_top_n,). Ties go to the lower anchor index. Rows
        without a proposal hold the image index, a zero box and score 0. Scores or deltas that are
        not finite give no proposal.

    Raises:
        OpsError: a tensor or an argument is wrong, or the library is missing.
    """
    op = "multi_proposal"
    front = frontend(op, cls_prob=cls_prob, bbox_pred=bbox_pred, im_info=im_info)
    attributes = _attributes(
        op, scales, ratios, feature_stride, pre_nms_top_n, post_nms_top_n, nms_thresh, min_size
    )
    anchors = len(attributes["scales"]) * len(attributes["ratios"])
    require_tensor(op, "cls_prob", cls_prob, (None, 2 * anchors, None, None))
    require_tensor(op, "bbox_pred", bbox_pred, (None, 4 * anchors, None, None))
    require_tensor(op, "im_info", im_info, (None, 3))
    load_library()
    inputs = _blocked(front, cls_prob, bbox_pred, im_info)
    outputs = front.MultiProposal(*inputs, **attributes, **_named(front, f"{name}_proposal"))
    return _outputs(front, outputs, (name, f"{name}_score"))


def multi_proposal_target(
    cls_prob: Tensor,
    bbox_pred: Tensor,
    im_info: Tensor,
    gt_boxes: Tensor,
    valid_ranges: Tensor,
    *,
    scales: Iterable[float],
    ratios: Iterable[float],
    feature_stride: int,
    pre_nms_top_n: int = -1,
    post_nms_top_n: int = 300,
    nms_thresh: float = 0.7,
    min_size: float = 3,
    legacy_gt_centre: bool = True,
    name: str = "multi_proposal_target",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training proposals inside the valid range, labelled, with box targets (no gradient).

    2018 GPU behaviour: the areas of NMS and labels have no +1 while the intersection has; only
    boxes short on both sides are dropped; GT boxes inside the valid range take the last rows.

    Args:
        cls_prob: (N, 2, A * h, w), plane 1 is the foreground probability.
        bbox_pred: (N, 4A, h, w).
        im_info: (N, 3), height and width in px.
        gt_boxes: (N, rows, 5), x1, y1, x2, y2 in px and class; unused rows have class -1.
        valid_ranges: (N, 2), limits of sqrt(area) in px: low <= sqrt(area) < high.
        scales: anchor sides in units of the stride.
        ratios: height / width of the anchors.
        feature_stride: px per cell.
        pre_nms_top_n: best boxes that enter the NMS; -1 means all.
        post_nms_top_n: rows per image in the result.
        nms_thresh: a box is dropped when its overlap with a better one exceeds this.
        min_size: px.
        legacy_gt_centre: True puts the GT centre half a pixel too far right and down, as in 2018.
        name: names the symbol's outputs `<name>_rois_output`, `<name>_label_output`,
            `<name>_bbox_target_output` and `<name>_bbox_weight_output`.

    Returns:
        rois (N * post, 5), label (N * post, 1) with 0 for background, bbox_target (N * post, 4)
        divided by the standard deviations (.1, .1, .2, .2), bbox_weight (N * post, 4). Rows that
        no proposal fills hold a deterministic 200 px box. Without GT every label is 0.

    Raises:
        OpsError: a tensor or an argument is wrong, or the library is missing.
    """
    op = "multi_proposal_target"
    tensors = {
        "cls_prob": cls_prob,
        "bbox_pred": bbox_pred,
        "im_info": im_info,
        "gt_boxes": gt_boxes,
        "valid_ranges": valid_ranges,
    }
    front = frontend(op, **tensors)
    attributes = _attributes(
        op, scales, ratios, feature_stride, pre_nms_top_n, post_nms_top_n, nms_thresh, min_size
    )
    anchors = len(attributes["scales"]) * len(attributes["ratios"])
    shapes = {
        "cls_prob": (None, 2, None, None),
        "bbox_pred": (None, 4 * anchors, None, None),
        "im_info": (None, 3),
        "gt_boxes": (None, None, 5),
        "valid_ranges": (None, 2),
    }
    for tensor_name, tensor in tensors.items():
        require_tensor(op, tensor_name, tensor, shapes[tensor_name])
    load_library()
    outputs = front.MultiProposalTarget(
        *_blocked(front, *tensors.values()),
        **attributes,
        legacy_gt_centre=bool(legacy_gt_centre),
        **_named(front, name),
    )
    suffixes = ("rois", "label", "bbox_target", "bbox_weight")
    return _outputs(front, outputs, tuple(f"{name}_{suffix}" for suffix in suffixes))


def _attributes(
    op: str,
    scales: Iterable[float],
    ratios: Iterable[float],
    feature_stride: int,
    pre_nms_top_n: int,
    post_nms_top_n: int,
    nms_thresh: float,
    min_size: float,
) -> dict[str, Any]:
    """Checked attributes under the operators' names, which are those of 2018."""
    return {
        "scales": positives(op, "scales", scales),
        "ratios": positives(op, "ratios", ratios),
        "feature_stride": integer(op, "feature_stride", feature_stride, 1, 4096),
        "rpn_pre_nms_top_n": integer(op, "pre_nms_top_n", pre_nms_top_n, -1),
        "rpn_post_nms_top_n": integer(op, "post_nms_top_n", post_nms_top_n, 1, MAX_ROIS),
        "threshold": number(op, "nms_thresh", nms_thresh, 0, 1),
        "rpn_min_size": number(op, "min_size", min_size, 0, MAX_BOX_SIDE_PX),
    }


def _blocked(front: ModuleType, *tensors: Tensor) -> list[Tensor]:
    """The inputs without gradient flow: the operators are never told to add instead of write."""
    return [front.BlockGrad(tensor) for tensor in tensors]


def _named(front: ModuleType, name: str) -> dict[str, str]:
    """The name argument, which only symbols take."""
    return {"name": name} if front is mx.sym else {}


def _outputs(front: ModuleType, outputs: Any, names: tuple[str, ...]) -> tuple[Tensor, ...]:
    """The outputs as a tuple; in a graph each under its own name (extension outputs have none)."""
    if front is not mx.sym:
        return tuple(outputs)
    return tuple(front.identity(outputs[i], name=name) for i, name in enumerate(names))
