"""ONNX Runtime: a model of one operator on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

import numpy as np

from bench.case import PeerMissingError

OPSET = 17
IR_VERSION = 9


def session(
    operator: str,
    inputs: Mapping[str, np.ndarray],
    constants: Mapping[str, np.ndarray],
    outputs: Mapping[str, str],
    threads: int,
    **attributes: Any,
) -> Callable[[], Sequence[np.ndarray]]:
    """A call that runs one operator.

    Args:
        operator: of ONNX.
        inputs: the operator's first inputs, in order.
        constants: its further inputs.
        outputs: the ONNX type name of each output.
        threads: intra_op_num_threads; there is no parallelism between operators.
        attributes: of the operator.

    Raises:
        PeerMissingError: not installed.
    """
    try:
        import onnx
        import onnxruntime
        from onnx import helper, numpy_helper
    except ImportError as error:
        raise PeerMissingError(
            f"ONNX Runtime is not installed ({error}): pip install -r requirements-bench.txt"
        ) from None

    def info(name: str, array: np.ndarray) -> Any:
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        return helper.make_tensor_value_info(name, kind, array.shape)

    graph = helper.make_graph(
        [helper.make_node(operator, [*inputs, *constants], list(outputs), **attributes)],
        "bench",
        [info(name, array) for name, array in inputs.items()],
        [
            helper.make_tensor_value_info(name, getattr(onnx.TensorProto, kind), None)
            for name, kind in outputs.items()
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    running = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names, feed = list(outputs), dict(inputs)
    return lambda: running.run(names, feed)
