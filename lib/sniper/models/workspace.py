"""Memory that operators borrow while they compute, told from the graph: an estimate from above."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass

from sniper.models.cpu_graph import DEFORMABLE, detects_with_winograd, trains_with_winograd
from sniper.models.graph_memory import Node, SizedGraph

# oneDNN brings these into its own layouts and back.
_WEIGHTED = {"Convolution", "Deconvolution", "FullyConnected"}
_REORDERED = {*_WEIGHTED, "BatchNorm", "Pooling"}
# MXNet's defaults, and what no graph says.
_IM2COL_IMAGES, _CONV_WORKSPACE_MB = 64, 1024
# Of our 3x3 convolution: the points of a tile and channel, and the tiles that are there at once.
_POINT_BYTES, _CHUNK_BYTES = 36 * 4, 16 << 20
# Channels and filters whose weights are there at once; tiles, with channels up to these and more.
_CHUNK_CHANNELS, _CHUNK_FILTERS = 192, 128
_SMALL_BLOCK_BYTES, _LARGE_BLOCK_BYTES = 4 << 20, 64 << 20
# Where a tap of our deformable convolution reads; the derivatives of that, for 32 channels.
_TAP_BYTES, _SHIFT_BYTES, _BLOCK_CHANNELS = 20, 8, 32


@dataclass(frozen=True)
class Workspace:
    """What layers borrow, in bytes.

    Attributes:
        columns: of the deformable convolution that needs most. On a GPU the unfolded input of a
            batch; on a CPU, where our operator unfolds a few cells at a time, copies of one image's
            map and of the weights in other layouts, which it keeps. On a CPU also of the 3x3
            convolution that needs most, where ours is taken.
        layers: of the layer that needs most; all graphs share it.
        kept: what oneDNN keeps for the layers of a graph in training.
    """

    columns: int
    layers: int
    kept: int

    @property
    def total(self) -> int:
        """Bytes of one graph."""
        return self.columns + self.layers + self.kept


def workspace(graph: SizedGraph, *, train: bool, on_gpu: bool) -> Workspace:
    """What the layers of a graph borrow while they compute.

    On the CPU oneDNN copies inputs, outputs and weights into its own layouts; the rules are what
    was measured: in training both sides of the largest layer, and two copies of all weights; in
    testing half of the largest side. On a GPU cuDNN takes an algorithm whose workspace is within
    the convolution's limit; here it is as large as the unfolded input, or as the limit where that
    is less.

    Args:
        graph: the network.
        train: forward and backward passes.
        on_gpu: for cuDNN instead of oneDNN.
    """
    columns = layers = kept = 0
    for number, node in enumerate(graph.nodes):
        if node.op == DEFORMABLE and on_gpu:
            columns = max(columns, _columns(graph, number, node, _images_at_once(graph, node)))
        elif node.op == DEFORMABLE:
            columns = max(columns, _kept_copies(graph, number, node, train=train))
        elif on_gpu and node.op in ("Convolution", "Deconvolution"):
            limit = int(node.attrs.get("workspace", _CONV_WORKSPACE_MB)) << 20
            images = graph.shapes[node.inputs[0]][0]
            layers = max(layers, min(limit, _columns(graph, number, node, images)))
        elif not on_gpu and node.op in _REORDERED:
            layers = max(layers, _layouts(graph, number, node, train=train))
            if node.op == "Convolution":
                ours = _trained_points if train else _detection_points
                columns = max(columns, ours(graph, number, node))
            if train and node.op in _WEIGHTED:
                kept += 2 * graph.size(node.inputs[1])
    return Workspace(columns, layers, kept)


def _layouts(graph: SizedGraph, number: int, node: Node, *, train: bool) -> int:
    """Bytes of what oneDNN copies for a layer."""
    sides = (graph.size(node.inputs[0]), graph.size((number, 0)))
    if not train:
        return max(sides) // 2
    weights = graph.size(node.inputs[1]) if node.op in _WEIGHTED else 0
    # The gradient of the weights is made in a layout of its own as well.
    return max(sum(sides), 2 * weights + sides[1])


def _kept_copies(graph: SizedGraph, number: int, node: Node, *, train: bool) -> int:
    """Bytes of what our deformable convolution keeps for its next call."""
    images, channels = graph.shapes[node.inputs[0]][:2]
    weights = graph.size(node.inputs[2])
    map_in, map_out = graph.size(node.inputs[0]) // images, graph.size((number, 0)) // images
    # Offsets have two numbers for each tap.
    taps = graph.values(node.inputs[1]) // images // 2
    forward = map_in + weights + taps * _TAP_BYTES
    if not train:
        return forward
    taps_of_group = taps // int(node.attrs.get("num_deformable_group", 1))
    shifts = taps_of_group * math.ceil(channels / _BLOCK_CHANNELS) * _SHIFT_BYTES
    # The backward pass has its own: gradients of map and weights, the output's in two layouts.
    return forward + 2 * map_in + 2 * weights + taps * _TAP_BYTES + 2 * map_out + shifts


def _trained_points(graph: SizedGraph, number: int, node: Node) -> int:
    """Bytes of what our 3x3 convolution keeps for its next call, where training takes it."""
    weight, output = graph.shapes[node.inputs[1]], graph.shapes[(number, 0)]
    if not trains_with_winograd(node.attrs, weight):
        return 0
    filters, channels = weight[:2]
    chunk = min(_tiles(output), _CHUNK_BYTES // (_POINT_BYTES * (channels + 2 * filters)) + 1)
    # Weights twice, and their gradient; both sides with their gradients.
    backward = _POINT_BYTES * (3 * channels * filters + chunk * (3 * channels + 3 * filters))
    return backward + _forward_points(weight, output)


def _detection_points(graph: SizedGraph, number: int, node: Node) -> int:
    """Bytes that our 3x3 convolution needs, where detection takes it."""
    weight, output = graph.shapes[node.inputs[1]], graph.shapes[(number, 0)]
    if not detects_with_winograd(node.attrs, weight):
        return 0
    # MXNet brings a map out of oneDNN's layout with a copy, and keeps another meanwhile.
    return 2 * graph.size(node.inputs[0]) + _forward_points(weight, output)


def _forward_points(weight: tuple[int, ...], output: tuple[int, ...]) -> int:
    filters, channels = weight[:2]
    many = channels > _CHUNK_CHANNELS
    at_once = min(channels, _CHUNK_CHANNELS)
    kept = at_once * (min(filters, _CHUNK_FILTERS) if many else filters)
    limit = _LARGE_BLOCK_BYTES if many else _SMALL_BLOCK_BYTES
    return _POINT_BYTES * kept + min(limit, _POINT_BYTES * _tiles(output) * (at_once + filters))


def _tiles(output: tuple[int, ...]) -> int:
    """4x4 cells of a batch of maps (N, C, H, W)."""
    return output[0] * math.prod(math.ceil(side / 4) for side in output[2:])


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
