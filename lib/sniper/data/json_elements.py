"""Many elements of a JSON list at once, by orjson: those that the standard library gives.

Without orjson, and for what the two read in different ways, nothing comes out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]

# What follows an element: a comma and, in a list of objects, the first key of the next one.
_follows = re.compile(r'([ \t\n\r]*,[ \t\n\r]*)(?:\{[ \t\n\r]*"[^"]*")?').match

# Integers beyond 64 bits would become floats; they have this many digits at least.
_LONG = b"0" * 19
_as_zeros = bytes.maketrans(b"123456789", b"0" * 9)
_zeros = re.compile(b"0*").match


def whole_elements(
    text: str, start: int, scan: Callable[[str, int], tuple[Any, int]]
) -> tuple[list[Any], int]:
    """Elements of a list that have a comma behind them.

    Args:
        text: of which the end may be missing.
        start: where an element begins.
        scan: `json.JSONDecoder.scan_once`: an element, and the place behind it.

    Returns:
        The elements, and the place behind the last one, its comma and blanks. No elements and the
        start, where they are broken or for the standard library alone.
    """
    if orjson is None:
        return [], start
    try:
        end = scan(text, start)[1]
    except (StopIteration, ValueError):
        return [], start
    follows = _follows(text, end)
    if follows is None:
        return [], start
    # The last place that looks like the end of an element. In brackets of its own the text up to
    # another one, in a string or in an inner list or object, leaves something open: it is broken.
    cut = text.rfind(follows[0], end)
    try:
        listed = b"[%b]" % text[start:cut].encode()
        if _has_long_integer(listed):
            return [], start
        elements = orjson.loads(listed)
    except ValueError:
        return [], start
    return elements, cut + len(follows[1])


def _has_long_integer(text: bytes) -> bool:
    """Whether there is a run of many digits that is no fraction."""
    zeros = text.translate(_as_zeros)
    place = zeros.find(_LONG)
    while place >= 0:
        if zeros[place - 1 : place] != b".":
            return True
        place = zeros.find(_LONG, _zeros(zeros, place).end())  # type: ignore[union-attr]
    return False
