"""From a test graph of MXNet to steps for an ONNX engine and our operators; needs `onnx`.

A graph is cut where operators of ours stand: what does not depend on them is the first ONNX graph,
what they give is read by the next one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, ValueInfoProto, helper

import sniper
from sniper.errors import DataError
from sniper.models.onnx.operators import OPSET, PASS_ON, convert_node
from sniper.models.onnx.steps import NATIVE, NativeStep, OnnxStep, Program, Step
from sniper.models.onnx.writer import GraphWriter, Node

# What goes with opset 19; newer packages write a newer one, which older engines do not read.
IR_VERSION = 9
OUTPUT_SUFFIX = "_output"
VARIABLE = "null"


def convert(
    graph: str, params: Mapping[str, np.ndarray], input_ranks: Mapping[str, int]
) -> Program:
    """Converts a test graph in float32. Heights, widths and batches stay free.

    Args:
        graph: the JSON text of an MXNet symbol.
        params: all parameters and statistics by name.
        input_ranks: how many sides each input has.

    Raises:
        DataError: an operator or attribute is not known, a parameter is missing, or two nodes have
            one name.
    """
    content = json.loads(graph)
    return _Converter(content["nodes"], params, input_ranks).program(content["heads"])


class _Converter:
    def __init__(
        self,
        nodes: Sequence[Mapping[str, Any]],
        params: Mapping[str, np.ndarray],
        input_ranks: Mapping[str, int],
    ) -> None:
        self._nodes, self._params = nodes, params
        # Of tensors that go from one step to another.
        self._ranks = dict(input_ranks)
        # Of each node the names of its outputs, and how many operators of ours come before it.
        self._tensors: list[tuple[str, ...]] = []
        self._depths: list[int] = []
        self._inputs: list[str] = []
        self._onnx: dict[int, list[Node]] = {}
        self._native: dict[int, list[NativeStep]] = {}
        names: set[str] = set()
        for node in nodes:
            if node["name"] in names:
                raise DataError("two nodes of the network have one name", got=node["name"])
            names.add(node["name"])
            self._add(node)

    def program(self, heads: Sequence[Sequence[int]]) -> Program:
        outputs = [
            (self._output_name(place, number), self._tensors[place][number])
            for place, number, *_ in heads
        ]
        wanted = {tensor for _, tensor in outputs}
        for natives in self._native.values():
            wanted.update(tensor for step in natives for tensor in step.inputs)
        for nodes in self._onnx.values():
            made = {tensor for node in nodes for tensor in node.outputs}
            wanted.update(tensor for node in nodes for tensor in node.inputs if tensor not in made)
        steps: list[Step] = []
        for depth in range(max(self._depths) + 1):
            if depth in self._onnx:
                steps.append(_onnx_step(self._onnx[depth], self._params, wanted, self._ranks))
            steps += self._native.get(depth, [])
        return Program(tuple(self._inputs), tuple(steps), tuple(outputs))

    def _add(self, entry: Mapping[str, Any]) -> None:
        op, name = entry["op"], entry["name"]
        sources = [(place, number) for place, number, *_ in entry["inputs"]]
        inputs = tuple(self._tensors[place][number] for place, number in sources)
        depth = max((self._depths[place] for place, _ in sources), default=0)
        if op == VARIABLE:
            self._note((name,), 0)
            if name in self._ranks:
                self._inputs.append(name)
            elif name not in self._params:
                raise DataError("a parameter of the network is missing", got=name)
        elif op in PASS_ON:
            self._note(inputs, depth)
        elif op in NATIVE:
            outputs = tuple(f"{name}:{number}" for number in range(len(NATIVE[op])))
            self._ranks.update(zip(outputs, NATIVE[op]))
            step = NativeStep(inputs, outputs, op, dict(entry.get("attrs", {})))
            self._native.setdefault(depth, []).append(step)
            self._note(outputs, depth + 1)
        else:
            node = Node(op, name, entry.get("attrs", {}), inputs, (f"{name}:0",))
            self._onnx.setdefault(depth, []).append(node)
            self._note(node.outputs, depth)

    def _note(self, tensors: tuple[str, ...], depth: int) -> None:
        self._tensors.append(tensors)
        self._depths.append(depth)

    def _output_name(self, place: int, number: int) -> str:
        """As MXNet calls it."""
        node = self._nodes[place]
        if node["op"] == VARIABLE:
            return node["name"]
        count = len(self._tensors[place])
        return f"{node['name']}{OUTPUT_SUFFIX}{number if count > 1 else ''}"


def _onnx_step(
    nodes: Sequence[Node],
    params: Mapping[str, np.ndarray],
    wanted: set[str],
    ranks: dict[str, int],
) -> OnnxStep:
    """The graph of these nodes; `ranks` learns those of its outputs."""
    writer = GraphWriter(params)
    for node in nodes:
        convert_node(writer, node)
    read = dict.fromkeys(name for proto in writer.nodes for name in proto.input)
    for name in read:
        if name in params:
            writer.constant(name, params[name])
    made = {name for proto in writer.nodes for name in proto.output} | {*writer.constants}
    inputs = [name for name in read if name not in made]
    outputs = [name for node in nodes for name in node.outputs if name in wanted]
    graph = helper.make_graph(
        writer.nodes,
        "sniper",
        [_of_rank(name, ranks[name]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        list(writer.constants.values()),
    )
    opset = [helper.make_opsetid("", OPSET)]
    about = {"producer_name": "sniper", "producer_version": sniper.__version__}
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, **about)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output
    ranks.update((output.name, len(output.type.tensor_type.shape.dim)) for output in inferred)
    for place, name in enumerate(outputs):
        model.graph.output[place].CopyFrom(_of_rank(name, ranks[name]))
    onnx.checker.check_model(model)
    return OnnxStep(tuple(inputs), tuple(outputs), model.SerializeToString(deterministic=True))


def _of_rank(name: str, rank: int) -> ValueInfoProto:
    """A tensor whose sides are free."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)
