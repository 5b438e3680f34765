"""Fronts of the proposal operators of training: RPN maps and ground truth in, targets out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sniper.ops.checks import Tensor, blocked, call, frontend, named_outputs
from sniper.ops.proposals import PROPOSAL_ATTRIBUTES

CROWD_IOA = 0.9  # 2018, Open Images
FINE_ATTRIBUTES = {**PROPOSAL_ATTRIBUTES, "max_fine": "max_masks"}
SUFFIXES = ("rois", "label", "bbox_target", "bbox_weight")
MASK_SUFFIXES = (*SUFFIXES, "mask_rois", "mask_ids")
FINE_SUFFIXES = (*SUFFIXES, "fine_rois", "fine_label")


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
    legacy_areas: bool = True,
    legacy_min_size: bool = True,
    crowd_boxes: Tensor | None = None,
    crowd_ioa: float = CROWD_IOA,
    soft_sampling: Sequence[float] | None = None,
    name: str = "multi_proposal_target",
) -> tuple[Tensor, ...]:
    """Training proposals inside the valid range, labelled, with box targets (no gradient).

    2018 GPU behaviour by default; GT boxes inside the valid range take the last rows.

    Args:
        cls_prob: (N, 2, A * h, w), plane 1 is the foreground probability.
        bbox_pred: (N, 4A, h, w).
        im_info: (N, 3), height and width in px.
        gt_boxes: (N, rows, 5), x1, y1, x2, y2 in px and class; unused rows have class -1. Rows that
            are not finite or lie beyond 1e9 px are not used either.
        valid_ranges: (N, 2), limits of sqrt(area) in px: low <= sqrt(area) < high.
        scales: anchor sides in units of the stride.
        ratios: height / width of the anchors.
        feature_stride: px per cell.
        pre_nms_top_n: best boxes that enter the NMS; -1 means all.
        post_nms_top_n: rows per image in the result.
        nms_thresh: a box is dropped when its overlap with a better one exceeds this.
        min_size: px.
        legacy_gt_centre: True puts the GT centre half a pixel too far right and down, as in 2018.
        legacy_areas: True leaves the +1 that the sides of an intersection have out of the areas (of
            NMS and labels), so that small boxes overlap too much, as in 2018.
        legacy_min_size: True drops only boxes with both sides (without +1) below `min_size`, as in
            2018; False drops boxes with either side (with +1) below it, like `multi_proposal`.
        crowd_boxes: (N, any, 5), like `gt_boxes`: regions of many objects that are not annotated
            one by one. A roi that no GT matches is ignored there (label -1).
        crowd_ioa: share of the roi's area that must lie in a region: more than this.
        soft_sampling: (a, b, c): how much a roi counts, by its largest overlap o with a GT, is one
            more result: 1 for o >= 0.5, else a + (1 - a) exp(-b exp(-c o)), so that background far
            from every object, which may be an object without annotation, counts a (Soft Sampling,
            Wu et al. 2019; theirs are 0.25, 50, 20).
        name: names the symbol's outputs `<name>_rois_output`, `<name>_label_output`,
            `<name>_bbox_target_output` and `<name>_bbox_weight_output`, and with `soft_sampling`
            `<name>_label_weight_output`.

    Returns:
        rois (N * post, 5), label (N * post, 1) with 0 for background, bbox_target (N * post, 4)
        divided by the standard deviations (.1, .1, .2, .2), bbox_weight (N * post, 4); with
        `soft_sampling` also label_weight (N * post, 1). Rows that no proposal fills hold a
        deterministic 200 px box. Without GT every label is 0.

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
        "crowd_boxes": crowd_boxes,
    }
    arguments = {
        "scales": scales,
        "ratios": ratios,
        "feature_stride": feature_stride,
        "pre_nms_top_n": pre_nms_top_n,
        "post_nms_top_n": post_nms_top_n,
        "nms_thresh": nms_thresh,
        "min_size": min_size,
        "legacy_gt_centre": legacy_gt_centre,
        "legacy_areas": legacy_areas,
        "legacy_min_size": legacy_min_size,
        "crowd_ioa": crowd_ioa,
        "soft_sampling": soft_sampling,
    }
    return _target(op, "MultiProposalTarget", tensors, arguments, name, SUFFIXES)


