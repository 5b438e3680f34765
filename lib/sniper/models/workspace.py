"""Memory that operators borrow while they compute, told from the graph: an estimate from above."""

from __future__ import annotations

import ast
import math

from sniper.models.graph_memory import Node, SizedGraph

# oneDNN brings these into its own layouts and back.
_WEIGHTED = {"Convolution", "Deconvolution", "FullyConnected"}
_REORDERED = {*_WEIGHTED, "BatchNorm", "Pooling"}
_DEFORMABLE = "_contrib_DeformableConvolution"
# MXNet's defaults, and what no graph says.
_IM2COL_IMAGES, _CONV_WORKSPACE_MB = 64, 1024


def workspace_bytes(graph: SizedGraph, *, train: bool, on_gpu: bool) -> int:
    """The largest workspace of any layer, those of deformable convolutions apart.

    On the CPU oneDNN copies inputs, outputs and weights into its own layouts, and in training keeps
    buffers of some layers, here as large as all weights. On a GPU cuDNN takes an algorithm whose
    workspace is within the convolution's limit; here it is as large as the unfolded input, or as
    the limit where that is less.

    Args:
        graph: the network.
        train: forward and backward passes.
        on_gpu: for cuDNN instead of oneDNN.
    """
    deformable = largest = kept = 0
    for number, node in enumerate(graph.nodes):
        if node.op == _DEFORMABLE:
            deformable = max(deformable, _columns(graph, number, node, _images_at_once(graph, node)))
        elif on_gpu and node.op in ("Convolution", "Deconvolution"):
            limit = int(node.attrs.get("workspace", _CONV_WORKSPACE_MB)) << 20
            images = graph.shapes[node.inputs[0]][0]
            largest = max(largest, min(limit, _columns(graph, number, node, images)))
        elif not on_gpu and node.op in _REORDERED:
            largest = max(largest, _layouts(graph, number, node, train=train))
            if train and node.op in _WEIGHTED:
                kept += graph.size(node.inputs[1])
    return deformable + largest + kept


def _layouts(graph: SizedGraph, number: int, node: Node, *, train: bool) -> int:
    """Bytes of what oneDNN copies for a layer."""
    sides = (graph.size(node.inputs[0]), graph.size((number, 0)))
    weights = graph.size(node.inputs[1]) if node.op in _WEIGHTED else 0
    if not train:
        return max(*sides, weights)
    # The gradient of the weights is made in a layout of its own as well.
    return max(sum(sides), 2 * weights + sides[1])


def _images_at_once(graph: SizedGraph, node: Node) -> int:
    at_most = int(node.attrs.get("im2col_step", _IM2COL_IMAGES))
    return min(at_most, graph.shapes[node.inputs[0]][0])


def _columns(graph: SizedGraph, number: int, node: Node, images: int) -> int:
    """Bytes of the unfolded input: a column of all values under the kernel for each place."""
    output = (number, 0)
    channels = graph.shapes[node.inputs[0]][1] // int(node.attrs.get("num_group", 1))
    places = math.prod(graph.shapes[output][2:])
    kernel = math.prod(ast.literal_eval(node.attrs["kernel"]))
    return images * channels * kernel * places * graph.item_bytes[output]
