"""A reader for 2018 pickles (lists of arrays, tables) that never runs anything a pickle asks for.

Python 2 pickled a list of NumPy arrays. Such a file names three or four globals of NumPy and
nothing else. Even these are not handed out: small stand-ins take their place, check what they are
given and build the arrays from plain bytes.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from sniper.errors import DataError
from sniper.progress import LongCall

_MOST_DEPTH = 4
_PLAIN_NUMBER = re.compile(r"[fiu][1248]")
# What damaged or hostile files make an unpickler raise.
_BROKEN = (
    pickle.UnpicklingError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    OverflowError,
    MemoryError,
    ImportError,
    struct.error,
)


class _Array:
    """Stands for an array while the file is read; `array` is set when its state has come."""

    array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or not isinstance(raw, (str, bytes)):
            raise pickle.UnpicklingError("an array does not hold plain numbers")
        content = raw.encode("latin-1") if isinstance(raw, str) else raw
        kind = dtype.numpy()
        if not all(type(side) is int and side >= 0 for side in shape):
            raise pickle.UnpicklingError(f"an array has the shape {shape!r}")
        if len(content) != prod(shape) * kind.itemsize:
            raise pickle.UnpicklingError(f"an array has {len(content)} bytes for {shape} numbers")
        numbers = np.frombuffer(content, kind)
        self.array = numbers.reshape(shape, order="F" if fortran else "C")


class _Dtype:
    """Stands for the type of an array's numbers."""

    def __init__(self, code: str) -> None:
        self._code, self._byte_order = code, "|"

    def __setstate__(self, state: Any) -> None:
        self._byte_order = state[1]

    def numpy(self) -> np.dtype:
        if self._byte_order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"a byte order is {self._byte_order!r}")
        order = "<" if self._byte_order == "=" else self._byte_order
        return np.dtype(order + self._code)


class _Global:
    """What a pickle gets for a global: callable, but nothing can be set on it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., object]) -> None:
        self._call = call

    def __call__(self, *args: object) -> object:
        return self._call(*args)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it tries to change a function")


def _make_array(subtype: object = None, shape: object = None, code: object = None) -> _Array:
    return _Array()


def _make_dtype(code: object, align: object = 0, copy: object = 0) -> _Dtype:
    if not isinstance(code, str) or not _PLAIN_NUMBER.fullmatch(code):
        raise pickle.UnpicklingError(f"an array's type is {code!r}, not a plain number")
    return _Dtype(code)


def _make_scalar(dtype: object, raw: object) -> float:
    array = _Array()
    array.__setstate__((1, (1,), dtype, False, raw))
    if array.array is None:
        raise pickle.UnpicklingError("a number has no content")
    return array.array[0].item()


def _no_type(*args: object) -> object:
    raise pickle.UnpicklingError("it calls a type that only names arrays")


_GLOBALS: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy", "ndarray"): _no_type,
    ("numpy", "dtype"): _make_dtype,
    ("numpy.core.multiarray", "_reconstruct"): _make_array,
    ("numpy._core.multiarray", "_reconstruct"): _make_array,
    ("numpy.core.multiarray", "scalar"): _make_scalar,
    ("numpy._core.multiarray", "scalar"): _make_scalar,
}


# The unpickler in Python: the one in C sets aside as much memory as a damaged file asks for.
class _Reader(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _GLOBALS:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which a list of arrays never needs"
            )
        return _Global(_GLOBALS[module, name])


def read_array_list(path: str | Path) -> list[np.ndarray]:
    """The arrays of a 2018 pickle: a list of arrays, or `[list of arrays, []]` (after NMS).

    Args:
        path: written by Python 2 with any protocol; nothing but plain arrays may be in it.

    Returns:
        One array per entry, in the order of the file; an empty list counts as an empty array.

    Raises:
        DataError: the file is unreadable or broken, or holds or asks for anything else.
    """
    try:
        with open(path, "rb") as stream, LongCall(f"reading {path}"):
            content = _Reader(stream, encoding="latin-1").load()
        return [_entry(entry) for entry in _entries(content)]
    except _BROKEN as error:
        raise DataError(
            "the 2018 pickle is refused or cannot be read",
            where=path,
            got=f"{type(error).__name__}: {error}",
            expected="a list with one NumPy array per image, and nothing else",
        ) from error


def read_table(path: str | Path) -> dict[int | str, Any]:
    """The table of a 2018 pickle: a dict of numbers or texts to numbers, texts, or lists of these.

    Args:
        path: written by Python 2 with any protocol; NumPy arrays and numbers in it become lists
            and numbers.

    Raises:
        DataError: the file is unreadable or broken, or holds or asks for anything else.
    """
    try:
        with open(path, "rb") as stream, LongCall(f"reading {path}"):
            content = _Reader(stream, encoding="latin-1").load()
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
        return {_key(key): _plain(value) for key, value in content.items()}
    except _BROKEN as error:
        raise DataError(
            "the 2018 pickle is refused or cannot be read",
            where=path,
            got=f"{type(error).__name__}: {error}",
            expected="a dict of numbers or texts to numbers, texts or lists, and nothing else",
        ) from error


def _key(value: object) -> int | str:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"a key is a {type(value).__name__.strip('_')}")
    return value


def _plain(value: object, depth: int = 0) -> Any:
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, _Array) and value.array is not None:
        return value.array.tolist()
    if isinstance(value, (list, tuple)) and depth < _MOST_DEPTH:
        return [_plain(entry, depth + 1) for entry in value]
    raise ValueError(f"an entry is a {type(value).__name__.strip('_')}")


def _entries(content: object) -> list:
    if not isinstance(content, (list, tuple)):
        raise ValueError(f"it holds a {type(content).__name__}")
    # After NMS the file held [arrays, []].
    after_nms = len(content) == 2 and content[1] == [] and isinstance(content[0], list)
    return list(content[0] if after_nms and content[0] else content)


def _entry(entry: object) -> np.ndarray:
    if isinstance(entry, list) and not entry:
        return np.zeros((0, 5), np.float32)
    if not isinstance(entry, _Array) or entry.array is None:
        raise ValueError(f"an entry is a {type(entry).__name__.strip('_')}, not an array")
    return entry.array
