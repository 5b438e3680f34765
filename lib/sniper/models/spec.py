"""What describes a detector: one frozen value that decides a network's whole graph."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sniper.errors import ConfigError
from sniper.models.networks import NETWORKS, NetworkTraits

SHORTEST_MASK_ROW = 8


@dataclass(frozen=True)
class ProposalSettings:
    """How many proposals the operators make; the defaults are those of 2018 at test time.

    Args:
        pre_nms_top_n: candidates before NMS; -1 takes all (2018 training).
        nms_thresh: proposals with a higher IoU are suppressed.
        min_size: shortest side, px.
        post_nms_top_n: proposals per image.
    """

    pre_nms_top_n: int = 12000
    nms_thresh: float = 0.7
    min_size: float = 3
    post_nms_top_n: int = 300


@dataclass(frozen=True)
class DetectorSpec:
    """Everything that decides a network's graph.

    Args:
        symbol: name of the network, a key of `NETWORKS`.
        num_classes: classes with background.
        anchor_scales: anchor sides in units of `feature_stride`.
        anchor_ratios: height / width.
        feature_stride: px per cell of the feature map.
        batch_images: images per device; the losses are normalised with it.
        fp16: half-precision backbone (GPU only).
        loss_scale: factor on every gradient.
        rpn_batch_size: anchors per image that the RPN trains on.
        bn_momentum: of the running averages.
        bn_mode: "batch", or "frozen": every batch norm uses its stored statistics.
        padding: "symmetric" or "tf_same" (MobileNetV2 only).
        width: channel multiplier of the backbone.
        activation: "relu6" or "relu" (MobileNetV2 only).
        dilate: at stride 16 the blocks behind the removed stride are dilated (MobileNetV2 only).
        rpn_channels: channels of the RPN's 3x3 layer; 0 is the network's own.
        roi_channels: channels of the RoI feature map, and of the mask and FocusPixel layers.
        fc_channels: width of the RoI head's layers; 0 is the network's own.
        proposal: settings of the proposal operator.
        legacy_gt_centre: ground-truth centres are half a pixel off, as in 2018.
        legacy_areas: areas without +1 beside intersections with it, as in 2018.
        legacy_min_size: thin proposals survive, as in 2018.
        bbox_loss_divisor: the RoI box loss is divided by it; 0 is the 2018 constant.
        auto_focus: with the FocusPixel branch of AutoFocus.
        with_masks: the mask head is trained (a `*_mask` network only).
        max_masks: rois per image that the mask head trains on.
        mask_size: pixels per side of a predicted mask; even.
        max_gt: rows of `gt_boxes` and `gt_masks`.
        mask_row_length: numbers of a row of `gt_masks`.

    Raises:
        ConfigError: a value does not fit the network.
    """

    symbol: str
    num_classes: int
    anchor_scales: tuple[float, ...]
    anchor_ratios: tuple[float, ...]
    feature_stride: int
    batch_images: int
    fp16: bool = False
    loss_scale: float = 1.0
    rpn_batch_size: int = 256
    bn_momentum: float = 0.995
    bn_mode: str = "batch"
    padding: str = "symmetric"
    width: float = 1.0
    activation: str = "relu6"
    dilate: bool = True
    rpn_channels: int = 0
    roi_channels: int = 256
    fc_channels: int = 0
    proposal: ProposalSettings = field(default_factory=ProposalSettings)
    legacy_gt_centre: bool = True
    legacy_areas: bool = True
    legacy_min_size: bool = True
    bbox_loss_divisor: float = 0.0
    auto_focus: bool = False
    with_masks: bool = False
    max_masks: int = 50
    mask_size: int = 28
    max_gt: int = 100
    mask_row_length: int = 500

    def __post_init__(self) -> None:
        if self.symbol not in NETWORKS:
            raise ConfigError(
                "this network is not available",
                where="symbol",
                got=self.symbol,
                expected=", ".join(sorted(NETWORKS)),
            )
        backbone = self.traits.backbone
        _check("network.RPN_FEAT_STRIDE", self.feature_stride, backbone.strides)
        _check("network.BN_MODE", self.bn_mode, ("batch", "frozen"))
        choices = 2 if backbone.mobile else 1
        _check("network.PADDING", self.padding, ("symmetric", "tf_same")[:choices])
        _check("network.ACTIVATION", self.activation, ("relu6", "relu")[:choices])
        if not self.traits.heads.masks:
            _check("TRAIN.WITH_MASK", self.with_masks, (False,))
        self._check_sizes()

    def _check_sizes(self) -> None:
        _check_positive("dataset.NUM_CLASSES", self.num_classes, minimum=2)
        _check_positive("TRAIN.MAX_POLYGON_LEN", self.mask_row_length, SHORTEST_MASK_ROW)
        for key, value in (
            ("BATCH_IMAGES", self.batch_images),
            ("TRAIN.RPN_BATCH_SIZE", self.rpn_batch_size),
            ("TRAIN.MAX_GT", self.max_gt),
            ("network.WIDTH", self.width),
            ("network.ROI_CHANNELS", self.roi_channels),
            ("network.ANCHOR_SCALES", len(self.anchor_scales)),
            ("network.ANCHOR_RATIOS", len(self.anchor_ratios)),
            ("PROPOSAL_OP.post_nms_top_n", self.proposal.post_nms_top_n),
            ("max_masks", self.max_masks),
            ("mask_size", self.mask_size),
        ):
            _check_positive(key, value)
        if self.mask_size % 2:
            raise ConfigError(
                "the mask head doubles its resolution",
                where="mask_size",
                got=self.mask_size,
                expected="an even number",
            )

    def in_fp32(self) -> DetectorSpec:
        """The same network without half precision."""
        return replace(self, fp16=False, loss_scale=1.0) if self.fp16 else self

    @property
    def traits(self) -> NetworkTraits:
        """Properties of the network that is asked for."""
        return NETWORKS[self.symbol]

    @property
    def num_anchors(self) -> int:
        """Anchors per feature cell."""
        return len(self.anchor_scales) * len(self.anchor_ratios)


def _check(key: str, value: object, allowed: tuple) -> None:
    if value not in allowed:
        raise ConfigError(
            "this value does not fit the network",
            where=key,
            got=value,
            expected=" or ".join(map(str, allowed)),
        )


def _check_positive(key: str, value: float, minimum: float = 0) -> None:
    if not (value >= minimum and value > 0):
        raise ConfigError(
            "the value is too small",
            where=key,
            got=value,
            expected=f"at least {minimum}" if minimum else "more than 0",
        )


def data_names(spec: DetectorSpec, *, train: bool, rpn_only: bool = False) -> list[str]:
    """Names of the inputs, in the order of the 2018 iterators (the same for every network)."""
    if train:
        return ["data"] if rpn_only else ["data", "valid_ranges", "im_info"]
    names = ["data", "im_info", "im_ids"]
    return names if rpn_only else [*names, "chip_ids"]


def label_names(spec: DetectorSpec, *, rpn_only: bool = False) -> list[str]:
    """Names of the labels in training, in the order of the 2018 iterators."""
    names = ["label", "bbox_target", "bbox_weight"]
    if rpn_only:
        return names
    names.append("gt_boxes")
    names += ["scale_label"] if spec.auto_focus else []
    names += ["gt_masks"] if spec.with_masks else []
    return names


def train_input_shapes(
    spec: DetectorSpec, chip_size: int, *, rpn_only: bool = False
) -> dict[str, tuple[int, ...]]:
    """Shapes of all data and labels of one device.

    Raises:
        ConfigError: the chip is not made of whole feature cells.
    """
    cell = spec.feature_stride
    if chip_size <= 0 or chip_size % cell:
        raise ConfigError(
            "the chip size must be a multiple of the network's stride",
            where="TRAIN.CHIP_SIZE",
            got=chip_size,
            expected=f"a multiple of {cell}",
        )
    images, anchors, side = spec.batch_images, spec.num_anchors, chip_size // cell
    shapes = {
        "data": (images, 3, chip_size, chip_size),
        "valid_ranges": (images, 2),
        "im_info": (images, 3),
        "label": (images, anchors * side * side),
        "bbox_target": (images, 4 * anchors, side, side),
        "bbox_weight": (images, 4 * anchors, side, side),
        "gt_boxes": (images, spec.max_gt, 5),
        "scale_label": (images, side * side),
        "gt_masks": (images, spec.max_gt, spec.mask_row_length),
    }
    names = data_names(spec, train=True, rpn_only=rpn_only)
    names += label_names(spec, rpn_only=rpn_only)
    return {name: shapes[name] for name in names}


def inference_input_shapes(
    spec: DetectorSpec, batch_images: int, height: int, width: int, *, rpn_only: bool = False
) -> dict[str, tuple[int, ...]]:
    """Shapes of all inputs of one device at test time."""
    shapes = {
        "data": (batch_images, 3, height, width),
        "im_info": (batch_images, 3),
        "im_ids": (batch_images,),
        "chip_ids": (batch_images,),
    }
    return {name: shapes[name] for name in data_names(spec, train=False, rpn_only=rpn_only)}
