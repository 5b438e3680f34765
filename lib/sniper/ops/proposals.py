"""Front of the proposal operator of inference: RPN maps in, regions of interest out."""

from __future__ import annotations

from collections.abc import Iterable

from sniper.ops.checks import Tensor, blocked, call, frontend, named_outputs

# The operators' names of the arguments are those of 2018.
PROPOSAL_ATTRIBUTES = {
    "pre_nms_top_n": "rpn_pre_nms_top_n",
    "post_nms_top_n": "rpn_post_nms_top_n",
    "nms_thresh": "threshold",
    "min_size": "rpn_min_size",
}


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
    arguments = {
        "scales": scales,
        "ratios": ratios,
        "feature_stride": feature_stride,
        "pre_nms_top_n": pre_nms_top_n,
        "post_nms_top_n": post_nms_top_n,
        "nms_thresh": nms_thresh,
        "min_size": min_size,
    }
    inputs = blocked(front, cls_prob, bbox_pred, im_info)
    outputs = call(
        op, front, "MultiProposal", inputs, arguments, name=f"{name}_proposal",
        attributes=PROPOSAL_ATTRIBUTES,
    )  # fmt: skip
    rois, scores = named_outputs(front, outputs, (name, f"{name}_score"))
    return rois, scores
