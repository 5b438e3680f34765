"""From a description to the symbol of a whole detector, its inputs, and what its outputs mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from sniper.errors import ConfigError
from sniper.models.features import ROI_FEATURES, pool_features
from sniper.models.heads.mask import build_mask_head
from sniper.models.lazy import mx
from sniper.models.parts import (
    Arrays,
    FeatureMap,
    Graph,
    Head,
    Sums,
    WindowDetections,
    WindowOutputs,
)
from sniper.models.spec import DetectorSpec, ProposalSettings
from sniper.targets.anchors import RPN_BORDER_PX, AnchorGrid, base_anchors
from sniper.targets.contract import BatchContract

if TYPE_CHECKING:
    from sniper.models.heads.layers import RoiMap

__all__ = [
    "DetectorSpec",
    "ProposalSettings",
    "WindowOutputs",
    "anchor_grids",
    "batch_contract",
    "batch_metrics",
    "build_detector",
    "build_mask_head",
    "data_names",
    "decode",
    "inference_input_shapes",
    "short_output_names",
    "train_input_shapes",
    "watched_metrics",
]

# Inputs of every test graph that come out as they are: which image, which window.
IMAGE_ID, WINDOW_ID, IMAGE_INFO = "im_ids", "chip_ids", "im_info"
FEATURE_MAP = "feature_map"

OUTPUT_SUFFIX = "_output"

Shape = tuple[int, ...]
Measure = Callable[[Arrays, Arrays], Sums]


def build_detector(
    spec: DetectorSpec,
    *,
    train: bool,
    rpn_only: bool = False,
    roi_map: bool = False,
    feature_map: bool = False,
    roi_features: bool = False,
) -> mx.sym.Symbol:
    """Symbol of a detector: the outputs of all heads.

    Of the networks of 2018 in training, with shapes for N images, R rois per image and C classes:
    `rpn_cls_prob_output`, `rpn_bbox_loss_output`; end to end also [`cls_scale_prob_output`
    (N, 2, h*w) with `spec.auto_focus`], `cls_prob_reshape_output` (N, R, C),
    `bbox_loss_reshape_output` (N, R, 4), the roi labels (N*R,), and [`mask_cls_prob_output`
    (N*max_masks, 2, m, m), the mask targets (N*max_masks, m, m) with `spec.with_masks`].

    At test: `rois_output` (N*R, 5), `cls_prob_reshape_output`, `bbox_pred_reshape_output`,
    `im_ids`, [`scale_prob_output` (N, 2, h, w) with `spec.auto_focus`], `im_info`, `chip_ids`,
    [`conv_new_1_relu_output` (N, roi_channels, h, w) with `roi_map`], [`feature_map_output`
    (N, channels, h, w) with `feature_map`], [`roi_features_output` (N*R, channels) with
    `roi_features`]; RPN only: `rois_output`, `rois_score_output` (N*R,), `im_ids`. What R-FCN-3K
    has in their place: see `sniper.models.heads.rfcn` and `fine`.

    The inputs are those of `train_input_shapes` and `inference_input_shapes`.

    Args:
        spec: the network.
        train: with losses; otherwise with probabilities and boxes.
        rpn_only: without the other heads, and without layers that only they need.
        roi_map: at test, the map that `build_mask_head` reads is an output as well.
        feature_map: at test, the map of the backbone that the heads of RoIs read is an output as
            well: classifiers of new classes read it (R-FCN-3K).
        roi_features: at test, so is what `sniper.models.features` pools of that map for every RoI.

    Raises:
        ConfigError: a map is asked for where there is none, or heads do not fit together.
    """
    if (roi_map or feature_map or roi_features) and (train or rpn_only):
        raise ConfigError(
            "only the test graph of a whole detector puts out its RoI map or feature map"
        )
    graph = Graph(spec, _heads(spec, train=train, rpn_only=rpn_only), rpn_only=rpn_only)
    backbone = spec.network.backbone
    strides = backbone.strides_of(spec.feature_stride)
    maps = backbone.features(graph.input("data"), spec, train=train)
    graph.maps = {name: FeatureMap(name, data, strides[name]) for name, data in maps.items()}
    if train:
        # 2018 order: what needs no RoIs comes first.
        heads = sorted(graph.heads, key=lambda head: bool(head.needs))
        losses = [loss for head in heads for loss in head.losses(graph)]
        return mx.sym.Group([*losses, *graph.labels])
    # 2018 order again: maps behind the images' numbers. What 2018 did not have comes last.
    results = [(head, head.results(graph)) for head in graph.heads]
    boxes = [symbol for head, symbols in results if not head.gives_maps for symbol in symbols]
    of_maps = [symbol for head, symbols in results if head.gives_maps for symbol in symbols]
    outputs = [*boxes, graph.input(IMAGE_ID), *of_maps]
    if not _only_image_ids(graph.heads, rpn_only=rpn_only):
        outputs += [graph.input(IMAGE_INFO), graph.input(WINDOW_ID)]
    if roi_map:
        pooled_from: RoiMap = graph.get("roi_map")
        outputs.append(pooled_from.features)
    if feature_map:
        # Under a name of its own: backbones call theirs differently.
        outputs.append(mx.sym.identity(graph.map().data, name=FEATURE_MAP))
    if roi_features:
        outputs.append(pool_features(graph.map(), graph.get("rois").rois))
    return mx.sym.Group(outputs)


def _only_image_ids(heads: Iterable[Head], *, rpn_only: bool) -> bool:
    return rpn_only or any(head.only_image_ids for head in heads)


def _heads(spec: DetectorSpec, *, train: bool, rpn_only: bool) -> list[Head]:
    active = [head for head in spec.network.heads if head.is_active(spec)]
    if not rpn_only:
        return active
    return [head for head in active if (head.in_rpn_training if train else head.in_rpn_test)]


def batch_contract(spec: DetectorSpec, chip_size: int, *, rpn_only: bool = False) -> BatchContract:
    """All arrays of a training batch: what the loader makes and what the network reads.

    Raises:
        ConfigError: the chip is not made of whole feature cells, or a setting is out of range.
    """
    heads = _heads(spec, train=True, rpn_only=rpn_only)
    parts = (head.labels(spec, chip_size) for head in heads)
    return BatchContract(chip_size, tuple(part for part in parts if part is not None))


def train_input_shapes(
    spec: DetectorSpec, chip_size: int, *, rpn_only: bool = False
) -> dict[str, Shape]:
    """Shapes of all data and labels of one device, see `batch_contract`."""
    return batch_contract(spec, chip_size, rpn_only=rpn_only).input_shapes(spec.batch_images)


def data_names(spec: DetectorSpec, *, rpn_only: bool = False) -> list[str]:
    """Names of the inputs at test, in the order of the 2018 iterators."""
    return list(inference_input_shapes(spec, 1, 1, 1, rpn_only=rpn_only))


def inference_input_shapes(
    spec: DetectorSpec, batch_images: int, height: int, width: int, *, rpn_only: bool = False
) -> dict[str, Shape]:
    """Shapes of all inputs of one device at test time."""
    shapes: dict[str, Shape] = {
        "data": (batch_images, 3, height, width),
        IMAGE_INFO: (batch_images, 3),
        IMAGE_ID: (batch_images,),
    }
    if _only_image_ids(_heads(spec, train=False, rpn_only=rpn_only), rpn_only=rpn_only):
        return shapes
    return {**shapes, WINDOW_ID: (batch_images,)}


def short_output_names(names: Iterable[str], spec: DetectorSpec | None = None) -> list[str]:
    """Output names without `_output`; with `spec` those without a name get the heads' one."""
    meanings: dict[str, str] = {}
    for head in spec.network.heads if spec else ():
        meanings.update(head.output_names)
    short = [name.removesuffix(OUTPUT_SUFFIX) for name in names]
    return [meanings.get(name, name) for name in short]


