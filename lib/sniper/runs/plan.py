"""The one place where the configuration is read, once: into frozen plans of what a run does.

Everything below takes parts of a plan; nothing below sees the configuration. A new key is named in
the schema (`sniper.config`) and here, nowhere else. The small functions at the end resolve one part
each, for tools that look at data and need nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from easydict import EasyDict

from sniper.chips.sampler import ChipSettings
from sniper.config import dump_config, parse_lr_steps
from sniper.config.rules import is_full_coco
from sniper.errors import ConfigError
from sniper.loader.settings import BatchSettings
from sniper.process import usable_cores
from sniper.runs.levels import levels_of, merge_settings, mode_in_force
from sniper.targets.anchors import base_anchors
from sniper.targets.focus_map import FocusRanges
from sniper.training.step_settings import StepSettings

# The tools that look at data need parts of this, but not MXNet: it is imported where it is used.
if TYPE_CHECKING:
    import mxnet as mx

    from sniper.inference.level import Level
    from sniper.inference.merge_levels import MergeSettings
    from sniper.models.detector import DetectorSpec
    from sniper.training.loop import LoopSettings


@dataclass(frozen=True)
class DataSource:
    """Where the data sets of a run are.

    Attributes:
        format: name of the data format.
        path: root folder of the sets.
        cache_dir: where parsed annotations are kept.
        num_classes: classes with background that every set must have.
        names_dir: folder with the class names of the model, for sets that have none of their own.
    """

    format: str
    path: Path
    cache_dir: Path
    num_classes: int
    names_dir: Path


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on.

    Attributes:
        source: where the sets are.
        sets: their names, each once.
        with_masks: also read the polygons.
        with_negatives: also read the proposals, which become negative chips.
        keep_without_objects: images without objects may give negative chips.
        flip: add a mirrored copy of every image.
        proposal_dir: folder of the proposal files.
    """

    source: DataSource
    sets: tuple[str, ...]
    with_masks: bool
    with_negatives: bool
    keep_without_objects: bool
    flip: bool
    proposal_dir: Path


@dataclass(frozen=True)
class LoaderPlan:
    """How the loader works.

    Attributes:
        num_workers: its processes.
        shuffle_window: records whose chips are shuffled together; 0: all.
        image_cache_mb: memory of decoded images.
    """

    num_workers: int
    shuffle_window: int
    image_cache_mb: int


@dataclass(frozen=True)
class FirstWeights:
    """What a run begins with.

    Attributes:
        pretrained: a `.params` file; None: none.
        init: how the other layers start, `network.INIT`.
        fixed: parts of names of parameters that are not trained.
    """

    pretrained: Path | None
    init: str
    fixed: tuple[str, ...]


@dataclass(frozen=True)
class ValidationPlan:
    """What is validated: `test` is a `TestPlan` of the validation set, every `every` epochs."""

    test: TestPlan
    every: int


@dataclass(frozen=True)
class TrainPlan:
    """Everything that a training run does, resolved.

    Attributes:
        name: of the recipe.
        folder: of the checkpoints and logs.
        config: the configuration as yaml, to be written beside the weights.
        seed: of every random stream.
        kvstore: MXNet's name of what joins several processes.
        devices: where this process trains.
        data: what it trains on.
        chips: how chips are cut.
        batch: how chips become tensors.
        batch_images: chips of a device in one batch.
        loader: how the batches are made.
        detector: the network.
        rpn_only: only the proposal network is trained.
        weights: what it begins with.
        step: the update; `steps` and `fixed` are empty until the chips are counted and the network
            is built (see `step_settings`).
        lr_step: when the rate drops, as the configuration says it.
        reference_replicas: gradients in an update that the recipe's rate assumes.
        loop: when things happen.
        keep_checkpoints: how many checkpoints of epochs stay.
        keep_best: keep the weights that do best at validation.
        tensorboard: write curves for TensorBoard.
        validation: None: none.
        box_loss_is_mean: the RoI box loss of a device is a mean over its chips; elsewhere a
            constant divides it, whatever their number.
        scales_by_rule: the 2018 rule for COCO has set the pyramid.
        notes: what was asked for and is not in force, a sentence each.
    """

    name: str
    folder: Path
    config: str
    seed: int
    kvstore: str
    devices: tuple[mx.Context, ...]
    data: TrainingData
    chips: ChipSettings
    batch: BatchSettings
    batch_images: int
    loader: LoaderPlan
    detector: DetectorSpec
    rpn_only: bool
    weights: FirstWeights
    step: StepSettings
    lr_step: str
    reference_replicas: int
    loop: LoopSettings
    keep_checkpoints: int
    keep_best: bool
    tensorboard: bool
    validation: ValidationPlan | None
    box_loss_is_mean: bool
    scales_by_rule: bool
    notes: tuple[str, ...]

    def step_settings(self, samples: int, batch_size: int, fixed: Sequence[str]) -> StepSettings:
        """The update, complete.

        Args:
            samples: padded chips of the first epoch.
            batch_size: chips per update: devices x batch_images x accumulation x workers.
            fixed: names of the parameters that are not trained.

        Raises:
            ConfigError: `TRAIN.lr_step` does not give increasing updates.
        """
        steps = tuple(step_updates(self.lr_step, samples, batch_size))
        return replace(self.step, steps=steps, fixed=tuple(fixed))