def multi_proposal_target_mask(
    cls_prob: Tensor,
    bbox_pred: Tensor,
    im_info: Tensor,
    gt_boxes: Tensor,
    valid_ranges: Tensor,
    *,
    scales: Iterable[float],
    ratios: Iterable[float],
    feature_stride: int,
    pre_nms_top_n: int = 6000,
    post_nms_top_n: int = 300,
    nms_thresh: float = 0.7,
    min_size: float = 3,
    max_masks: int = 50,
    legacy_gt_centre: bool = True,
    legacy_areas: bool = True,
    legacy_min_size: bool = True,
    crowd_boxes: Tensor | None = None,
    crowd_ioa: float = CROWD_IOA,
    soft_sampling: Sequence[float] | None = None,
    name: str = "multi_proposal_target_mask",
) -> tuple[Tensor, ...]:
    """`multi_proposal_target` plus the positive rois that the mask head trains on (no gradient).

    2018 GPU behaviour, which differs from `multi_proposal_target` in details: GT j takes row
    post - 1 - j of its image, a GT as large as the upper end of the valid range does not join the
    proposals, and the boxes in rows without a proposal are the same for every image.

    Args:
        cls_prob: as for `multi_proposal_target`, like all arguments that are not listed here.
        bbox_pred: (N, 4A, h, w).
        im_info: (N, 3).
        gt_boxes: (N, rows, 5).
        valid_ranges: (N, 2).
        scales: anchor sides in units of the stride.
        ratios: height / width of the anchors.
        feature_stride: px per cell.
        pre_nms_top_n: best boxes that enter the NMS; -1 means all.
        post_nms_top_n: rows per image in the first four results.
        nms_thresh: a box is dropped when its overlap with a better one exceeds this.
        min_size: px.
        max_masks: rows per image in the last two results. The batch shares them: they are filled in
            the order of the rois, so that late images get none when early ones have many positives.
        legacy_gt_centre: as for `multi_proposal_target`.
        legacy_areas: as for `multi_proposal_target`.
        legacy_min_size: as for `multi_proposal_target`.
        crowd_boxes: as for `multi_proposal_target`.
        crowd_ioa: as for `multi_proposal_target`.
        soft_sampling: as for `multi_proposal_target`.
        name: names the symbol's outputs `<name>_rois_output`, `<name>_label_output`,
            `<name>_bbox_target_output`, `<name>_bbox_weight_output`, `<name>_mask_rois_output` and
            `<name>_mask_ids_output`.

    Returns:
        rois, label, bbox_target and bbox_weight of `multi_proposal_target`; mask_rois
        (N * max_masks, 5), copies of rois with a label above 0; mask_ids (N * max_masks, 1), the
        rows of `gt_boxes` that gave the labels, -1 in rows that no roi fills; with `soft_sampling`
        also label_weight.

    Raises:
        OpsError: a tensor or an argument is wrong, or the library is missing.
    """
    op = "multi_proposal_target_mask"
    tensors = {
        "cls_prob": cls_prob,
        "bbox_pred": bbox_pred,
        "im_info": im_info,
        "gt_boxes": gt_boxes,
        "valid_ranges": valid_ranges,
        "crowd_boxes": crowd_boxes,
    }
    arguments = {
        "scales": scales,
        "ratios": ratios,
        "feature_stride": feature_stride,
        "pre_nms_top_n": pre_nms_top_n,
        "post_nms_top_n": post_nms_top_n,
        "nms_thresh": nms_thresh,
        "min_size": min_size,
        "legacy_gt_centre": legacy_gt_centre,
        "legacy_areas": legacy_areas,
        "legacy_min_size": legacy_min_size,
        "max_masks": max_masks,
        "crowd_ioa": crowd_ioa,
        "soft_sampling": soft_sampling,
    }
    return _target(op, "MultiProposalTargetMask", tensors, arguments, name, MASK_SUFFIXES)


