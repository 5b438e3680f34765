"""A network as CPUs run it, with our convolutions in place of MXNet's where they are faster.

Graphs are built, saved and exported with the operators that GPUs run. So a file fits every device,
and files of before are as fast as new ones.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any, Optional

from sniper.models.lazy import mx, ops
from sniper.native import isa

Shape = tuple[int, ...]

DEFORMABLE = "_contrib_DeformableConvolution"
# Attributes of the products; the others say where samples are.
_OF_PRODUCTS = ("num_filter", "no_bias", "workspace", "num_group", "layout", "im2col_step")
# Of MXNet's oneDNN build, for which it is the only one: the norm's backward pass masks the gradient
# instead of another pass over two more maps. Parameters and attributes are those of BatchNorm.
_NORM_WITH_RELU = "_contrib_BatchNormWithReLU"
_MAP_RANK = 4  # images, channels, rows, columns
_WINOGRAD = "WinogradConvolution"
# Operators of our library that take feature maps.
OF_LIBRARY = (
    *("DeformableConvolution", "DeformablePSROIPooling", "ReLU6", "ROIMaxMeanPooling"),
    *("MultiProposalTarget", "MultiProposalTargetMask", "WinogradConvolution"),
)
# Leaves any shape as it is.
_SAME_SHAPE = "(-2,)"
# Fewer channels, or filters, would fill a part of the vectors of our convolution only.
_FEWEST_CHANNELS = 32
# In training, where gradients of maps and weights are moved in and out of tiles as well.
_FEWEST_TRAINED_CHANNELS = 64
_MEASURED_ISA = "avx2"
# What a 3x3 convolution must have, where its attributes name it, to become one of ours.
_OF_WINOGRAD = {
    "kernel": ("(3, 3)",),
    "stride": ("(1, 1)", "()"),
    "dilate": ("(1, 1)", "()"),
    "num_group": ("1",),
    "layout": ("None", "NCHW"),
}

Node = dict[str, Any]
Entry = list[int]  # number of a node, its output, and a version that is always 0


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


def for_training_on_cpu(symbol: mx.sym.Symbol, shapes: Mapping[str, Shape]) -> mx.sym.Symbol:
    """The network of `for_cpu` with less work in and between its layers.

    * A ReLU whose input is a batch norm of maps that nothing else reads becomes part of it; norms
      with stored statistics, and of anything but maps, stay as they are.
    * Maps in a layout of oneDNN get their plain one in front of our operators: MXNet would hand
      that work to the queue of `cpu(0)`, and wait there for all that other contexts have to do.
    * Wide 3x3 convolutions have a quarter of their multiplications. Their numbers change by some
      1e-6 of their length; all others stay the same to the bit. Not with AVX-512, where it has not
      been measured.

    Args:
        symbol: any graph.
        shapes: of data and labels.

    Raises:
        OpsError: the operator library does not load.
    """
    graph = json.loads(for_cpu(symbol).tojson())
    internals = symbol.get_internals()
    sizes, put_out, _ = internals.infer_shape(**shapes)
    if isa() == _MEASURED_ISA:
        _use_winograd(graph, dict(zip(symbol.list_arguments(), sizes)), _FEWEST_TRAINED_CHANNELS)
        _fuse_relus(graph, _is_winograd)
        ops.load_library()
    if _has_onednn():
        rank_of = {name: len(shape) for name, shape in zip(internals.list_outputs(), put_out)}
        _fuse_relus(graph, lambda node: _takes_relu(node, rank_of.get(f"{node['name']}_output")))
    _insert_before(graph, _plain_maps)
    return mx.sym.load_json(json.dumps(graph))


def uses_batch_statistics(node: Node) -> bool:
    """Whether a node of a graph's JSON is a norm that goes over the batch in training."""
    stored = node.get("attrs", {}).get("use_global_stats", "False") not in ("False", "0")
    return node["op"] == "BatchNorm" and not stored


def trains_with_winograd(attributes: Mapping[str, str], weight: Shape) -> bool:
    """Whether `for_training_on_cpu` replaces a convolution of these attributes and weights."""
    is_wide = min(weight[:2]) >= _FEWEST_TRAINED_CHANNELS
    return isa() == _MEASURED_ISA and is_wide and _fits_winograd(attributes)


def detects_with_winograd(attributes: Mapping[str, str], weight: Shape) -> bool:
    """Whether `for_detection_on_cpu` replaces a convolution of these attributes and weights."""
    return min(weight[:2]) >= _FEWEST_CHANNELS and _fits_winograd(attributes)


