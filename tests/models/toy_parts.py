"""More heads from outside: several RPNs, two classes per box, weights of RoIs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from sniper.models.heads.layers import fc, map_softmax_loss
from sniper.models.heads.proposals import Proposals
from sniper.models.heads.roi import RoiHead
from sniper.models.heads.rpn import RpnHead
from sniper.models.lazy import mx
from sniper.models.parts import Head, Start
from sniper.targets.contract import BatchArray, Labels
from sniper.targets.gt import rows_that_fit


class FineLabels(Labels):
    """Two classes for every row of `gt_boxes`: its super-class and its own one."""

    def __init__(self, max_gt, super_of):
        self._super_of = np.asarray(super_of)
        self.label = (BatchArray("gt_fine", (max_gt, 2)),)

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
        self.label = (BatchArray("roi_weight", (rois,)),)


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
FINE = (RpnHead(), FineHead(super_of=(0, 1, 1, 2, 2, 1)))
WEIGHTED = (RpnHead(), Proposals(), RoiWeights(), RoiHead())
