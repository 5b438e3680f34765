"""The convolutions of a TensorFlow Lite file, as NCHW float32 arrays with their settings."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from sniper.errors import DataError

IDENTIFIER = b"TFL3"
# Numbers of the public schema (tensorflow/lite/schema/schema.fbs).
CONV_2D, DEPTHWISE_CONV_2D, DEQUANTIZE = 3, 4, 6
FLOAT_TYPES: dict[int, np.dtype] = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
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


_Item = TypeVar("_Item")


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

    def _entry(self, table: list[_Item] | dict[int, _Item], key: int, what: str) -> _Item:
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


_SIZE = {"B": 1, "b": 1, "H": 2, "I": 4, "i": 4}
# Far above anything in a model file; below it no vector can exhaust the memory.
MAX_ENTRIES = 100_000


class Buffer:
    """The bytes of a file, and where they come from (for messages)."""

    def __init__(self, data: bytes, where: str | Path) -> None:
        self.data = data
        self.where = where

    def number(self, kind: str, offset: int) -> int:
        """Little-endian integer of a `struct` kind at a byte offset.

        Raises:
            DataError: it would lie outside the file.
        """
        self.check(offset, _SIZE[kind])
        return struct.unpack_from(f"<{kind}", self.data, offset)[0]

    def check(self, offset: int, size: int) -> None:
        """Raises DataError unless `size` bytes from `offset` on lie inside the file."""
        if offset < 0 or size < 0 or offset + size > len(self.data):
            raise DataError(
                "the file points outside itself: it is truncated or damaged",
                where=self.where,
                got=f"{size} bytes at {offset} of {len(self.data)}",
                fix="fetch it again",
            )

    def root(self, identifier: bytes) -> Table:
        """Root table of a file whose bytes 4..8 are `identifier`."""
        self.check(0, 8)
        if self.data[4:8] != identifier:
            raise DataError(
                "this is another kind of file",
                where=self.where,
                got=f"identifier {self.data[4:8]!r}",
                expected=f"identifier {identifier!r}",
            )
        return Table(self, self.number("I", 0))


class Table:
    """One table; fields are named by their slot in the schema."""

    def __init__(self, buffer: Buffer, position: int) -> None:
        self._buffer = buffer
        self._position = position
        self._vtable = position - buffer.number("i", position)
        self._vtable_size = buffer.number("H", self._vtable)
        buffer.check(self._vtable, self._vtable_size)

    def number(self, slot: int, kind: str, default: int = 0) -> int:
        """Integer field, or `default` where the file leaves it out."""
        offset = self._field(slot)
        return default if offset is None else self._buffer.number(kind, offset)

    def table(self, slot: int) -> Table:
        """Nested table.

        Raises:
            DataError: the field is absent or points outside the file.
        """
        offset = self._field(slot)
        if offset is None:
            raise DataError(
                "the file lacks a part that every such model has",
                where=self._buffer.where,
                got=f"no field {slot} in the table at byte {self._position}",
            )
        return Table(self._buffer, offset + self._buffer.number("I", offset))

    def tables(self, slot: int) -> list[Table]:
        """Vector of tables; empty where the field is absent."""
        start, count = self._vector(slot, 4)
        if count > MAX_ENTRIES:
            self._buffer.check(start, -1)
        offsets = range(start, start + 4 * count, 4)
        return [Table(self._buffer, at + self._buffer.number("I", at)) for at in offsets]

    def integers(self, slot: int) -> tuple[int, ...]:
        """Vector of int32; empty where the field is absent."""
        start, count = self._vector(slot, 4)
        return tuple(np.frombuffer(self._buffer.data, "<i4", count, start).tolist())

    def content(self, slot: int) -> bytes:
        """Vector of bytes; empty where the field is absent."""
        start, count = self._vector(slot, 1)
        return self._buffer.data[start : start + count]

    def _vector(self, slot: int, item_size: int) -> tuple[int, int]:
        """Offset of the first item and number of items."""
        offset = self._field(slot)
        if offset is None:
            return 0, 0
        start = offset + self._buffer.number("I", offset)
        count = self._buffer.number("I", start)
        self._buffer.check(start + 4, count * item_size)
        return start + 4, count

    def _field(self, slot: int) -> int | None:
        entry = 4 + 2 * slot
        if entry + 2 > self._vtable_size:
            return None
        offset = self._buffer.number("H", self._vtable + entry)
        return self._position + offset if offset else None
