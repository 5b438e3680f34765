"""What describes a detector: one frozen value that decides a network's whole graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sniper.data.classes import Classes
from sniper.data.super_classes import super_of
from sniper.errors import ConfigError
from sniper.models.heads.fine import FineHead
from sniper.models.heads.mask import MaskHead
from sniper.models.heads.rfcn import RfcnClassHead
from sniper.models.networks import Network, network_names, network_of
from sniper.targets.focus_map import FocusRanges

SHORTEST_MASK_ROW = 8
# Fields that only some backbones know, and which values these allow, they say themselves.
BACKBONE_OPTIONS = ("padding", "activation", "dilate")


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
class TargetSettings:
    """How labels are made, where that does not change their shapes.

    Args:
        valid_ranges: (low, high) of the square root of a box's area in image px per pyramid level.
        anchor_rounding: see `sniper.targets.anchors.base_anchors`.
        rpn_fg_fraction: largest share of positives among the sampled anchors.
        rpn_positive_overlap: IoU from which an anchor is positive.
        rpn_negative_overlap: IoU below which an anchor is negative.
        focus: sizes of the boxes that the FocusPixel labels look for.
        rpn_ignore_crowd: what lies in crowd regions is no background to the RPN.
        anchor_border_px: so far trained anchors may stick out of a chip; None: as published. The
            last module of SSH never has less than that.
    """

    valid_ranges: Sequence[Sequence[float]] = ((-1, -1),)
    anchor_rounding: str = "legacy"
    rpn_fg_fraction: float = 0.5
    rpn_positive_overlap: float = 0.5
    rpn_negative_overlap: float = 0.4
    focus: FocusRanges = field(default_factory=lambda: FocusRanges(5, 64, 90))
    rpn_ignore_crowd: bool = False
    anchor_border_px: float | None = None


@dataclass(frozen=True)
class FineSettings:
    """How R-FCN-3K tells classes apart (`*_3k` networks only).

    Args:
        super_classes: names of the K super-classes and of their classes; empty: all classes are
            one, "object".
        super_of: super-class, 1 ... K, of every class 1 ... C; empty: they are not known yet, see
            `DetectorSpec.for_classes`, or there is one super-class.
        rois: positive RoIs per image that the fine head trains on.
        legacy_cap: the images of a batch share these RoIs in their order, as in 2018; else each
            has its own.
        id_offset: 0: channel c - 1 of the fine head is class c. 1: channel c - 2, as in weights
            that were trained with classes from 0 on (2018); the first class has none then.
        loss_divisor: the fine loss is divided by it; 0: 200 times the images of a device.
    """

    super_classes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    super_of: tuple[int, ...] = ()
    rois: int = 50
    legacy_cap: bool = False
    id_offset: int = 0
    loss_divisor: float = 0.0


@dataclass(frozen=True)
class DetectorSpec:
    """Everything that decides a network's graph.

    Args:
        symbol: name of the network, see `sniper.models.networks`.
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
        padding: "symmetric" or "tf_same", if the backbone has it.
        width: channel multiplier of the backbone.
        activation: "relu6" or "relu", if the backbone has it.
        dilate: the blocks behind a removed stride are dilated, if the backbone has it.
        rpn_channels: channels of the RPN's 3x3 layer; 0 is the network's own.
        roi_channels: channels of the RoI feature map, and of the mask and FocusPixel layers.
        fc_channels: width of the RoI head's layers, in R-FCN of its 1x1 convolutions; 0 is the
            network's own.
        rfcn_relu: in R-FCN a ReLU stands in front of the position-sensitive maps; R-FCN-3K of 2018
            made one and did not use it.
        proposal: settings of the proposal operator.
        legacy_gt_centre: ground-truth centres are half a pixel off, as in 2018.
        legacy_areas: areas without +1 beside intersections with it, as in 2018.
        legacy_min_size: thin proposals survive, as in 2018.
        legacy_boxes: boxes follow the rules of those who trained first (`TRAIN.LEGACY_BOXES`); in
            SSH they end 1 px behind their last pixel.
        bbox_loss_divisor: the RoI box loss is divided by it; 0 is the 2018 constant.
        auto_focus: with the FocusPixel branch of AutoFocus.
        with_masks: the mask head is trained (a `*_mask` network only).
        max_masks: rois per image that the mask head trains on.
        mask_size: pixels per side of a predicted mask; even.
        max_gt: rows of `gt_boxes` and `gt_masks`.
        soft_sampling: a, b, c of Soft Sampling: background counts the less the farther it is from
            every object; None: all counts alike.
        crowd_ioa: RoIs with more than this share of their area in a crowd region are no background
            there; 0: they are (2018 for COCO).
        max_crowd: rows of `crowd_boxes`.
        mask_row_length: numbers of a row of `gt_masks`.
        fine: super-classes and the fine head.
        targets: how the loader makes labels.

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
    rfcn_relu: bool = False
    proposal: ProposalSettings = field(default_factory=ProposalSettings)
    legacy_gt_centre: bool = True
    legacy_areas: bool = True
    legacy_min_size: bool = True
    legacy_boxes: bool = False
    bbox_loss_divisor: float = 0.0
    auto_focus: bool = False
    with_masks: bool = False
    max_masks: int = 50
    mask_size: int = 28
    max_gt: int = 100
    soft_sampling: tuple[float, float, float] | None = None
    crowd_ioa: float = 0.0
    max_crowd: int = 10
    mask_row_length: int = 500
    fine: FineSettings = field(default_factory=FineSettings)
    # Not part of what the network's results depend on, which executors tell by its text.
    targets: TargetSettings = field(default_factory=TargetSettings, repr=False)

    def __post_init__(self) -> None:
        backbone = self.network.backbone
        _check("network.RPN_FEAT_STRIDE", self.feature_stride, backbone.strides)
        _check("network.BN_MODE", self.bn_mode, ("batch", "frozen"))
        for name in BACKBONE_OPTIONS:
            default = type(self).__dataclass_fields__[name].default
            allowed = backbone.options.get(name, (default,))
            _check(f"network.{name.upper()}", getattr(self, name), allowed)
        if self.with_masks and not self.network.has(MaskHead):
            other = f"{self.symbol}_mask"
            hint = f", {other} has one" if other in network_names() else ""
            raise ConfigError(
                f"the symbol {self.symbol} has no mask head{hint}",
                where="TRAIN.WITH_MASK",
                got=True,
                expected="false, or a symbol that ends in e2e_mask",
            )
        if self.auto_focus and self.network.has(RfcnClassHead):
            raise ConfigError(
                f"the symbol {self.symbol} has no FocusPixel branch",
                where="TRAIN.AUTO_FOCUS, TEST.AUTO_FOCUS",
                got=True,
            )
        if self.targets.rpn_ignore_crowd and not self.crowd_ioa:
            raise ConfigError(
                "which anchors lie in a crowd region is not said",
                where="TRAIN.RPN_IGNORE_CROWD, TRAIN.CROWD_IOA",
                got="True, 0",
                fix="set TRAIN.CROWD_IOA, such as 0.9",
            )
        self._check_super_classes()
        self._check_sizes()

    def _check_super_classes(self) -> None:
        _check("network.FINE_ID_OFFSET", self.fine.id_offset, (0, 1))
        if self.fine.super_classes and not self.network.has(FineHead):
            raise ConfigError(
                "only the *_3k networks have super-classes",
                where="network.SUPER_CLASSES",
                got=self.symbol,
            )

    def _check_sizes(self) -> None:
        _check_positive("dataset.NUM_CLASSES", self.num_classes, minimum=2)
        _check_positive("TRAIN.MAX_POLYGON_LEN", self.mask_row_length, SHORTEST_MASK_ROW)
        for key, value in (
            ("BATCH_IMAGES", self.batch_images),
            ("TRAIN.RPN_BATCH_SIZE", self.rpn_batch_size),
            ("TRAIN.MAX_GT", self.max_gt),
            ("TRAIN.MAX_CROWD", self.max_crowd),
            ("network.WIDTH", self.width),
            ("network.ROI_CHANNELS", self.roi_channels),
            ("network.ANCHOR_SCALES", len(self.anchor_scales)),
            ("network.ANCHOR_RATIOS", len(self.anchor_ratios)),
            ("PROPOSAL_OP.post_nms_top_n", self.proposal.post_nms_top_n),
            ("max_masks", self.max_masks),
            ("mask_size", self.mask_size),
            ("network.FINE_ROIS", self.fine.rois),
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
    def network(self) -> Network:
        """The network that is asked for: its backbone and its heads."""
        return network_of(self.symbol)

    @property
    def super_of(self) -> tuple[int, ...]:
        """Super-class of every class 1 ... C.

        Raises:
            ConfigError: there are several, and the classes are not known.
        """
        if self.fine.super_of:
            return self.fine.super_of
        if len(self.fine.super_classes) > 1:
            raise ConfigError(
                "which classes the super-classes hold is not known yet",
                where="network.SUPER_CLASSES",
                fix="take the DetectorSpec of `for_classes`",
            )
        return (1,) * (self.num_classes - 1)

    @property
    def roi_classes(self) -> int:
        """What an R-FCN tells RoIs apart by, with background: super-classes, or all classes."""
        supers = max(1, len(self.fine.super_classes))
        return supers + 1 if self.network.has(FineHead) else self.num_classes

    def for_classes(self, classes: Classes) -> DetectorSpec:
        """The network for these classes: it knows the super-class of each.

        Raises:
            DataError: the super-classes are not made of these classes.
        """
        table = dict(self.fine.super_classes)
        if not table:
            return self
        return replace(self, fine=replace(self.fine, super_of=super_of(table, classes)))

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
