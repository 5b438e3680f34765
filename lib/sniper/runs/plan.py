"""The plans of a run: the configuration is read once, and everything below takes parts of a plan.

A new key is named in the schema (`sniper.config`), and in `resolve.py` or here; nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from easydict import EasyDict

from sniper.chips.chip_settings import ChipSettings
from sniper.chips.pyramid import Scale
from sniper.errors import ConfigError
from sniper.loader.batch_settings import BatchSettings
from sniper.models.assembly import DetectorSpec
from sniper.models.heads.roi import RoiHead
from sniper.runs.backbone_file import backbone_file
from sniper.runs.datasets import DataSource, TrainingData
from sniper.runs.devices import Device, devices_of
from sniper.runs.folders import drawings_folder, model_folder, results_folder
from sniper.runs.levels import levels_of, merge_settings, mode_in_force
from sniper.runs.notes import test_notes, train_notes
from sniper.runs.rates import COSINE, cosine_updates, step_settings, step_updates
from sniper.runs.resolve import (
    batch_settings,
    chip_settings,
    complete_config,
    data_source,
    detector_spec,
    fixed_params,
    fp16_in_force,
    loop_settings,
    scales_by_rule,
    training_data,
    validation_set,
    worker_count,
)
from sniper.training.step_settings import StepSettings

# The tools that look at data need parts of this, but not MXNet: it is imported where it is used.
if TYPE_CHECKING:
    from sniper.inference.level import Level
    from sniper.inference.merge_levels import MergeSettings
    from sniper.training.loop import LoopSettings


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
        lr_schedule: `step`, or `cosine`: it falls all the time.
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
    devices: tuple[Device, ...]
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
    lr_schedule: str
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
            ConfigError: `TRAIN.lr_step` does not give increasing updates, or the warm-up takes
                all of a cosine's.
        """
        step = replace(self.step, fixed=tuple(fixed))
        if self.lr_schedule == COSINE:
            updates = self.cosine_updates(samples, batch_size)
            return replace(step, cosine_updates=updates)
        return replace(step, steps=tuple(step_updates(self.lr_step, samples, batch_size)))

    def cosine_updates(self, samples: int, batch_size: int) -> int:
        """Updates that the rate's cosine takes, see `step_settings`; 0: it falls in steps."""
        if self.lr_schedule != COSINE:
            return 0
        loop = self.loop
        return cosine_updates(
            *(loop.end_epoch, loop.max_updates, samples, batch_size, self.step.warmup_step)
        )


