"""The network that a run trains: its graph, its first or resumed weights, its optimizer."""

from __future__ import annotations

import logging

import mxnet as mx
from easydict import EasyDict

from sniper.engine.step_settings import step_settings
from sniper.models.detector import DetectorSpec, build_detector, train_input_shapes
from sniper.models.weights import Params, fixed_names, initialise, read_params
from sniper.setup.settings import detector_spec, fp16_in_force
from sniper.training.checkpoint import Checkpoint
from sniper.training.run_state import RunState
from sniper.training.stepper import Stepper

logger = logging.getLogger(__name__)


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
