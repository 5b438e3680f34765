"""The training run: records -> chips -> batches -> updates -> checkpoints."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import mxnet as mx
import numpy as np
from easydict import EasyDict

from sniper.config import save_config
from sniper.data import Record
from sniper.engine.checkpoint import CheckpointFolder, RunState
from sniper.engine.classes import write_class_names
from sniper.engine.data import training_records
from sniper.engine.metrics import Metrics
from sniper.engine.progress import JsonLines, ProgressClock, format_time, start_logging
from sniper.engine.report import log_start_up
from sniper.engine.schedule import WarmupStepSchedule, step_updates
from sniper.engine.settings import (
    batch_settings,
    chip_settings,
    contexts,
    detector_spec,
    fp16_in_force,
    model_folder,
    worker_count,
)
from sniper.errors import ConfigError, TrainingError
from sniper.files import atomic_write
from sniper.loader.train import Batch, TrainLoader
from sniper.models.detector import (
    DetectorSpec,
    build_detector,
    data_names,
    label_names,
    train_input_shapes,
)
from sniper.models.weights import fixed_names, initialise, read_params

logger = logging.getLogger(__name__)

# The first metrics come early, so that nobody has to guess whether a run hangs.
FIRST_DISPLAY = 10


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
        TrainingError: a worker died, a loss is not finite, a checkpoint could not be written.
    """
    folder = model_folder(cfg)
    start_logging(folder / f"{cfg.name}_{time.strftime('%Y-%m-%d-%H-%M')}.log")
    _check_trainable(cfg)
    devices = contexts(cfg.gpus)
    records, class_names = training_records(cfg)
    save_config(cfg, folder / "config.yml")
    write_class_names(folder, class_names)
    checkpoints = CheckpointFolder(folder, save_prefix, keep=cfg.TRAIN.KEEP_CHECKPOINTS)
    state = checkpoints.newest() if resume else None
    if resume and state is None:
        logger.info("no checkpoint in %s yet: starting from the beginning", folder)
    if state and state.epoch >= cfg.TRAIN.end_epoch:
        logger.info("all %d epochs are done already: weights in %s", state.epoch, folder)
        return folder
    with _loader(cfg, records, len(devices)) as loader:
        run = _Run(cfg, devices, loader, checkpoints, state)
        log_start_up(cfg, records, loader.epoch_stats.chips, len(devices))
        run.fit(display)
    logger.info("done: weights in %s", folder)
    return folder


def _check_trainable(cfg: EasyDict) -> None:
    """Refuses what a test-only configuration may leave out, and what this version cannot train."""
    for key in ("lr", "end_epoch"):
        if not cfg.TRAIN[key] > 0:
            raise ConfigError(
                f"TRAIN.{key} must be positive to train",
                where=cfg.name,
                got=cfg.TRAIN[key],
                fix=f"set it in the recipe, or with --set TRAIN.{key} VALUE",
            )
    # Masks and FocusPixels are not trained yet: better to say so than to skip them.
    if cfg.TRAIN.ONLY_PROPOSAL:
        return
    for key in ("WITH_MASK", "AUTO_FOCUS"):
        if cfg.TRAIN[key]:
            raise ConfigError(
                f"TRAIN.{key} is on, but this version trains boxes only",
                where=cfg.name,
                fix=f"--set TRAIN.{key} False trains the detector without it",
            )


def _loader(cfg: EasyDict, records: list[Record], num_devices: int) -> TrainLoader:
    return TrainLoader(
        records,
        chip_settings(cfg),
        batch_settings(cfg),
        batch_size=num_devices * cfg.TRAIN.BATCH_IMAGES,
        num_workers=worker_count(cfg),
        seed=cfg.seed,
        end_epoch=cfg.TRAIN.end_epoch,
        shuffle_window=cfg.TRAIN.SHUFFLE_WINDOW,
        image_cache_mb=cfg.TRAIN.IMAGE_CACHE_MB,
    )


@dataclass
class _Progress:
    """Updates done, and the clock of this session."""

    updates: int
    clock: ProgressClock


