"""The deformable RoI head: class and box of every RoI. Names and gradient scales are of 2018."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sniper import boxes as box_ops
from sniper.models.heads.layers import (
    IGNORE,
    RoiMap,
    conv,
    fc,
    pool_rois,
    relu,
    weigh_gradient,
)
from sniper.models.lazy import mx
from sniper.models.parts import (
    Arrays,
    Graph,
    Head,
    Start,
    Sums,
    WindowDetections,
    WindowOutputs,
    classification_metrics,
)

if TYPE_CHECKING:
    from sniper.models.spec import DetectorSpec

POOLED_SIZE = 7
ROI_MAP = "conv_new_1_relu"
# 2018 divided the box loss by 188 * 16 (ResNets, whatever the batch) or 188 * images (MobileNetV2).
BOX_LOSS_ROIS = 188
# In 2018 this output had no name of its own; this is what MXNet called it.
ROI_LABEL = "blockgrad0"

# The standard deviations by which the target operators divide.
BOX_STDS = (0.1, 0.1, 0.2, 0.2)


@dataclass(frozen=True)
class RoiHead(Head):
    """A 1x1 convolution, deformable RoI pooling and two fully connected layers."""

    needs = ("rois",)
    output_names: ClassVar = {ROI_LABEL: "roi_label"}
    output_scales: ClassVar = {"bbox_pred": BOX_STDS}
    layers: ClassVar = {
        "conv_new_1": Start.HIDDEN,
        "offset": Start.OFFSET,
        "fc_new_1": Start.HIDDEN,
        "fc_new_2": Start.HIDDEN,
        "cls_score": Start.OUTPUT,
        "bbox_pred": Start.OUTPUT,
    }

    def losses(self, graph: Graph) -> list[mx.sym.Symbol]:
        """Class probabilities (N, R, C) with their loss, box loss (N, R, 4) and labels (N*R,)."""
        spec, targets = graph.spec, graph.get("rois")
        scores, deltas = self._body(graph)
        label = mx.sym.Reshape(targets.label, shape=(-1,), name="label_reshape")
        over_all = spec.network.backbone.class_loss_over_all_rois
        rois = spec.proposal.post_nms_top_n * spec.batch_images
        probabilities = mx.sym.SoftmaxOutput(
            weigh_gradient(scores, targets.weight),
            label=label,
            normalization="null" if over_all else "valid",
            grad_scale=spec.loss_scale / rois if over_all else spec.loss_scale,
            name="cls_prob",
            **IGNORE,
        )
        error = mx.sym.smooth_l1(deltas - targets.box_target, scalar=1.0, name="bbox_loss_")
        box_loss = mx.sym.MakeLoss(
            targets.box_weight * error,
            grad_scale=spec.loss_scale / _box_loss_divisor(spec),
            name="bbox_loss",
        )
        return [
            per_image(probabilities, spec, spec.num_classes, "cls_prob_reshape"),
            per_image(box_loss, spec, 4, "bbox_loss_reshape"),
            mx.sym.BlockGrad(label, name=ROI_LABEL),
        ]

    def results(self, graph: Graph) -> list[mx.sym.Symbol]:
        """`cls_prob_reshape_output` (N, R, C) and `bbox_pred_reshape_output` (N, R, 4)."""
        spec = graph.spec
        scores, deltas = self._body(graph)
        probabilities = mx.sym.SoftmaxActivation(scores, name="cls_prob")
        return [
            per_image(probabilities, spec, spec.num_classes, "cls_prob_reshape"),
            per_image(deltas, spec, 4, "bbox_pred_reshape"),
        ]

    def decode(self, window: WindowOutputs, detections: WindowDetections) -> None:
        """Refines the RoIs and clips them to the window; also the map `roi`, if it is put out."""
        outputs, row, (height, width, *_) = window.outputs, window.row, window.im_info
        deltas = outputs["bbox_pred_reshape"][row]  # (R, 4)
        detections.boxes = box_ops.clip(box_ops.decode(detections.boxes, deltas), height, width)
        detections.scores = outputs["cls_prob_reshape"][row]
        if ROI_MAP in outputs:
            detections.maps["roi"] = outputs[ROI_MAP][row]

    def metrics(self, outputs: Arrays, labels: Arrays) -> Sums:
        """RCNNAcc, RCNNLogLoss and RCNNL1LossCRCNN."""
        label = outputs["roi_label"].reshape(-1)
        prob = outputs["cls_prob_reshape"]  # (N, R, C)
        result = classification_metrics("RCNN", prob.reshape(-1, prob.shape[-1]), label)
        loss = float(outputs["bbox_loss_reshape"].sum(dtype=np.float64))
        result["RCNNL1LossCRCNN"] = (loss, float((label != -1).sum()))
        return result

    def _body(self, graph: Graph) -> tuple[mx.sym.Symbol, mx.sym.Symbol]:
        """Scores (R, C) and class-agnostic deltas (R, 4); leaves the map of all RoIs."""
        spec, level = graph.spec, graph.map()
        features = relu(conv(level.data, "conv_new_1", spec.roi_channels), ROI_MAP)
        roi_map = RoiMap(features, spec.roi_channels, level.stride)
        graph.made["roi_map"] = roi_map
        body = pool_rois(roi_map, graph.get("rois").rois, POOLED_SIZE)
        width = spec.fc_channels or spec.network.backbone.fc_channels
        for name in ("fc_new_1", "fc_new_2"):
            body = relu(fc(body, name, width), f"{name}_relu")
        return fc(body, "cls_score", spec.num_classes), fc(body, "bbox_pred", 4)


def _box_loss_divisor(spec: DetectorSpec) -> float:
    images = spec.network.backbone.box_loss_images or spec.batch_images
    return spec.bbox_loss_divisor or BOX_LOSS_ROIS * images


def per_image(data: mx.sym.Symbol, spec: DetectorSpec, columns: int, name: str) -> mx.sym.Symbol:
    """(N*rois, columns) -> (N, rois, columns); any batch size fits."""
    shape = (-1, spec.proposal.post_nms_top_n, columns)
    return mx.sym.Reshape(data, shape=shape, name=name)
