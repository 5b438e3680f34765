"""OpenVINO: a graph of one operator, compiled for the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np

from bench.case import PeerMissingError


def opset() -> Any:
    """The operators' constructors.

    Raises:
        PeerMissingError: not installed.
    """
    try:
        import openvino.opset13
    except ImportError as error:
        raise PeerMissingError(
            f"OpenVINO is not installed ({error}): pip install -r requirements-bench.txt"
        ) from None
    return openvino.opset13


def parameters(inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """One graph input for each array, of its shape and dtype."""
    operators = opset()
    return {
        name: operators.parameter(list(array.shape), array.dtype.type, name=name)
        for name, array in inputs.items()
    }


def compiled(
    node: Any, graph_inputs: Mapping[str, Any], inputs: Mapping[str, np.ndarray], threads: int
) -> Callable[[], Sequence[np.ndarray]]:
    """A call that runs the graph on `inputs` and gives its outputs.

    Latency mode, one stream, float32; arrays are shared with the graph in both directions, which is
    the call with the least overhead that takes new data.
    """
    import openvino

    model = openvino.Model([node.output(i) for i in range(node.get_output_size())],
                           list(graph_inputs.values()), "bench")  # fmt: skip
    request = openvino.Core().compile_model(model, "CPU", settings(threads)).create_infer_request()
    feed = [inputs[name] for name in graph_inputs]

    def run() -> Sequence[np.ndarray]:
        return request.infer(feed, share_inputs=True, share_outputs=True).to_tuple()

    return run


def compiled_file(
    path: Path, threads: int
) -> Callable[[Mapping[str, np.ndarray]], Sequence[np.ndarray]]:
    """A call that runs an ONNX file; outputs in its order."""
    import openvino

    network = openvino.Core().compile_model(path, "CPU", settings(threads))
    request = network.create_infer_request()

    def run(inputs: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        return request.infer(dict(inputs), share_inputs=True).to_tuple()

    return run


def settings(threads: int) -> dict[str, str]:
    """Latency mode, one stream, float32."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": "f32",
    }
