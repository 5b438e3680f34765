"""Batch norms up to which nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Container

from sniper.models.cpu_graph import uses_batch_statistics
from sniper.models.lazy import mx


def with_stored_statistics(
    symbol: mx.sym.Symbol, trained: Container[str]
) -> tuple[mx.sym.Symbol, list[str]]:
    """The network whose norms go over the batch only where something up to them is trained.

    MXNet updates the stored statistics of a norm in its backward pass, which it leaves out where
    nothing needs it. Such a norm would go over the batch in training, and in detection over
    statistics that were never measured.

    Args:
        symbol: a training network.
        trained: names of the parameters that have gradients.

    Returns:
        The network, with weights of the same names, and the norms that use their stored statistics
        in training as well now, in the order of the graph.
    """
    graph = json.loads(symbol.tojson())
    # Of each node, whether a gradient flows back to it.
    flows: list[bool] = []
    changed = []
    for node in graph["nodes"]:
        inputs = [flows[entry[0]] for entry in node["inputs"]]
        flows.append(any(inputs) or node["name"] in trained)
        if uses_batch_statistics(node) and not flows[-1]:
            node.setdefault("attrs", {})["use_global_stats"] = "True"
            changed.append(node["name"])
    return (mx.sym.load_json(json.dumps(graph)) if changed else symbol), changed
