"""What converters of operators work with: a node of MXNet, its attributes, an ONNX graph."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from sniper.errors import DataError

# Written by MXNet into graphs; no effect on results at test.
_WITHOUT_EFFECT = ("workspace", "cudnn_off", "cudnn_tune", "momentum", "use_global_stats")


@dataclass(frozen=True)
class Node:
    """A node of an MXNet graph.

    Attributes:
        op: the operator.
        name: unique in its graph.
        attributes: texts, as in the graph's JSON.
        inputs: names of tensors.
        outputs: names of tensors.
    """

    op: str
    name: str
    attributes: Mapping[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Attributes:
    """The attributes of a node; `finish` refuses those that nobody has asked for."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._left = {
            key: value
            for key, value in node.attributes.items()
            if key not in _WITHOUT_EFFECT and not key.startswith("__")
        }

    def get(self, key: str, default: Any) -> Any:
        """A number, truth value or tuple; `default` where the graph has none."""
        text = self._left.pop(key, None)
        return default if text is None else _value(text)

    def text(self, key: str, default: str, allowed: Sequence[str]) -> str:
        """One of some words.

        Raises:
            DataError: it is another one.
        """
        text = self._left.pop(key, default)
        if text not in allowed:
            self._refuse(key, text, " or ".join(allowed))
        return text

    def must_be(self, key: str, *allowed: Any) -> None:
        """Refuses other values; the first one is MXNet's default.

        Raises:
            DataError: it has another value.
        """
        value = self.get(key, allowed[0])
        if value not in allowed:
            self._refuse(key, value, " or ".join(map(str, allowed)))

    def finish(self) -> None:
        """To be called when all attributes have been read.

        Raises:
            DataError: there are more.
        """
        for key, text in self._left.items():
            self._refuse(key, text, "no such attribute")

    def _refuse(self, key: str, got: object, expected: str) -> None:
        raise DataError(
            "a layer does what the conversion to ONNX does not know",
            where=f"{self._node.name} ({self._node.op}), attribute {key}",
            got=got,
            expected=expected,
        )


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


class GraphWriter:
    """Nodes and constants of one ONNX graph.

    Args:
        params: weights and statistics by the name of their tensor.
    """

    def __init__(self, params: Mapping[str, np.ndarray]) -> None:
        self._params = params
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}

    def param(self, name: str) -> np.ndarray:
        """The numbers of a weight.

        Raises:
            DataError: the tensor is not constant.
        """
        if name not in self._params:
            raise DataError("these numbers must be a parameter of the network", where=name)
        return self._params[name]

    def constant(self, name: str, values: Any, dtype: str = "float32") -> str:
        """Adds numbers under this name, and returns it."""
        array = np.asarray(values, dtype)
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Adds a node with one output, and returns that."""
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output
