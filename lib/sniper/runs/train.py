"""The training run: records -> chips -> batches -> updates -> checkpoints. Here it is set up."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mxnet as mx
from easydict import EasyDict

from sniper.config import write_config
from sniper.data import Record
from sniper.data.class_names import read_class_names, read_classes, write_classes
from sniper.data.classes import Classes, difference
from sniper.errors import ConfigError, DataError
from sniper.loader.train import TrainLoader
from sniper.locks import folder_lock
from sniper.models.assembly import (
    batch_metrics,
    build_detector,
    train_input_shapes,
    watched_metrics,
)
from sniper.models.weights import Params, fixed_names, initialise, read_params
from sniper.process import start_logging
from sniper.runs.backbone_file import check_backbone
from sniper.runs.datasets import TrainingSets, read_training_sets, training_account
from sniper.runs.devices import Device, uses_gpu
from sniper.runs.manifest import begin_session, trace_path
from sniper.runs.plan import TrainPlan, train_plan
from sniper.runs.rates import auto_scaled
from sniper.runs.start_up_report import log_start_up
from sniper.runs.validation import Validation
from sniper.training.checkpoint import Checkpoint, CheckpointFolder
from sniper.training.distributed import Workers, launched_workers
from sniper.training.keeper import Keeper
from sniper.training.loop import LoopSettings, TrainingLoop
from sniper.training.meter import Meter
from sniper.training.pace import ProgressClock
from sniper.training.run_log import RunLog
from sniper.training.run_state import RunState
from sniper.training.stepper import Stepper
from sniper.training.trace import RunTrace

logger = logging.getLogger(__name__)


def train(
    cfg: EasyDict,
    *,
    display: int = 100,
    save_prefix: str = "SNIPER",
    resume: bool = False,
    verbose: bool = False,
    auto_scale_lr: bool = False,
) -> Path:
    """Trains the network of a configuration and returns the model folder.

    Args:
        cfg: a checked configuration (`sniper.config.load_config`).
        display: batches between progress lines.
        save_prefix: stem of the checkpoint files.
        resume: go on from the newest checkpoint of this run.
        verbose: print the details of the start, too; the log file has them anyway.
        auto_scale_lr: scale the learning rate with devices, workers and chips, as the linear rule
            says (`sniper.runs.rates.auto_scaled`).

    Raises:
        ConfigError, DataError: the configuration or the data are wrong.
        TrainingError: another run works in the model folder, a worker died, a loss is not finite, a
            checkpoint could not be written, or the run was stopped by a signal.
    """
    scaling: tuple[str, ...] = ()
    if auto_scale_lr:
        cfg, text = auto_scaled(cfg, launched_workers())
        scaling = (text,)
    plan = train_plan(cfg)
    plan = replace(plan, notes=(*plan.notes, *scaling))
    with Workers(plan.kvstore) as workers, _model_folder(plan, workers):
        _start_log(plan, workers, verbose=verbose)
        checkpoints = CheckpointFolder(plan.folder, save_prefix, keep=plan.keep_checkpoints)
        newest = checkpoints.newest()
        checkpoint = newest if resume else None
        _tell_checkpoints(checkpoints, newest, resume)
        if checkpoint is None and plan.weights.pretrained is not None:
            # Before the data, which may take minutes to read.
            check_backbone(plan.weights.pretrained)
        sets = read_training_sets(plan.data, _classes_of_run(plan, checkpoint))
        records, classes = sets.records, sets.classes
        plan = replace(plan, detector=plan.detector.for_classes(classes))
        if newest is not None:
            _refuse_other_classes(plan.folder, classes)
        if workers.is_writer:
            # Whoever finds the weights without their recipe reads these (`find_weights`).
            write_config(plan.config, plan.folder / "config.yml")
            write_classes(plan.folder, classes)
        if checkpoint is not None and _is_done(plan.loop, checkpoint.state):
            if plan.loop.stops_early(checkpoint.state):
                logger.info("%s", plan.loop.early_stop_text(checkpoint.state))
            logger.info("all epochs or updates are done already: weights in %s", plan.folder)
            return plan.folder
        # The loader forks: before `connect`, which starts the threads of the parameter server.
        with train_loader(plan, records, (workers.rank, workers.count)) as loader:
            workers.connect()
            number = 1 if newest is None else newest.state.run + 1
            state = start_loader(plan, loader, checkpoint, number)
            workers.check_same(
                "the data or the checkpoint",
                (
                    len(records),
                    *classes.names[1:],
                    state.samples,
                    state.epoch,
                    state.batch,
                    state.updates,
                    state.seed,
                ),
                fix="all workers need the same code, data, configuration and model folder",
            )
            if workers.is_writer:
                account = training_account(
                    sets, loader.epoch, plan.chips, plan.detector.mask_row_length
                )
                log_start_up(plan, records, loader.epoch.stats, account, workers.count)
            _run(plan, sets, loader, workers, checkpoints, checkpoint, state, display)
    logger.info("done: weights in %s", plan.folder)
    return plan.folder


@contextmanager
def _model_folder(plan: TrainPlan, workers: Workers) -> Iterator[None]:
    """Keeps other runs out of the model folder, before anything is written there."""
    if not workers.is_writer:
        yield
        return
    with folder_lock(
        plan.folder, fix="or give this run a folder of its own: --set output_path DIR"
    ):
        yield


def _start_log(plan: TrainPlan, workers: Workers, *, verbose: bool) -> None:
    if workers.is_writer:
        start_logging(
            plan.folder / f"{plan.name}_{time.strftime('%Y-%m-%d-%H-%M')}.log",
            logging.DEBUG if verbose else logging.INFO,
        )
    else:
        # All workers would write the same lines into the same folder.
        start_logging(level=logging.WARNING)
    for note in plan.notes:
        logger.info("%s", note)


def _tell_checkpoints(
    checkpoints: CheckpointFolder, newest: Checkpoint | None, resume: bool
) -> None:
    if resume and newest is None:
        logger.info("no checkpoint in %s yet: starting from the beginning", checkpoints.folder)
    if newest is not None and not resume:
        logger.warning(
            "%s is from an earlier run in this folder: the new run will replace its files one by "
            "one; --resume would go on from it",
            newest.path(".params"),
        )


def _classes_of_run(plan: TrainPlan, checkpoint: Checkpoint | None) -> Classes | None:
    """The classes that the run to resume was started with; None where there is none."""
    if checkpoint is None:
        return None
    return read_classes(plan.folder, plan.detector.num_classes)


def _refuse_other_classes(folder: Path, classes: Classes) -> None:
    """Weights of an earlier run would get the class names of this one."""
    names = read_class_names(folder)
    if names in (None, classes.names) or not Classes(names).are_named:
        return
    raise DataError(
        "weights in the model folder were trained with other classes",
        where=folder,
        got=difference(classes.names, "the data", names, "the earlier run")
        or "the same classes in another order",
        expected=", ".join(names[1:]),
        fix="train in another folder, --set output_path DIR, or move the earlier run away",
    )


def _is_done(settings: LoopSettings, state: RunState) -> bool:
    # A run may have been killed between its last checkpoint and the validation of it.
    return settings.finished(state) and not settings.validation_missing(state)


def train_loader(
    plan: TrainPlan, records: list[Record], shard: tuple[int, int] = (0, 1)
) -> TrainLoader:
    """The loader of a run; `shard` is rank and number of the processes that train together."""
    return TrainLoader(
        records,
        plan.chips,
        plan.batch,
        batch_size=shard[1] * len(plan.devices) * plan.batch_images,
        num_workers=plan.loader.num_workers,
        seed=plan.seed,
        shard=shard,
        end_epoch=plan.loop.end_epoch,
        shuffle_window=plan.loader.shuffle_window,
        image_cache_mb=plan.loader.image_cache_mb,
    )


def start_loader(
    plan: TrainPlan, loader: TrainLoader, checkpoint: Checkpoint | None, number: int
) -> RunState:
    """Starts the loader where the run begins or goes on; returns that place.

    Args:
        plan: of the run.
        loader: is started.
        checkpoint: to go on from.
        number: of a run that begins anew, in its folder.
    """
    if checkpoint is None:
        loader.start_epoch(0)
        # Chips of the first epoch decide the schedule, also after a resume (2018 behaviour).
        samples = loader.batches_per_epoch * loader.batch_size
        chips = loader.batch_size * plan.step.accumulation
        return RunState(
            *(0, 0, samples, loader.batch_size, plan.seed),
            run=number,
            cosine_updates=plan.cosine_updates(samples, chips),
        )
    state = checkpoint.state
    # With another batch size or seed the same place in the epoch would mean other chips, and the
    # schedule, which counts updates, would drop the rate somewhere else.
    for name, configured in (("batch_size", loader.batch_size), ("seed", plan.seed)):
        saved = getattr(state, name)
        if saved != configured:
            raise ConfigError(
                f"cannot resume: the {name} differs from the interrupted run",
                where=checkpoint.path(".json"),
                got=configured,
                expected=saved,
                fix="resume with the same settings, or start a new run without --resume",
            )
    loader.start_epoch(state.epoch, state.batch)
    return _with_schedule(plan, state)


def _with_schedule(plan: TrainPlan, state: RunState) -> RunState:
    """Tells of a cosine that ends elsewhere than the interrupted run's would have."""
    updates = plan.cosine_updates(state.samples, state.batch_size * plan.step.accumulation)
    if updates != state.cosine_updates:
        before, now = (
            f"a cosine over {count} updates" if count else "steps"
            for count in (state.cosine_updates, updates)
        )
        logger.warning(
            "the learning rate follows %s from update %d on, and followed %s before it: it jumps "
            "(TRAIN.LR_SCHEDULE, end_epoch or MAX_UPDATES has changed)",
            *(now, state.updates + 1, before),
        )
    return replace(state, cosine_updates=updates)