@dataclass(frozen=True)
class TestPlan:
    """Everything that detection with a network does, resolved; travels to worker processes.

    Attributes:
        name: of the recipe.
        model_dir: folder of the checkpoints, where the logs go, too.
        epoch: number of the checkpoint to test.
        config: the configuration as yaml, for archives.
        devices: where the network runs.
        source: where the data sets are.
        image_set: the set to test on.
        detector: the network.
        rpn_only: proposals are extracted instead of detections.
        mode: `single`, `pyramid`, `focus` or `slice`.
        levels: what the mode looks at, in this order.
        pyramid: (short side, long side) of the full pyramid that shares of pixels refer to.
        merge: how the findings become one result.
        pixel_means: three means, BGR.
        jobs: processes that share the work.
        cached_levels: levels whose raw detections are kept on disk.
        proposals_per_level: how many are extracted.
        proposal_dir: where extracted proposals go.
        results_dir: where results go.
        drawings_dir: where drawings go.
        notes: what was asked for and is not in force, a sentence each.
    """

    name: str
    model_dir: Path
    epoch: int
    config: str
    devices: tuple[mx.Context, ...]
    source: DataSource
    image_set: str
    detector: DetectorSpec
    rpn_only: bool
    mode: str
    levels: tuple[Level, ...]
    pyramid: tuple[tuple[int, int], ...]
    merge: MergeSettings
    pixel_means: tuple[float, ...]
    jobs: int
    cached_levels: tuple[int, ...]
    proposals_per_level: int
    proposal_dir: Path
    results_dir: Path
    drawings_dir: Path
    notes: tuple[str, ...]


def train_plan(cfg: EasyDict) -> TrainPlan:
    """The plan of a training run.

    Args:
        cfg: a checked configuration (`sniper.config.load_config`).

    Raises:
        ConfigError: a value may be missing in a configuration for tests only, or does not fit the
            network or this machine.
    """
    for key in ("lr", "end_epoch"):
        if not cfg.TRAIN[key] > 0:
            raise ConfigError(
                f"TRAIN.{key} must be positive to train",
                where=cfg.name,
                got=cfg.TRAIN[key],
                fix=f"set it in the recipe, or with --set TRAIN.{key} VALUE",
            )
    train, network = cfg.TRAIN, cfg.network
    devices = contexts(cfg.gpus)
    fp16 = fp16_in_force(cfg, devices)
    frozen = ("gamma", "beta") if network.BN_MODE == "frozen" else ()
    pretrained = f"{network.pretrained}-{network.pretrained_epoch:04d}.params"
    loop = _loop_settings(cfg)
    detector = detector_spec(cfg, train=True, batch_images=train.BATCH_IMAGES, fp16=fp16)
    means = train.GRADIENT_REDUCTION == "mean" or detector.traits.backbone.mobile
    return TrainPlan(
        name=cfg.name,
        folder=model_folder(cfg),
        config=dump_config(cfg),
        seed=cfg.seed,
        kvstore=cfg.default.kvstore,
        devices=tuple(devices),
        data=training_data(cfg),
        chips=chip_settings(cfg),
        batch=batch_settings(cfg),
        batch_images=train.BATCH_IMAGES,
        loader=LoaderPlan(worker_count(cfg), train.SHUFFLE_WINDOW, train.IMAGE_CACHE_MB),
        detector=detector,
        rpn_only=bool(train.ONLY_PROPOSAL),
        weights=FirstWeights(
            Path(pretrained) if network.pretrained else None,
            network.INIT,
            (*network.FIXED_PARAMS, *frozen),
        ),
        step=step_settings(cfg, fp16=fp16),
        lr_step=train.lr_step,
        reference_replicas=train.REFERENCE_REPLICAS,
        loop=loop,
        keep_checkpoints=train.KEEP_CHECKPOINTS,
        keep_best=bool(train.KEEP_BEST),
        tensorboard=bool(train.TENSORBOARD),
        validation=_validation(cfg, loop),
        box_loss_is_mean=means and not train.bbox_loss_divisor,
        scales_by_rule=scales_by_rule(cfg),
        notes=_fp16_note(cfg, fp16),
    )