def batch_metrics(spec: DetectorSpec, *, rpn_only: bool = False) -> Measure:
    """What computes the metrics of all heads from outputs and labels of a batch, by name."""
    heads = _heads(spec, train=True, rpn_only=rpn_only)

    def measure(outputs: Arrays, labels: Arrays) -> Sums:
        result: Sums = {}
        for head in heads:
            result.update(head.metrics(outputs, labels))
        return result

    return measure


def anchor_grids(spec: DetectorSpec, *, rpn_only: bool = False) -> list[AnchorGrid]:
    """The anchors of all heads, see `Head.anchor_grids`; where none says, those of the settings."""
    heads = _heads(spec, train=True, rpn_only=rpn_only)
    grids = [grid for head in heads for grid in head.anchor_grids(spec)]
    if grids:
        return grids
    rounding, stride = spec.targets.anchor_rounding, spec.feature_stride
    base = base_anchors(stride, spec.anchor_ratios, spec.anchor_scales, rounding=rounding)
    return [AnchorGrid(base, stride, RPN_BORDER_PX)]


def watched_metrics(
    spec: DetectorSpec, chip_size: int, *, rpn_only: bool = False
) -> dict[str, str]:
    """Metrics of all heads that must not stay 0, see `Head.must_not_stay_zero`."""
    result: dict[str, str] = {}
    for head in _heads(spec, train=True, rpn_only=rpn_only):
        result.update(head.must_not_stay_zero(spec, chip_size))
    return result


def decode(window: WindowOutputs, *, rpn_only: bool = False) -> WindowDetections:
    """Boxes (px of the network's input), scores and maps of one window; without empty slots."""
    detections = WindowDetections()
    for head in _heads(window.spec, train=False, rpn_only=rpn_only):
        head.decode(window, detections)
    if FEATURE_MAP in window.outputs:
        detections.maps["features"] = window.outputs[FEATURE_MAP][window.row]
    if ROI_FEATURES in window.outputs:
        count = window.spec.proposal.post_nms_top_n
        rows = slice(window.row * count, (window.row + 1) * count)
        detections.roi_features = window.outputs[ROI_FEATURES][rows]
    if detections.is_filled is not None:
        if detections.roi_features is not None:
            detections.roi_features = detections.roi_features[detections.is_filled]
        detections.boxes, detections.scores = (
            detections.boxes[detections.is_filled],
            detections.scores[detections.is_filled],
        )
    return detections
