"""The fine head of R-FCN-3K: which class of its super-class a RoI is.

One map of scores per class, without position sensitivity: a class costs one 1x1 filter. Names,
wiring and gradient scales are those of 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sniper.models.class_scores import two_factor_scores
from sniper.models.heads.layers import IGNORE, conv, pool_class_map, relu
from sniper.models.heads.roi import per_image
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

# 2018: the fine loss was divided by 200 * 16, for 16 images on a device.
FINE_LOSS_ROIS = 200
# RoIs that are less likely an object are dropped before classes are looked at (2018 behaviour).
MIN_OBJECTNESS = 0.01
# In 2018 this output had no name of its own; this is what MXNet called it.
FINE_LABEL = "blockgrad1"


@dataclass(frozen=True)
class FineHead(Head):
    """Two 1x1 convolutions, RoI max pooling of the classes' maps, and the mean over its bins.

    It is trained on positive RoIs alone. The score of a class is P(its super-class) x P(class): the
    head stands behind the one that gives super-classes.
    """

    needs = ("rois", "fine_rois")
    gives_maps = True
    output_names: ClassVar = {FINE_LABEL: "fine_label"}
    layers: ClassVar = {"conv_new_2": Start.HIDDEN, "conv_new_3": Start.OUTPUT}

    def losses(self, graph: Graph) -> list[mx.sym.Symbol]:
        """`subcls_prob_output` (N*fine.rois, C) with its loss; its labels come behind all losses.

        Fillers have the label -1 and no loss.
        """
        spec, targets = graph.spec, graph.get("fine_rois")
        label = mx.sym.Reshape(targets.label, shape=(-1,), name="fine_label_reshape")
        divisor = spec.fine.loss_divisor or FINE_LOSS_ROIS * spec.batch_images
        probabilities = mx.sym.SoftmaxOutput(
            self._scores(graph, targets.rois),
            label=label,
            normalization="null",
            grad_scale=spec.loss_scale / divisor,
            name="subcls_prob",
            **IGNORE,
        )
        graph.labels.append(mx.sym.BlockGrad(label, name=FINE_LABEL))
        return [probabilities]

    def results(self, graph: Graph) -> list[mx.sym.Symbol]:
        """`subcls_prob_reshape_output` (N, R, C)."""
        spec = graph.spec
        scores = self._scores(graph, graph.get("rois").rois)
        probabilities = mx.sym.SoftmaxActivation(scores, name="subcls_prob")
        return [per_image(probabilities, spec, spec.num_classes - 1, "subcls_prob_reshape")]

    def decode(self, window: WindowOutputs, detections: WindowDetections) -> None:
        """Scores of super-classes and classes; what is hardly an object is left out."""
        spec = window.spec
        detections.scores = two_factor_scores(
            detections.dense_scores,  # (R, K+1)
            window.outputs["subcls_prob_reshape"][window.row],  # (R, C)
            spec.super_of,
            id_offset=spec.fine.id_offset,
        )
        is_object = detections.scores.objectness > MIN_OBJECTNESS
        filled = detections.is_filled
        detections.is_filled = is_object if filled is None else filled & is_object

    def metrics(self, outputs: Arrays, labels: Arrays) -> Sums:
        """FineAcc and FineLogLoss, over the positive RoIs."""
        return classification_metrics("Fine", outputs["subcls_prob"], outputs["fine_label"])

    def _scores(self, graph: Graph, rois: mx.sym.Symbol) -> mx.sym.Symbol:
        """Scores (R, C) of RoIs."""
        spec, level = graph.spec, graph.map()
        width = spec.fc_channels or spec.network.backbone.fc_channels
        body = relu(conv(level.data, "conv_new_2", width), "conv_new_2_relu")
        maps = conv(body, "conv_new_3", spec.num_classes - 1)
        return pool_class_map(maps, rois, level.stride, "subcls_score")