def test_plan(
    cfg: EasyDict,
    *,
    mode: str | None = None,
    devices: str | None = None,
    batch_images: int | None = None,
    image_set: str | None = None,
    rpn_only: bool = False,
) -> TestPlan:
    """The plan of detection with the network of a configuration.

    Args:
        cfg: the configuration that the network was trained with.
        mode: see `TEST.MODE`, which None takes; proposals come from all levels in full.
        devices: as the key `gpus`, which None takes.
        batch_images: windows per device in one pass; None takes `TEST.BATCH_IMAGES`.
        image_set: the set; None takes `dataset.test_image_set`.
        rpn_only: for proposals instead of detections.

    Raises:
        ConfigError: the mode is unknown, or the network or this machine cannot do it.
    """
    test = cfg.TEST
    device_list = contexts(cfg.gpus if devices is None else devices)
    fp16 = fp16_in_force(cfg, device_list)
    mode = "pyramid" if rpn_only else mode_in_force(cfg, mode)
    return TestPlan(
        name=cfg.name,
        model_dir=model_folder(cfg),
        epoch=test.TEST_EPOCH,
        config=dump_config(cfg),
        devices=tuple(device_list),
        source=data_source(cfg),
        image_set=image_set or cfg.dataset.test_image_set,
        detector=detector_spec(cfg, train=False, batch_images=1, fp16=fp16),
        rpn_only=rpn_only,
        mode=mode,
        levels=tuple(levels_of(cfg, mode, batch_images)),
        pyramid=tuple(tuple(scale) for scale in test.SCALES),
        merge=merge_settings(cfg),
        pixel_means=tuple(map(float, cfg.network.PIXEL_MEANS)),
        jobs=test.CONCURRENT_JOBS,
        cached_levels=tuple(k for k, use in enumerate(test.USE_CACHE) if use),
        proposals_per_level=test.N_PROPOSAL_PER_SCALE,
        proposal_dir=Path(test.PROPOSAL_SAVE_PATH),
        results_dir=Path(cfg.output_path) / "results",
        drawings_dir=Path(test.VISUALIZATION_PATH) / "dets_final",
        notes=_fp16_note(cfg, fp16),
    )


def data_source(cfg: EasyDict) -> DataSource:
    """Where the data sets of a configuration are."""
    dataset = cfg.dataset
    return DataSource(
        format=dataset.dataset,
        path=Path(dataset.dataset_path),
        cache_dir=Path(dataset.root_path) / "cache",
        num_classes=dataset.NUM_CLASSES,
        names_dir=model_folder(cfg),
    )


def training_data(cfg: EasyDict) -> TrainingData:
    """What a configuration trains on.

    Raises:
        ConfigError: the names of the sets are wrong.
    """
    train = cfg.TRAIN
    with_negatives = bool(train.USE_NEG_CHIPS) and not train.ONLY_PROPOSAL
    return TrainingData(
        source=data_source(cfg),
        sets=tuple(training_sets(cfg)),
        with_masks=bool(train.WITH_MASK) and not train.ONLY_PROPOSAL,
        with_negatives=with_negatives,
        keep_without_objects=bool(train.NEG_CHIPS_WITHOUT_OBJECTS),
        flip=bool(train.FLIP),
        proposal_dir=Path(cfg.proposal_path),
    )


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


def _validation(cfg: EasyDict, loop: LoopSettings) -> ValidationPlan | None:
    if not loop.validate_every:
        return None
    return ValidationPlan(test_plan(cfg, image_set=validation_set(cfg)), loop.validate_every)


def _loop_settings(cfg: EasyDict) -> LoopSettings:
    from sniper.training.loop import LoopSettings

    train = cfg.TRAIN
    return LoopSettings(
        end_epoch=train.end_epoch,
        max_updates=train.MAX_UPDATES,
        accumulation=train.ACCUMULATION_STEPS,
        checkpoint_every=train.CHECKPOINT_EVERY,
        # The detections of an RPN alone cannot be evaluated.
        validate_every=0 if train.ONLY_PROPOSAL else train.VALIDATE_EVERY,
    )


