"""SSH, the single stage headless face detector (Najibi et al., 2017): its detection modules.

Three modules read maps of strides 8, 16 and 32. Each finds faces of two sizes by itself, with
anchors, targets and losses of its own; there are no proposals. Layers and wiring are those of the
authors' Caffe model, names those of its best known MXNet port.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sniper import boxes as box_ops
from sniper.errors import ConfigError
from sniper.models.class_scores import MIN_SCORE
from sniper.models.heads.layers import conv, map_softmax_loss, relu
from sniper.models.lazy import mx, ops
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
from sniper.targets.anchors import AnchorGrid, base_anchors, shifted_anchors
from sniper.targets.faces import FaceLabels

if TYPE_CHECKING:
    from sniper.models.spec import DetectorSpec

CLASSES = 2  # background and face
# Anchors are multiples of windows of 16 px around (7.5, 7.5), whatever the stride of the module.
BASE_PX = 16
# Channels X of modules 2 and 3; module 1, whose map has most cells, has half of it.
CHANNELS = 256
# Of both axes; a box grows no further than from 16 to 1000 px, so that `exp` cannot overflow.
MOST_GROWTH = math.log(1000 / 16)
MODULES = 3
# Anchors of module 3 may stick out of the image by so much.
BORDER_PX = 512
# Errors above 1 / 9 count linearly.
BOX_LOSS_SIGMA = 3.0

# Multipliers of biases (Caffe): twice the rate, and inside of the modules no decay.
BIAS = {"lr_mult": "2.0", "wd_mult": "0.0"}
FUSION_BIAS = {"lr_mult": "2.0", "wd_mult": "1.0"}
FIXED = {"lr_mult": "0.0", "wd_mult": "0.0"}


@dataclass(frozen=True)
class SshModule(Head):
    """One detection module with its scores and box deltas.

    Module 1 (stride 8) reads the maps of strides 8 and 16, the latter upsampled and cropped to the
    former's size, in a sum; module 2 (stride 16) reads the map of stride 16; module 3 (stride 32)
    a max pooling of it.

    A module is a 3x3 convolution beside a context branch, whose stacked 3x3 kernels see 5x5 and 7x7
    cells (paper, section 3.3).

    Args:
        number: 1, 2 or 3.
    """

    number: int

    # The network is a proposal network by itself.
    in_rpn_training = True
    in_rpn_test = True

    @property
    def stride(self) -> int:
        """Px of the network's input per cell."""
        return 4 << self.number

    @property
    def layers(self) -> Mapping[str, Start]:
        """See `Head`."""
        hidden = ["conv1", *(f"context_conv{part}" for part in ("1", "2", "3_1", "3_2"))]
        module = {f"ssh_m{self.number}_det_{layer}": Start.HIDDEN for layer in hidden}
        ends = {
            f"rpn_{layer}_stride{self.stride}": Start.OUTPUT for layer in ("cls_score", "bbox_pred")
        }
        fusion = {
            "ssh_m1_red_conv": Start.HIDDEN,
            "ssh_m2_red_conv": Start.HIDDEN,
            "ssh_m2_red_upsampling": Start.BILINEAR,
            "ssh_m1_conv": Start.HIDDEN,
        }
        return {**(fusion if self.number == 1 else {}), **module, **ends}

    def anchor_grids(self, spec: DetectorSpec) -> tuple[AnchorGrid]:
        """One; anchors of the last module stick out far."""
        return (AnchorGrid(self.anchors(spec), self.stride, self._border_px(spec), True),)

    def _border_px(self, spec: DetectorSpec) -> float:
        """The anchors of the last module are larger than most images.

        A recipe may widen the border only: anchors beyond it look at test like the others, but are
        never trained; those of the last module would be most, and may find faces anywhere.
        """
        published = BORDER_PX if self.number == MODULES else 0
        return max(published, spec.targets.anchor_border_px or 0)

    def labels(self, spec: DetectorSpec, chip_size: int) -> FaceLabels | None:
        """`im_info`, `gt_boxes` and `ignore_boxes`; module 1 asks for them for all."""
        return FaceLabels(spec.max_gt) if self.number == 1 else None

    def losses(self, graph: Graph) -> list[mx.sym.Symbol]:
        """Probabilities (N, 2, A*h, w) with their loss, and box loss (N, 4A, h, w).

        The class loss is a mean over the trained anchors of the batch. The box loss of an image is
        a sum over its positive anchors divided by its trained ones (unlike the paper's formula, but
        as its code), its mean over the images counts.
        """
        spec, stride = graph.spec, self.stride
        scores, deltas = self._body(graph, train=True)
        label, target, weight, count = self._targets(graph, scores)
        name = f"rpn_cls_prob_stride{stride}"
        probabilities = map_softmax_loss(scores, label, spec.loss_scale, name)
        error = mx.sym.smooth_l1(
            deltas - target, scalar=BOX_LOSS_SIGMA, name=f"rpn_bbox_loss_stride{stride}_"
        )
        box_loss = mx.sym.MakeLoss(
            weight * error,
            grad_scale=spec.loss_scale / spec.batch_images,
            name=f"rpn_bbox_loss_stride{stride}",
        )
        graph.labels.append(mx.sym.BlockGrad(label, name=f"label_stride{stride}"))
        graph.labels.append(mx.sym.BlockGrad(count, name=f"count_stride{stride}"))
        return [probabilities, box_loss]

    def metrics(self, outputs: Arrays, labels: Arrays) -> Sums:
        """MAcc, MLogLoss, ML1Loss and MPos (positive anchors a chip) with the module's number."""
        stride = self.stride
        prob = np.moveaxis(outputs[f"rpn_cls_prob_stride{stride}"], 1, -1)
        result = classification_metrics("M", prob, outputs[f"label_stride{stride}"])
        count = outputs[f"count_stride{stride}"]  # (N, 2) positives, trained
        loss = float(outputs[f"rpn_bbox_loss_stride{stride}"].sum(dtype=np.float64))
        result["ML1Loss"] = (loss, float(len(count)))
        result["MPos"] = (float(count[:, 0].sum()), float(len(count)))
        return {f"{name}{self.number}": sums for name, sums in result.items()}

    def must_not_stay_zero(self, spec: DetectorSpec, chip_size: int) -> Mapping[str, str]:
        """MPos: a module without positive anchors has no faces of its sizes, and learns nothing."""
        anchors = self.anchors(spec)
        sides = np.sqrt((anchors[:, 2:] - anchors[:, :2] + 1).prod(axis=1))
        # A square overlaps one of `slack` times its side in the same place just enough.
        slack = 1 / math.sqrt(spec.targets.rpn_positive_overlap)
        scales = ", ".join(f"{scale:g}" for scale in self._scales(spec))
        return {
            f"MPos{self.number}": f"module {self.number} of SSH (stride {self.stride}) saw no "
            "positive anchor, and learns to find nothing: its anchors (network.ANCHOR_SCALES "
            f"{scales}) fit faces of about {sides.min() / slack:.0f} to {sides.max() * slack:.0f} "
            f"px at the network's input, in chips of {chip_size} px. Bring faces there with "
            "TRAIN.SCALES and TRAIN.VALID_RANGES (`sniper chip-stats` counts them), make "
            "TRAIN.CHIP_SIZE larger, or give the module the anchors of the faces that there are"
        }

    def _targets(self, graph: Graph, scores: mx.sym.Symbol) -> tuple[mx.sym.Symbol, ...]:
        """Label, box target, box weight and counts, by what the module makes of its anchors now."""
        spec, settings, stride = graph.spec, graph.spec.targets, self.stride
        now = mx.sym.SoftmaxActivation(
            mx.sym.BlockGrad(scores), mode="channel", name=f"mined_prob_stride{stride}"
        )
        return ops.anchor_mining_target(
            *(now, *map(graph.input, ("im_info", "gt_boxes", "ignore_boxes"))),
            scales=self._scales(spec),
            ratios=spec.anchor_ratios,
            feature_stride=stride,
            base_size=BASE_PX,
            border=self._border_px(spec),
            batch_size=spec.rpn_batch_size,
            fg_fraction=settings.rpn_fg_fraction,
            positive_overlap=settings.rpn_positive_overlap,
            negative_overlap=settings.rpn_negative_overlap,
            name=f"targets_stride{stride}",
        )

    def results(self, graph: Graph) -> list[mx.sym.Symbol]:
        """`rpn_cls_prob_stride<s>_output` (N, 2, A*h, w) and `rpn_bbox_pred_stride<s>_output`.

        The latter is (N, 4A, h, w), channel 4*anchor + coordinate; plane 1 of the former is that of
        the faces, rows a*h to a*h + h - 1 are those of anchor a.
        """
        scores, deltas = self._body(graph, train=False)
        name = f"rpn_cls_prob_stride{self.stride}"
        outputs = [mx.sym.SoftmaxActivation(scores, mode="channel", name=name), deltas]
        # Of proposals alone the graph hands nothing but the images' numbers through, and no layer
        # reads the windows' sizes; but they are an input of all test graphs.
        through = graph.rpn_only and self.number == 1
        return [*outputs, graph.input("im_info")] if through else outputs

    def decode(self, window: WindowOutputs, detections: WindowDetections) -> None:
        """Adds the best `proposal.pre_nms_top_n` boxes of the module, clipped to the window."""
        spec, (height, width, scale, *_) = window.spec, window.im_info
        prob = window.outputs[f"rpn_cls_prob_stride{self.stride}"][window.row]  # (2, A*h, w)
        deltas = window.outputs[f"rpn_bbox_pred_stride{self.stride}"][window.row]  # (4A, h, w)
        boxes, scores = decode_module(
            prob,
            deltas,
            self.anchors(spec),
            self.stride,
            (float(height), float(width)),
            top_n=spec.proposal.pre_nms_top_n,
            min_side=spec.proposal.min_size * float(scale),
            legacy_ends=spec.legacy_boxes,
        )
        strides = np.full(len(boxes), self.stride, np.int32)
        if detections.strides is not None:
            boxes = np.concatenate([detections.boxes, boxes])
            scores = np.concatenate([detections.dense_scores, scores])
            strides = np.concatenate([detections.strides, strides])
        detections.boxes, detections.scores, detections.strides = boxes, scores, strides

    def anchors(self, spec: DetectorSpec) -> np.ndarray:
        """Anchors of the module's first cell: (A, 4) float32, px of the network's input."""
        scales = self._scales(spec)
        # All ratios and scales of a module; with the original's two scales and ratio 1, 2 anchors.
        return base_anchors(BASE_PX, spec.anchor_ratios, scales)

    def _scales(self, spec: DetectorSpec) -> Sequence[float]:
        """Its third of `network.ANCHOR_SCALES`."""
        scales = spec.anchor_scales
        if len(scales) % MODULES or spec.feature_stride != BASE_PX:
            raise ConfigError(
                "each of the three modules of SSH needs as many anchor scales as the others, of "
                "stride 16",
                where="network.ANCHOR_SCALES, network.RPN_FEAT_STRIDE",
                got=f"{list(scales)}, {spec.feature_stride}",
                expected="the scales of strides 8, 16 and 32 in this order, such as "
                "[1, 2, 4, 8, 16, 32], and 16",
            )
        count = len(scales) // MODULES
        return scales[(self.number - 1) * count : self.number * count]

    def _body(self, graph: Graph, *, train: bool) -> tuple[mx.sym.Symbol, mx.sym.Symbol]:
        """Scores (N, 2, A*h, w), plane 0 background, and deltas (N, 4A, h, w)."""
        spec, stride, name = graph.spec, self.stride, f"ssh_m{self.number}_det"
        anchors = len(self.anchors(spec))
        channels = self._channels(spec)
        data = self._input(graph, channels, train=train)
        wide = self._conv3x3(data, f"{name}_conv1", channels)
        context = self._conv3x3(data, f"{name}_context_conv1", channels // 2)
        context = relu(context, f"{name}_context_conv1_relu")
        of_5x5 = self._conv3x3(context, f"{name}_context_conv2", channels // 2)
        of_7x7 = self._conv3x3(context, f"{name}_context_conv3_1", channels // 2)
        of_7x7 = relu(of_7x7, f"{name}_context_conv3_1_relu")
        of_7x7 = self._conv3x3(of_7x7, f"{name}_context_conv3_2", channels // 2)
        body = mx.sym.Concat(wide, of_5x5, of_7x7, name=f"{name}_concat")
        body = relu(body, f"{name}_concat_relu")
        scores = conv(body, f"rpn_cls_score_stride{stride}", CLASSES * anchors, bias=BIAS)
        deltas = conv(body, f"rpn_bbox_pred_stride{stride}", 4 * anchors, bias=BIAS)
        shape, name = (0, CLASSES, -1, 0), f"rpn_cls_score_reshape_stride{stride}"
        return mx.sym.Reshape(scores, shape=shape, name=name), deltas

    def _conv3x3(self, data: mx.sym.Symbol, name: str, channels: int) -> mx.sym.Symbol:
        return conv(data, name, channels, kernel=3, bias=BIAS)

    def _channels(self, spec: DetectorSpec) -> int:
        """X of the paper."""
        channels = spec.rpn_channels or CHANNELS
        if channels % 4 or spec.num_classes != CLASSES:
            raise ConfigError(
                "the modules of SSH tell faces from background, and their width halves twice",
                where="dataset.NUM_CLASSES, network.RPN_CHANNELS",
                got=f"{spec.num_classes}, {spec.rpn_channels}",
                expected="2, and a multiple of 4 (0: 256)",
            )
        return channels // 2 if self.number == 1 else channels

    def _input(self, graph: Graph, channels: int, *, train: bool) -> mx.sym.Symbol:
        """What the module reads."""
        coarse = graph.map_of_stride(16).data
        if self.number == 1:
            return _fused(graph.map_of_stride(8).data, coarse, channels, train=train)
        if self.number == 2:
            return coarse
        # The size is rounded up, as in Caffe.
        return mx.sym.Pooling(
            coarse,
            kernel=(2, 2),
            stride=(2, 2),
            pool_type="max",
            pooling_convention="full",
            name="ssh_m3_pool",
        )


def _fused(
    fine: mx.sym.Symbol, coarse: mx.sym.Symbol, channels: int, *, train: bool
) -> mx.sym.Symbol:
    """(N, channels, h, w) of the fine map (N, ?, h, w) and a coarse one of half its sides."""
    fine = relu(conv(fine, "ssh_m1_red_conv", channels, bias=FUSION_BIAS), "ssh_m1_red_conv_relu")
    coarse = conv(coarse, "ssh_m2_red_conv", channels, bias=FUSION_BIAS)
    coarse = relu(coarse, "ssh_m2_red_conv_relu")
    kernel = mx.sym.Variable("ssh_m2_red_upsampling_weight", **FIXED)
    upsampled = mx.sym.Deconvolution(
        coarse,
        # A kernel that is not trained needs no gradient, which would cost as much as the layer.
        weight=mx.sym.BlockGrad(kernel) if train else kernel,
        num_filter=channels,
        num_group=channels,
        kernel=(4, 4),
        stride=(2, 2),
        pad=(1, 1),
        no_bias=True,
        name="ssh_m2_red_upsampling",
    )
    # Sides were rounded up: at odd ones the upsampled map has a row or column more.
    cropped = mx.sym.slice_like(upsampled, fine, axes=(2, 3), name="ssh_m2_red_crop")
    both = mx.sym.elemwise_add(fine, cropped, name="ssh_m1_sum")
    both = conv(both, "ssh_m1_conv", channels, kernel=3, bias=FUSION_BIAS)
    return relu(both, "ssh_m1_conv_relu")


def decode_module(
    prob: np.ndarray,
    deltas: np.ndarray,
    anchors: np.ndarray,
    stride: int,
    content_hw: tuple[float, float],
    *,
    top_n: int = -1,
    min_side: float = 0.0,
    legacy_ends: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The best boxes of one module in one window, best first.

    Cells outside of the window's content do not count: the original saw unpadded images.

    Args:
        prob: (2, A*h, w) background and face.
        deltas: (4A, h, w): dx, dy, dw, dh of every anchor.
        anchors: (A, 4) of the first cell, px of the network's input.
        stride: px per cell.
        content_hw: height and width of the content, px of the network's input.
        top_n: most boxes; negative: all above the score that counts at all.
        min_side: boxes with a smaller width or height (+1) are left out, px of the network's input.
        legacy_ends: a box ends at centre + w/2, as in the original, which is 1 px behind the last
            pixel of what was trained.

    Returns:
        (R, 4) float32 boxes, clipped to the content, and (R, 2) float32 scores.
    """
    count, (height, width) = len(anchors), prob.shape[1:]
    height //= count
    rows, columns = (
        min(side, math.ceil(px / stride)) for side, px in zip((height, width), content_hw)
    )
    # In the order of the anchors: row, column, anchor.
    prob = prob.reshape(2, count, height, width)[..., :rows, :columns]
    prob = prob.transpose(2, 3, 1, 0).reshape(-1, 2)
    deltas = deltas.reshape(count, 4, height, width)[..., :rows, :columns]
    deltas = deltas.transpose(2, 3, 0, 1).reshape(-1, 4)
    likely = np.flatnonzero(prob[:, 1] > MIN_SCORE)
    prob = prob[likely]
    boxes = _moved(
        shifted_anchors(anchors, stride, rows, columns)[likely], deltas[likely], legacy_ends
    )
    boxes = box_ops.clip(boxes, *content_hw)
    large = (boxes[:, 2:] - boxes[:, :2] + 1 >= min_side).all(axis=1)
    boxes, prob = boxes[large], prob[large]
    order = np.argsort(-prob[:, 1], kind="stable")
    if top_n >= 0:
        order = order[:top_n]
    return boxes[order], prob[order].astype(np.float32)


def _moved(anchors: np.ndarray, deltas: np.ndarray, legacy_ends: bool) -> np.ndarray:
    """Anchors (n, 4) moved by deltas (n, 4): (n, 4) float32."""
    sides = anchors[:, 2:] - anchors[:, :2] + 1
    centres = anchors[:, :2] + sides / 2 + deltas[:, :2] * sides
    half = np.exp(np.minimum(deltas[:, 2:], MOST_GROWTH)) * sides / 2
    ends = centres + half if legacy_ends else centres + half - 1
    return np.concatenate([centres - half, ends], axis=1).astype(np.float32)
