"""MobileNetV2 at stride 32 (2018), or 16 for small chips. The names (with hyphens) are of 2018."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sniper.models.backbones.blocks import NormSettings, batch_norm, cast, scale_channels
from sniper.models.lazy import mx, ops
from sniper.models.parts import Backbone, Released

if TYPE_CHECKING:
    from sniper.models.spec import DetectorSpec

FEATURE_STRIDES = (32, 16)
EPSILON = 1e-5
STEM_CHANNELS = 32
LAST_CHANNELS = 1280


@dataclass(frozen=True)
class Sequence:
    """Inverted residual blocks of one resolution: expansion, output channels, repeats, stride."""

    expansion: int
    channels: int
    repeats: int
    stride: int


SEQUENCES = (
    Sequence(1, 16, 1, 1),
    Sequence(6, 24, 2, 2),
    Sequence(6, 32, 3, 2),
    Sequence(6, 64, 4, 2),
    Sequence(6, 96, 3, 1),
    Sequence(6, 160, 3, 2),
    Sequence(6, 320, 1, 1),
)
# At stride 16 this sequence keeps the resolution; what follows may dilate its 3x3 kernels, so
# that pretrained weights still see the image at the scale that they were trained for.
LAST_STRIDED_SEQUENCE = 5
# Strides and names of the maps that are the outputs of sequences 2 and 4.
SUM_MAPS = {8: "seq2", 16: "seq4"}


@dataclass(frozen=True)
class MobileNetOptions:
    """Variants of the network.

    Args:
        norm: batch norm settings.
        width: multiplies all channels, the last convolution's too (also below 1: on a CPU that
            layer and the RPN behind it would otherwise dominate).
        activation: "relu6" or "relu".
        padding: "symmetric" (2018: one pixel on each side) or "tf_same", see `_conv_block`.
        stride: px per cell of the feature map, 32 or 16.
        dilate: at stride 16, dilate the blocks behind the removed stride.
        fp16: everything after the first convolution block is float16.
        train: the graph will be trained; False lets the inference graph fuse better, and gives a
            symbol that stock MXNet loads.
    """

    norm: NormSettings
    width: float = 1.0
    activation: str = "relu6"
    padding: str = "symmetric"
    stride: int = 32
    dilate: bool = True
    fp16: bool = False
    train: bool = True


@dataclass(frozen=True)
class MobileNetV2(Backbone):
    """MobileNetV2 as the backbone of detectors: the map of its last layer, and early ones."""

    strides: tuple[int, ...] = FEATURE_STRIDES
    options: Mapping[str, tuple[object, ...]] = field(
        default_factory=lambda: {
            "padding": ("symmetric", "tf_same"),
            "activation": ("relu6", "relu"),
            "dilate": (True, False),
        }
    )
    class_loss_over_all_rois: bool = True
    released: Mapping[str, Released] = field(
        default_factory=lambda: {
            "mobilenetv2": Released(
                "data/pretrained_model/mobilenetv2",
                "use it with network.BN_MODE frozen and network.PADDING tf_same, which keep its "
                "features",
            )
        }
    )

    # The scale of the last batch norm of a block; block 0 of a sequence has no identity beside it.
    residual_end = re.compile(r"seq-\d+-block[1-9]\d*-linear-batchnorm_gamma")

    def maps(self, stride: int) -> dict[str, int]:
        """`last`: the 1x1 convolution at the end."""
        return {"last": stride}

    def by_stride(self, stride: int) -> dict[int, str]:
        """The last sums of strides 8 (32 channels) and 16 (96): what lies behind is not needed."""
        return dict(SUM_MAPS)

    def features(
        self, data: mx.sym.Symbol, spec: DetectorSpec, *, train: bool
    ) -> Mapping[str, mx.sym.Symbol]:
        """See `mobilenetv2_maps`."""
        options = MobileNetOptions(
            norm=NormSettings(spec.bn_momentum, frozen=spec.bn_mode == "frozen"),
            width=spec.width,
            activation=spec.activation,
            padding=spec.padding,
            stride=spec.feature_stride,
            dilate=spec.dilate,
            fp16=spec.fp16,
            train=train,
        )
        return mobilenetv2_maps(data, options)


def mobilenetv2_features(data: mx.sym.Symbol, options: MobileNetOptions) -> mx.sym.Symbol:
    """The map `last` of `mobilenetv2_maps`."""
    return mobilenetv2_maps(data, options)["last"]


def mobilenetv2_maps(data: mx.sym.Symbol, options: MobileNetOptions) -> dict[str, mx.sym.Symbol]:
    """Float32 feature maps of an image batch: `last`, and the linear sums of early sequences.

    `last` is (N, 1280 * width, ~H/stride, ~W/stride); `seq2` and `seq4` have 32 and 96 * width
    channels and strides 8 and 16, whatever `options.stride`.

    `data` is (N, 3, H, W) float32, RGB minus the pixel means.
    """
    maps = {}
    channels = scale_channels(STEM_CHANNELS, options.width)
    body = _conv_block(data, "first-3x3-conv", channels, options, kernel=3, stride=2)
    body = cast(body, "float16", enabled=options.fp16, name="cast_fp16")
    dilation = 1
    for index, sequence in enumerate(SEQUENCES):
        keeps_size = options.stride == 16 and index == LAST_STRIDED_SEQUENCE
        out_channels = scale_channels(sequence.channels, options.width)
        for repeat in range(sequence.repeats):
            stride = sequence.stride if repeat == 0 and not keeps_size else 1
            name = f"seq-{index}-block{repeat}"
            expanded = channels * sequence.expansion
            block = _inverted_residual(
                body, name, expanded, out_channels, stride, dilation, options
            )
            dilation = 2 if keeps_size and options.dilate else dilation
            if repeat > 0:
                block = mx.sym.elemwise_add(body, block, name=f"{name}-shortcut")
            body, channels = block, out_channels
        if f"seq{index}" in SUM_MAPS.values():
            name = f"seq{index}"
            maps[name] = cast(body, "float32", enabled=options.fp16, name=f"{name}_feat")
    last_channels = scale_channels(LAST_CHANNELS, options.width)
    body = _conv_block(body, "last-1x1-conv", last_channels, options)
    return {**maps, "last": cast(body, "float32", enabled=options.fp16, name="cast_fp32")}


def _inverted_residual(
    data: mx.sym.Symbol,
    name: str,
    expanded: int,
    channels: int,
    stride: int,
    dilation: int,
    options: MobileNetOptions,
) -> mx.sym.Symbol:
    body = _conv_block(data, f"{name}-exp", expanded, options)
    body = _conv_block(
        body,
        f"{name}-depthwise",
        expanded,
        options,
        kernel=3,
        stride=stride,
        dilation=dilation,
        groups=expanded,
    )
    return _conv_block(body, f"{name}-linear", channels, options, activate=False)


def _conv_block(
    data: mx.sym.Symbol,
    name: str,
    channels: int,
    options: MobileNetOptions,
    *,
    kernel: int = 1,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    activate: bool = True,
) -> mx.sym.Symbol:
    """Convolution, batch norm and activation.

    TensorFlow's "SAME" pads a stride-2 3x3 convolution by 0 before and 1 after where the input side
    is even, and by 1 and 1 where it is odd. A symbol does not know its input size: "tf_same" means
    even sides here, which holds at every layer when the image sides are multiples of 32 (checked
    for chips, and the test loader rounds up to it). MXNet convolutions pad both ends alike, so the
    layer pads by 2 and its first row and column are cut off; that is cheaper than a padded copy of
    the four times larger input.
    """
    same = options.padding == "tf_same" and stride == 2
    pad = dilation * (kernel // 2) + (1 if same else 0)
    body = mx.sym.Convolution(
        data,
        name=f"{name}-conv2d",
        num_filter=channels,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        pad=(pad, pad),
        num_group=groups,
        no_bias=True,
        **({"dilate": (dilation, dilation)} if dilation > 1 else {}),
    )
    # Batch statistics must not see the extra row and column. Where stored statistics are used the
    # cut can wait, and convolution, norm and activation stay one fused operator at inference.
    cut_late = options.norm.frozen or not options.train
    if same and not cut_late:
        body = _cut_first(body, name)
    body = batch_norm(body, f"{name}-batchnorm", options.norm, eps=EPSILON)
    if activate:
        body = _activation(body, name, options)
    return _cut_first(body, name) if same and cut_late else body


def _cut_first(data: mx.sym.Symbol, name: str) -> mx.sym.Symbol:
    everything = (None, None)
    return mx.sym.slice(
        data, begin=(*everything, 1, 1), end=(*everything, None, None), name=f"{name}-cut"
    )


def _activation(data: mx.sym.Symbol, name: str, options: MobileNetOptions) -> mx.sym.Symbol:
    """ReLU6 is `clip` wherever that can be: symbols that stock MXNet loads, and fused inference.

    In training on a CPU `clip` would be half of the step or more, so there it is our operator.
    """
    if options.activation != "relu6":
        return mx.sym.Activation(data, act_type="relu", name=f"{name}-relu")
    if options.train and not options.fp16:
        return ops.relu6(data, name=f"{name}-relu6")
    return mx.sym.clip(data, a_min=0, a_max=6, name=f"{name}-relu6")
