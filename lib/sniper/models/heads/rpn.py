"""The region proposal network. Names and gradient scales are those of 2018."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sniper.errors import ConfigError
from sniper.models.heads.layers import conv, map_softmax_loss, relu
from sniper.models.lazy import mx
from sniper.models.parts import (
    Arrays,
    Graph,
    Head,
    Level,
    Start,
    Sums,
    classification_metrics,
)
from sniper.targets.anchors import RPN_BORDER_PX, AnchorGrid, base_anchors
from sniper.targets.rpn import RpnLabels, RpnTargets

if TYPE_CHECKING:
    from sniper.models.spec import DetectorSpec

# Weight of the box loss beside the class loss (2018).
RPN_BOX_LOSS_FACTOR = 3.0


@dataclass(frozen=True)
class RpnOutputs:
    """What an RPN leaves in `Graph.made` for the head that makes proposals.

    Args:
        probabilities: (N, 2, A*h, w) in training, (N, 2A, h, w) at test; background first.
        deltas: (N, 4A, h, w), channel 4*anchor + coordinate.
    """

    probabilities: mx.sym.Symbol
    deltas: mx.sym.Symbol


@dataclass(frozen=True)
class RpnHead(Head):
    """Scores and box deltas of every anchor of one feature map.

    A network may have several, each with a suffix, a map and anchors of its own.

    Args:
        level: the map that it reads.
        suffix: of the names of its layers, labels, outputs and metrics, and of `rpn` in
            `Graph.made`.
        scales: sides of its anchors in multiples of the map's stride; None: those of the network.
        ratios: height / width of its anchors; None: those of the network.
    """

    level: Level = -1
    suffix: str = ""
    scales: Sequence[float] | None = None
    ratios: Sequence[float] | None = None

    in_rpn_training = True
    in_rpn_test = True

    @property
    def layers(self) -> Mapping[str, Start]:
        """See `Head`."""
        return {
            f"rpn_conv_3x3{self.suffix}": Start.HIDDEN,
            f"rpn_cls_score{self.suffix}": Start.OUTPUT,
            f"rpn_bbox_pred{self.suffix}": Start.OUTPUT,
        }

    def anchor_grids(self, spec: DetectorSpec) -> tuple[AnchorGrid]:
        """One."""
        _, stride = spec.network.backbone.level(self.level, spec.feature_stride)
        rounding, border = spec.targets.anchor_rounding, spec.targets.anchor_border_px
        base = base_anchors(stride, self._ratios(spec), self._scales(spec), rounding=rounding)
        return (AnchorGrid(base, stride, RPN_BORDER_PX if border is None else border),)

    def labels(self, spec: DetectorSpec, chip_size: int) -> RpnLabels:
        """`label`, `bbox_target` and `bbox_weight` of the anchors."""
        (grid,) = self.anchor_grids(spec)
        settings, stride = spec.targets, grid.stride
        if chip_size <= 0 or chip_size % stride:
            raise ConfigError(
                "the chip size must be a multiple of the network's stride",
                where="TRAIN.CHIP_SIZE",
                got=chip_size,
                expected=f"a multiple of {stride}",
            )
        matcher = RpnTargets(
            grid.base,
            stride,
            chip_size,
            batch_size=spec.rpn_batch_size,
            fg_fraction=settings.rpn_fg_fraction,
            positive_overlap=settings.rpn_positive_overlap,
            negative_overlap=settings.rpn_negative_overlap,
            border=grid.border_px,
            crowd_ioa=spec.crowd_ioa,
        )
        return RpnLabels(matcher, self.suffix, ignore_crowd=settings.rpn_ignore_crowd)

    def losses(self, graph: Graph) -> list[mx.sym.Symbol]:
        """Class probabilities (N, 2, A*h, w) with their loss, and box loss (N, 4A, h, w)."""
        spec, suffix = graph.spec, self.suffix
        scores, deltas = self._body(graph)
        label = graph.input(f"label{suffix}")
        name = f"rpn_cls_prob{suffix}"
        probabilities = map_softmax_loss(scores, label, spec.loss_scale, name)
        target, weight = graph.input(f"bbox_target{suffix}"), graph.input(f"bbox_weight{suffix}")
        error = mx.sym.smooth_l1(deltas - target, scalar=1.0, name=f"rpn_bbox_loss_{suffix}")
        divisor = spec.batch_images * spec.rpn_batch_size
        box_loss = mx.sym.MakeLoss(
            weight * error,
            grad_scale=RPN_BOX_LOSS_FACTOR * spec.loss_scale / divisor,
            name=f"rpn_bbox_loss{suffix}",
        )
        graph.made[f"rpn{suffix}"] = RpnOutputs(probabilities, deltas)
        return [probabilities, box_loss]

    def results(self, graph: Graph) -> list[mx.sym.Symbol]:
        """None: the probabilities go to the head that makes proposals of them."""
        scores, deltas = self._body(graph)
        name = f"rpn_cls_prob{self.suffix}"
        probabilities = mx.sym.SoftmaxActivation(scores, mode="channel", name=name)
        shape = (0, 2 * self._num_anchors(graph.spec), -1, 0)
        probabilities = mx.sym.Reshape(
            probabilities, shape=shape, name=f"rpn_cls_prob_reshape{self.suffix}"
        )
        graph.made[f"rpn{self.suffix}"] = RpnOutputs(probabilities, deltas)
        return []

    def metrics(self, outputs: Arrays, labels: Arrays) -> Sums:
        """RPNAcc, RPNLogLoss and RPNL1Loss."""
        suffix = self.suffix
        label, prob = labels[f"label{suffix}"], outputs[f"rpn_cls_prob{suffix}"]
        result = classification_metrics("RPN", np.moveaxis(prob, 1, -1), label)
        loss = float(outputs[f"rpn_bbox_loss{suffix}"].sum(dtype=np.float64))
        result["RPNL1Loss"] = (loss, float((label != -1).sum()))
        return {f"{name}{suffix}": sums for name, sums in result.items()}

    def _body(self, graph: Graph) -> tuple[mx.sym.Symbol, mx.sym.Symbol]:
        """Scores (N, 2, A*h, w), plane 0 background, and deltas (N, 4A, h, w)."""
        spec, suffix = graph.spec, self.suffix
        channels = spec.rpn_channels or spec.network.backbone.rpn_channels
        anchors = self._num_anchors(spec)
        body = conv(graph.map(self.level).data, f"rpn_conv_3x3{suffix}", channels, kernel=3)
        body = relu(body, f"rpn_relu{suffix}")
        scores = conv(body, f"rpn_cls_score{suffix}", 2 * anchors)
        deltas = conv(body, f"rpn_bbox_pred{suffix}", 4 * anchors)
        # Two planes: one softmax tells background and foreground of every anchor apart.
        name = f"rpn_cls_score_reshape{suffix}"
        return mx.sym.Reshape(scores, shape=(0, 2, -1, 0), name=name), deltas

    def _scales(self, spec: DetectorSpec) -> Sequence[float]:
        return spec.anchor_scales if self.scales is None else self.scales

    def _ratios(self, spec: DetectorSpec) -> Sequence[float]:
        return spec.anchor_ratios if self.ratios is None else self.ratios

    def _num_anchors(self, spec: DetectorSpec) -> int:
        return len(self._scales(spec)) * len(self._ratios(spec))
