"""Front of the proposal operator of inference: RPN maps in, regions of interest out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Optional

import mxnet as mx

from sniper.ops.checks import Tensor, frontend, integer, number, positives, require_tensor
from sniper.ops.library import load_library
from sniper.ops.wiring import blocked, named, named_outputs

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
    attributes = proposal_attributes(
        op, scales, ratios, feature_stride, pre_nms_top_n, post_nms_top_n, nms_thresh, min_size
    )
    anchors = len(attributes["scales"]) * len(attributes["ratios"])
    require_tensor(op, "bbox_pred", bbox_pred, (None, 4 * anchors, None, None))
    images, height, width = map_shape(bbox_pred)
    require_tensor(op, "cls_prob", cls_prob, (images, 2 * anchors, height, width))
    require_tensor(op, "im_info", im_info, (images, 3))
    load_library()
    inputs = blocked(front, cls_prob, bbox_pred, im_info)
    outputs = front.MultiProposal(*inputs, **attributes, **named(front, f"{name}_proposal"))
    return named_outputs(front, outputs, (name, f"{name}_score"))


def proposal_attributes(
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


def map_shape(bbox_pred: Tensor) -> tuple[Optional[int], Optional[int], Optional[int]]:
    """Images, height and width of a checked (N, 4A, h, w) map; None each for a Symbol."""
    if not isinstance(bbox_pred, mx.nd.NDArray):
        return None, None, None
    images, _, height, width = bbox_pred.shape
    return images, height, width
