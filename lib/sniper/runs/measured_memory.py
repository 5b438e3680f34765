"""What a training step and a detection really take on a CPU, each measured in a fresh process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import mxnet as mx
import numpy as np
import yaml
from easydict import EasyDict

from sniper.children import ChildKind, Children, attempt
from sniper.config import config_of, dump_config
from sniper.data import image_record
from sniper.errors import ConfigError
from sniper.loader.train import Batch
from sniper.models.assembly import build_detector, train_input_shapes
from sniper.models.weights import fixed_names, initialise
from sniper.progress import silent
from sniper.runs.load_model import make_detector
from sniper.runs.memory_plan import Size, asks_for_gpu
from sniper.runs.plan import test_plan, train_plan
from sniper.runs.predictor import InMemoryImages
from sniper.runs.speed import random_model
from sniper.training.stepper import Stepper

_STATUS = Path("/proc/self/status")
_KIND = ChildKind(
    name="measuring process",
    if_died="SIGKILL usually means that memory ran out: that much is not there",
    if_stalled="the machine may be swapping: measure something smaller",
)
# Nothing is timed: the limit keeps a hung process from waiting for ever.
_LIMIT_S = 1800.0
_STEPS = 2
_SEED = 0
_PIXEL_SCALE = 50.0
_WARM_SIDE = 64


@dataclass(frozen=True)
class MeasuredPeak:
    """Resident memory of a process, in bytes.

    Attributes:
        process: when it has computed a little of everything.
        peak: its most, after all.
    """

    process: int
    peak: int

    @property
    def above_process(self) -> int:
        """What the run itself has taken."""
        return self.peak - self.process


def measure_training(cfg: EasyDict) -> MeasuredPeak:
    """Peak of some updates with fresh weights and a batch of noise, on the CPU.

    Raises:
        ConfigError: the configuration asks for GPUs, or the system does not tell.
        TrainingError: the process died, as it does where memory runs out.
    """
    return _in_a_child(cfg, None)


def measure_testing(cfg: EasyDict, image: Size) -> MeasuredPeak:
    """Peak of detection on one image of noise with random weights, on the CPU.

    Args:
        cfg: a checked configuration.
        image: width and height, px.

    Raises:
        ConfigError, TrainingError: see `measure_training`.
    """
    return _in_a_child(cfg, image)


def _in_a_child(cfg: EasyDict, image: Size | None) -> MeasuredPeak:
    if asks_for_gpu(cfg):
        raise ConfigError(
            "peaks are measured on the CPU", got=f"gpus '{cfg.gpus}'", fix="--set gpus cpu"
        )
    if not _STATUS.is_file():
        raise ConfigError(
            "this system does not tell the peak of a process",
            got=f"there is no {_STATUS}",
            fix="measure on Linux",
        )
    with Children(_KIND, _LIMIT_S) as children:
        child = children.spawn(serve)
        children.send(child, (dump_config(cfg), image))
        while True:
            for _, (result, failure) in children.answers():
                if failure is not None:
                    children.fail(failure)
                return result


def serve(pipe: Connection) -> None:
    """In the measuring process: answers one request."""
    text, image = pipe.recv()
    cfg = config_of(yaml.safe_load(text), where="the configuration")
    pipe.send(
        attempt(lambda: _measure(lambda: _train(cfg) if image is None else _test(cfg, image)))
    )


def _measure(run: Callable[[], None]) -> MeasuredPeak:
    _warm_up()
    process = _resident("VmRSS")
    run()
    return MeasuredPeak(process, _resident("VmHWM"))


def _resident(name: str) -> int:
    """Bytes of a line of the process's status.

    Not what `getrusage` tells: that begins with the peak of the process that has started this one.
    """
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise ConfigError("the system does not tell the memory of a process", where=_STATUS, got=name)


def _warm_up() -> None:
    """Has MXNet and oneDNN load what they load once, with a network of a few layers."""
    layer = mx.sym.Convolution(mx.sym.var("data"), num_filter=8, kernel=(3, 3), pad=(1, 1))
    layer = mx.sym.Activation(mx.sym.BatchNorm(layer), act_type="relu")
    output = mx.sym.MakeLoss(mx.sym.FullyConnected(layer, num_hidden=4))
    executor = output.simple_bind(mx.cpu(), data=(1, 3, _WARM_SIDE, _WARM_SIDE))
    executor.forward(is_train=True)
    executor.backward()
    mx.nd.random.normal(shape=(2, 2))
    mx.nd.waitall()


def _train(cfg: EasyDict) -> None:
    plan = train_plan(cfg)
    spec, side = plan.detector, plan.chips.chip_size
    symbol = build_detector(spec, train=True, rpn_only=plan.rpn_only)
    shapes = train_input_shapes(spec, side, rpn_only=plan.rpn_only)
    fixed = fixed_names(symbol, plan.weights.fixed)
    arg, aux, _ = initialise(symbol, shapes, None, _SEED, init="scratch", heads=spec.network.heads)
    settings = replace(plan.step, fixed=tuple(fixed))
    stepper = Stepper(
        spec, symbol, [device.context() for device in plan.devices], shapes, arg, aux, settings
    )
    # As in a run, which forgets what it has begun with.
    del arg, aux
    rng = np.random.default_rng(_SEED)
    arrays = {
        name: _noise(name, (shape[0] * len(plan.devices), *shape[1:]), side, rng)
        for name, shape in shapes.items()
    }
    for index in range(_STEPS * plan.step.accumulation):
        stepper.step(Batch(arrays, {}, index, [], []))
        mx.nd.waitall()


def _noise(name: str, shape: tuple[int, ...], side: int, rng: np.random.Generator) -> np.ndarray:
    """An input of training that no network trips over: one object in each chip."""
    if name == "data":
        return rng.normal(0, _PIXEL_SCALE, shape).astype(np.float32)
    array = np.zeros(shape, np.float32)
    if name.startswith("gt_"):
        array[:] = -1
    if name == "gt_boxes":
        array[:, 0] = [side / 8, side / 8, side / 2, side / 2, 1]
    elif name == "im_info":
        array[:] = [side, side, 1]
    elif name == "valid_ranges":
        array[:] = [0, 1e5]
    return array


def _test(cfg: EasyDict, image: Size) -> None:
    plan = test_plan(cfg)
    detector = make_detector(plan, random_model(plan.detector))
    width, height = image
    pixels = np.random.default_rng(_SEED).integers(0, 256, (height, width, 3), np.uint8)
    record = image_record("noise", 0, width, height)
    for _ in range(_STEPS):
        detector.detect([record], images=InMemoryImages({"noise": pixels}), on_step=silent)
