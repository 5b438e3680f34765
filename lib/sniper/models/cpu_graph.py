"""A network as CPUs run it: with our deformable convolution in place of MXNet's.

Graphs are built, saved and exported with MXNet's operator, which GPUs run. So a file fits every
device, and files of before are as fast as new ones.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from sniper.models.lazy import mx, ops

DEFORMABLE = "_contrib_DeformableConvolution"
# Attributes of the products; the others say where samples are.
_OF_PRODUCTS = ("num_filter", "no_bias", "workspace", "num_group", "layout", "im2col_step")


def deformable_layers(symbol: mx.sym.Symbol) -> list[str]:
    """Names of the deformable convolutions, in the order of the graph."""
    nodes = json.loads(symbol.tojson())["nodes"]
    return [node["name"] for node in nodes if node["op"] == DEFORMABLE]


def for_cpu(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """The network with the same names, parameters and, but for the order of sums, numbers.

    For executors that write gradients; `Replica` says why none adds to them.

    Args:
        symbol: any graph; without deformable convolutions it comes back as it is.

    Raises:
        OpsError: the operator library does not load.
    """
    graph = json.loads(symbol.tojson())
    layers = [node for node in graph["nodes"] if node["op"] == DEFORMABLE]
    if not layers:
        return symbol
    ops.load_library()
    for node in layers:
        node["op"] = "DeformableConvolution"  # its inputs and attributes are the same
    return mx.sym.load_json(json.dumps(graph))


def with_columns(
    symbol: mx.sym.Symbol, kept: Collection[str]
) -> tuple[mx.sym.Symbol, dict[str, str]]:
    """The network with samples and an ordinary 1x1 convolution for each deformable one.

    Such a convolution can be quantised. Its weight has the same name, and the shape (filters,
    channels * taps, 1, 1).

    Args:
        symbol: a graph.
        kept: names of layers that stay as they are; so do those with groups of channels.

    Returns:
        The graph, and its layers that have changed with the names of their weights.

    Raises:
        OpsError: the operator library does not load.
    """
    graph = json.loads(symbol.tojson())
    nodes: list[dict[str, Any]] = []
    number_of: dict[int, int] = {}
    changed: dict[str, str] = {}
    for number, node in enumerate(graph["nodes"]):
        node["inputs"] = [[number_of[entry[0]], *entry[1:]] for entry in node["inputs"]]
        attrs = node.get("attrs", {})
        if node["op"] == DEFORMABLE and node["name"] not in kept and _has_no_groups(attrs):
            data, offset, weight, *bias = node["inputs"]
            nodes.append(_columns_of(node, [data, offset]))
            products = {key: attrs[key] for key in ("num_filter", "no_bias") if key in attrs}
            node.update(
                op="Convolution",
                attrs={**products, "kernel": "(1, 1)"},
                inputs=[[len(nodes) - 1, 0, 0], weight, *bias],
            )
            changed[node["name"]] = nodes[weight[0]]["name"]
        number_of[number] = len(nodes)
        nodes.append(node)
    if not changed:
        return symbol, {}
    ops.load_library()
    graph["nodes"] = nodes
    graph["arg_nodes"] = [number_of[number] for number in graph["arg_nodes"]]
    graph["heads"] = [[number_of[entry[0]], *entry[1:]] for entry in graph["heads"]]
    graph.pop("node_row_ptr", None)  # of the old nodes; MXNet makes it anew
    return mx.sym.load_json(json.dumps(graph)), changed


def _has_no_groups(attrs: dict[str, str]) -> bool:
    return attrs.get("num_group", "1") == "1"


def _columns_of(node: dict[str, Any], inputs: list[list[int]]) -> dict[str, Any]:
    attrs = {key: value for key, value in node["attrs"].items() if key not in _OF_PRODUCTS}
    name = f"{node['name']}_columns"
    return {"op": "DeformableColumns", "name": name, "attrs": attrs, "inputs": inputs}