def multi_proposal_target_fine(
    cls_prob: Tensor,
    bbox_pred: Tensor,
    im_info: Tensor,
    gt_boxes: Tensor,
    valid_ranges: Tensor,
    *,
    super_of: Iterable[int],
    scales: Iterable[float],
    ratios: Iterable[float],
    feature_stride: int,
    pre_nms_top_n: int = 6000,
    post_nms_top_n: int = 300,
    nms_thresh: float = 0.7,
    min_size: float = 3,
    max_fine: int = 50,
    legacy_cap: bool = False,
    legacy_gt_centre: bool = True,
    legacy_areas: bool = True,
    legacy_min_size: bool = True,
    crowd_boxes: Tensor | None = None,
    crowd_ioa: float = CROWD_IOA,
    soft_sampling: Sequence[float] | None = None,
    name: str = "multi_proposal_target_fine",
) -> tuple[Tensor, ...]:
    """Targets of a detector that finds objects first and tells their classes apart afterwards.

    R-FCN-3000 (Singh et al. 2018, sections 3.1 and 3.2): labels are super-classes, and the positive
    rois come once more with their classes. Boxes and labels are made as those of
    `multi_proposal_target_mask` (no gradient).

    Args:
        cls_prob: as for `multi_proposal_target`, like all arguments that are not listed here.
        bbox_pred: (N, 4A, h, w).
        im_info: (N, 3).
        gt_boxes: (N, rows, 5) with the classes 1 to len(super_of). Rows with another class are not
            used: whoever makes the table checks that it has every class of the data.
        valid_ranges: (N, 2).
        super_of: super-class, from 1, of the classes 1, 2, ... All ones: "an object".
        scales: anchor sides in units of the stride.
        ratios: height / width of the anchors.
        feature_stride: px per cell.
        pre_nms_top_n: best boxes that enter the NMS; -1 means all.
        post_nms_top_n: rows per image in the first four results.
        nms_thresh: a box is dropped when its overlap with a better one exceeds this.
        min_size: px.
        max_fine: rows per image in the last two results.
        legacy_cap: True lets the batch share these rows, as in 2018: late images get none when
            early ones have many positives. False: every image has rows of its own.
        legacy_gt_centre: as for `multi_proposal_target`.
        legacy_areas: as for `multi_proposal_target`.
        legacy_min_size: as for `multi_proposal_target`.
        crowd_boxes: as for `multi_proposal_target`.
        crowd_ioa: as for `multi_proposal_target`.
        soft_sampling: as for `multi_proposal_target`.
        name: names the symbol's outputs `<name>_rois_output`, `<name>_label_output`,
            `<name>_bbox_target_output`, `<name>_bbox_weight_output`, `<name>_fine_rois_output` and
            `<name>_fine_label_output`.

    Returns:
        rois, label (N * post, 1), bbox_target and bbox_weight of `multi_proposal_target`, the label
        being a super-class or 0; fine_rois (N * max_fine, 5), copies of the positive rois in their
        order, and fine_label (N * max_fine, 1), their classes counted from 0. Rows that no roi
        fills have the label -1 and a box of 100 px in an image of the batch: their own, or with
        `legacy_cap` any. With `soft_sampling` also label_weight.

    Raises:
        OpsError: a tensor or an argument is wrong, or the library is missing.
    """
    op = "multi_proposal_target_fine"
    tensors = {
        "cls_prob": cls_prob,
        "bbox_pred": bbox_pred,
        "im_info": im_info,
        "gt_boxes": gt_boxes,
        "valid_ranges": valid_ranges,
        "crowd_boxes": crowd_boxes,
    }
    arguments = {
        "label_mode": "super_class",
        "super_of": super_of,
        "scales": scales,
        "ratios": ratios,
        "feature_stride": feature_stride,
        "pre_nms_top_n": pre_nms_top_n,
        "post_nms_top_n": post_nms_top_n,
        "nms_thresh": nms_thresh,
        "min_size": min_size,
        "max_fine": max_fine,
        "legacy_cap": legacy_cap,
        "legacy_gt_centre": legacy_gt_centre,
        "legacy_areas": legacy_areas,
        "legacy_min_size": legacy_min_size,
        "crowd_ioa": crowd_ioa,
        "soft_sampling": soft_sampling,
    }
    return _target(
        op, "MultiProposalTargetMask", tensors, arguments, name, FINE_SUFFIXES, FINE_ATTRIBUTES
    )


def _target(
    op: str,
    operator: str,
    tensors: dict[str, Tensor | None],
    arguments: dict[str, Any],
    name: str,
    suffixes: Sequence[str],
    attributes: Mapping[str, str] = PROPOSAL_ATTRIBUTES,
) -> tuple[Tensor, ...]:
    given = {label: tensor for label, tensor in tensors.items() if tensor is not None}
    # Graphs without these options are those of 2018, attribute by attribute.
    arguments = dict(arguments)
    if "crowd_boxes" in given:
        arguments["with_crowd"] = True
    elif arguments["crowd_ioa"] == CROWD_IOA:
        del arguments["crowd_ioa"]
    if arguments["soft_sampling"] is None:
        del arguments["soft_sampling"]
    else:
        suffixes = (*suffixes, "label_weight")
    front = frontend(op, **given)
    inputs = blocked(front, *given.values())
    outputs = call(op, front, operator, inputs, arguments, name=name, attributes=attributes)
    return named_outputs(front, outputs, [f"{name}_{suffix}" for suffix in suffixes])
