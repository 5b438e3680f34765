"""What each operator of our test graphs is in ONNX: one function per operator.

Numbers are those of MXNet but for the order of sums. Attributes that no shipped network uses are
refused, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx import TensorProto, numpy_helper

from sniper.errors import DataError
from sniper.models.onnx.deformable import move_offsets
from sniper.models.onnx.writer import Attributes, GraphWriter, Node

# The first with DeformConv.
OPSET = 19

# What they put out is their input, as it is.
PASS_ON = ("_copy", "BlockGrad")

Convert = Callable[[GraphWriter, Node, Attributes], None]


def convert_node(writer: GraphWriter, node: Node) -> None:
    """Adds what a node computes to an ONNX graph.

    Raises:
        DataError: the operator or one of its attributes is not known.
    """
    convert = OPERATORS.get(node.op)
    if convert is None:
        raise DataError(
            "an operator of the network has no counterpart in ONNX",
            where=node.name,
            got=node.op,
            expected=", ".join(sorted(OPERATORS)),
        )
    attributes = Attributes(node)
    convert(writer, node, attributes)
    attributes.finish()


def _pair(attributes: Attributes, key: str, default: int) -> list[int]:
    value = attributes.get(key, ())
    return list(value) or [default, default]


def _window(attributes: Attributes, *, dilated: bool = True) -> dict[str, list[int]]:
    pads = _pair(attributes, "pad", 0)
    window = {
        "kernel_shape": list(attributes.get("kernel", ())),
        "strides": _pair(attributes, "stride", 1),
        "pads": [*pads, *pads],
    }
    return {**window, "dilations": _pair(attributes, "dilate", 1)} if dilated else window


def _convolution(writer: GraphWriter, node: Node, attributes: Attributes) -> None:
    attributes.get("num_filter", 0)
    attributes.get("no_bias", False)  # the number of inputs says it
    attributes.text("layout", "None", ("None", "NCHW"))
    group = attributes.get("num_group", 1)
    writer.add("Conv", node.inputs, node.outputs[0], group=group, **_window(attributes))


def _deconvolution(writer: GraphWriter, node: Node, attributes: Attributes) -> None:
    attributes.get("num_filter", 0)
    attributes.get("no_bias", True)
    attributes.text("layout", "None", ("None", "NCHW"))
    more = {"group": attributes.get("num_group", 1), "output_padding": _pair(attributes, "adj", 0)}
    window = _window(attributes)
    writer.add("ConvTranspose", node.inputs, node.outputs[0], **window, **more)


def _deformable_convolution(writer: GraphWriter, node: Node, attributes: Attributes) -> None:
    """The same sum; see `move_offsets`."""
    attributes.get("num_filter", 0)
    attributes.get("no_bias", False)
    attributes.text("layout", "None", ("None", "NCHW"))
    attributes.must_be("num_group", 1)
    groups = attributes.get("num_deformable_group", 1)
    window = _window(attributes)
    data, offset, *weights = node.inputs
    offset = move_offsets(writer, node.name, data, offset, window, groups)
    inputs = [data, weights[0], offset, *weights[1:]]
    writer.add("DeformConv", inputs, node.outputs[0], offset_group=groups, **window)


def _batch_norm(writer: GraphWriter, node: Node, attributes: Attributes) -> None:
    data, gamma, *rest = node.inputs
    if attributes.get("fix_gamma", True):
        # MXNet takes 1, whatever is stored.
        gamma = writer.constant(f"{node.name}/gamma", np.ones_like(writer.param(gamma)))
    attributes.must_be("axis", 1)
    attributes.must_be("output_mean_var", False)
    epsilon = attributes.get("eps", 1e-3)
    inputs = [data, gamma, *rest]
    writer.add("BatchNormalization", inputs, node.outputs[0], epsilon=epsilon)


def _activation(writer: GraphWriter, node: Node, attributes: Attributes) -> None:
    kind = attributes.text("act_type", "", ("relu", "sigmoid", "tanh"))
    names = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}
    writer.add(names[kind], node.inputs, node.outputs[0])


def _pooling(writer: GraphWriter, node: Node, attributes: Attributes) -> None:
    attributes.text("pool_type", "max", ("max",))
    attributes.must_be("global_pool", False)
    attributes.text("layout", "None", ("None", "NCHW"))
    up = attributes.text("pooling_convention", "valid", ("valid", "full")) == "full"
    window = _window(attributes, dilated=False)
    if up and (any(window["pads"]) or window["strides"] > window["kernel_shape"]):
        raise DataError(
            "sizes are rounded up differently in ONNX where windows may lie outside of the map",
            where=f"{node.name} (Pooling)",
            got=window,
            expected="no padding, and strides that are no larger than the kernel",
        )
    writer.add("MaxPool", node.inputs, node.outputs[0], ceil_mode=int(up), **window)


def _fully_connected(writer: GraphWriter, node: Node, attributes: Attributes) -> None:
    attributes.get("num_hidden", 0)
    attributes.get("no_bias", False)
    attributes.must_be("flatten", True)
    data, *weights = node.inputs
    flat = writer.add("Flatten", [data], f"{node.name}/flat", axis=1)
    writer.add("Gemm", [flat, *weights], node.outputs[0], transB=1)


def _softmax_activation(writer: GraphWriter, node: Node, attributes: Attributes) -> None:
    # By rows: our networks have no other map than of two sides there.
    axis = 1 if attributes.text("mode", "instance", ("instance", "channel")) == "channel" else -1
    writer.add("Softmax", node.inputs, node.outputs[0], axis=axis)


def _reshape(writer: GraphWriter, node: Node, attributes: Attributes) -> None:
    shape = attributes.get("shape", ())
    attributes.must_be("reverse", False)
    if not shape or min(shape) < -1:
        raise DataError(
            "this shape cannot be said in ONNX",
            where=f"{node.name} (Reshape)",
            got=shape,
            expected="sizes, 0 (as it is) and at most one -1 (the rest)",
        )
    target = writer.constant(f"{node.name}/to", shape, "int64")
    writer.add("Reshape", [*node.inputs, target], node.outputs[0])


def _concat(writer: GraphWriter, node: Node, attributes: Attributes) -> None:
    attributes.get("num_args", 0)
    writer.add("Concat", node.inputs, node.outputs[0], axis=attributes.get("dim", 1))


def _of_two(op: str) -> Convert:
    def convert(writer: GraphWriter, node: Node, attributes: Attributes) -> None:
        writer.add(op, node.inputs, node.outputs[0])

    return convert


def _with_scalar(op: str) -> Convert:
    def convert(writer: GraphWriter, node: Node, attributes: Attributes) -> None:
        attributes.get("is_int", None)  # of the text, not of the result
        scalar = writer.constant(f"{node.name}/scalar", attributes.get("scalar", 1))
        writer.add(op, [*node.inputs, scalar], node.outputs[0])

    return convert


def _clip(writer: GraphWriter, node: Node, attributes: Attributes) -> None:
    low = writer.constant(f"{node.name}/low", attributes.get("a_min", None))
    high = writer.constant(f"{node.name}/high", attributes.get("a_max", None))
    writer.add("Clip", [*node.inputs, low, high], node.outputs[0])


def _mean(writer: GraphWriter, node: Node, attributes: Attributes) -> None:
    axes = attributes.get("axis", ())
    axes = writer.constant(f"{node.name}/axes", np.atleast_1d(axes), "int64")
    attributes.must_be("exclude", False)
    keep = int(attributes.get("keepdims", False))
    writer.add("ReduceMean", [*node.inputs, axes], node.outputs[0], keepdims=keep)


def _slice(writer: GraphWriter, node: Node, attributes: Attributes) -> None:
    attributes.must_be("step", (), (None,) * 4, (1,) * 4)
    begin, end = attributes.get("begin", ()), attributes.get("end", ())
    everything = np.iinfo(np.int64).max
    starts = [0 if start is None else start for start in begin]
    ends = [everything if stop is None else stop for stop in end]
    parts = {"starts": starts, "ends": ends, "axes": list(range(len(starts)))}
    names = [writer.constant(f"{node.name}/{key}", part, "int64") for key, part in parts.items()]
    writer.add("Slice", [*node.inputs, *names], node.outputs[0])


def _slice_like(writer: GraphWriter, node: Node, attributes: Attributes) -> None:
    data, like = node.inputs
    axes = writer.constant(f"{node.name}/axes", attributes.get("axes", ()), "int64")
    shape = writer.add("Shape", [like], f"{node.name}/shape")
    ends = writer.add("Gather", [shape, axes], f"{node.name}/ends")
    zeros = np.zeros_like(numpy_helper.to_array(writer.constants[axes]))
    starts = writer.constant(f"{node.name}/starts", zeros, "int64")
    writer.add("Slice", [data, starts, ends, axes], node.outputs[0])


def _broadcast_axis(writer: GraphWriter, node: Node, attributes: Attributes) -> None:
    axes = np.atleast_1d(attributes.get("axis", ()))
    sizes = np.atleast_1d(attributes.get("size", ()))
    shape = writer.add("Shape", node.inputs, f"{node.name}/shape")
    axes_name = writer.constant(f"{node.name}/axes", axes, "int64")
    sizes_name = writer.constant(f"{node.name}/sizes", sizes, "int64")
    wide = writer.add("ScatterElements", [shape, axes_name, sizes_name], f"{node.name}/to")
    writer.add("Expand", [*node.inputs, wide], node.outputs[0])


def _pick(writer: GraphWriter, node: Node, attributes: Attributes) -> None:
    """Numbers below 0 or behind the last one count as these, as in MXNet."""
    data, index = node.inputs
    attributes.text("mode", "clip", ("clip",))
    axis, keep = attributes.get("axis", -1), attributes.get("keepdims", False)
    place = writer.constant(f"{node.name}/axis", [axis], "int64")
    scalar_axis = writer.constant(f"{node.name}/which", axis, "int64")
    one = writer.constant(f"{node.name}/one", 1, "int64")
    zero = writer.constant(f"{node.name}/zero", 0, "int64")
    shape = writer.add("Shape", [data], f"{node.name}/shape")
    size = writer.add("Gather", [shape, scalar_axis], f"{node.name}/size")
    last = writer.add("Sub", [size, one], f"{node.name}/last")
    number = writer.add("Cast", [index], f"{node.name}/number", to=TensorProto.INT64)
    number = writer.add("Clip", [number, zero, last], f"{node.name}/clipped")
    number = writer.add("Unsqueeze", [number, place], f"{node.name}/numbers")
    if keep:
        writer.add("GatherElements", [data, number], node.outputs[0], axis=axis)
        return
    picked = writer.add("GatherElements", [data, number], f"{node.name}/picked", axis=axis)
    writer.add("Squeeze", [picked, place], node.outputs[0])


OPERATORS: Mapping[str, Convert] = {
    "Activation": _activation,
    "BatchNorm": _batch_norm,
    "Concat": _concat,
    "Convolution": _convolution,
    "Deconvolution": _deconvolution,
    "FullyConnected": _fully_connected,
    "Pooling": _pooling,
    "Reshape": _reshape,
    "SoftmaxActivation": _softmax_activation,
    "_contrib_DeformableConvolution": _deformable_convolution,
    "_minus_scalar": _with_scalar("Sub"),
    "_plus_scalar": _with_scalar("Add"),
    "broadcast_axis": _broadcast_axis,
    "clip": _clip,
    "elemwise_add": _of_two("Add"),
    "elemwise_sub": _of_two("Sub"),
    "mean": _mean,
    "pick": _pick,
    "sigmoid": _of_two("Sigmoid"),
    "slice": _slice,
    "slice_like": _slice_like,
}