class _Run:
    """Network, optimizer and loop of one run."""

    def __init__(
        self,
        cfg: EasyDict,
        devices: list[mx.Context],
        loader: TrainLoader,
        checkpoints: CheckpointFolder,
        state: RunState | None,
    ) -> None:
        self.cfg = cfg
        self.devices = devices
        self.loader = loader
        self.checkpoints = checkpoints
        self.batch_size = len(devices) * cfg.TRAIN.BATCH_IMAGES
        self.rpn_only = bool(cfg.TRAIN.ONLY_PROPOSAL)
        self.fp16 = fp16_in_force(cfg, devices)
        self.state = state or RunState(0, 0, 0, self.batch_size, cfg.seed)
        self._check_resumed_state()
        # Chips of the first epoch decide the schedule, also after a resume (2018 behaviour).
        loader.start_epoch(self.state.epoch)
        if not state:
            samples = loader.batches_per_epoch * self.batch_size
            self.state = RunState(0, 0, samples, self.batch_size, cfg.seed)
        self.spec = detector_spec(
            cfg, train=True, batch_images=cfg.TRAIN.BATCH_IMAGES, fp16=self.fp16
        )
        self.module = self._build_module()
        self.output_names = _short_names(self.module.output_names)
        self.metrics = Metrics()
        self.json_lines = JsonLines(checkpoints.folder / f"{cfg.name}.jsonl")

    def _check_resumed_state(self) -> None:
        for name, ours in (("batch_size", self.batch_size), ("seed", self.cfg.seed)):
            saved = getattr(self.state, name)
            if saved != ours:
                raise ConfigError(
                    f"cannot resume: the {name} differs from the interrupted run",
                    where=self.checkpoints.folder,
                    got=ours,
                    expected=saved,
                    fix="resume with the same settings, or start a new run without --resume",
                )

    def _build_module(self) -> mx.mod.Module:
        cfg, spec = self.cfg, self.spec
        symbol = build_detector(spec, train=True, rpn_only=self.rpn_only)
        shapes = train_input_shapes(spec, cfg.TRAIN.CHIP_SIZE, cfg.TRAIN.MAX_GT, self.rpn_only)
        arg, aux = self._initial_weights(symbol, shapes)
        fixed = _fixed(cfg, symbol, spec)
        logger.info("%d parameters, %d of them fixed", len(arg), len(fixed))
        names = data_names(True, self.rpn_only), label_names(self.rpn_only)
        total = {name: (shape[0] * len(self.devices), *shape[1:]) for name, shape in shapes.items()}
        module = mx.mod.Module(
            symbol, *names, context=self.devices, fixed_param_names=fixed, logger=logger
        )
        module.bind(*[[(name, total[name]) for name in group] for group in names])
        module.set_params(arg, aux)
        self._init_optimizer(module)
        if self.state.epoch:
            self.checkpoints.load_optimizer(module, self.state.epoch)
            logger.info("resumed after epoch %d", self.state.epoch)
        return module

    def _initial_weights(self, symbol: mx.sym.Symbol, shapes: dict) -> tuple[dict, dict]:
        cfg = self.cfg
        if self.state.epoch:
            return self.checkpoints.load_params(self.state.epoch)
        pretrained = None
        if cfg.network.pretrained:
            path = f"{cfg.network.pretrained}-{cfg.network.pretrained_epoch:04d}.params"
            pretrained = read_params(path)
        arg, aux, report = initialise(symbol, shapes, pretrained, cfg.seed, init=cfg.network.INIT)
        logger.info("%s", report)
        return arg, aux

    def _init_optimizer(self, module: mx.mod.Module) -> None:
        train = self.cfg.TRAIN
        scale = self.spec.loss_scale
        steps = step_updates(train.lr_step, self.state.samples, self.batch_size)
        schedule = WarmupStepSchedule(
            train.lr / scale,
            steps,
            train.lr_factor,
            train.warmup_lr / scale,
            train.warmup_step if train.warmup else 0,
        )
        logger.info(
            "lr %g for %d chips an update, drops after updates %s", train.lr, self.batch_size, steps
        )
        options = {
            "learning_rate": train.lr / scale,
            "momentum": train.momentum,
            "wd": train.wd * scale,
            "lr_scheduler": schedule,
            "rescale_grad": 1.0,
            "clip_gradient": train.clip_gradient or None,
            "multi_precision": self.fp16,
            "begin_num_update": self.state.updates,
        }
        module.init_optimizer(self.cfg.default.kvstore, "sgd", options)

    def fit(self, display: int) -> None:
        """Runs the remaining epochs."""
        end_epoch = self.cfg.TRAIN.end_epoch
        remaining = end_epoch - self.state.epoch
        clock = ProgressClock(remaining * self.loader.batches_per_epoch)
        progress = _Progress(self.state.updates, clock)
        try:
            for epoch in range(self.state.epoch, end_epoch):
                if epoch > self.state.epoch:
                    self.loader.start_epoch(epoch)
                self._run_epoch(epoch, progress, display)
                if progress.updates == self.cfg.TRAIN.MAX_UPDATES:
                    logger.info("TRAIN.MAX_UPDATES %d reached", progress.updates)
                    break
        finally:
            self.json_lines.close()

    def _run_epoch(self, epoch: int, progress: _Progress, display: int) -> None:
        started = time.monotonic()
        batches = self.loader.batches_per_epoch
        for text in self.loader.epoch_stats.chips.lines():
            logger.info("Epoch[%d] %s", epoch, text)
        for batch in self.loader:
            self._step(batch, epoch)
            progress.updates += 1
            progress.clock.step()
            done = batch.index + 1
            if done == FIRST_DISPLAY or done % display == 0 or done == batches:
                self._show(epoch, done, batches, progress)
            if progress.updates == self.cfg.TRAIN.MAX_UPDATES:
                break
        values = self.metrics.read_epoch()
        took = format_time(time.monotonic() - started)
        logger.info("Epoch[%d] Train %s, time %s", epoch, _format(values), took)
        state = RunState(
            epoch + 1, progress.updates, self.state.samples, self.batch_size, self.cfg.seed
        )
        path = self.checkpoints.save(self.module, state)
        logger.info("Epoch[%d] saved %s", epoch, path)

    def _step(self, batch: Batch, epoch: int) -> None:
        data = [mx.nd.array(batch.data[name]) for name in self.module.data_names]
        label = [mx.nd.array(batch.label[name]) for name in self.module.label_names]
        self.module.forward_backward(mx.io.DataBatch(data, label))
        self.module.update()
        outputs = dict(zip(self.output_names, (o.asnumpy() for o in self.module.get_outputs())))
        values = self.metrics.update(outputs, batch.label)
        broken = [name for name, value in values.items() if not np.isfinite(value)]
        if broken:
            self._stop_on_bad_loss(batch, epoch, broken)

    def _stop_on_bad_loss(self, batch: Batch, epoch: int, names: list[str]) -> None:
        path = self.checkpoints.folder / "bad_batch.npz"
        atomic_write(path, lambda temporary: np.savez(temporary, **batch.data, **batch.label))
        raise TrainingError(
            f"the loss is not finite: {', '.join(names)}",
            where=f"epoch {epoch}, batch {batch.index}",
            got=f"images {', '.join(sorted(set(batch.image_paths)))}",
            fix=f"the batch is saved in {path}; a smaller TRAIN.lr or a longer warm-up often "
            "helps; --resume goes on from the last checkpoint",
        )

    def _show(self, epoch: int, done: int, batches: int, progress: _Progress) -> None:
        values = self.metrics.read_window()
        speed = progress.clock.read(self.batch_size, self.loader.wait_time_s)
        logger.info("Epoch[%d] Batch [%d/%d] %s, %s", epoch, done, batches, speed, _format(values))
        line = {"epoch": epoch, "batch": done, "update": progress.updates, **values}
        self.json_lines.write(line)


def _short_names(output_names: list[str]) -> list[str]:
    """Names without `_output`; the roi labels come from an unnamed BlockGrad."""
    short = [name.removesuffix("_output") for name in output_names]
    return ["roi_label" if name.startswith("blockgrad") else name for name in short]


def _fixed(cfg: EasyDict, symbol: mx.sym.Symbol, spec: DetectorSpec) -> list[str]:
    patterns = list(cfg.network.FIXED_PARAMS)
    if spec.bn_mode == "frozen":
        patterns += ["gamma", "beta"]
    return fixed_names(symbol, patterns)


def _format(values: dict[str, float]) -> str:
    return " ".join(f"{name}={value:.4f}" for name, value in values.items())
