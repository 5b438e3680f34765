"""The layout of MXNet's parameter files, walked through before MXNet reads them.

MXNet believes what a file says: a flipped bit in a shape makes it ask for terabytes, one in a name
ends in a traceback, and some end the process. Here every number is compared with the bytes that are
there. What the tensors hold cannot be checked: the format has no checksums.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

_HEADER = struct.Struct("<QQQ")  # magic, reserved, number of tensors
_SHAPE_1, _SHAPE_2, _SHAPE_3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_DENSE = 0
# Bytes of an element for each of MXNet's types.
_ELEMENT_BYTES = {0: 4, 1: 8, 2: 2, 3: 1, 4: 4, 5: 1, 6: 8, 7: 1, 12: 2}
_MOST_AXES = 32


def layout_problem(content: memoryview) -> str | None:
    """What is wrong with the content of a file of `mx.nd.save`; None if its layout is right.

    Empty lists, and lists without names, are right.
    """
    reader = _Reader(content)
    try:
        _, _, count = reader.take(_HEADER)
        for number in range(count):
            reader.part = f"tensor {number + 1} of {count}"
            _walk_tensor(reader)
        reader.part = "the names"
        (names,) = reader.take(struct.Struct("<Q"))
        if names not in (0, count):
            return f"{names} names for {count} tensors"
        for _ in range(names):
            (length,) = reader.take(struct.Struct("<Q"))
            bytes(reader.next_bytes(length)).decode("utf-8")
    except _Broken as error:
        return f"{reader.part}: {error}"
    except UnicodeDecodeError as error:
        return f"{reader.part}: {error.object!r} is no text"
    return None


class _Broken(Exception):
    """The content is not what the format says."""


@dataclass
class _Reader:
    """Takes numbers and bytes from the front.

    Attributes:
        content: the bytes.
        position: of the next one.
        part: what is being read, for messages.
    """

    content: memoryview
    position: int = 0
    part: str = "the header"

    def next_bytes(self, length: int) -> memoryview:
        """The next bytes."""
        if length > len(self.content) - self.position:
            left = len(self.content) - self.position
            raise _Broken(f"{length} bytes are announced where {left} are left")
        self.position += length
        return self.content[self.position - length : self.position]

    def take(self, form: struct.Struct) -> tuple[int, ...]:
        """The next numbers."""
        return form.unpack(self.next_bytes(form.size))


def _walk_tensor(reader: _Reader) -> None:
    (magic,) = reader.take(struct.Struct("<I"))
    if magic in (_SHAPE_2, _SHAPE_3):
        (storage,) = reader.take(struct.Struct("<i"))
        if storage != _DENSE:
            raise _Broken(f"storage type {storage}, where weights are dense ({_DENSE})")
    # Before there was a magic number the number of axes stood in its place, and sides had 32 bits.
    axes = reader.take(struct.Struct("<i"))[0] if magic >= _SHAPE_1 else magic
    if magic > _SHAPE_3 or not 1 <= axes <= _MOST_AXES:
        raise _Broken(f"{axes} axes")
    sides = reader.take(struct.Struct(f"<{axes}{'q' if magic >= _SHAPE_1 else 'I'}"))
    if any(side < 0 for side in sides):
        raise _Broken(f"shape {sides}")
    reader.take(struct.Struct("<ii"))  # the device that it was on
    (kind,) = reader.take(struct.Struct("<i"))
    if kind not in _ELEMENT_BYTES:
        raise _Broken(f"element type {kind}")
    reader.next_bytes(math.prod(sides) * _ELEMENT_BYTES[kind])