def _run(
    plan: TrainPlan,
    sets: TrainingSets,
    loader: TrainLoader,
    workers: Workers,
    checkpoints: CheckpointFolder,
    checkpoint: Checkpoint | None,
    state: RunState,
    display: int,
) -> None:
    """Puts the parts of a run together and runs it."""
    folder = plan.folder
    validation = log = trace = None
    if workers.is_writer:
        if plan.validation is not None:
            validation = Validation(plan.validation, folder / "validation", sets.classes)
        log = RunLog(folder, plan.name, tensorboard=plan.tensorboard)
    symbol, stepper = training_stepper(plan, workers.kvstore, checkpoint, state)
    if workers.is_writer:
        session = begin_session(
            *(plan, sets, state, checkpoint, list(stepper.weights)),
            prefix=checkpoints.prefix,
            workers=workers.count,
        )
        trace = RunTrace(trace_path(folder), session, stepper, state)
    measure = batch_metrics(plan.detector, rpn_only=plan.rpn_only)
    watched = watched_metrics(plan.detector, plan.chips.chip_size, rpn_only=plan.rpn_only)
    clock = ProgressClock(lambda: _gpu_memory_gb(plan.devices))
    keeper = Keeper(
        stepper, symbol, checkpoints, workers, clock, resumed=checkpoint, keep_best=plan.keep_best
    )
    loop = TrainingLoop(
        plan.loop,
        stepper,
        loader,
        workers,
        Meter(log, workers, clock, display, measure, state, watched),
        keeper,
        state,
        log=log,
        validation=validation,
        trace=trace,
        # Workers on several machines may share the folder.
        bad_batch=folder / ("bad_batch.npz" if workers.is_writer else f"bad_{workers.rank}.npz"),
    )
    try:
        loop.run()
    finally:
        if log is not None:
            log.close()
        if trace is not None:
            trace.close()


