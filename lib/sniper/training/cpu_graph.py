"""The training graph as the CPU runs it fastest; same parameters, same numbers to the bit."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import mxnet as mx

# Of MXNet's oneDNN build, for which it is the only one: the norm's backward pass masks the gradient
# instead of another pass over two more maps. Parameters and attributes are those of BatchNorm.
_NORM_WITH_RELU = "_contrib_BatchNormWithReLU"
# Operators of our library that take feature maps.
OF_LIBRARY = (
    *("DeformablePSROIPooling", "ReLU6", "ROIMaxMeanPooling"),
    *("MultiProposalTarget", "MultiProposalTargetMask"),
)
# Leaves any shape as it is.
_SAME_SHAPE = "(-2,)"

Node = dict[str, Any]


def for_cpu(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """The same network, for the CPU.

    * A ReLU whose input is a batch norm that nothing else reads becomes part of it; norms with
      stored statistics stay as they are.
    * Maps in a layout of oneDNN get their plain one in front of our operators: MXNet would hand
      that work to the queue of `cpu(0)`, and wait there for all that other contexts have to do.
    """
    graph = json.loads(symbol.tojson())
    if _has_onednn():
        _fuse_norms(graph)
    _insert_reshapes(graph)
    return mx.sym.load_json(json.dumps(graph))


def _has_onednn() -> bool:
    """Whether MXNet has oneDNN, and nobody has turned it off."""
    is_on = os.environ.get("MXNET_MKLDNN_ENABLED", "1").lower() not in ("0", "false")
    return is_on and mx.runtime.Features().is_enabled("MKLDNN")


def _fuse_norms(graph: dict[str, Any]) -> None:
    nodes: list[Node] = graph["nodes"]
    uses = Counter(entry[0] for entry in _entries(graph))
    replaced: dict[int, int] = {}
    for index, node in enumerate(nodes):
        if node["op"] != "Activation" or node["attrs"]["act_type"] != "relu":
            continue
        norm = node["inputs"][0][0]
        if uses[norm] == 1 and _uses_batch_statistics(nodes[norm]):
            nodes[norm]["op"] = _NORM_WITH_RELU
            replaced[index] = norm
    _rename(graph, replaced)


def _uses_batch_statistics(node: Node) -> bool:
    attributes = node.get("attrs", {})
    stored = attributes.get("use_global_stats", "False") not in ("False", "0")
    return node["op"] == "BatchNorm" and not stored and attributes.get("axis", "1") == "1"


def _insert_reshapes(graph: dict[str, Any]) -> None:
    nodes: list[Node] = []
    places: dict[int, int] = {}
    for index, node in enumerate(graph["nodes"]):
        for entry in node["inputs"]:
            entry[0] = places[entry[0]]
        if node["op"] in OF_LIBRARY:
            for number, entry in enumerate(node["inputs"]):
                if nodes[entry[0]]["op"] != "null":
                    nodes.append(_reshape(f"{node['name']}_plain{number}", entry))
                    node["inputs"][number] = [len(nodes) - 1, 0, 0]
        nodes.append(node)
        places[index] = len(nodes) - 1
    for entry in graph["heads"]:
        entry[0] = places[entry[0]]
    graph["nodes"] = nodes
    graph["arg_nodes"] = [index for index, node in enumerate(nodes) if node["op"] == "null"]
    graph.pop("node_row_ptr", None)


def _reshape(name: str, entry: list[int]) -> Node:
    return {"op": "Reshape", "name": name, "attrs": {"shape": _SAME_SHAPE}, "inputs": [list(entry)]}


def _entries(graph: dict[str, Any]) -> list[list[int]]:
    return [*graph["heads"], *(entry for node in graph["nodes"] for entry in node["inputs"])]


def _rename(graph: dict[str, Any], replaced: Mapping[int, int]) -> None:
    for entry in _entries(graph):
        entry[0] = replaced.get(entry[0], entry[0])
