"""A test network as a list of steps: ONNX graphs, and between them operators of ours.

Proposals and the pooling of RoIs have no counterpart in ONNX; they run in `sniper.native`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Union

# Operators of ours, and how many sides each of their outputs has.
NATIVE = {"MultiProposal": (2, 1), "DeformablePSROIPooling": (4,), "ROIMaxMeanPooling": (2,)}


@dataclass(frozen=True)
class OnnxStep:
    """A graph for an ONNX engine.

    Attributes:
        inputs: names of tensors, as in `model`.
        outputs: names of tensors, as in `model`.
        model: the serialised model.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    model: bytes


@dataclass(frozen=True)
class NativeStep:
    """One operator of ours; see `NATIVE`.

    Attributes:
        inputs: names of tensors.
        outputs: names of tensors.
        op: the operator.
        attributes: texts, as in the graph.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    op: str
    attributes: Mapping[str, str]


Step = Union[OnnxStep, NativeStep]


@dataclass(frozen=True)
class Program:
    """A network, ready for an ONNX engine and our operators.

    Attributes:
        inputs: names of its inputs.
        steps: in the order in which they run.
        outputs: (name, tensor), in the order of the graph; a tensor may be an input as well.
    """

    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    outputs: tuple[tuple[str, str], ...]
