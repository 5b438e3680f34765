"""R-FCN: classes and boxes by voting of position-sensitive maps (Dai et al., 2016).

Names, wiring and gradient scales are those of R-FCN-3K of 2018, where the classes are super-classes
and the fine head (`sniper.models.heads.fine`) tells which class of a super-class a RoI is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sniper import boxes as box_ops
from sniper.models.heads.layers import (
    IGNORE,
    conv,
    pool_position_sensitive,
    relu,
    weigh_gradient,
)
from sniper.models.heads.roi import BOX_LOSS_ROIS, BOX_STDS, ROI_LABEL, per_image
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

BINS = 49


@dataclass(frozen=True)
class RfcnClassHead(Head):
    """A 1x1 convolution, maps `rfcn_cls` of every class and bin, and the vote of the bins.

    In training `cls_prob_reshape_output` (N, R, K), K `spec.roi_classes`, carries the loss: a mean
    over all RoIs. At test it has the same name.
    """

    needs = ("rois",)
    only_image_ids = True
    output_names: ClassVar = {ROI_LABEL: "roi_label"}
    layers: ClassVar = {"conv_new_1": Start.HIDDEN, "rfcn_cls": Start.OUTPUT}

    def losses(self, graph: Graph) -> list[mx.sym.Symbol]:
        """Probabilities (N, R, K) with their loss; the labels (N*R,) come behind all losses."""
        spec, targets = graph.spec, graph.get("rois")
        label = mx.sym.Reshape(targets.label, shape=(-1,), name="label_reshape")
        probabilities = mx.sym.SoftmaxOutput(
            weigh_gradient(self._scores(graph), targets.weight),
            label=label,
            normalization="null",
            grad_scale=spec.loss_scale / (spec.proposal.post_nms_top_n * spec.batch_images),
            name="cls_prob",
            **IGNORE,
        )
        graph.labels.append(mx.sym.BlockGrad(label, name=ROI_LABEL))
        return [per_image(probabilities, spec, spec.roi_classes, "cls_prob_reshape")]

    def results(self, graph: Graph) -> list[mx.sym.Symbol]:
        """`cls_prob_reshape_output` (N, R, K)."""
        probabilities = mx.sym.SoftmaxActivation(self._scores(graph), name="cls_prob")
        return [per_image(probabilities, graph.spec, graph.spec.roi_classes, "cls_prob_reshape")]

    def decode(self, window: WindowOutputs, detections: WindowDetections) -> None:
        """Scores of the RoIs."""
        detections.scores = window.outputs["cls_prob_reshape"][window.row]

    def metrics(self, outputs: Arrays, labels: Arrays) -> Sums:
        """RCNNAcc and RCNNLogLoss."""
        return classification_metrics("RCNN", outputs["cls_prob_reshape"], outputs["roi_label"])

    def _scores(self, graph: Graph) -> mx.sym.Symbol:
        """Scores (R, K); leaves the features that the maps of the boxes read, too."""
        spec, level = graph.spec, graph.map()
        width = spec.fc_channels or spec.network.backbone.fc_channels
        features = conv(level.data, "conv_new_1", width)
        if spec.rfcn_relu:
            features = relu(features, "conv_new_1_relu")
        graph.made["rfcn_features"] = features
        maps = conv(features, "rfcn_cls", BINS * spec.roi_classes)
        rois = graph.get("rois").rois
        return pool_position_sensitive(maps, rois, spec.roi_classes, level.stride, "rfcn_cls_pool")


@dataclass(frozen=True)
class RfcnBoxHead(Head):
    """Position-sensitive maps `rfcn_bbox` of the four deltas, for all classes alike."""

    needs = ("rois", "rfcn_features")
    layers: ClassVar = {"rfcn_bbox": Start.OUTPUT}

    def losses(self, graph: Graph) -> list[mx.sym.Symbol]:
        """Box loss `bbox_loss_output` (N*R, 4)."""
        spec, targets = graph.spec, graph.get("rois")
        difference = self._deltas(graph) - targets.box_target
        error = mx.sym.smooth_l1(difference, scalar=1.0, name="bbox_loss_")
        box_loss = mx.sym.MakeLoss(
            targets.box_weight * error,
            grad_scale=spec.loss_scale / _box_loss_divisor(spec),
            name="bbox_loss",
        )
        return [box_loss]

    def results(self, graph: Graph) -> list[mx.sym.Symbol]:
        """`bbox_pred_reshape_output` (N, R, 4), divided by `BOX_STDS` as in training."""
        return [per_image(self._deltas(graph), graph.spec, 4, "bbox_pred_reshape")]

    def decode(self, window: WindowOutputs, detections: WindowDetections) -> None:
        """Refines the RoIs and clips them to the window."""
        # Unlike those of the other heads, these weights are saved as they learn.
        stds = np.array(BOX_STDS, np.float32)
        deltas = window.outputs["bbox_pred_reshape"][window.row] * stds  # (R, 4)
        height, width, *_ = window.im_info
        detections.boxes = box_ops.clip(box_ops.decode(detections.boxes, deltas), height, width)

    def metrics(self, outputs: Arrays, labels: Arrays) -> Sums:
        """RCNNL1LossCRCNN."""
        loss = float(outputs["bbox_loss"].sum(dtype=np.float64))
        return {"RCNNL1LossCRCNN": (loss, float((outputs["roi_label"] != -1).sum()))}

    def _deltas(self, graph: Graph) -> mx.sym.Symbol:
        maps = conv(graph.get("rfcn_features"), "rfcn_bbox", BINS * 4)
        stride = graph.map().stride
        return pool_position_sensitive(maps, graph.get("rois").rois, 4, stride, "rfcn_bbox_pool")


def _box_loss_divisor(spec: DetectorSpec) -> float:
    return spec.bbox_loss_divisor or BOX_LOSS_ROIS * spec.batch_images