def step_settings(cfg: EasyDict, *, fp16: bool) -> StepSettings:
    """The update, without what the chips and the network decide: `steps` and `fixed`."""
    train = cfg.TRAIN
    return StepSettings(
        lr=train.lr,
        lr_factor=train.lr_factor,
        warmup_lr=train.warmup_lr,
        warmup_step=train.warmup_step if train.warmup else 0,
        momentum=train.momentum,
        wd=train.wd,
        clip_gradient=train.clip_gradient,
        loss_scale=train.scale if fp16 else 1.0,
        dynamic_loss_scale=fp16 and bool(train.DYNAMIC_LOSS_SCALE),
        loss_scale_window=train.LOSS_SCALE_WINDOW,
        accumulation=train.ACCUMULATION_STEPS,
        reduction=train.GRADIENT_REDUCTION,
        ema_decay=train.EMA_DECAY,
        multi_precision=fp16,
    )


def _fp16_note(cfg: EasyDict, fp16: bool) -> tuple[str, ...]:
    if bool(cfg.TRAIN.fp16) == fp16:
        return ()
    return ("fp16 and the loss scale are off: MXNet has no fp16 convolution on the CPU",)


def contexts(gpus: str) -> list[mx.Context]:
    """Devices of a `gpus` value: `'0,1'` -> two GPUs; `''`, `'cpu'` or `'cpu,cpu'` -> CPU contexts.

    Raises:
        ConfigError: an entry is no device ordinal, or the GPU does not exist.
    """
    import mxnet as mx

    entries = [entry.strip() for entry in str(gpus).split(",") if entry.strip()] or ["cpu"]
    if set(entries) == {"cpu"}:
        return [mx.cpu(i) for i in range(len(entries))]
    if not all(entry.isdigit() for entry in entries):
        raise ConfigError(
            "gpus must list device ordinals",
            got=repr(gpus),
            expected="'0', '0,1', ... or 'cpu'",
            fix="--set gpus cpu runs on the CPU",
        )
    found = _gpu_count()
    missing = [entry for entry in entries if int(entry) >= found]
    if missing:
        raise ConfigError(
            "the configuration asks for GPUs that MXNet does not see",
            got=f"gpus '{gpus}', {found} GPU(s) visible",
            fix="run on the CPU with --set gpus cpu, or install a CUDA wheel (README, GPUs)",
        )
    return [mx.gpu(int(entry)) for entry in entries]


def _gpu_count() -> int:
    import mxnet as mx

    try:
        return mx.context.num_gpus()
    except mx.MXNetError:  # a CUDA wheel without a driver
        return 0


def uses_gpu(devices: Sequence[mx.Context]) -> bool:
    """True if any device is a GPU."""
    return any(device.device_type == "gpu" for device in devices)


def model_folder(cfg: EasyDict) -> Path:
    """`<output_path>/<recipe>/<training sets joined by _>`: 2018 layout of checkpoints and logs."""
    return Path(cfg.output_path) / cfg.name / "_".join(cfg.dataset.image_set.split("+"))


def detector_spec(cfg: EasyDict, *, train: bool, batch_images: int, fp16: bool) -> DetectorSpec:
    """Network description; `batch_images` is the number of images per device."""
    from sniper.models.detector import DetectorSpec, ProposalSettings

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
        proposal=ProposalSettings(**proposal),
        legacy_gt_centre=cfg.TRAIN.LEGACY_GT_CENTRE,
        legacy_areas=cfg.TRAIN.LEGACY_AREAS,
        legacy_min_size=cfg.TRAIN.LEGACY_MIN_SIZE,
        bbox_loss_divisor=_bbox_loss_divisor(cfg, batch_images),
        auto_focus=bool(cfg.TRAIN.AUTO_FOCUS if train else cfg.TEST.AUTO_FOCUS),
        with_masks=bool(cfg.TRAIN.WITH_MASK),
        max_gt=cfg.TRAIN.MAX_GT,
        mask_row_length=cfg.TRAIN.MAX_POLYGON_LEN,
    )


def _bbox_loss_divisor(cfg: EasyDict, batch_images: int) -> float:
    """`TRAIN.bbox_loss_divisor`; 0 is left to the network, unless gradients are averaged.

    The constant of 2018 gives a device with more chips a larger box loss. A mean over devices is to
    be the mean over their chips, and so each device's loss has to be a mean.
    """
    from sniper.models.train_graph import BOX_LOSS_ROIS

    train = cfg.TRAIN
    if train.bbox_loss_divisor or train.GRADIENT_REDUCTION == "sum":
        return train.bbox_loss_divisor
    return BOX_LOSS_ROIS * batch_images