def _gpu_memory_gb(devices: Sequence[Device]) -> float | None:
    """Memory in use on the fullest GPU, by whichever process; None on the CPU."""
    if not uses_gpu(devices):
        return None
    pairs = [mx.context.gpu_memory_info(device.number) for device in devices]
    return max(total - free for free, total in pairs) / 1e9


def training_stepper(
    plan: TrainPlan,
    kvstore: mx.kv.KVStore | None,
    checkpoint: Checkpoint | None,
    state: RunState,
) -> tuple[mx.sym.Symbol, Stepper]:
    """Builds the training network and what updates it.

    Args:
        plan: of the run.
        kvstore: joins the workers; None trains alone.
        checkpoint: to go on from; None starts with pretrained and fresh weights.
        state: where the run stands.

    Raises:
        ConfigError: a setting does not fit the network.
        DataError: the pretrained weights are missing or broken.
        TrainingError: the checkpoint does not fit the network.
    """
    spec = plan.detector
    for head in () if plan.rpn_only else spec.network.heads:
        if head.when_inactive and not head.is_active(spec):
            logger.info("%s %s", spec.symbol, head.when_inactive)
    symbol = build_detector(spec, train=True, rpn_only=plan.rpn_only)
    shapes = train_input_shapes(spec, plan.chips.chip_size, rpn_only=plan.rpn_only)
    arg, aux = _initial_weights(plan, symbol, shapes, checkpoint)
    fixed = fixed_names(symbol, plan.weights.fixed)
    logger.debug("%d parameters, %d of them fixed", len(arg), len(fixed))
    chips_per_update = state.batch_size * plan.step.accumulation
    settings = plan.step_settings(state.samples, chips_per_update, fixed)
    falls = f"drops after updates {list(settings.steps)}"
    if settings.cosine_updates:
        falls = f"a cosine over {settings.cosine_updates} updates"
    logger.debug("lr %g for %d chips an update, %s", settings.lr, chips_per_update, falls)
    stepper = Stepper(
        spec,
        symbol,
        [device.context() for device in plan.devices],
        shapes,
        arg,
        aux,
        settings,
        kvstore=kvstore,
    )
    if checkpoint is not None:
        stepper.restore(checkpoint.read_optimizer(), state.updates, checkpoint.path(".states"))
        place = f"batch {state.batch} of " if state.batch else ""
        logger.info("resumed after %sepoch %d, update %d", place, state.file_epoch, state.updates)
    return symbol, stepper


def _initial_weights(
    plan: TrainPlan, symbol: mx.sym.Symbol, shapes: dict, checkpoint: Checkpoint | None
) -> tuple[Params, Params]:
    if checkpoint is not None:
        return checkpoint.read_params()
    start = plan.weights
    pretrained = read_params(start.pretrained) if start.pretrained is not None else None
    arg, aux, report = initialise(
        *(symbol, shapes, pretrained, plan.seed),
        init=start.init,
        heads=plan.detector.network.heads,
    )
    logger.info("%s", report)
    return arg, aux
