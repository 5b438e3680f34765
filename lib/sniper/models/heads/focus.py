"""The FocusPixel branch of AutoFocus: which feature cells hold small objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sniper.models.heads.layers import conv, map_softmax_loss, relu
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
from sniper.targets.focus_map import FocusLabels

if TYPE_CHECKING:
    from sniper.models.spec import DetectorSpec

FOCUS_PLANE = 1


@dataclass(frozen=True)
class FocusHead(Head):
    """Two planes of scores for every feature cell, plane 1 for focus (AutoFocus, section 3.1)."""

    gives_maps = True
    layers: ClassVar = {
        "conv_new_2": Start.HIDDEN,
        "conv_new_3": Start.HIDDEN,
        "conv_new_out": Start.OUTPUT,
    }

    def is_active(self, spec: DetectorSpec) -> bool:
        """TRAIN.AUTO_FOCUS or TEST.AUTO_FOCUS."""
        return spec.auto_focus

    def labels(self, spec: DetectorSpec, chip_size: int) -> FocusLabels:
        """`scale_label` of every feature cell."""
        stride = spec.network.backbone.level(-1, spec.feature_stride)[1]
        return FocusLabels(spec.targets.focus, stride, chip_size // stride)

    def losses(self, graph: Graph) -> list[mx.sym.Symbol]:
        """Probabilities (N, 2, h*w), which carry the loss."""
        scores = self._scores(graph)
        scores = mx.sym.Reshape(scores, shape=(0, 2, -1), name="conv_new_out_reshape")
        label, scale = graph.input("scale_label"), graph.spec.loss_scale
        return [map_softmax_loss(scores, label, scale, "cls_scale_prob")]

    def results(self, graph: Graph) -> list[mx.sym.Symbol]:
        """`scale_prob_output` (N, 2, h, w)."""
        scores = self._scores(graph)
        return [mx.sym.SoftmaxActivation(scores, mode="channel", name="scale_prob")]

    def decode(self, window: WindowOutputs, detections: WindowDetections) -> None:
        """The map `focus` (h, w): probability of small objects, of the padded window."""
        detections.maps["focus"] = window.outputs["scale_prob"][window.row, FOCUS_PLANE]

    def metrics(self, outputs: Arrays, labels: Arrays) -> Sums:
        """AutoFocusAcc and AutoFocusLogLoss."""
        prob = outputs["cls_scale_prob"]  # (N, 2, h*w)
        return classification_metrics("AutoFocus", np.moveaxis(prob, 1, -1), labels["scale_label"])

    def _scores(self, graph: Graph) -> mx.sym.Symbol:
        channels = graph.spec.roi_channels
        body = conv(graph.map().data, "conv_new_2", channels, kernel=3)
        body = conv(relu(body, "conv_new_2_relu"), "conv_new_3", channels)
        return conv(relu(body, "conv_new_3_relu"), "conv_new_out", 2)
