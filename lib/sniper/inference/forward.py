"""A detector bound for inference: batches of windows in, raw boxes and scores out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import mxnet as mx
import numpy as np

from sniper.errors import ConfigError
from sniper.inference.bound import BoundGraph
from sniper.loader.test import TestBatch
from sniper.models.detector import (
    WindowOutputs,
    build_detector,
    data_names,
    decode,
    short_output_names,
)
from sniper.models.fit import Model

# Detections with a lower class score are dropped before merging (2018 behaviour).
MIN_SCORE = 1e-3


@dataclass(frozen=True, eq=False)
class ChipDetections:
    """What the network found in one window of one level.

    Attributes:
        image_index: row of the image in the list of records.
        chip_index: which window of the image.
        boxes: (R, 4) float32, px of the original image, relative to the window's origin.
        scores: (R, C) class probabilities, or (R,) objectness of an RPN-only network.
        factor: px of the original image -> px of the network's input.
        roi_map: (K, h, w) what the mask head reads; None where it was not asked for.
        focus_map: (h, w) float32 probability of small objects, of the padded window; None without
            the branch of AutoFocus.
    """

    image_index: int
    chip_index: int
    boxes: np.ndarray
    scores: np.ndarray
    factor: float = 1.0
    roi_map: np.ndarray | None = None
    focus_map: np.ndarray | None = None


class Network:
    """A model on the given devices, for batches and images of any size; threads may share it.

    Args:
        model: the network and its weights.
        devices: a batch is spread evenly over them.
        rpn_only: proposals and their scores instead of classes and boxes.
        roi_map: put out the map that the mask head reads.
    """

    def __init__(
        self,
        model: Model,
        devices: Sequence[mx.Context],
        *,
        rpn_only: bool = False,
        roi_map: bool = False,
    ) -> None:
        self.num_devices = len(devices)
        self._rpn_only = rpn_only
        self._spec = model.spec
        symbol = _symbol(model, devices, rpn_only=rpn_only, roi_map=roi_map)
        self._data_names = data_names(model.spec, rpn_only=rpn_only)
        self._output_names = short_output_names(symbol.list_outputs())
        # oneDNN adds up in another order for one window than for several: on CPUs each window has a
        # pass of its own, so that no result depends on the batch. Batches gain little there.
        only_cpus = all(device.device_type == "cpu" for device in devices)
        self._windows_at_once = self.num_devices if only_cpus else None
        self._graphs = [BoundGraph(symbol, model, device) for device in devices]
        self._lock = threading.Lock()

    def __call__(self, batch: TestBatch) -> list[ChipDetections]:
        """Detections of every window of the batch, padding left out."""
        inputs = {
            "data": batch.data,
            "im_info": batch.im_info,
            "im_ids": batch.image_index.astype(np.float32),
            "chip_ids": batch.chip_index.astype(np.float32),
        }
        with self._lock:
            outputs = self._forward({name: inputs[name] for name in self._data_names})
        return [self._found(outputs, batch, int(row)) for row in np.flatnonzero(~batch.is_padding)]

    def _forward(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        count = len(inputs["data"])
        step = self._windows_at_once or count
        passes = [
            self._pass({name: array[start : start + step] for name, array in inputs.items()})
            for start in range(0, count, step)
        ]
        columns = zip(*(outputs for outputs_of_pass in passes for outputs in outputs_of_pass))
        return dict(zip(self._output_names, map(_joined, columns)))

    def _pass(self, inputs: dict[str, np.ndarray]) -> list[list[np.ndarray]]:
        """Outputs of each device."""
        shares = {name: np.split(array, self.num_devices) for name, array in inputs.items()}
        # All devices begin before the first one is waited for.
        started = [
            graph.start({name: share[index] for name, share in shares.items()})
            for index, graph in enumerate(self._graphs)
        ]
        return [[array.asnumpy() for array in outputs] for outputs in started]

    def _found(self, outputs: dict[str, np.ndarray], batch: TestBatch, row: int) -> ChipDetections:
        im_info = batch.im_info[row]
        found = decode(WindowOutputs(self._spec, outputs, row, im_info), rpn_only=self._rpn_only)
        return ChipDetections(
            int(batch.image_index[row]),
            int(batch.chip_index[row]),
            (found.boxes / im_info[2]).astype(np.float32),
            found.scores,
            float(im_info[2]),
            found.maps.get("roi"),
            found.maps.get("focus"),
        )


def _symbol(
    model: Model, devices: Sequence[mx.Context], *, rpn_only: bool, roi_map: bool
) -> mx.sym.Symbol:
    if model.symbol is None:
        return build_detector(model.spec, train=False, rpn_only=rpn_only, roi_map=roi_map)
    if any(device.device_type != "cpu" for device in devices):
        raise ConfigError(
            "INT8 networks run on the CPU only",
            got=", ".join(map(str, devices)),
            fix="--set gpus cpu, or take the fp32 weights",
        )
    if rpn_only:
        raise ConfigError(
            "an INT8 network has no output for proposals alone",
            fix="extract proposals with the fp32 weights",
        )
    return model.symbol


def _joined(arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
