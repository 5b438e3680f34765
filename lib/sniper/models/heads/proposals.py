"""From the RPN's outputs to regions of interest (RoIs), with labels and box targets in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sniper.models.lazy import mx, ops
from sniper.models.parts import Arrays, Graph, Head, Sums, WindowDetections, WindowOutputs
from sniper.targets.gt import GtLabels

if TYPE_CHECKING:
    from sniper.models.spec import DetectorSpec


ROI_WEIGHT = "roi_weight"


@dataclass(frozen=True)
class Rois:
    """What is left in `Graph.made` for the heads of RoIs; R is images * post_nms_top_n.

    Args:
        rois: (R, 5) image index and box, px of the network's input.
        label: (R, 1) class, in training.
        box_target: (R, 4), in training.
        box_weight: (R, 4), in training.
        weight: (R, 1) factor on the gradient of each RoI's class loss; None is 1.
        more: other targets by name, such as a second label of each RoI.
    """

    rois: mx.sym.Symbol
    label: mx.sym.Symbol | None = None
    box_target: mx.sym.Symbol | None = None
    box_weight: mx.sym.Symbol | None = None
    weight: mx.sym.Symbol | None = None
    more: Mapping[str, mx.sym.Symbol] = field(default_factory=dict)


@dataclass(frozen=True)
class MaskRois:
    """RoIs (R, 5) that the mask head trains on, and (R,) their rows of `gt_masks`."""

    rois: mx.sym.Symbol
    rows: mx.sym.Symbol


@dataclass(frozen=True)
class FineRois:
    """Positive RoIs (N*fine.rois, 5), and their fine labels: class - 1, or -1 for a filler."""

    rois: mx.sym.Symbol
    label: mx.sym.Symbol


@dataclass(frozen=True)
class Proposals(Head):
    """Decodes the RPN's boxes, suppresses duplicates and, in training, labels what is left."""

    in_rpn_test = True
    needs = ("rpn",)
    layers: ClassVar = {}

    def labels(self, spec: DetectorSpec, chip_size: int) -> GtLabels:
        """The ground truth, and the sizes that the chip's level is responsible for."""
        crowd_rows = spec.max_crowd if spec.crowd_ioa else 0
        return GtLabels(chip_size, spec.max_gt, spec.targets.valid_ranges, crowd_rows)

    def losses(self, graph: Graph) -> list[mx.sym.Symbol]:
        """None: the targets go to the heads of RoIs."""
        spec, rpn = graph.spec, graph.get("rpn")
        inputs = (
            rpn.probabilities,
            rpn.deltas,
            *map(graph.input, ("im_info", "gt_boxes", "valid_ranges")),
        )
        arguments = {
            **_arguments(spec),
            "legacy_gt_centre": spec.legacy_gt_centre,
            "legacy_areas": spec.legacy_areas,
            "legacy_min_size": spec.legacy_min_size,
            "soft_sampling": spec.soft_sampling,
        }
        if spec.crowd_ioa:
            arguments["crowd_boxes"] = graph.input("crowd_boxes")
            arguments["crowd_ioa"] = spec.crowd_ioa
        if graph.is_needed("fine_rois"):
            outputs = ops.multi_proposal_target_fine(
                *inputs,
                **arguments,
                super_of=spec.super_of,
                max_fine=spec.fine.rois,
                legacy_cap=spec.fine.legacy_cap,
            )
            graph.made["fine_rois"] = FineRois(*outputs[4:6])
        elif graph.is_needed("mask_rois"):
            outputs = ops.multi_proposal_target_mask(*inputs, **arguments, max_masks=spec.max_masks)
            graph.made["mask_rois"] = MaskRois(*outputs[4:6])
        else:
            outputs = ops.multi_proposal_target(*inputs, **arguments)
        rois, label, box_target, box_weight, *_ = outputs
        weight = outputs[-1] if spec.soft_sampling else None
        graph.made["rois"] = Rois(rois, label, box_target, box_weight, weight)
        if weight is not None:
            graph.labels.append(mx.sym.BlockGrad(weight, name=ROI_WEIGHT))
        return []

    def metrics(self, outputs: Arrays, labels: Arrays) -> Sums:
        """With Soft Sampling SoftWeight, the mean weight of the RoIs that are background."""
        if "roi_weight" not in outputs:
            return {}
        weight = outputs["roi_weight"].reshape(-1)
        background = outputs["roi_label"].reshape(-1) == 0
        total = float(weight[background].sum(dtype=np.float64))
        return {"SoftWeight": (total, float(background.sum()))}

    def results(self, graph: Graph) -> list[mx.sym.Symbol]:
        """`rois_output` (N*R, 5), and for proposals alone their scores `rois_score_output`."""
        rpn = graph.get("rpn")
        rois, scores = ops.multi_proposal(
            rpn.probabilities,
            rpn.deltas,
            graph.input("im_info"),
            **_arguments(graph.spec),
            name="rois",
        )
        graph.made["rois"] = Rois(rois)
        return [rois, scores] if graph.rpn_only else [rois]

    def decode(self, window: WindowOutputs, detections: WindowDetections) -> None:
        """RoIs of a window, and their objectness where it is put out."""
        count, row = window.spec.proposal.post_nms_top_n, window.row
        detections.boxes = window.outputs["rois"][row * count : (row + 1) * count, 1:]  # (R, 4)
        # Slots that no proposal filled are zero boxes.
        detections.is_filled = np.any(detections.boxes != 0, axis=1)
        if "rois_score" in window.outputs:
            detections.scores = window.outputs["rois_score"].reshape(-1, count)[row]


def _arguments(spec: DetectorSpec) -> dict[str, Any]:
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
