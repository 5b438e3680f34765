"""What the operator fronts share: MXNet's two interfaces, the call, and the names of outputs.

The operators themselves check attributes, shapes and types, because a graph may come from a file.
The fronts check what an operator cannot see, and say its refusal in their own words.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType, ModuleType
from typing import Any, Union

import mxnet as mx
import numpy as np

from sniper.errors import OpsError
from sniper.ops.library import load_library

MOST_ITEMS = 100_000  # of a list argument; operators take fewer

# Subclasses of the classic ones that the classic operators refuse.
NUMPY_TENSORS = (mx.np.ndarray, mx.symbol.numpy._Symbol)

Tensor = Union[mx.nd.NDArray, mx.sym.Symbol]


def frontend(op: str, **tensors: Tensor) -> ModuleType:
    """`mx.nd` or `mx.sym`, decided by the first tensor.

    Raises:
        OpsError: a tensor is no Symbol and no NDArray that is dense and not empty, or the two are
            mixed.
    """
    first_type, module = None, None
    for name, tensor in tensors.items():
        for tensor_type, candidate in ((mx.nd.NDArray, mx.nd), (mx.sym.Symbol, mx.sym)):
            if not isinstance(tensor, tensor_type) or isinstance(tensor, NUMPY_TENSORS):
                continue
            if first_type is not None and first_type is not tensor_type:
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
        if module is mx.nd:
            _require_content(op, name, tensor)
    if module is None:
        raise OpsError(f"{op} needs at least one tensor")
    return module


def _require_content(op: str, name: str, tensor: mx.nd.NDArray) -> None:
    """Refuses what MXNet itself would refuse, with a page of text, in front of the operator."""
    if tensor.stype != "default":
        raise OpsError(
            f"{op} takes dense tensors only",
            where=f"input '{name}'",
            got=f"{tensor.stype} storage",
            expected="default storage",
            fix="convert it with tostype('default')",
        )
    if 0 in tensor.shape:
        raise OpsError(
            f"{op} takes no empty tensors", where=f"input '{name}'", got=f"shape {tensor.shape}"
        )


def call(
    op: str,
    front: ModuleType,
    operator: str,
    inputs: Sequence[Tensor],
    arguments: Mapping[str, Any],
    *,
    name: str,
    attributes: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """What an operator of the library makes of its inputs.

    Args:
        op: the front's name, for the message.
        front: what `frontend` has decided.
        operator: such as `MultiProposal`.
        inputs: its tensors.
        arguments: of the front, by name.
        name: of the node in a graph.
        attributes: the operator's names of the arguments, where they differ.

    Raises:
        OpsError: the operator refuses an argument, a shape or a type, or the library is missing.
    """
    load_library()
    keywords = {attributes.get(key, key): _plain(value) for key, value in arguments.items()}
    if front is mx.sym:
        keywords["name"] = name
    try:
        return getattr(front, operator)(*inputs, **keywords)
    except mx.base.MXNetError as error:
        refusal = _in_words_of_front(str(error), operator, attributes)
        if refusal is None:
            raise
        raise OpsError(f"{op}: {refusal}") from error


def _in_words_of_front(text: str, operator: str, attributes: Mapping[str, str]) -> str | None:
    """The operator's sentence without its name; None when the error is none of its own."""
    start, _, sentence = text.partition(": ")
    if start != operator:
        return None
    arguments = {attribute: argument for argument, attribute in attributes.items()}
    return re.sub(
        r"^attribute '(\w+)'",
        lambda match: f"argument '{arguments.get(match[1], match[1])}'",
        sentence,
    )


def _plain(value: Any) -> Any:
    """`value` so that its str(), which MXNet passes on, has all digits and an end."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        items = itertools.islice(value, MOST_ITEMS)
        return tuple(item.tolist() if isinstance(item, np.generic) else item for item in items)
    return value


def blocked(front: ModuleType, *tensors: Tensor) -> list[Tensor]:
    """The inputs without gradient flow: the operators are never told to add instead of write."""
    return [front.BlockGrad(tensor) for tensor in tensors]


def with_added_gradients(front: ModuleType, tensors: Iterable[Tensor]) -> list[Tensor]:
    """Inputs of an operator whose gradients may be added to others.

    The operator is not told to add; `identity` in front of it is. Only variables are asked to:
    gradients of other nodes are written, and then summed.
    """
    return [
        front.identity(tensor) if front is mx.nd or tensor.get_children() is None else tensor
        for tensor in tensors
    ]


def named_outputs(front: ModuleType, outputs: Any, names: Sequence[str]) -> Any:
    """The outputs as a tuple; in a graph each under its own name (extension outputs have none)."""
    if front is not mx.sym:
        return tuple(outputs)
    return tuple(front.identity(outputs[i], name=name) for i, name in enumerate(names))
