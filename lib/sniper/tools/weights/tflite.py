"""The convolutions of a TensorFlow Lite file, as NCHW float32 arrays with their settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sniper.errors import DataError
from sniper.tools.weights.flatbuffer import Buffer, Table

IDENTIFIER = b"TFL3"
# Numbers of the public schema (tensorflow/lite/schema/schema.fbs).
CONV_2D, DEPTHWISE_CONV_2D, DEQUANTIZE = 3, 4, 6
FLOAT_TYPES = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
PADDINGS = {0: "same", 1: "valid"}
ACTIVATIONS = {0: "none", 1: "relu", 3: "relu6"}


@dataclass(frozen=True)
class Convolution:
    """One convolution of the file.

    Attributes:
        weight: (O, I, kh, kw) float32; depthwise (C, 1, kh, kw).
        bias: (O,) float32.
        depthwise: one kernel per channel.
        stride: of both axes.
        padding: "same" or "valid".
        activation: "none", "relu" or "relu6".
        source: index of the tensor that it reads.
        result: index of the tensor that it writes.
    """

    weight: np.ndarray
    bias: np.ndarray
    depthwise: bool
    stride: int
    padding: str
    activation: str
    source: int
    result: int


def read_convolutions(data: bytes, where: str | Path) -> list[Convolution]:
    """All convolutions of the first subgraph, in the order of execution.

    Args:
        data: the content of a `.tflite` file.
        where: its name, for messages.

    Raises:
        DataError: the file is no TensorFlow Lite model, is truncated or damaged, or its
            convolutions are not of floats (float16 and float32 are read).
    """
    model = Buffer(data, where).root(IDENTIFIER)
    graphs = model.tables(2)
    if not graphs:
        raise DataError("the model has no graph", where=where)
    return _Reader(model, graphs[0], where).convolutions()


class _Reader:
    def __init__(self, model: Table, graph: Table, where: str | Path) -> None:
        self._where = where
        self._codes = [_code(entry) for entry in model.tables(1)]
        self._buffers = model.tables(4)
        self._tensors = graph.tables(0)
        self._operators = graph.tables(3)

    def convolutions(self) -> list[Convolution]:
        # float16 files store constants as float16 and widen each with a DEQUANTIZE.
        widened: dict[int, int] = {}
        found = []
        for operator in self._operators:
            code = self._entry(self._codes, operator.number(0, "I"), "operator code")
            if code == DEQUANTIZE:
                (source,), (result,) = self._wires(operator, 1)
                widened[result] = source
            elif code in (CONV_2D, DEPTHWISE_CONV_2D):
                found.append(self._convolution(operator, code == DEPTHWISE_CONV_2D, widened))
        return found

    def _convolution(
        self, operator: Table, depthwise: bool, widened: dict[int, int]
    ) -> Convolution:
        (source, weight, bias), (result,) = self._wires(operator, 3)
        options = operator.table(4)
        strides = {options.number(1, "i", 1), options.number(2, "i", 1)}
        kernel = self._array(widened.get(weight, weight), 4)  # (O, kh, kw, I) or (1, kh, kw, C)
        return Convolution(
            weight=kernel.transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2)),
            bias=self._array(widened.get(bias, bias), 1),
            depthwise=depthwise,
            stride=self._one(strides, "stride"),
            padding=self._entry(PADDINGS, options.number(0, "b"), "padding"),
            activation=self._entry(
                ACTIVATIONS, options.number(4 if depthwise else 3, "b"), "activation"
            ),
            source=source,
            result=result,
        )

    def _wires(self, operator: Table, inputs: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        sources, results = operator.integers(1), operator.integers(2)
        if len(sources) != inputs or len(results) != 1:
            raise DataError(
                "an operator has another number of inputs or outputs than usual",
                where=self._where,
                got=f"{len(sources)} inputs, {len(results)} outputs",
                expected=f"{inputs} inputs, 1 output",
            )
        return sources, results

    def _array(self, index: int, dimensions: int) -> np.ndarray:
        tensor = self._entry(self._tensors, index, "tensor")
        dtype = self._entry(FLOAT_TYPES, tensor.number(1, "b"), "tensor type")
        content = self._entry(self._buffers, tensor.number(2, "I"), "buffer").content(0)
        shape = tensor.integers(0)
        count = int(np.prod(np.asarray(shape, object))) if shape else 0
        if len(shape) != dimensions or min(shape) < 1 or count * dtype.itemsize != len(content):
            raise DataError(
                "a constant does not have the size that its shape says",
                where=self._where,
                got=f"shape {shape}, {len(content)} bytes",
                expected=f"{dimensions} dimensions of {dtype.name}",
            )
        return np.frombuffer(content, dtype).astype(np.float32).reshape(shape)

    def _entry(self, table: list | dict, key: int, what: str) -> object:
        there = key in table if isinstance(table, dict) else 0 <= key < len(table)
        if not there:
            raise DataError(
                f"the file names an unknown {what}",
                where=self._where,
                got=key,
                fix="fetch it again; only float models of plain convolutions are read",
            )
        return table[key]

    def _one(self, values: set[int], what: str) -> int:
        if len(values) != 1:
            raise DataError(f"the {what} differs between the axes", where=self._where, got=values)
        return values.pop()


def _code(entry: Table) -> int:
    # Old files have the byte field only; new ones say the number in both or in the second.
    return max(entry.number(0, "b"), entry.number(3, "i"))
