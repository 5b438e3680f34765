"""Checks that the operator fronts share: each raises one OpsError that names operator and input.

The operators check shapes and attributes again in C++ (a graph may come from a JSON file); the
fronts do it first because the call that is wrong is then in the traceback.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from types import ModuleType
from typing import Any, Optional, Union

import mxnet as mx
import numpy as np

from sniper.errors import OpsError

MAX_ITEMS = 1024  # of a list argument
MAX_TEXT = 120  # characters of a wrong value in a message

# Subclasses of the classic ones that the classic operators refuse.
NUMPY_TENSORS = (mx.np.ndarray, mx.symbol.numpy._Symbol)

Tensor = Union[mx.nd.NDArray, mx.sym.Symbol]


def frontend(op: str, **tensors: Tensor) -> ModuleType:
    """`mx.nd` or `mx.sym`, decided by the first tensor.

    Raises:
        OpsError: a tensor is neither an NDArray nor a Symbol, or the two are mixed.
    """
    first_type, module = None, None
    for name, tensor in tensors.items():
        for tensor_type, candidate in ((mx.nd.NDArray, mx.nd), (mx.sym.Symbol, mx.sym)):
            if not isinstance(tensor, tensor_type) or isinstance(tensor, NUMPY_TENSORS):
                continue
            if first_type not in (None, tensor_type):
                raise OpsError(
                    f"{op} got NDArrays and Symbols in one call",
                    where=f"input '{name}'",
                    got=type(tensor).__name__,
                    expected=first_type.__name__,
                )
            first_type, module = tensor_type, candidate
            break
        else:
            raise OpsError(
                f"{op} takes MXNet tensors only",
                where=f"input '{name}'",
                got=type(tensor).__name__,
                expected="an NDArray (or a Symbol)",
                fix="wrap a NumPy array in mx.nd.array; call as_nd_ndarray() on an mx.np array",
            )
    if module is None:
        raise OpsError(f"{op} needs at least one tensor")
    return module


def require_tensor(op: str, name: str, tensor: Tensor, shape: tuple[Optional[int], ...]) -> None:
    """Checks storage, rank, dtype (float32) and sizes of an NDArray; a Symbol has none yet.

    Args:
        op: the operator's name, for the message.
        name: the input's name.
        tensor: the input.
        shape: the expected shape, None where any size from 1 is right.
    """
    if not isinstance(tensor, mx.nd.NDArray):
        return
    got = tensor.shape
    fits = len(got) == len(shape) and all(
        size > 0 and wanted in (None, size) for size, wanted in zip(got, shape)
    )
    if not fits:
        wanted_text = ", ".join("any" if size is None else str(size) for size in shape)
        raise OpsError(
            f"{op} got an input of the wrong shape",
            where=f"input '{name}'",
            got=got,
            expected=f"({wanted_text})",
        )
    if tensor.stype != "default":
        raise OpsError(
            f"{op} takes dense tensors only",
            where=f"input '{name}'",
            got=f"{tensor.stype} storage",
            expected="default storage",
            fix="convert it with tostype('default')",
        )
    if tensor.dtype != np.float32:
        raise OpsError(
            f"{op} works in float32 only",
            where=f"input '{name}'",
            got=np.dtype(tensor.dtype).name,
            expected="float32",
            fix="cast it in front of the operator",
        )


def integer(op: str, name: str, value: Any, low: int, high: int = 2**31 - 1) -> int:
    """`value` as an int in [low, high]; OpsError otherwise (bools and fractions too)."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        raise _bad(op, name, value, f"an integer from {low} to {high}")
    return int(value)


def number(op: str, name: str, value: Any, low: float, high: float) -> float:
    """`value` as a finite float in [low, high]; OpsError otherwise."""
    if not _is_number(value) or not low <= value <= high:
        raise _bad(op, name, value, f"a number from {low} to {high}")
    return float(value)


def positives(op: str, name: str, values: Iterable[float]) -> tuple[float, ...]:
    """`values` as 1 to 1024 floats from 1e-6 to 1e6; OpsError otherwise."""
    expected = f"1 to {MAX_ITEMS} numbers from 1e-6 to 1e6"
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise _bad(op, name, values, expected)
    items = tuple(itertools.islice(values, MAX_ITEMS + 1))
    wrong = not all(_is_number(item) and 1e-6 <= item <= 1e6 for item in items)
    if wrong or not 1 <= len(items) <= MAX_ITEMS:
        raise _bad(op, name, items, expected)
    return tuple(float(item) for item in items)


def flag(op: str, name: str, value: Any) -> bool:
    """`value` as a bool; OpsError for anything but True and False."""
    if not isinstance(value, (bool, np.bool_)):
        raise _bad(op, name, value, "True or False")
    return bool(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, (int, np.integer)):
        return not isinstance(value, bool)
    return isinstance(value, (float, np.floating)) and math.isfinite(value)


def _bad(op: str, name: str, got: object, expected: str) -> OpsError:
    text = repr(got)
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]}..."
    return OpsError(f"{op} got a wrong argument", where=f"'{name}'", got=text, expected=expected)