def for_detection_on_cpu(
    symbol: mx.sym.Symbol, weight_shapes: Mapping[str, Shape]
) -> mx.sym.Symbol:
    """The network of `for_cpu` with fewer operations, for executors without gradients.

    3x3 convolutions of stride 1 have a quarter of their multiplications, and the ReLU behind them:
    relative differences are below 1e-5, larger than those of the order of sums. Norms stay apart
    from their ReLUs, which change a map in its place.

    Args:
        symbol: any graph.
        weight_shapes: of parameters by name; layers without stay as they are.

    Raises:
        OpsError: the operator library does not load.
    """
    graph = json.loads(for_cpu(symbol).tojson())
    _use_winograd(graph, weight_shapes, _FEWEST_CHANNELS)
    _fuse_relus(graph, _is_winograd)
    ops.load_library()
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
    changed: dict[str, str] = {}

    def samples(node: Node, nodes: list[Node]) -> None:
        attrs = node.get("attrs", {})
        if node["op"] != DEFORMABLE or node["name"] in kept or not _has_no_groups(attrs):
            return
        data, offset, weight, *bias = node["inputs"]
        nodes.append(_columns_of(node, [data, offset]))
        products = {key: attrs[key] for key in ("num_filter", "no_bias") if key in attrs}
        node.update(
            op="Convolution",
            attrs={**products, "kernel": "(1, 1)"},
            inputs=[[len(nodes) - 1, 0, 0], weight, *bias],
        )
        changed[node["name"]] = nodes[weight[0]]["name"]

    _insert_before(graph, samples)
    if not changed:
        return symbol, {}
    ops.load_library()
    return mx.sym.load_json(json.dumps(graph)), changed


def _has_no_groups(attrs: dict[str, str]) -> bool:
    return attrs.get("num_group", "1") == "1"


def _columns_of(node: Node, inputs: list[Entry]) -> Node:
    attrs = {key: value for key, value in node["attrs"].items() if key not in _OF_PRODUCTS}
    name = f"{node['name']}_columns"
    return {"op": "DeformableColumns", "name": name, "attrs": attrs, "inputs": inputs}


def _insert_before(graph: dict[str, Any], insert: Callable[[Node, list[Node]], None]) -> None:
    """Lets `insert` append nodes to those before a node, and give the node other inputs."""
    nodes: list[Node] = []
    number_of: list[int] = []
    for node in graph["nodes"]:
        for entry in node["inputs"]:
            entry[0] = number_of[entry[0]]
        insert(node, nodes)
        number_of.append(len(nodes))
        nodes.append(node)
    for entry in graph["heads"]:
        entry[0] = number_of[entry[0]]
    graph["nodes"] = nodes
    graph["arg_nodes"] = [number for number, node in enumerate(nodes) if node["op"] == "null"]
    graph.pop("node_row_ptr", None)  # of the old nodes; MXNet makes it anew


def _plain_maps(node: Node, nodes: list[Node]) -> None:
    if node["op"] not in OF_LIBRARY:
        return
    for number, entry in enumerate(node["inputs"]):
        if nodes[entry[0]]["op"] != "null":
            nodes.append(_reshape(f"{node['name']}_plain{number}", entry))
            node["inputs"][number] = [len(nodes) - 1, 0, 0]


def _reshape(name: str, entry: Entry) -> Node:
    return {"op": "Reshape", "name": name, "attrs": {"shape": _SAME_SHAPE}, "inputs": [list(entry)]}


def _has_onednn() -> bool:
    """Whether MXNet has oneDNN, and nobody has turned it off."""
    is_on = os.environ.get("MXNET_MKLDNN_ENABLED", "1").lower() not in ("0", "false")
    return is_on and mx.runtime.Features().is_enabled("MKLDNN")


def _use_winograd(
    graph: dict[str, Any], weight_shapes: Mapping[str, Shape], fewest_channels: int
) -> None:
    nodes: list[Node] = graph["nodes"]
    for node in nodes:
        if node["op"] != "Convolution":
            continue
        shape = weight_shapes.get(nodes[node["inputs"][1][0]]["name"], (0,))
        if min(shape[:2]) >= fewest_channels and _fits_winograd(node["attrs"]):
            node["op"] = _WINOGRAD


def _fits_winograd(attributes: Mapping[str, str]) -> bool:
    return all(
        attributes.get(name, choices[0]) in choices for name, choices in _OF_WINOGRAD.items()
    )


def _fuse_relus(graph: dict[str, Any], takes: Callable[[Node], bool]) -> None:
    """Makes ReLUs part of the nodes that take them, where nothing else reads what these put out."""
    nodes: list[Node] = graph["nodes"]
    uses = Counter(entry[0] for entry in _entries(graph))
    replaced: dict[int, int] = {}
    for index, node in enumerate(nodes):
        if node["op"] != "Activation" or node["attrs"]["act_type"] != "relu":
            continue
        source = node["inputs"][0][0]
        if uses[source] == 1 and takes(nodes[source]):
            if nodes[source]["op"] == "BatchNorm":
                nodes[source]["op"] = _NORM_WITH_RELU
            else:
                nodes[source]["attrs"]["relu"] = "True"
            replaced[index] = source
    _rename(graph, replaced)


def _is_winograd(node: Node) -> bool:
    return node["op"] == _WINOGRAD


def _takes_relu(node: Node, rank: Optional[int]) -> bool:
    # oneDNN's norm takes maps only, and fails on what has another number of dimensions.
    is_of_maps = rank == _MAP_RANK and node.get("attrs", {}).get("axis", "1") == "1"
    return is_of_maps and uses_batch_statistics(node)


def _entries(graph: dict[str, Any]) -> list[Entry]:
    return [*graph["heads"], *(entry for node in graph["nodes"] for entry in node["inputs"])]


def _rename(graph: dict[str, Any], replaced: Mapping[int, int]) -> None:
    for entry in _entries(graph):
        entry[0] = replaced.get(entry[0], entry[0])
