"""From the configuration to the parts of a plan, each on its own for tools that need no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from easydict import EasyDict

from sniper.chips.chip_settings import ChipSettings
from sniper.config import dump_config
from sniper.config.rules import is_full_coco
from sniper.data.super_classes import read_super_classes, super_classes_text
from sniper.errors import ConfigError
from sniper.loader.batch_settings import BatchSettings
from sniper.loader.colour_jitter import ColourJitter
from sniper.models.assembly import DetectorSpec, ProposalSettings, batch_contract
from sniper.models.heads.roi import BOX_LOSS_ROIS
from sniper.models.spec import FineSettings, TargetSettings
from sniper.process import usable_cores
from sniper.runs.datasets import DataSource, TrainingData
from sniper.runs.devices import Device, uses_gpu
from sniper.runs.folders import mining_folder
from sniper.targets.focus_map import FocusRanges

# The tools that look at data need parts of this, but not MXNet: it is imported where it is used.
if TYPE_CHECKING:
    from sniper.training.loop import LoopSettings


def data_source(cfg: EasyDict) -> DataSource:
    """Where the data sets of a configuration are."""
    dataset = cfg.dataset
    return DataSource(
        format=dataset.dataset,
        path=Path(dataset.dataset_path),
        cache_dir=Path(dataset.root_path) / "cache",
        num_classes=dataset.NUM_CLASSES,
        legacy_boxes=bool(cfg.TRAIN.LEGACY_BOXES),
        annotation_file=dataset.annotation_file or None,
        image_folder=dataset.image_folder or None,
        exif=dataset.EXIF,
    )


def training_data(cfg: EasyDict) -> TrainingData:
    """What a configuration trains on.

    Raises:
        ConfigError: the names of the sets are wrong.
    """
    train = cfg.TRAIN
    return TrainingData(
        source=data_source(cfg),
        sets=tuple(training_sets(cfg)),
        with_masks=bool(train.WITH_MASK) and not train.ONLY_PROPOSAL,
        with_negatives=with_negatives(cfg),
        keep_without_objects=bool(train.NEG_CHIPS_WITHOUT_OBJECTS),
        flip=bool(train.FLIP),
        proposal_dir=proposal_dir(cfg),
        background_chips=train.BACKGROUND_CHIPS > 0 or train.RANDOM_CROPS > 0,
    )


def with_negatives(cfg: EasyDict) -> bool:
    """Whether negative chips are cut around proposals.

    A proposal network is trained with them too where it is told to, as in 2018; but none mines for
    itself, since what it mines with is a proposal network.
    """
    return bool(cfg.TRAIN.USE_NEG_CHIPS) and (not cfg.TRAIN.ONLY_PROPOSAL or not _says_mine(cfg))


def mines(cfg: EasyDict) -> bool:
    """Whether the run makes its proposals itself (`sniper.runs.mining`)."""
    return _says_mine(cfg) and not cfg.TRAIN.ONLY_PROPOSAL


def _says_mine(cfg: EasyDict) -> bool:
    return cfg.TRAIN.USE_NEG_CHIPS == "mine"


@dataclass(frozen=True)
class MiningPlan:
    """Where the stages leave their results.

    Attributes:
        network_dir: output folder of the proposal network.
        proposal_dir: folder of the proposal files.
        epochs: of the proposal network.
    """

    network_dir: Path
    proposal_dir: Path
    epochs: int


def mining_plan(cfg: EasyDict) -> MiningPlan:
    """Mining for `TRAIN.USE_NEG_CHIPS mine`: everything stays in the folder of the detector.

    Raises:
        ConfigError: several workers are to train: one has to extract while the others wait.
    """
    if "dist" in cfg.default.kvstore:
        raise ConfigError(
            "TRAIN.USE_NEG_CHIPS mine works with one process",
            where="default.kvstore",
            got=cfg.default.kvstore,
            fix="run `sniper mine-negatives` with one process first, then train all workers with "
            "its proposals: --set TRAIN.USE_NEG_CHIPS True proposal_path FOLDER",
        )
    folder = mining_folder(cfg)
    return MiningPlan(folder / "network", folder, cfg.TRAIN.MINING_EPOCHS)


def proposal_dir(cfg: EasyDict) -> Path:
    """Where training finds proposals."""
    return mining_folder(cfg) if mines(cfg) else Path(cfg.proposal_path)


def training_sets(cfg: EasyDict) -> list[str]:
    """Names of the training sets, which `dataset.image_set` joins with `+`.

    Raises:
        ConfigError: a name is empty or stands there twice.
    """
    names = [name.strip() for name in cfg.dataset.image_set.split("+")]
    problem = None
    if not all(names):
        problem = "a set without a name"
    elif len(set(names)) < len(names):
        problem = f"{next(name for name in names if names.count(name) > 1)!r} twice"
    if problem is not None:
        raise ConfigError(
            f"dataset.image_set names {problem}",
            got=repr(cfg.dataset.image_set),
            expected="one set, or different sets joined by '+': train2014+val2014",
        )
    return names


def validation_set(cfg: EasyDict) -> str:
    """`TRAIN.VALIDATION_SET`, or the test set."""
    return cfg.TRAIN.VALIDATION_SET or cfg.dataset.test_image_set


def scales_by_rule(cfg: EasyDict) -> bool:
    """Whether the 2018 rule for COCO has set `TRAIN.SCALES` (`sniper.config.rules`)."""
    is_coco = is_full_coco(cfg.dataset.dataset, cfg.dataset.NUM_CLASSES)
    return is_coco and bool(cfg.TRAIN.COCO_SCALE_OVERRIDE)


def loop_settings(cfg: EasyDict) -> LoopSettings:
    """When things happen in a training run."""
    from sniper.training.loop import LoopSettings

    train = cfg.TRAIN
    return LoopSettings(
        end_epoch=train.end_epoch,
        max_updates=train.MAX_UPDATES,
        accumulation=train.ACCUMULATION_STEPS,
        checkpoint_every=train.CHECKPOINT_EVERY,
        # The detections of an RPN alone cannot be evaluated.
        validate_every=0 if train.ONLY_PROPOSAL else train.VALIDATE_EVERY,
        patience=0 if train.ONLY_PROPOSAL else train.EARLY_STOPPING.PATIENCE,
        min_delta=train.EARLY_STOPPING.MIN_DELTA,
    )


def fixed_params(cfg: EasyDict) -> tuple[str, ...]:
    """Parts of names of parameters that are not trained."""
    # "frozen" is said of scale and shift as well, not only of the statistics.
    frozen = ("gamma", "beta") if cfg.network.BN_MODE == "frozen" else ()
    return (*cfg.network.FIXED_PARAMS, *frozen)


@dataclass(frozen=True)
class TrainingLoad:
    """What decides the memory of training, beside the network.

    Attributes:
        batch_images: chips of a device.
        chip_size: px.
        rpn_only: only the proposal network is trained.
        fp16: half precision is asked for.
        fixed: parts of names of parameters that are not trained.
        sums_gradients: over batches or workers.
        averages: averaged weights are kept.
    """

    batch_images: int
    chip_size: int
    rpn_only: bool
    fp16: bool
    fixed: tuple[str, ...]
    sums_gradients: bool
    averages: bool


def training_load(cfg: EasyDict) -> TrainingLoad:
    """The same of a configuration, whose devices need not be there."""
    train = cfg.TRAIN
    return TrainingLoad(
        train.BATCH_IMAGES,
        train.CHIP_SIZE,
        bool(train.ONLY_PROPOSAL),
        bool(train.fp16),
        fixed_params(cfg),
        train.ACCUMULATION_STEPS > 1 or "dist" in cfg.default.kvstore,
        train.EMA_DECAY > 0,
    )


def detector_spec(cfg: EasyDict, *, train: bool, batch_images: int, fp16: bool) -> DetectorSpec:
    """Network description; `batch_images` is the number of images per device."""
    network = cfg.network
    proposal = cfg.TRAIN.PROPOSAL_OP if train else cfg.TEST.PROPOSAL_OP
    return DetectorSpec(
        symbol=cfg.symbol,
        num_classes=cfg.dataset.NUM_CLASSES,
        anchor_scales=tuple(network.ANCHOR_SCALES),
        anchor_ratios=tuple(network.ANCHOR_RATIOS),
        feature_stride=network.RPN_FEAT_STRIDE,
        batch_images=batch_images,
        fp16=fp16,
        loss_scale=cfg.TRAIN.scale if fp16 else 1.0,
        rpn_batch_size=cfg.TRAIN.RPN_BATCH_SIZE,
        bn_momentum=network.BN_MOMENTUM,
        bn_mode=network.BN_MODE,
        padding=network.PADDING,
        width=network.WIDTH,
        activation=network.ACTIVATION,
        dilate=network.DILATE,
        rpn_channels=network.RPN_CHANNELS,
        roi_channels=network.ROI_CHANNELS,
        fc_channels=network.FC_CHANNELS,
        rfcn_relu=network.RFCN_RELU,
        proposal=ProposalSettings(**proposal),
        legacy_gt_centre=cfg.TRAIN.LEGACY_GT_CENTRE,
        legacy_areas=cfg.TRAIN.LEGACY_AREAS,
        legacy_min_size=cfg.TRAIN.LEGACY_MIN_SIZE,
        legacy_boxes=bool(cfg.TRAIN.LEGACY_BOXES),
        bbox_loss_divisor=_bbox_loss_divisor(cfg, batch_images),
        auto_focus=bool(cfg.TRAIN.AUTO_FOCUS if train else cfg.TEST.AUTO_FOCUS),
        with_masks=bool(cfg.TRAIN.WITH_MASK),
        max_gt=cfg.TRAIN.MAX_GT,
        soft_sampling=_soft_sampling(cfg),
        crowd_ioa=cfg.TRAIN.CROWD_IOA,
        max_crowd=cfg.TRAIN.MAX_CROWD,
        mask_row_length=cfg.TRAIN.MAX_POLYGON_LEN,
        fine=_fine_settings(cfg),
        targets=_target_settings(cfg),
    )


def _soft_sampling(cfg: EasyDict) -> tuple[float, float, float] | None:
    """Soft Sampling's a, b and c."""
    soft = cfg.TRAIN.SOFT_SAMPLING
    return (soft.A, soft.B, soft.C) if soft.ENABLE else None


