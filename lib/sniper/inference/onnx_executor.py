"""Detectors without MXNet: ONNX graphs in an engine, and our operators between them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from sniper.errors import ConfigError, DataError
from sniper.inference.executor import DetectorTraits, MaskJob
from sniper.inference.mask_batches import mask_inputs, split_job
from sniper.inference.native_operators import run_native
from sniper.inference.onnx_engines import OnnxEngine
from sniper.models.assembly import WindowOutputs, decode, short_output_names
from sniper.models.class_scores import Scores
from sniper.models.model import OnnxModel, with_features
from sniper.models.onnx.steps import OnnxStep, Program, Step
from sniper.models.parts import WindowDetections

Tensors = Mapping[str, np.ndarray]


class OnnxExecutor:
    """A model of ONNX graphs on the CPU, for images of any size; threads may share it.

    Args:
        model: the network.
        engine: computes its graphs.
        rpn_only: see `MxnetExecutor`; refused.
        roi_features: see `MxnetExecutor`; refused.

    Raises:
        ConfigError: the network cannot do what is asked for.
        DataError: the engine refuses a graph.
    """

    num_devices = 1

    def __init__(
        self,
        model: OnnxModel,
        engine: OnnxEngine,
        *,
        rpn_only: bool = False,
        roi_features: bool = False,
    ) -> None:
        if roi_features:
            with_features(model)
        if rpn_only:
            raise ConfigError(
                "a detector of ONNX graphs has no output for proposals alone",
                fix="extract proposals with the weights of MXNet, or take detections as proposals "
                "(TEST.EXTRACT_PROPOSALS detections)",
            )
        spec = model.spec
        self.traits = DetectorTraits(
            model.class_names,
            spec.feature_stride,
            spec.roi_channels,
            has_masks=model.mask_head is not None,
        )
        self._spec, self._engine = spec, engine
        self._detector = ProgramRunner(model.detector, engine)
        self._mask_head = (
            None if model.mask_head is None else ProgramRunner(model.mask_head, engine)
        )

    def run(self, data: np.ndarray, im_info: np.ndarray) -> list[WindowDetections]:
        """Detections of each window of a batch, one by one; see `Executor`."""
        # Numbers of images and chips pass through the graph of 2018 untouched.
        unused = np.zeros(1, np.float32)
        windows = []
        for image, info in zip(data, im_info):
            inputs = {"data": image[None], "im_info": info[None]}
            outputs = self._detector({**inputs, "im_ids": unused, "chip_ids": unused})
            named = dict(zip(short_output_names(outputs), outputs.values()))
            windows.append(decode(WindowOutputs(self._spec, named, 0, info)))
            self._check_classes(windows[-1].scores)
        return windows

    def _check_classes(self, scores: Scores) -> None:
        """The graph is what it is: classes that the archive does not name would be left out."""
        expected = len(self.traits.class_names)
        if isinstance(scores, np.ndarray) and scores.shape[1] != expected:
            raise DataError(
                "the network has other classes than the archive names",
                got=f"{scores.shape[1]}, the background among them",
                expected=expected,
                fix="export the model again",
            )

    def masks(self, jobs: Sequence[MaskJob]) -> Iterator[np.ndarray]:
        """Masks of boxes, any map size and any number of boxes; see `Executor`."""
        if self._mask_head is None:
            raise ConfigError("this network has no masks")
        for job in jobs:
            parts = []
            for part, _ in split_job(job):
                (masks,) = self._mask_head(mask_inputs(part)).values()
                parts.append(masks[: len(part.boxes)])
            yield np.concatenate(parts)

    def identity(self) -> dict[str, object]:
        """Whatever results depend on; see `Executor`."""
        return {
            self._engine.name: self._engine.version,
            "network": repr(replace(self._spec, batch_images=1)),
            "devices": ["cpu"],
            # Engines choose their kernels by the number of threads.
            "threads": os.environ.get("OMP_NUM_THREADS", ""),
        }


class ProgramRunner:
    """Runs the steps of a program; a tensor is forgotten behind the last step that reads it.

    Args:
        program: the network.
        engine: computes its graphs.

    Raises:
        DataError: the engine refuses a graph.
    """

    def __init__(self, program: Program, engine: OnnxEngine) -> None:
        self._outputs = program.outputs
        self._inputs = program.inputs
        self._steps = [(step, _function(step, engine)) for step in program.steps]
        kept = {tensor for _, tensor in program.outputs}
        last = {name: place for place, step in enumerate(program.steps) for name in step.inputs}
        self._dropped = [
            [name for name, place in last.items() if place == here and name not in kept]
            for here in range(len(program.steps))
        ]

    def __call__(self, inputs: Tensors) -> dict[str, np.ndarray]:
        """Outputs by name; inputs that the network does not have are left out."""
        tensors = self._run(inputs, len(self._steps))
        return {name: tensors[tensor] for name, tensor in self._outputs}

    def inputs_of(self, place: int, inputs: Tensors) -> dict[str, np.ndarray]:
        """What the step of this place reads, by name: the steps before it are run."""
        tensors = self._run(inputs, place)
        return {name: tensors[name] for name in self._steps[place][0].inputs}

    def _run(self, inputs: Tensors, count: int) -> dict[str, np.ndarray]:
        """All tensors that are still of use behind the first steps."""
        tensors = {name: inputs[name] for name in self._inputs}
        for (step, function), dropped in zip(self._steps[:count], self._dropped):
            tensors.update(zip(step.outputs, function(tensors)))
            for name in dropped:
                del tensors[name]
        return tensors


def _function(step: Step, engine: OnnxEngine) -> Callable[[Tensors], Sequence[np.ndarray]]:
    if isinstance(step, OnnxStep):
        return engine.compile(step)
    return lambda tensors: run_native(step, [tensors[name] for name in step.inputs])
