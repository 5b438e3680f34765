"""The training run: records -> chips -> batches -> updates -> checkpoints. Here it is set up."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import mxnet as mx
from easydict import EasyDict

from sniper.config import save_config
from sniper.data import Record
from sniper.data.class_names import write_class_names
from sniper.errors import ConfigError
from sniper.loader.train import TrainLoader
from sniper.models.detector import (
    DetectorSpec,
    batch_metrics,
    build_detector,
    train_input_shapes,
)
from sniper.models.weights import Params, fixed_names, initialise, read_params
from sniper.process import start_logging
from sniper.runs.datasets import training_records
from sniper.runs.plan import (
    batch_settings,
    chip_settings,
    contexts,
    detector_spec,
    fp16_in_force,
    model_folder,
    step_settings,
    uses_gpu,
    worker_count,
)
from sniper.runs.start_up_report import log_start_up
from sniper.runs.validation import Validation
from sniper.training.checkpoint import Checkpoint, CheckpointFolder
from sniper.training.distributed import Workers
from sniper.training.keeper import Keeper
from sniper.training.loop import LoopSettings, TrainingLoop
from sniper.training.meter import Meter
from sniper.training.metrics import Measure
from sniper.training.pace import ProgressClock
from sniper.training.run_log import RunLog
from sniper.training.run_state import RunState
from sniper.training.stepper import Stepper

logger = logging.getLogger(__name__)


def train(
    cfg: EasyDict, *, display: int = 100, save_prefix: str = "SNIPER", resume: bool = False
) -> Path:
    """Trains the network of a configuration and returns the model folder.

    Args:
        cfg: a checked configuration (`sniper.config.load_config`).
        display: batches between progress lines.
        save_prefix: stem of the checkpoint files.
        resume: go on from the newest checkpoint of this run.

    Raises:
        ConfigError, DataError: the configuration or the data are wrong.
        TrainingError: a worker died, a loss is not finite, a checkpoint could not be written, or
            the run was stopped by a signal.
    """
    _check_trainable(cfg)
    folder = model_folder(cfg)
    with Workers(cfg.default.kvstore) as workers:
        _start_log(cfg, folder, workers)
        devices = contexts(cfg.gpus)
        records, class_names = training_records(cfg)
        if workers.is_writer:
            save_config(cfg, folder / "config.yml")
            write_class_names(folder, class_names)
        checkpoints = CheckpointFolder(folder, save_prefix, keep=cfg.TRAIN.KEEP_CHECKPOINTS)
        checkpoint = _checkpoint_to_resume(checkpoints, resume)
        if checkpoint is not None and _is_done(cfg, checkpoint.state):
            logger.info("all epochs or updates are done already: weights in %s", folder)
            return folder
        with _loader(cfg, records, len(devices), workers) as loader:
            workers.connect()
            state = _start_loader(cfg, loader, checkpoint)
            workers.check_same(
                "the data or the checkpoint",
                (len(records), state.samples, state.epoch, state.batch, state.updates, state.seed),
                fix="all workers need the same code, data, configuration and model folder",
            )
            if workers.is_writer:
                chips = loader.epoch_stats.chips
                log_start_up(cfg, records, chips, len(devices), workers.count)
            _run(cfg, devices, loader, workers, checkpoints, checkpoint, state, display)
    logger.info("done: weights in %s", folder)
    return folder


def _check_trainable(cfg: EasyDict) -> None:
    """Refuses what a test-only configuration may leave out, and networks that do not exist."""
    detector_spec(cfg, train=True, batch_images=cfg.TRAIN.BATCH_IMAGES, fp16=False)
    for key in ("lr", "end_epoch"):
        if not cfg.TRAIN[key] > 0:
            raise ConfigError(
                f"TRAIN.{key} must be positive to train",
                where=cfg.name,
                got=cfg.TRAIN[key],
                fix=f"set it in the recipe, or with --set TRAIN.{key} VALUE",
            )


def _start_log(cfg: EasyDict, folder: Path, workers: Workers) -> None:
    if workers.is_writer:
        start_logging(folder / f"{cfg.name}_{time.strftime('%Y-%m-%d-%H-%M')}.log")
    else:
        start_logging(level=logging.WARNING)


def _checkpoint_to_resume(checkpoints: CheckpointFolder, resume: bool) -> Checkpoint | None:
    newest = checkpoints.newest()
    if resume and newest is None:
        logger.info("no checkpoint in %s yet: starting from the beginning", checkpoints.folder)
    if newest is not None and not resume:
        logger.warning(
            "%s is from an earlier run in this folder: the new run will replace its files one by "
            "one; --resume would go on from it",
            newest.path(".params"),
        )
    return newest if resume else None


def _loop_settings(cfg: EasyDict) -> LoopSettings:
    train = cfg.TRAIN
    return LoopSettings(
        end_epoch=train.end_epoch,
        max_updates=train.MAX_UPDATES,
        accumulation=train.ACCUMULATION_STEPS,
        checkpoint_every=train.CHECKPOINT_EVERY,
        # The detections of an RPN alone cannot be evaluated.
        validate_every=0 if train.ONLY_PROPOSAL else train.VALIDATE_EVERY,
    )


def _is_done(cfg: EasyDict, state: RunState) -> bool:
    settings = _loop_settings(cfg)
    return settings.finished(state) and not settings.validation_missing(state)


def _loader(
    cfg: EasyDict, records: list[Record], num_devices: int, workers: Workers
) -> TrainLoader:
    return TrainLoader(
        records,
        chip_settings(cfg),
        batch_settings(cfg),
        batch_size=workers.count * num_devices * cfg.TRAIN.BATCH_IMAGES,
        num_workers=worker_count(cfg),
        seed=cfg.seed,
        shard=(workers.rank, workers.count),
        end_epoch=cfg.TRAIN.end_epoch,
        shuffle_window=cfg.TRAIN.SHUFFLE_WINDOW,
        image_cache_mb=cfg.TRAIN.IMAGE_CACHE_MB,
    )


def _start_loader(cfg: EasyDict, loader: TrainLoader, checkpoint: Checkpoint | None) -> RunState:
    """Starts the loader where the run begins or goes on; returns that place."""
    if checkpoint is None:
        loader.start_epoch(0)
        # Chips of the first epoch decide the schedule, also after a resume (2018 behaviour).
        samples = loader.batches_per_epoch * loader.batch_size
        return RunState(0, 0, samples, loader.batch_size, cfg.seed)
    state = checkpoint.state
    for name, ours in (("batch_size", loader.batch_size), ("seed", cfg.seed)):
        saved = getattr(state, name)
        if saved != ours:
            raise ConfigError(
                f"cannot resume: the {name} differs from the interrupted run",
                where=checkpoint.path(".json"),
                got=ours,
                expected=saved,
                fix="resume with the same settings, or start a new run without --resume",
            )
    loader.start_epoch(state.epoch, state.batch)
    return state


def _run(
    cfg: EasyDict,
    devices: list[mx.Context],
    loader: TrainLoader,
    workers: Workers,
    checkpoints: CheckpointFolder,
    checkpoint: Checkpoint | None,
    state: RunState,
    display: int,
) -> None:
    """Puts the parts of a run together and runs it."""
    settings, folder = _loop_settings(cfg), checkpoints.folder
    validation = log = None
    if workers.is_writer:
        if settings.validate_every:
            validation = Validation(cfg, devices, folder / "validation")
        log = RunLog(folder, cfg.name, tensorboard=cfg.TRAIN.TENSORBOARD)
    symbol, stepper = training_stepper(cfg, devices, workers.kvstore, checkpoint, state)
    clock = ProgressClock(lambda: _gpu_memory_gb(devices))
    keep_best = bool(cfg.TRAIN.KEEP_BEST)
    keeper = Keeper(
        stepper, symbol, checkpoints, workers, clock, resumed=checkpoint, keep_best=keep_best
    )
    loop = TrainingLoop(
        settings,
        stepper,
        loader,
        workers,
        Meter(log, workers, clock, display, _measure(cfg), state),
        keeper,
        state,
        log=log,
        validation=validation,
        bad_batch=folder / ("bad_batch.npz" if workers.is_writer else f"bad_{workers.rank}.npz"),
    )
    try:
        loop.run()
    finally:
        if log is not None:
            log.close()


def _measure(cfg: EasyDict) -> Measure:
    """What gives the metrics of all heads of the network."""
    spec = detector_spec(cfg, train=True, batch_images=cfg.TRAIN.BATCH_IMAGES, fp16=False)
    return batch_metrics(spec, rpn_only=bool(cfg.TRAIN.ONLY_PROPOSAL))


def _gpu_memory_gb(devices: list[mx.Context]) -> float | None:
    """Memory in use on the fullest GPU, by whichever process; None on the CPU."""
    if not uses_gpu(devices):
        return None
    pairs = [mx.context.gpu_memory_info(device.device_id) for device in devices]
    return max(total - free for free, total in pairs) / 1e9


def training_stepper(
    cfg: EasyDict,
    devices: list[mx.Context],
    kvstore: mx.kv.KVStore | None,
    checkpoint: Checkpoint | None,
    state: RunState,
) -> tuple[mx.sym.Symbol, Stepper]:
    """Builds the training network and what updates it.

    Args:
        cfg: the checked configuration.
        devices: where it trains.
        kvstore: joins the workers; None trains alone.
        checkpoint: to go on from; None starts with pretrained and fresh weights.
        state: where the run stands.

    Raises:
        ConfigError: a setting does not fit the network.
        DataError: the pretrained weights are missing or broken.
        TrainingError: the checkpoint does not fit the network.
    """
    fp16, rpn_only = fp16_in_force(cfg, devices), bool(cfg.TRAIN.ONLY_PROPOSAL)
    spec = detector_spec(cfg, train=True, batch_images=cfg.TRAIN.BATCH_IMAGES, fp16=fp16)
    for head in () if rpn_only else spec.network.heads:
        if head.when_inactive and not head.is_active(spec):
            logger.info("%s %s", cfg.symbol, head.when_inactive)
    symbol = build_detector(spec, train=True, rpn_only=rpn_only)
    shapes = train_input_shapes(spec, cfg.TRAIN.CHIP_SIZE, rpn_only=rpn_only)
    arg, aux = _initial_weights(cfg, symbol, shapes, checkpoint)
    fixed = _fixed(cfg, symbol, spec)
    logger.info("%d parameters, %d of them fixed", len(arg), len(fixed))
    chips_per_update = state.batch_size * cfg.TRAIN.ACCUMULATION_STEPS
    settings = step_settings(
        cfg, fp16=fp16, samples=state.samples, batch_size=chips_per_update, fixed=fixed
    )
    logger.info(
        "lr %g for %d chips an update, drops after updates %s",
        *(settings.lr, chips_per_update, list(settings.steps)),
    )
    stepper = Stepper(spec, symbol, devices, shapes, arg, aux, settings, kvstore=kvstore)
    if checkpoint is not None:
        stepper.restore(checkpoint.read_optimizer(), state.updates, checkpoint.path(".states"))
        place = f"batch {state.batch} of " if state.batch else ""
        logger.info("resumed after %sepoch %d, update %d", place, state.file_epoch, state.updates)
    return symbol, stepper


def _initial_weights(
    cfg: EasyDict, symbol: mx.sym.Symbol, shapes: dict, checkpoint: Checkpoint | None
) -> tuple[Params, Params]:
    if checkpoint is not None:
        return checkpoint.read_params()
    pretrained = None
    if cfg.network.pretrained:
        path = f"{cfg.network.pretrained}-{cfg.network.pretrained_epoch:04d}.params"
        pretrained = read_params(path)
    arg, aux, report = initialise(symbol, shapes, pretrained, cfg.seed, init=cfg.network.INIT)
    logger.info("%s", report)
    return arg, aux


def _fixed(cfg: EasyDict, symbol: mx.sym.Symbol, spec: DetectorSpec) -> list[str]:
    patterns = list(cfg.network.FIXED_PARAMS)
    if spec.bn_mode == "frozen":
        patterns += ["gamma", "beta"]
    return fixed_names(symbol, patterns)
