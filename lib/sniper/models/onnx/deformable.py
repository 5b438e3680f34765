"""Where deformable convolutions read: the rule of MXNet by means of ONNX's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import TensorProto, helper

from sniper.models.onnx.writer import GraphWriter

# No map is so large.
_FAR_OUTSIDE = -1e6


def move_offsets(
    writer: GraphWriter,
    name: str,
    data: str,
    offset: str,
    window: Mapping[str, list[int]],
    groups: int,
) -> str:
    """Offsets with which ONNX's DeformConv reads what MXNet's DeformableConvolution reads.

    To MXNet a sample outside of [0, size) counts 0, and one between the last cell and `size` has
    the value of the last cell. To ONNX maps fade to 0 within one cell around them. So a sample
    behind the last cell's centre goes there, and one outside far away; all others keep their bits.

    Args:
        writer: of the graph.
        name: begin of the names of all that is added.
        data: (N, channels, H, W), the map.
        offset: (N, groups * taps * 2, h, w), row and column of every tap, in cells.
        window: `kernel_shape`, `strides`, `pads` and `dilations`.
        groups: of offsets.

    Returns:
        The name of a tensor like `offset`.
    """
    rows, columns = window["kernel_shape"]
    taps = rows * columns
    map_shape = writer.add("Shape", [data], f"{name}/map_shape")
    shape = writer.add("Shape", [offset], f"{name}/shape")
    # Rows and columns apart: (N, groups * taps, 1, h, w) each.
    split = _with_sizes(writer, f"{name}/split", shape, [groups * taps, 2])
    pairs = writer.add("Reshape", [offset, split], f"{name}/pairs")
    halves = writer.constant(f"{name}/halves", [1, 1], "int64")
    parts = [f"{name}/rows", f"{name}/columns"]
    writer.nodes.append(helper.make_node("Split", [pairs, halves], parts, name=parts[0], axis=2))
    places_of_taps = np.divmod(np.tile(np.arange(taps), groups), columns)
    moved, inside = [], []
    for axis, (part, tap) in enumerate(zip(parts, places_of_taps)):
        start = tap * window["dilations"][axis] - window["pads"][axis]
        regular = _regular_places(writer, part, shape, axis, start, window["strides"][axis])
        end = _size(writer, f"{part}_end", map_shape, axis)
        end = writer.add("Cast", [end], f"{part}_limit", to=TensorProto.FLOAT)
        one = writer.constant(f"{part}_one", 1)
        last = writer.add("Sub", [end, one], f"{part}_last")
        place = writer.add("Add", [regular, part], f"{part}_place")
        zero = writer.constant(f"{part}_zero", 0)
        not_low = writer.add("GreaterOrEqual", [place, zero], f"{part}_not_low")
        not_high = writer.add("Less", [place, end], f"{part}_not_high")
        inside.append(writer.add("And", [not_low, not_high], f"{part}_inside"))
        behind = writer.add("Greater", [place, last], f"{part}_behind")
        to_last = writer.add("Sub", [last, regular], f"{part}_to_last")
        moved.append(writer.add("Where", [behind, to_last, part], f"{part}_moved"))
    both = writer.add("And", inside, f"{name}/inside")
    far = writer.constant(f"{name}/far", _FAR_OUTSIDE)
    kept = [writer.add("Where", [both, part, far], f"{part}_kept") for part in moved]
    joined = writer.add("Concat", kept, f"{name}/joined", axis=2)
    return writer.add("Reshape", [joined, shape], f"{name}/moved")


def _with_sizes(writer: GraphWriter, name: str, shape: str, sizes: list[int]) -> str:
    """The shape (N, *sizes, h, w) with N, h and w of a shape of four sides."""
    first = writer.constant(f"{name}_first", [0], "int64")
    last = writer.constant(f"{name}_last", [2, 3], "int64")
    images = writer.add("Gather", [shape, first], f"{name}_images")
    middle = writer.constant(f"{name}_middle", sizes, "int64")
    cells = writer.add("Gather", [shape, last], f"{name}_cells")
    return writer.add("Concat", [images, middle, cells], f"{name}_shape", axis=0)


def _size(writer: GraphWriter, name: str, shape: str, axis: int) -> str:
    """Height (axis 0) or width (1) of a shape of four sides, without sides of its own."""
    index = writer.constant(f"{name}_axis", axis + 2, "int64")
    return writer.add("Gather", [shape, index], f"{name}_size")


def _regular_places(
    writer: GraphWriter, name: str, shape: str, axis: int, start: np.ndarray, stride: int
) -> str:
    """Where taps without offset read, in cells: (groups * taps, 1, h, 1), or 1 and w at the end."""
    cells = _size(writer, f"{name}_cells", shape, axis)
    begin, step = (writer.constant(f"{name}_from_{value}", value, "int64") for value in (0, 1))
    numbers = writer.add("Range", [begin, cells, step], f"{name}_numbers")
    numbers = writer.add("Cast", [numbers], f"{name}_float", to=TensorProto.FLOAT)
    scale = writer.constant(f"{name}_stride", stride)
    numbers = writer.add("Mul", [numbers, scale], f"{name}_strided")
    sides = writer.constant(f"{name}_sides", (1, 1, -1, 1) if axis == 0 else (1, 1, 1, -1), "int64")
    numbers = writer.add("Reshape", [numbers, sides], f"{name}_line")
    begins = writer.constant(f"{name}_begins", start.reshape(-1, 1, 1, 1))
    return writer.add("Add", [begins, numbers], f"{name}_regular")