def fp16_in_force(cfg: EasyDict, devices: list[mx.Context]) -> bool:
    """`TRAIN.fp16`, but never on the CPU, where MXNet has no half-precision convolution."""
    return bool(cfg.TRAIN.fp16) and uses_gpu(devices)


def chip_settings(cfg: EasyDict) -> ChipSettings:
    """How chips are cut for training."""
    return ChipSettings(
        scales=tuple(cfg.TRAIN.SCALES),
        valid_ranges=tuple(tuple(pair) for pair in cfg.TRAIN.VALID_RANGES),
        chip_size=cfg.TRAIN.CHIP_SIZE,
        use_neg_chips=bool(cfg.TRAIN.USE_NEG_CHIPS) and not cfg.TRAIN.ONLY_PROPOSAL,
        max_neg_chips=cfg.TRAIN.MAX_NEG_CHIPS,
    )


def batch_settings(cfg: EasyDict) -> BatchSettings:
    """How chips become training tensors."""
    network, train = cfg.network, cfg.TRAIN
    return BatchSettings(
        chip_size=train.CHIP_SIZE,
        feature_stride=network.RPN_FEAT_STRIDE,
        base_anchors=base_anchors(
            network.RPN_FEAT_STRIDE,
            network.ANCHOR_RATIOS,
            network.ANCHOR_SCALES,
            rounding=network.ANCHOR_ROUNDING,
        ),
        pixel_means=network.PIXEL_MEANS,
        valid_ranges=tuple(tuple(pair) for pair in train.VALID_RANGES),
        rpn_batch_size=train.RPN_BATCH_SIZE,
        rpn_fg_fraction=train.RPN_FG_FRACTION,
        rpn_positive_overlap=train.RPN_POSITIVE_OVERLAP,
        rpn_negative_overlap=train.RPN_NEGATIVE_OVERLAP,
        max_gt=train.MAX_GT,
        only_proposal=bool(train.ONLY_PROPOSAL),
        focus=_focus_ranges(cfg),
        with_masks=bool(train.WITH_MASK),
        mask_row_length=train.MAX_POLYGON_LEN,
        reduced_decoding=bool(train.REDUCED_DECODING),
    )


def _focus_ranges(cfg: EasyDict) -> FocusRanges | None:
    """Sizes of the boxes that the FocusPixel labels look for; None without that branch."""
    train = cfg.TRAIN
    if not train.AUTO_FOCUS:
        return None
    return FocusRanges(
        low=train.AUTO_FOCUS_DC_LOW,
        small=train.AUTO_FOCUS_SMALL_THRESH,
        high=train.AUTO_FOCUS_DC_HIGH,
    )


def worker_count(cfg: EasyDict) -> int:
    """Loader processes: `TRAIN.NUM_PROCESS`, never more than the cores (2018 asked for 64)."""
    wanted = cfg.TRAIN.NUM_PROCESS
    cores = usable_cores()
    return cores if wanted is None or wanted < 0 else min(wanted, cores)


def step_updates(lr_step: str, samples: int, batch_size: int, begin_epoch: int = 0) -> list[int]:
    """Update numbers after which the rate drops.

    Args:
        lr_step: comma list of epochs, fractions allowed, or of updates ("1600u"); empty for a
            constant rate.
        samples: padded number of chips in an epoch.
        batch_size: chips per update, all devices together.
        begin_epoch: epochs done before; epochs that lie before it are left out.

    Raises:
        ConfigError: the list is not a strictly increasing list of numbers.
    """
    try:
        entries = parse_lr_steps(str(lr_step))
    except ValueError:
        raise ConfigError(
            "TRAIN.lr_step is not a list of epochs or updates",
            got=repr(lr_step),
            expected="e.g. '5.33', '4,6' or '1600u,1900u'",
        ) from None
    steps = []
    for number, unit in entries:
        if unit == "updates":
            steps.append(int(number))
        elif number > begin_epoch:
            steps.append(int((number - begin_epoch) * samples / batch_size))
    if any(b <= a for a, b in zip(steps, steps[1:])) or any(step < 1 for step in steps):
        raise ConfigError(
            "TRAIN.lr_step must give strictly increasing updates",
            got=f"{lr_step!r} -> updates {steps}",
            expected="increasing epochs that are at least one update apart",
        )
    return steps
