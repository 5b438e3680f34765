"""Parts from outside of the package: a backbone of three convolutions, heads of several kinds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from sniper.models.backbones.blocks import scale_channels
from sniper.models.heads.layers import conv, fc, map_softmax_loss, relu
from sniper.models.heads.proposals import Proposals
from sniper.models.heads.roi import RoiHead
from sniper.models.heads.rpn import RpnHead
from sniper.models.lazy import mx
from sniper.models.parts import Backbone, Head, Start, classification_metrics
from sniper.targets.contract import Array, Labels
from sniper.targets.gt import rows_that_fit


@dataclass(frozen=True)
class Tiny(Backbone):
    """Three strided convolutions; the maps of the last two."""

    strides: tuple[int, ...] = (8,)
    rpn_channels: int = 16

    def maps(self, stride):
        return {"half": stride // 2, "whole": stride}

    def features(self, data, spec, *, train):
        body, maps = data, []
        for name, channels in (("tiny_1", 8), ("tiny_2", 16), ("tiny_3", 16)):
            body = mx.sym.Convolution(
                body,
                num_filter=scale_channels(channels, spec.width),
                kernel=(3, 3),
                stride=(2, 2),
                pad=(1, 1),
                name=name,
            )
            body = relu(body, f"{name}_relu")
            maps.append(body)
        return {"half": maps[1], "whole": maps[2]}


@dataclass(frozen=True)
class CentreHead(Head):
    """Which cells hold the centre of a box that this level is responsible for."""

    gives_maps: ClassVar[bool] = True
    layers: ClassVar = {"centre_conv": Start.HIDDEN, "centre_score": Start.OUTPUT}

    def labels(self, spec, chip_size):
        return CentreLabels(spec.feature_stride, chip_size // spec.feature_stride)

    def losses(self, graph):
        scores = mx.sym.Reshape(self._scores(graph), shape=(0, 2, -1))
        label = graph.input("centre_label")
        return [map_softmax_loss(scores, label, graph.spec.loss_scale, "centre_prob")]

    def results(self, graph):
        return [mx.sym.SoftmaxActivation(self._scores(graph), mode="channel", name="centre_map")]

    def decode(self, window, found):
        found.maps["centre"] = window.outputs["centre_map"][window.row, 1]

    def metrics(self, outputs, labels):
        prob = np.moveaxis(outputs["centre_prob"], 1, -1)
        return classification_metrics("Centre", prob, labels["centre_label"])

    def _scores(self, graph):
        body = relu(conv(graph.map().data, "centre_conv", 16, kernel=3), "centre_relu")
        return conv(body, "centre_score", 2)


class CentreLabels(Labels):
    """1 in the cells of valid centres, -1 (not trained) in those of other boxes; sent as bytes."""

    def __init__(self, stride, cells):
        self._stride, self._cells = stride, cells
        self.label = (Array("centre_label", (cells * cells,), np.int8),)

    def write(self, truth, row):
        plane = np.zeros((self._cells, self._cells), np.int8)
        centres = (truth.gt.boxes[:, :2] + truth.gt.boxes[:, 2:]) / 2
        columns, rows = (centres // self._stride).astype(int).T
        plane[rows, columns] = np.where(truth.gt.valid, 1, -1)
        row["centre_label"][...] = plane.reshape(-1)
        return 0


class FineLabels(Labels):
    """Two classes for every row of `gt_boxes`: its super-class and its own one."""

    def __init__(self, max_gt, super_of):
        self._super_of = np.asarray(super_of)
        self.label = (Array("gt_fine", (max_gt, 2)),)

    def write(self, truth, row):
        kept = rows_that_fit(truth.gt, len(row["gt_fine"]))
        classes = truth.gt.classes[kept]
        row["gt_fine"][...] = -1
        row["gt_fine"][: len(kept)] = np.stack([self._super_of[classes], classes], axis=1)
        return 0


@dataclass(frozen=True)
class FineHead(Head):
    """Super-class and class of a chip's first box, from the mean of the last map."""

    super_of: tuple[int, ...] = ()
    layers: ClassVar = {"fine_super": Start.OUTPUT, "fine_class": Start.OUTPUT}

    def labels(self, spec, chip_size):
        return FineLabels(spec.max_gt, self.super_of)

    def losses(self, graph):
        mean = mx.sym.Pooling(graph.map().data, global_pool=True, pool_type="avg", kernel=(1, 1))
        first = mx.sym.slice_axis(graph.input("gt_fine"), axis=1, begin=0, end=1)
        outputs = []
        for column, layer in enumerate(self.layers):
            outputs_of = max(self.super_of) + 1 if column == 0 else len(self.super_of)
            label = mx.sym.slice_axis(first, axis=2, begin=column, end=column + 1)
            label = mx.sym.Reshape(label, shape=(-1,))
            scores = fc(mean, layer, outputs_of)
            outputs.append(map_softmax_loss(scores, label, graph.spec.loss_scale, f"{layer}_prob"))
        return outputs


class RoiWeightLabels(Labels):
    """Weights of RoIs; a real detector computes them in its target operator."""

    def __init__(self, rois):
        self.label = (Array("roi_weight", (rois,)),)


@dataclass(frozen=True)
class RoiWeights(Head):
    """Gives the RoIs weights; stands between the proposals and the RoI head."""

    needs: ClassVar = ("rois",)
    layers: ClassVar = {}

    def labels(self, spec, chip_size):
        return RoiWeightLabels(spec.proposal.post_nms_top_n)

    def losses(self, graph):
        weight = mx.sym.Reshape(graph.input("roi_weight"), shape=(-1, 1))
        graph.made["rois"] = replace(graph.get("rois"), weight=weight)
        return []


PYRAMID = (
    RpnHead(level="half", suffix="_m1", scales=(2, 4), ratios=(1,)),
    RpnHead(level="whole", suffix="_m2", scales=(4,), ratios=(1, 2)),
)
CENTRE = (RpnHead(), Proposals(), RoiHead(), CentreHead())
FINE = (RpnHead(), FineHead(super_of=(0, 1, 1, 2, 2, 1)))
WEIGHTED = (RpnHead(), Proposals(), RoiWeights(), RoiHead())