def _fine_settings(cfg: EasyDict) -> FineSettings:
    """Super-classes and the fine head of R-FCN-3K."""
    network = cfg.network
    table = read_super_classes(network.SUPER_CLASSES) if network.SUPER_CLASSES else {}
    return FineSettings(
        super_classes=tuple(table.items()),
        rois=network.FINE_ROIS,
        legacy_cap=cfg.TRAIN.LEGACY_FINE_CAP,
        id_offset=network.FINE_ID_OFFSET,
        loss_divisor=cfg.TRAIN.fine_loss_divisor,
    )


def complete_config(cfg: EasyDict) -> str:
    """The configuration as yaml, with the content of the small files that it names.

    It lies beside weights and in archives, which go where these files are not.
    """
    if not cfg.network.SUPER_CLASSES:
        return dump_config(cfg)
    table = read_super_classes(cfg.network.SUPER_CLASSES)
    network = {**cfg.network, "SUPER_CLASSES": super_classes_text(table)}
    return dump_config({**cfg, "network": network})


def _target_settings(cfg: EasyDict) -> TargetSettings:
    """How the loader makes labels."""
    train = cfg.TRAIN
    return TargetSettings(
        valid_ranges=tuple(tuple(pair) for pair in train.VALID_RANGES),
        anchor_rounding=cfg.network.ANCHOR_ROUNDING,
        rpn_fg_fraction=train.RPN_FG_FRACTION,
        rpn_positive_overlap=train.RPN_POSITIVE_OVERLAP,
        rpn_negative_overlap=train.RPN_NEGATIVE_OVERLAP,
        focus=FocusRanges(
            low=train.AUTO_FOCUS_DC_LOW,
            small=train.AUTO_FOCUS_SMALL_THRESH,
            high=train.AUTO_FOCUS_DC_HIGH,
        ),
        rpn_ignore_crowd=train.RPN_IGNORE_CROWD,
        anchor_border_px=train.RPN_ALLOWED_BORDER,
    )


