"""Detectors on MXNet: a graph with its weights on one or several devices."""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import mxnet as mx
import numpy as np

from sniper.errors import ConfigError
from sniper.inference.executor import DetectorTraits, MaskJob
from sniper.inference.mask_batches import mask_inputs, split_job
from sniper.models.assembly import (
    WindowOutputs,
    build_detector,
    build_mask_head,
    data_names,
    decode,
    short_output_names,
)
from sniper.models.cpu_graph import for_detection_on_cpu
from sniper.models.fit import params_of
from sniper.models.model import Model, with_features
from sniper.models.parts import WindowDetections

# Binding a shape anew costs some milliseconds and a slower first pass.
SHAPES_KEPT = 16

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class MxnetExecutor:
    """A model on the given devices, for batches and images of any size; threads may share it.

    Args:
        model: the network and its weights.
        devices: a batch is spread evenly over them.
        rpn_only: proposals and their scores instead of classes and boxes.
        roi_features: detections have `roi_features`.

    Raises:
        ConfigError: the network cannot do what is asked for.
    """

    def __init__(
        self,
        model: Model,
        devices: Sequence[mx.Context],
        *,
        rpn_only: bool = False,
        roi_features: bool = False,
    ) -> None:
        spec = model.spec
        self.num_devices = len(devices)
        self.traits = DetectorTraits(
            model.class_names,
            spec.feature_stride,
            spec.roi_channels,
            has_masks=spec.with_masks and not rpn_only,
        )
        self._spec, self._device_kinds = spec, sorted({device.device_type for device in devices})
        symbol = _symbol(
            *(model, devices),
            rpn_only=rpn_only,
            roi_map=self.traits.has_masks,
            roi_features=roi_features,
        )
        self._rpn_only = rpn_only
        self._data_names = data_names(spec, rpn_only=rpn_only)
        self._output_names = short_output_names(symbol.list_outputs())
        # oneDNN adds up in another order for one window than for several: on CPUs each window has a
        # pass of its own, so that no result depends on the batch. Batches gain little there.
        self._windows_at_once = self.num_devices if self._device_kinds == ["cpu"] else None
        self._graphs = [BoundGraph(symbol, model, device) for device in devices]
        mask_head = build_mask_head(spec) if self.traits.has_masks else None
        self._mask_heads = [
            BoundGraph(mask_head, model, device) for device in devices if mask_head is not None
        ]
        # Graphs give their outputs away until the next call only.
        self._lock = threading.Lock()

    def run(self, data: np.ndarray, im_info: np.ndarray) -> list[WindowDetections]:
        """Detections of each window of a batch; see `Executor`."""
        # Numbers of images and chips pass through the graph of 2018 untouched.
        unused = np.zeros(len(data), np.float32)
        inputs = {"data": data, "im_info": im_info, "im_ids": unused, "chip_ids": unused}
        step = self._windows_at_once or len(data)
        windows: list[WindowDetections] = []
        for start in range(0, len(data), step):
            part = {name: inputs[name][start : start + step] for name in self._data_names}
            with self._lock:
                outputs = self._pass(part)
            # Now and not at the end: with thousands of classes outputs are large, detections few.
            windows += [
                decode(WindowOutputs(self._spec, outputs, row, info), rpn_only=self._rpn_only)
                for row, info in enumerate(im_info[start : start + step])
            ]
        return windows

    def masks(self, jobs: Sequence[MaskJob]) -> Iterator[np.ndarray]:
        """Masks of boxes, any map size and any number of boxes; see `Executor`."""
        batches = [batch for job in jobs for batch in split_job(job)]
        masks_of_job: list[np.ndarray] = []
        for start in range(0, len(batches), self.num_devices):
            # All devices work on their batch before the first one is waited for.
            wave = batches[start : start + self.num_devices]
            with self._lock:
                started = [
                    head.start(mask_inputs(job))[0]
                    for head, (job, _) in zip(self._mask_heads, wave)
                ]
                outputs = [output.asnumpy() for output in started]
            for (job, is_last), output in zip(wave, outputs):
                masks_of_job.append(output[: len(job.boxes)])
                if is_last:
                    yield np.concatenate(masks_of_job)
                    masks_of_job = []

    def identity(self) -> dict[str, object]:
        """Whatever results depend on; see `Executor`."""
        return {
            "mxnet": mx.__version__,
            "network": repr(replace(self._spec, batch_images=1)),
            "devices": self._device_kinds,
            # oneDNN chooses its kernels by the number of threads; their last bits differ.
            "threads": os.environ.get("OMP_NUM_THREADS", ""),
        }

    def _pass(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of all devices together."""
        shares = {name: np.split(array, self.num_devices) for name, array in inputs.items()}
        # All devices begin before the first one is waited for.
        started = [
            graph.start({name: share[index] for name, share in shares.items()})
            for index, graph in enumerate(self._graphs)
        ]
        columns = zip(*([array.asnumpy() for array in outputs] for outputs in started))
        return dict(zip(self._output_names, map(_joined, columns)))


class BoundGraph:
    """Runs a graph on one device; the executors of the shapes used last are kept.

    All executors share their weights, and their memory with that of the largest shape: results have
    to be copied out before the next call. Not thread-safe.

    Args:
        symbol: the graph.
        model: where its weights come from.
        device: where it runs.
    """

    def __init__(self, symbol: mx.sym.Symbol, model: Model, device: mx.Context) -> None:
        if device.device_type == "cpu":
            shapes = {name: value.shape for name, value in model.arg.items()}
            symbol = for_detection_on_cpu(symbol, shapes)
        self._symbol = symbol
        self._model, self._device = model, device
        self._largest: mx.executor.Executor | None = None
        self._most_values = 0
        self._executors: OrderedDict[Shapes, mx.executor.Executor] = OrderedDict()

    def start(self, inputs: Mapping[str, np.ndarray]) -> list[mx.nd.NDArray]:
        """Begins to compute the outputs; they hold until the next call.

        Raises:
            DataError: the weights do not fit the graph.
        """
        shapes = tuple((name, array.shape) for name, array in inputs.items())
        return self._executor(shapes).forward(is_train=False, **inputs)

    def _executor(self, shapes: Shapes) -> mx.executor.Executor:
        executor = self._executors.pop(shapes, None) or self._bind(shapes)
        self._executors[shapes] = executor
        if len(self._executors) > SHAPES_KEPT:
            self._executors.popitem(last=False)
        return executor

    def _bind(self, shapes: Shapes) -> mx.executor.Executor:
        values = sum(math.prod(shape) for _, shape in shapes)
        if self._largest is None:
            executor = self._symbol.simple_bind(self._device, grad_req="null", **dict(shapes))
            executor.copy_params_from(*params_of(self._symbol, dict(shapes), self._model))
        else:
            executor = self._largest.reshape(allow_up_sizing=True, **dict(shapes))
        if values > self._most_values:
            # What shares the smaller memory would keep it alive.
            self._executors.clear()
            self._largest, self._most_values = executor, values
        return executor


def _symbol(
    model: Model,
    devices: Sequence[mx.Context],
    *,
    rpn_only: bool,
    roi_map: bool,
    roi_features: bool,
) -> mx.sym.Symbol:
    if roi_features:
        with_features(model)
    if model.symbol is None:
        outputs = {"rpn_only": rpn_only, "roi_map": roi_map, "roi_features": roi_features}
        return build_detector(model.spec, train=False, **outputs)
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
