"""A JSON object parsed piece by piece: the elements of its long lists are handed over one by one.

The whole text never exists, nor do all elements at a time. Numbers, texts and repeated keys mean
what they mean to `json.load`: `sniper.data.json_elements` is fast, the rest the standard library.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sniper.data.json_elements import whole_elements
from sniper.data.json_text import open_json_bytes

_PIECE_BYTES = 1 << 20
_blanks = re.compile(r"[ \t\n\r]*").match


class NotStreamableError(ValueError):
    """The file is no plain JSON object; whoever reads it as a whole can say what is wrong."""


def stream_object(path: str | Path, takers: Mapping[str, Callable[[Any], None]]) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Args:
        path: the file, see `sniper.data.json_text.open_json`.
        takers: keys of the object, and what gets the elements of the lists there, in their order.

    Returns:
        The object; lists whose elements were taken are empty.

    Raises:
        NotStreamableError: the file is broken, holds no object, or names a key twice. Elements may
            have been taken before.
        OSError, EOFError, zlib.error, DataError: as `open_json`.
    """
    text = _Text(path)
    try:
        content = _read_object(text, takers)
        text.expect_end()
    except (ValueError, RecursionError) as error:
        raise NotStreamableError(str(error)) from error
    finally:
        text.close()
    return content


def _read_object(text: _Text, takers: Mapping[str, Callable[[Any], None]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    text.expect("{")
    while text.next() != "}" or content:
        key = text.value()
        if not isinstance(key, str) or key in content:
            raise NotStreamableError(f"the key {key!r}")
        text.expect(":")
        if key in takers and text.next() == "[":
            text.each_element(takers[key])
            content[key] = []
        else:
            content[key] = text.value()
        if text.next() == "}":
            break
        text.expect(",")
    text.expect("}")
    return content


class _Text:
    """The text of a file, of which a few pieces are in memory, and a place in it."""

    def __init__(self, path: str | Path) -> None:
        self._stream, encoding = open_json_bytes(path)
        self._decoder = codecs.getincrementaldecoder(encoding)()
        decoder: Any = json.JSONDecoder()  # type stubs know its methods alone
        self._scan = decoder.scan_once
        self._text, self._place = "", 0
        self._piece_bytes = _PIECE_BYTES
        self._at_end = False

    def close(self) -> None:
        self._stream.close()

    def next(self) -> str:
        """The next character that is no blank; nothing at the end."""
        while True:
            self._place = _blanks(self._text, self._place).end()  # type: ignore[union-attr]
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._read_on():
                return ""

    def expect(self, sign: str) -> None:
        """Steps over a sign that must come next."""
        if self.next() != sign:
            raise NotStreamableError(f"{self.next()!r} instead of {sign!r}")
        self._place += 1

    def expect_end(self) -> None:
        """Nothing but blanks may follow."""
        if self.next():
            raise NotStreamableError("there is more behind the object")

    def value(self) -> Any:
        """Steps over the value that comes next."""
        self.next()
        while True:
            try:
                value, end = self._scan(self._text, self._place)
            except (StopIteration, ValueError):
                end = len(self._text)
            # A number may go on in the next piece: 1|2, 1.|5, 1e+|5.
            if end + (0 if self._at_end else 2) < len(self._text):
                self._place = end
                self._piece_bytes = _PIECE_BYTES
                return value
            if not self._read_on():
                raise NotStreamableError("a broken value")

    def each_element(self, take: Callable[[Any], None]) -> None:
        """Hands over the elements of the list that comes next, and steps over it."""
        self.expect("[")
        if self.next() == "]":
            self.expect("]")
            return
        while True:
            for element in self._run():
                take(element)
            take(self.value())
            if self.next() == "]":
                self.expect("]")
                return
            self.expect(",")
            self.next()

    def _run(self) -> Iterator[Any]:
        """The elements from here on that have a comma behind them and stand in these pieces."""
        scan, text = self._scan, self._text
        elements, self._place = whole_elements(text, self._place, scan)
        yield from elements
        del elements
        place = self._place
        while True:
            try:
                element, end = scan(text, place)
                if text[end] != ",":
                    end = _blanks(text, end).end()  # type: ignore[union-attr]
                    if text[end] != ",":
                        break
                place = end + 1
                if text[place] in " \t\n\r":
                    place = _blanks(text, place).end()  # type: ignore[union-attr]
            except (StopIteration, ValueError, IndexError):
                break
            self._place = place
            yield element

    def _read_on(self) -> bool:
        """Forgets what was read, and reads more; False at the end of the file."""
        if self._at_end:
            return False
        piece = self._stream.read(self._piece_bytes)
        self._at_end = not piece
        # Of a value that is longer than a piece twice as much is read the next time.
        self._piece_bytes *= 2
        self._text = self._text[self._place :] + self._decoder.decode(piece, self._at_end)
        self._place = 0
        return True
