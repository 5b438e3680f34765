"""From a graph in fp32 to one whose convolutions compute in INT8, by ONNX Runtime's quantisation.

Weights are quantised by channel with 7 bits, maps with 8 bits by one range each, which calibration
decides. The bit that weights give up keeps sums of two products within 16 bits, so that processors
with and without VNNI give the same numbers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime import quantization

from sniper.errors import ConfigError, DataError
from sniper.models.onnx.steps import OnnxStep

METHODS = {
    "naive": quantization.CalibrationMethod.MinMax,
    "entropy": quantization.CalibrationMethod.Entropy,
}
LAYERS = ("Conv", "Gemm")


def quantize_step(
    step: OnnxStep,
    inputs: Iterable[Mapping[str, np.ndarray]],
    *,
    calibration: str = "naive",
    fp32_layers: Sequence[str] = (),
) -> OnnxStep:
    """The same graph in INT8.

    Args:
        step: in fp32.
        inputs: what it is calibrated with, all its inputs by name.
        calibration: "naive": ranges are the extremes seen; "entropy": rare large values are cut.
        fp32_layers: layers that stay as they are; those of other graphs are passed over.

    Raises:
        ConfigError: the calibration is not known.
        DataError: there are no inputs, or ONNX Runtime cannot quantise the graph.
    """
    if calibration not in METHODS:
        raise ConfigError(
            "there is no such calibration", got=calibration, expected=" or ".join(METHODS)
        )
    with tempfile.TemporaryDirectory(prefix="sniper-quantize-") as folder:
        fused = _fused(step, Path(folder))
        out = Path(folder) / "int8.onnx"
        try:
            quantization.quantize_static(
                fused,
                str(out),
                _Reader(inputs),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(LAYERS),
                nodes_to_exclude=[
                    node.name for node in fused.graph.node if _layer(node.name) in fp32_layers
                ],
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=METHODS[calibration],
            )
        except (ValueError, RuntimeError, AssertionError) as error:
            raise DataError("ONNX Runtime cannot quantise the network", got=error) from error
        model = onnx.load_model(str(out))
    return replace(step, model=model.SerializeToString(deterministic=True))


def layers_of(step: OnnxStep) -> list[str]:
    """Names of the layers that can be quantised."""
    graph = onnx.load_model_from_string(step.model).graph
    return [_layer(node.name) for node in graph.node if node.op_type in LAYERS]


def _layer(node: str) -> str:
    """Nodes are called by their output."""
    return node.partition(":")[0]


def _fused(step: OnnxStep, folder: Path) -> onnx.ModelProto:
    """With batch norms in the convolutions before them: they could not be joined afterwards."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "fused.onnx")
    onnxruntime.InferenceSession(step.model, options, providers=["CPUExecutionProvider"])
    model = onnx.load_model(options.optimized_model_filepath)
    # Otherwise a warning asks for what has been done here.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    return model


class _Reader(quantization.CalibrationDataReader):
    """Hands inputs over one by one."""

    def __init__(self, inputs: Iterable[Mapping[str, np.ndarray]]) -> None:
        self._inputs: Iterator[Mapping[str, np.ndarray]] = iter(inputs)

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        """The next inputs; None at the end."""
        return next(self._inputs, None)
