"""What computes ONNX graphs: ONNX Runtime or OpenVINO, each imported when it is asked for."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Protocol

import numpy as np

from sniper.errors import ConfigError, DataError
from sniper.models.onnx.steps import OnnxStep
from sniper.process import is_installed, omp_threads

AUTO = "auto"

# Outputs of a graph, in the order of `OnnxStep.outputs`; threads may share it.
GraphFunction = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]


class OnnxEngine(Protocol):
    """Compiles graphs for the CPU."""

    name: str
    version: str

    def compile(self, step: OnnxStep) -> GraphFunction:
        """The function of a graph, for inputs of any size; it raises DataError where it fails.

        Raises:
            DataError: the engine refuses the graph, or it has other inputs or outputs.
        """
        ...


class OnnxRuntimeEngine:
    """ONNX Runtime on the CPU.

    Args:
        threads: of every graph.

    Raises:
        ConfigError: it is not installed.
    """

    name = "onnxruntime"

    def __init__(self, threads: int) -> None:
        self._module = _import("onnxruntime", 'pip install "sniper-mxnet[onnx]"')
        self.version = str(self._module.__version__)
        self._options = self._module.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = 4  # errors are raised as well
        # Threads that wait in a loop would take the cores of those that read images.
        self._options.add_session_config_entry("session.intra_op.allow_spinning", "0")

    def compile(self, step: OnnxStep) -> GraphFunction:
        """See `OnnxEngine`."""
        try:
            session = self._module.InferenceSession(
                step.model, self._options, providers=["CPUExecutionProvider"]
            )
        # The classes of its errors have no common base but this one.
        except Exception as error:
            raise _refused(self, error) from error
        _check_names(
            step,
            [tensor.name for tensor in session.get_inputs()],
            [tensor.name for tensor in session.get_outputs()],
        )
        names = list(step.outputs)

        def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
            try:
                return session.run(names, {name: inputs[name] for name in step.inputs})
            except Exception as error:
                raise _failed(self, step, inputs, error) from error

        return run


class OpenVinoEngine:
    """OpenVINO on the CPU, in float32 whatever else the processor has.

    Args:
        threads: of every graph.

    Raises:
        ConfigError: it is not installed.
    """

    name = "openvino"

    def __init__(self, threads: int) -> None:
        self._module = _import("openvino", "pip install openvino")
        self.version = str(self._module.__version__)
        self._core = self._module.Core()
        self._settings = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }

    def compile(self, step: OnnxStep) -> GraphFunction:
        """See `OnnxEngine`."""
        try:
            graph = self._core.compile_model(
                self._core.read_model(step.model), "CPU", self._settings
            )
        except RuntimeError as error:
            raise _refused(self, error) from error
        _check_names(
            step,
            [port.any_name for port in graph.inputs],
            [name for port in graph.outputs for name in port.names],
        )
        request, lock = graph.create_infer_request(), threading.Lock()

        def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
            with lock:
                try:
                    outputs = request.infer({name: inputs[name] for name in step.inputs})
                except RuntimeError as error:
                    raise _failed(self, step, inputs, error) from error
                return [np.array(outputs[name]) for name in step.outputs]

        return run


# The fastest first; see docs/onnx.md.
ENGINES = {engine.name: engine for engine in (OnnxRuntimeEngine, OpenVinoEngine)}


def installed_engines() -> list[str]:
    """Names of the engines that can be imported, the fastest first."""
    return [name for name in ENGINES if is_installed(name)]


def onnx_engine(name: str = AUTO) -> OnnxEngine:
    """An engine with as many threads as MXNet would have (`OMP_NUM_THREADS`).

    Args:
        name: one of `ENGINES`; `AUTO` takes the first one that is installed.

    Raises:
        ConfigError: there is no such engine, or it is not installed.
    """
    if name == AUTO:
        name = next(iter(installed_engines()), next(iter(ENGINES)))
    if name not in ENGINES:
        raise ConfigError(
            "this engine does not compute ONNX graphs",
            where="TEST.ENGINE",
            got=name,
            expected=", ".join([AUTO, *ENGINES]),
        )
    return ENGINES[name](omp_threads())


def _import(module: str, command: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"detectors of ONNX graphs need {' or '.join(ENGINES)}",
            got=f"{module}: {error}",
            fix=command,
        ) from error


def _check_names(step: OnnxStep, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Raises DataError where a graph has other inputs or outputs than the archive says."""
    if set(inputs) != set(step.inputs) or not set(step.outputs) <= set(outputs):
        raise DataError(
            "a graph of the archive is another one than the archive says",
            got=f"{', '.join(inputs)} -> {', '.join(outputs)}",
            expected=f"{', '.join(step.inputs)} -> {', '.join(step.outputs)}",
            fix="export the model again",
        )


def _failed(
    engine: OnnxEngine, step: OnnxStep, inputs: Mapping[str, np.ndarray], error: Exception
) -> DataError:
    shapes = ", ".join(f"{name} {inputs[name].shape}" for name in step.inputs)
    return DataError(
        f"{engine.name} {engine.version} cannot compute a graph of the archive",
        where=shapes,
        got=str(error).strip() or type(error).__name__,
        fix="where memory is short, TEST.MAX_PIXELS bounds it; else export the model again",
    )


def _refused(engine: OnnxEngine, error: Exception) -> DataError:
    """OpenVINO's conversion of ONNX has no deformable convolution, for example."""
    text = str(error).strip()
    # Its messages end with what could not be converted.
    reasons = [line.strip(" -") for line in text.partition("Summary:")[2].splitlines()]
    reasons = [line for line in reasons if line] or text.splitlines() or [type(error).__name__]
    return DataError(
        f"{engine.name} {engine.version} refuses a graph of the archive",
        got=reasons[0],
        fix=f"take another engine (TEST.ENGINE {' or '.join(ENGINES)}), or another version of it",
    )