@dataclass(frozen=True)
class TestPlan:
    """Everything that detection with a network does, resolved; travels to worker processes.

    Attributes:
        name: of the recipe.
        model_dir: folder of the checkpoints, where the logs go, too.
        epoch: number of the checkpoint to test; None: the newest.
        config: the configuration as yaml, for archives.
        devices: where the network runs.
        source: where the data sets are.
        image_set: the set to test on.
        recipe_sets: the sets that the recipe tests (first, since it is smaller) and trains on.
        detector: the network.
        rpn_only: proposals are extracted instead of detections.
        detections_as_proposals: detections are written as proposals.
        mode: `single`, `pyramid`, `focus` or `slice`.
        engine: what computes the network, see `TEST.ENGINE`.
        levels: what the mode looks at, in this order.
        pyramid: (short side, long side) of the full pyramid that shares of pixels refer to.
        trained_scales: `TRAIN.SCALES`.
        chip_size: `TRAIN.CHIP_SIZE`.
        merge: how the findings become one result.
        flip: windows are seen mirrored as well.
        class_agnostic: all detections are of one class, `object`.
        pixel_means: three means, BGR.
        legacy_boxes: boxes as in 2018, for networks of which nothing tells how they were trained.
        jobs: processes that share the work.
        cached_levels: levels whose raw detections are kept on disk.
        proposals_per_level: how many are extracted.
        proposal_dir: where extracted proposals go.
        results_dir: where results go.
        drawings_dir: where drawings go.
        skip_bad_images: leave images of sets without annotations out that cannot be read.
        notes: what was asked for and is not in force, a sentence each.
    """

    name: str
    model_dir: Path
    epoch: int | None
    config: str
    devices: tuple[Device, ...]
    source: DataSource
    image_set: str
    recipe_sets: tuple[str, ...]
    detector: DetectorSpec
    rpn_only: bool
    detections_as_proposals: bool
    mode: str
    engine: str
    levels: tuple[Level, ...]
    pyramid: tuple[tuple[int, int], ...]
    trained_scales: tuple[Scale, ...]
    chip_size: int
    merge: MergeSettings
    flip: bool
    class_agnostic: bool
    pixel_means: tuple[float, ...]
    legacy_boxes: bool
    jobs: int
    cached_levels: tuple[int, ...]
    proposals_per_level: int
    proposal_dir: Path
    results_dir: Path
    drawings_dir: Path
    skip_bad_images: bool
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
    if network.FINE_ID_OFFSET:
        raise ConfigError(
            "weights that are trained here count their classes as they should",
            where="network.FINE_ID_OFFSET",
            got=network.FINE_ID_OFFSET,
            expected="0; 1 is for tests of weights of 2018",
        )
    devices = devices_of(cfg.gpus)
    fp16 = fp16_in_force(cfg, devices)
    loop = loop_settings(cfg)
    detector = detector_spec(cfg, train=True, batch_images=train.BATCH_IMAGES, fp16=fp16)
    by_images = not (detector.network.backbone.box_loss_images and detector.network.has(RoiHead))
    means = train.GRADIENT_REDUCTION == "mean" or by_images
    return TrainPlan(
        name=cfg.name,
        folder=model_folder(cfg),
        config=complete_config(cfg),
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
            backbone_file(network.pretrained, network.pretrained_epoch),
            network.INIT,
            fixed_params(cfg),
        ),
        step=step_settings(cfg, fp16=fp16),
        lr_step=train.lr_step,
        lr_schedule=train.LR_SCHEDULE,
        reference_replicas=train.REFERENCE_REPLICAS,
        loop=loop,
        keep_checkpoints=train.KEEP_CHECKPOINTS,
        keep_best=bool(train.KEEP_BEST),
        tensorboard=bool(train.TENSORBOARD),
        validation=_validation(cfg, loop),
        box_loss_is_mean=means and not train.bbox_loss_divisor,
        scales_by_rule=scales_by_rule(cfg),
        notes=train_notes(cfg, fp16=fp16),
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
    if devices is None:
        device_list = devices_of(cfg.gpus)
    else:
        device_list = devices_of(devices, "devices", on_cpu='--gpus cpu (in Python: devices="cpu")')
    fp16 = fp16_in_force(cfg, device_list)
    mode = "pyramid" if rpn_only else mode_in_force(cfg, mode)
    return TestPlan(
        name=cfg.name,
        model_dir=model_folder(cfg),
        epoch=test.TEST_EPOCH,
        config=complete_config(cfg),
        devices=tuple(device_list),
        source=data_source(cfg),
        image_set=image_set or cfg.dataset.test_image_set,
        recipe_sets=(cfg.dataset.test_image_set, *cfg.dataset.image_set.split("+")),
        # The number of images is in the losses only: a test graph takes any.
        detector=detector_spec(cfg, train=False, batch_images=1, fp16=fp16),
        rpn_only=rpn_only,
        detections_as_proposals=test.EXTRACT_PROPOSALS == "detections",
        mode=mode,
        engine=test.ENGINE,
        levels=tuple(levels_of(cfg, mode, batch_images)),
        pyramid=tuple(tuple(scale) for scale in test.SCALES),
        trained_scales=tuple(cfg.TRAIN.SCALES),
        chip_size=cfg.TRAIN.CHIP_SIZE,
        merge=merge_settings(cfg),
        # Twice the same proposals would take the places of others.
        flip=bool(test.FLIP) and not rpn_only,
        class_agnostic=bool(test.CLASS_AGNOSTIC),
        pixel_means=tuple(map(float, cfg.network.PIXEL_MEANS)),
        legacy_boxes=bool(cfg.TRAIN.LEGACY_BOXES),
        jobs=test.CONCURRENT_JOBS,
        cached_levels=tuple(k for k, use in enumerate(test.USE_CACHE) if use),
        proposals_per_level=test.N_PROPOSAL_PER_SCALE,
        proposal_dir=Path(test.PROPOSAL_SAVE_PATH),
        results_dir=results_folder(cfg),
        drawings_dir=drawings_folder(cfg),
        skip_bad_images=test.SKIP_BAD_IMAGES,
        notes=test_notes(cfg, fp16=fp16, rpn_only=rpn_only),
    )


def _validation(cfg: EasyDict, loop: LoopSettings) -> ValidationPlan | None:
    if not loop.validate_every:
        return None
    return ValidationPlan(test_plan(cfg, image_set=validation_set(cfg)), loop.validate_every)