def _bbox_loss_divisor(cfg: EasyDict, batch_images: int) -> float:
    """`TRAIN.bbox_loss_divisor`; 0 is left to the network, unless gradients are averaged.

    The constant of 2018 gives a device with more chips a larger box loss. A mean over devices is to
    be the mean over their chips, and so each device's loss has to be a mean.
    """
    train = cfg.TRAIN
    if train.bbox_loss_divisor or train.GRADIENT_REDUCTION == "sum":
        return train.bbox_loss_divisor
    return BOX_LOSS_ROIS * batch_images


def fp16_in_force(cfg: EasyDict, devices: Sequence[Device]) -> bool:
    """`TRAIN.fp16`, but never on the CPU, where MXNet has no half-precision convolution."""
    return bool(cfg.TRAIN.fp16) and uses_gpu(devices)


def chip_settings(cfg: EasyDict) -> ChipSettings:
    """How chips are cut for training."""
    return ChipSettings(
        scales=tuple(cfg.TRAIN.SCALES),
        valid_ranges=tuple(tuple(pair) for pair in cfg.TRAIN.VALID_RANGES),
        chip_size=cfg.TRAIN.CHIP_SIZE,
        use_neg_chips=with_negatives(cfg),
        max_neg_chips=cfg.TRAIN.MAX_NEG_CHIPS,
        legacy_boxes=bool(cfg.TRAIN.LEGACY_BOXES),
        min_false_alarms=cfg.TRAIN.MIN_FALSE_ALARMS,
        background_chips=cfg.TRAIN.BACKGROUND_CHIPS,
        random_crops=cfg.TRAIN.RANDOM_CROPS,
        class_balance=cfg.dataset.CLASS_BALANCED,
        chip_ranges=tuple(tuple(pair) for pair in cfg.TRAIN.CHIP_RANGES),
        side_limits=tuple(cfg.TRAIN.SIDE_LIMITS),
    )


def batch_settings(cfg: EasyDict) -> BatchSettings:
    """How chips become training tensors."""
    train = cfg.TRAIN
    # No label depends on the precision: the devices need not be known for it.
    spec = detector_spec(cfg, train=True, batch_images=train.BATCH_IMAGES, fp16=False)
    jitter = train.COLOR_JITTER
    return BatchSettings(
        batch_contract(spec, train.CHIP_SIZE, rpn_only=bool(train.ONLY_PROPOSAL)),
        pixel_means=cfg.network.PIXEL_MEANS,
        reduced_decoding=bool(train.REDUCED_DECODING),
        min_visible=train.MIN_VISIBLE,
        legacy_boxes=bool(train.LEGACY_BOXES),
        jitter=ColourJitter(
            *(jitter.BRIGHTNESS, jitter.CONTRAST, jitter.SATURATION, jitter.HUE),
        ),
    )


def worker_count(cfg: EasyDict) -> int:
    """Loader processes: `TRAIN.NUM_PROCESS`, never more than the cores (2018 asked for 64)."""
    configured = cfg.TRAIN.NUM_PROCESS
    cores = usable_cores()
    return cores if configured is None or configured < 0 else min(configured, cores)
