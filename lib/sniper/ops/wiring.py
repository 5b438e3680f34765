"""How the fronts connect an operator's inputs and outputs, in both of MXNet's interfaces."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import mxnet as mx

from sniper.ops.checks import Tensor


def blocked(front: ModuleType, *tensors: Tensor) -> list[Tensor]:
    """The inputs without gradient flow: the operators are never told to add instead of write."""
    return [front.BlockGrad(tensor) for tensor in tensors]


def named(front: ModuleType, name: str) -> dict[str, str]:
    """The name argument, which only symbols take."""
    return {"name": name} if front is mx.sym else {}


def named_outputs(front: ModuleType, outputs: Any, names: Sequence[str]) -> tuple[Tensor, ...]:
    """The outputs as a tuple; in a graph each under its own name (extension outputs have none)."""
    if front is not mx.sym:
        return tuple(outputs)
    return tuple(front.identity(outputs[i], name=name) for i, name in enumerate(names))
