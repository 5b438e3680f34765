"""Bounds-checked reading of FlatBuffers tables, the container of TensorFlow Lite files.

Every offset of such a file is a promise of its writer. Here each one is checked against the length
of the buffer before it is followed, so a truncated or hostile file gives a DataError and nothing
else. (The official Python runtime follows offsets unchecked; the generated TensorFlow Lite classes
would add two packages for the dozen fields that are needed.)
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from sniper.errors import DataError

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
