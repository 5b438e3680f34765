"""What a suggestion costs: memory by the plan of `sniper plan-memory`, time as measured here."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import mxnet as mx
import numpy as np
from easydict import EasyDict

from sniper.models.assembly import build_detector, train_input_shapes
from sniper.models.cpu_graph import for_cpu
from sniper.models.weights import initialise
from sniper.process import usable_cores
from sniper.runs.export import inference_networks
from sniper.runs.memory_plan import Size, testing_memory, training_memory
from sniper.runs.resolve import detector_spec

_PICTURE_PX = 512
_PIXEL_SCALE = 50.0


@dataclass(frozen=True)
class Costs:
    """Memory in GB, and times in seconds on this machine's CPU.

    Attributes:
        train_gb: a device's training, batch and weights.
        train_chip_s: to train one chip.
        test_gb: the largest pass at test time.
        test_mpx_s: to detect on a million network px.
        cores: that were used.
    """

    train_gb: float
    train_chip_s: float
    test_gb: float
    test_mpx_s: float
    cores: int


def measure_costs(cfg: EasyDict, largest_image: Size) -> Costs:
    """Runs the networks of a configuration with random weights and noise, a second or two each.

    Args:
        cfg: with the suggested values.
        largest_image: width and height of the largest image to be tested, px.

    Raises:
        SniperError: the network cannot be built.
        MXNetError: it does not fit into memory.
    """
    rng = np.random.default_rng(0)
    train = detector_spec(cfg, train=True, batch_images=1, fp16=False)
    symbol = build_detector(train, train=True, rpn_only=bool(cfg.TRAIN.ONLY_PROPOSAL))
    side = cfg.TRAIN.CHIP_SIZE
    shapes = train_input_shapes(train, side, rpn_only=bool(cfg.TRAIN.ONLY_PROPOSAL))
    executor = _bound(symbol, shapes, rng, side, train=True)
    train_chip_s = _seconds(lambda: _update(executor))
    spec = detector_spec(cfg, train=False, batch_images=1, fp16=False)
    symbol, shapes = inference_networks(spec)[0]
    shapes = {**shapes, "data": (1, 3, _PICTURE_PX, _PICTURE_PX)}
    executor = _bound(symbol, shapes, rng, _PICTURE_PX, train=False)
    picture_px = _PICTURE_PX**2
    test_s = _seconds(lambda: executor.forward(is_train=False))
    training, testing = training_memory(cfg), testing_memory(cfg, largest_image)
    return Costs(
        train_gb=(training.total + training.around) / 1e9,
        train_chip_s=train_chip_s,
        test_gb=(testing.total + testing.around) / 1e9,
        test_mpx_s=test_s * 1e6 / picture_px,
        cores=usable_cores(),
    )


def _bound(
    symbol: mx.sym.Symbol,
    shapes: dict[str, tuple[int, ...]],
    rng: np.random.Generator,
    side: int,
    *,
    train: bool,
) -> mx.executor.Executor:
    requests: Any = "null"
    if train:
        requests = {n: "null" if n in shapes else "write" for n in symbol.list_arguments()}
    executor = for_cpu(symbol).simple_bind(mx.cpu(), grad_req=requests, **shapes)
    arg, aux, _ = initialise(symbol, shapes, None, 0, init="scratch")
    executor.copy_params_from(arg, aux)
    for name in shapes:
        # No objects, and nothing to ignore.
        executor.arg_dict[name][:] = -1 if name.startswith("gt_") else 0
    size = executor.arg_dict["data"].shape
    executor.arg_dict["data"][:] = mx.nd.array(rng.normal(0, _PIXEL_SCALE, size))
    executor.arg_dict["im_info"][:] = mx.nd.array([[side, side, 1]])
    if "valid_ranges" in executor.arg_dict:
        executor.arg_dict["valid_ranges"][:] = mx.nd.array([[0, side]])
    return executor


def _update(executor: mx.executor.Executor) -> None:
    executor.forward(is_train=True)
    executor.backward()


def _seconds(action: Any) -> float:
    """The shorter of two runs, after one that does not count."""
    action()
    mx.nd.waitall()
    times = []
    for _ in range(2):
        began = time.monotonic()
        action()
        mx.nd.waitall()
        times.append(time.monotonic() - began)
    return min(times)
