"""Front of the operator that makes training targets of anchors, with hard example mining."""

from __future__ import annotations

from collections.abc import Iterable

from sniper.ops.checks import Tensor, blocked, call, frontend, named_outputs

SUFFIXES = ("label", "bbox_target", "bbox_weight", "count")


def anchor_mining_target(
    cls_prob: Tensor,
    im_info: Tensor,
    gt_boxes: Tensor,
    ignore_boxes: Tensor | None = None,
    *,
    scales: Iterable[float],
    feature_stride: int,
    ratios: Iterable[float] = (1,),
    base_size: int = 16,
    border: float = 0,
    batch_size: int = 256,
    fg_fraction: float = 0.25,
    positive_overlap: float = 0.5,
    negative_overlap: float = 0.3,
    ignore_overlap: float = 0.3,
    name: str = "anchor_mining_target",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the anchors of one detection module are trained on (no gradient).

    SSH (Najibi et al. 2017, sections 3.3 and 3.4), in every image for itself: the positives that
    `cls_prob` takes for objects least are kept, and the negatives that it takes for objects most.
    Ties go to the lower anchor index, and NaN counts as 0.
    `sniper.targets.mining_reference` is the same to be read.

    Args:
        cls_prob: (N, 2, A * h, w), plane 1 is the probability of an object, of this forward pass.
        im_info: (N, 3), height and width in px.
        gt_boxes: (N, rows, 5), x1, y1, x2, y2 in px and class; unused rows have class -1. Rows that
            are not finite, lie beyond 1e9 px or have no area are not used either. The class does
            not matter otherwise.
        ignore_boxes: (N, any, 5) like `gt_boxes`: objects that nothing is to be learned from here.
        scales: anchor sides in units of `base_size`.
        feature_stride: px per cell.
        ratios: height / width of the anchors; A = len(scales) * len(ratios).
        base_size: px. Anchors of the cell (0, 0) are centred on (base_size - 1) / 2, at any stride.
        border: px that a trained anchor may stick out of its image. An image in which no anchor is
            inside is trained on all.
        batch_size: anchors that are trained in each image, at most.
        fg_fraction: share of them that may be positive.
        positive_overlap: IoU with an object from which on an anchor is positive. Objects that no
            anchor overlaps by so much have none.
        negative_overlap: IoU with every object below which an anchor is negative.
        ignore_overlap: an anchor that overlaps one of `ignore_boxes` by more than this IoU is not
            trained, whatever else it matches.
        name: names the symbol's outputs `<name>_label_output`, `<name>_bbox_target_output`,
            `<name>_bbox_weight_output` and `<name>_count_output`.

    Returns:
        label (N, A * h * w), 1, 0, or -1 for anchors that are not trained, in the order of
        `cls_prob`; bbox_target (N, 4A, h, w), channels 4 * anchor + (dx, dy, dw, dh), without a
        standard deviation, with centres at x1 + (x2 - x1 + 1) / 2; bbox_weight of the same shape,
        on positive anchors 1 / (anchors of this image that are trained), so that the summed box
        loss of an image is divided by them (the mean over the images is left to the loss); count
        (N, 2): positive anchors, and all that are trained.

    Raises:
        OpsError: a tensor or an argument is wrong, or the library is missing.
    """
    op = "anchor_mining_target"
    tensors = {"cls_prob": cls_prob, "im_info": im_info, "gt_boxes": gt_boxes}
    if ignore_boxes is not None:
        tensors["ignore_boxes"] = ignore_boxes
    front = frontend(op, **tensors)
    arguments = {
        "scales": scales,
        "feature_stride": feature_stride,
        "ratios": ratios,
        "base_size": base_size,
        "border": border,
        "batch_size": batch_size,
        "fg_fraction": fg_fraction,
        "positive_overlap": positive_overlap,
        "negative_overlap": negative_overlap,
        "ignore_overlap": ignore_overlap,
        "with_ignore": ignore_boxes is not None,
    }
    inputs = blocked(front, *tensors.values())
    outputs = call(op, front, "AnchorMiningTarget", inputs, arguments, name=name)
    label, target, weight, count = named_outputs(front, outputs, [f"{name}_{s}" for s in SUFFIXES])
    return label, target, weight, count
