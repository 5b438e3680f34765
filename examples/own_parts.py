"""A backbone and a head of your own, without a change in the package.

A program that imports this module before it trains has the networks `tiny_<heads>` and
`<backbone>_centre`, for example with --set symbol tiny_centre network.RPN_FEAT_STRIDE 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from sniper.models.heads.layers import conv, map_softmax_loss, relu
from sniper.models.heads.proposals import Proposals
from sniper.models.heads.roi import RoiHead
from sniper.models.heads.rpn import RpnHead
from sniper.models.lazy import mx
from sniper.models.networks import register_backbone, register_heads
from sniper.models.parts import (
    Arrays,
    Backbone,
    Graph,
    Head,
    Start,
    Sums,
    WindowDetections,
    WindowOutputs,
    classification_metrics,
)
from sniper.models.spec import DetectorSpec
from sniper.targets.contract import BatchArray, ChipTruth, Labels


@dataclass(frozen=True)
class Tiny(Backbone):
    """Three strided convolutions; the maps of the last two."""

    strides: tuple[int, ...] = (8,)  # what network.RPN_FEAT_STRIDE can be
    rpn_channels: int = 16

    def maps(self, stride: int) -> dict[str, int]:
        """RPNs may read the early map, all other heads read the last one."""
        return {"half": stride // 2, "whole": stride}

    def features(
        self, data: mx.sym.Symbol, spec: DetectorSpec, *, train: bool
    ) -> Mapping[str, mx.sym.Symbol]:
        """Both maps."""
        bodies = []
        for n, channels in enumerate((8, 16, 32), 1):
            window = {"kernel": (3, 3), "stride": (2, 2), "pad": (1, 1)}
            data = mx.sym.Convolution(data, num_filter=channels, name=f"tiny_{n}", **window)
            data = relu(data, f"tiny_{n}_relu")
            bodies.append(data)
        return {"half": bodies[1], "whole": bodies[2]}


class CentreLabels(Labels):
    """1 in cells with the centre of a box to be trained, -1 (not trained) with that of others."""

    def __init__(self, stride: int, cells: int) -> None:
        self.stride, self.cells = stride, cells
        self.label = (BatchArray("centre_label", (cells * cells,), np.int8),)

    def write(self, truth: ChipTruth, row: Mapping[str, np.ndarray]) -> int:
        """One chip; `row` holds an older one."""
        plane = np.zeros((self.cells, self.cells), np.int8)
        centres = (truth.gt.boxes[:, :2] + truth.gt.boxes[:, 2:]) / 2
        columns, rows = (centres // self.stride).astype(int).T
        plane[rows, columns] = np.where(truth.gt.valid, 1, -1)
        row["centre_label"][...] = plane.reshape(-1)
        return 0  # boxes without room


@dataclass(frozen=True)
class CentreHead(Head):
    """Which cells hold the centre of a box."""

    gives_maps: ClassVar[bool] = True
    layers: ClassVar = {"centre_conv": Start.HIDDEN, "centre_score": Start.OUTPUT}

    def labels(self, spec: DetectorSpec, chip_size: int) -> CentreLabels:
        """What the loader makes of every chip."""
        return CentreLabels(spec.feature_stride, chip_size // spec.feature_stride)

    def losses(self, graph: Graph) -> list[mx.sym.Symbol]:
        """Probabilities (N, 2, h*w) with their loss."""
        scores = mx.sym.Reshape(self._scores(graph), shape=(0, 2, -1))
        label, scale = graph.input("centre_label"), graph.spec.loss_scale
        return [map_softmax_loss(scores, label, scale, "centre_prob")]

    def results(self, graph: Graph) -> list[mx.sym.Symbol]:
        """Probabilities (N, 2, h, w)."""
        return [mx.sym.SoftmaxActivation(self._scores(graph), mode="channel", name="centre_map")]

    def decode(self, window: WindowOutputs, detections: WindowDetections) -> None:
        """The map of one window."""
        detections.maps["centre"] = window.outputs["centre_map"][window.row, 1]

    def metrics(self, outputs: Arrays, labels: Arrays) -> Sums:
        """CentreAcc and CentreLogLoss."""
        prob = np.moveaxis(outputs["centre_prob"], 1, -1)
        return classification_metrics("Centre", prob, labels["centre_label"])

    def _scores(self, graph: Graph) -> mx.sym.Symbol:
        body = relu(conv(graph.map().data, "centre_conv", 32, kernel=3), "centre_relu")
        return conv(body, "centre_score", 2)


register_backbone("tiny", Tiny())
register_heads("centre", (RpnHead(), Proposals(), RoiHead(), CentreHead()))
