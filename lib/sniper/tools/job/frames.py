"""What a guard and the launcher tell each other: frames one way, single bytes the other way."""

from __future__ import annotations

import struct
from collections.abc import Iterator

# Everything before this comes from login scripts and the like.
START = b"\x00sniper guard 1\n"

OUTPUT, ERRORS, STEPS, PROCESS, EXIT = b"o", b"e", b"s", b"p", b"x"

# To the guard: a sign of life; the wish that the process ends in good order.
ALIVE, STOP = b".", b"t"

_HEADER = struct.Struct(">cI")


def frame(kind: bytes, payload: bytes) -> bytes:
    """One frame: its kind, the length, the payload."""
    return _HEADER.pack(kind, len(payload)) + payload


class FrameReader:
    """Cuts a stream of bytes into frames.

    `noise` is what came before the first frame.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self._started = False
        self.noise = b""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Takes some bytes in; yields the (kind, payload) that are complete."""
        self._buffer += data
        if not self._started:
            noise, mark, rest = self._buffer.partition(START)
            if not mark:
                return
            self._started, self.noise, self._buffer = True, noise, rest
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            payload, self._buffer = self._buffer[_HEADER.size : end], self._buffer[end:]
            yield kind, payload

    def rest(self) -> bytes:
        """What no guard has written, when the stream has ended before the first frame."""
        return b"" if self._started else self._buffer


class LineCutter:
    """Cuts the output of a process into lines, also those that end with a carriage return."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[str]:
        """Takes some bytes in; yields the lines that are complete, without their ends."""
        *lines, self._rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        yield from (line.decode(errors="replace") for line in lines if line)

    def rest(self) -> str:
        """What is left at the end."""
        rest, self._rest = self._rest, b""
        return rest.decode(errors="replace")
