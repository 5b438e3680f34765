"""Pre-activation ResNets: 101 and 50 of 2018, and a small one that trains from scratch on a CPU.

The feature maps are the raw sums of stage 3, alone and concatenated with those of stage 4, both at
stride 16: there is no batch norm or ReLU after a stage. Names and attributes are those of 2018.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sniper.models.backbones.blocks import NormSettings, batch_norm, cast, scale_channels
from sniper.models.lazy import mx
from sniper.models.parts import Backbone, Released

if TYPE_CHECKING:
    from sniper.models.spec import DetectorSpec

FEATURE_STRIDE = 16
EPSILON = 2e-5
WORKSPACE_MB = 512
DEFORMABLE_GROUPS = 4
OFFSET_CHANNELS = 2 * 9 * DEFORMABLE_GROUPS  # y and x of the nine taps
STAGE_STRIDES = (1, 2, 2, 1)


@dataclass(frozen=True)
class ResNetArch:
    """One ResNet.

    Args:
        units: residual units of the four stages.
        stem_channels: output channels of `conv0`.
        stage_channels: output channels of the four stages.
        bottleneck: 1x1-3x3-1x1 units; otherwise two 3x3 convolutions.
        deformable: the 3x3 convolutions of stage 4 are deformable.
        frozen_stem: `bn_data`, `bn0` and stage 1 use their stored statistics (pretrained weights).
    """

    units: tuple[int, int, int, int]
    stem_channels: int
    stage_channels: tuple[int, int, int, int]
    bottleneck: bool
    deformable: bool
    frozen_stem: bool


_WIDE = (256, 512, 1024, 2048)
RESNET_101 = ResNetArch((3, 4, 23, 3), 64, _WIDE, True, True, True)
RESNET_50 = ResNetArch((3, 4, 6, 3), 64, _WIDE, True, True, True)
RESNET_18 = ResNetArch((2, 2, 2, 2), 64, (64, 128, 256, 512), False, False, False)


@dataclass(frozen=True)
class ResNet(Backbone):
    """A ResNet as the backbone of detectors: stage 3, and stages 3 and 4 together.

    Args:
        arch: the network.
    """

    arch: ResNetArch = RESNET_50
    strides: tuple[int, ...] = (FEATURE_STRIDE,)
    rpn_channels: int = 512
    fc_channels: int = 1024
    box_loss_images: int = 16

    # The offsets of the deformable layers.
    no_pretrained = re.compile(r"stage4_unit\d+_offset")
    # The last convolution of a bottleneck; the first of a stage has a projection in place of the
    # identity, and needs both branches.
    residual_end = re.compile(r"stage\d_unit(?!1_)\d+_conv3_weight")

    def maps(self, stride: int) -> dict[str, int]:
        """`stage3`, and `stage3_4`: concatenated with stage 4."""
        return {"stage3": stride, "stage3_4": stride}

    def by_stride(self, stride: int) -> dict[int, str]:
        """`stage2` ("C3") at stride 8, `stage3` ("C4") at stride 16."""
        return {8: "stage2", 16: "stage3"}

    def features(
        self, data: mx.sym.Symbol, spec: DetectorSpec, *, train: bool
    ) -> Mapping[str, mx.sym.Symbol]:
        """A graph that reads `stage3` alone has no stage 4."""
        norm = NormSettings(spec.bn_momentum, frozen=spec.bn_mode == "frozen")
        return resnet_features(data, self.arch, norm, width=spec.width, fp16=spec.fp16)


def gluon_zoo(depth: int) -> Mapping[str, Released]:
    """The model zoo's network of this depth, as `sniper import-weights` converts it."""
    advice = (
        "use it with --set network.pretrained PREFIX. Features up to stage 3 are those of the "
        "source; stage 4\nis dilated and deformable here, so it sees finer cells than in the "
        "source until it is fine-tuned"
    )
    return {f"resnet{depth}": Released(f"data/pretrained_model/resnet{depth}_gluon", advice)}


def resnet_features(
    data: mx.sym.Symbol,
    arch: ResNetArch,
    norm: NormSettings,
    *,
    width: float = 1.0,
    fp16: bool = False,
) -> dict[str, mx.sym.Symbol]:
    """Maps `stage2`, `stage3` and `stage3_4`; a graph has no stage that it does not use.

    Args:
        data: (N, 3, H, W) float32, RGB minus the pixel means.
        arch: the network.
        norm: batch norm settings.
        width: multiplies all channels.
        fp16: from `conv0`'s output to the concatenation everything is float16.

    Returns:
        (N, channels, ~H/16, ~W/16) float32, `stage2` twice as large; the channels of stage 2, of
        stage 3, and of stages 3 and 4.
    """
    body = _stem(data, arch, norm, scale_channels(arch.stem_channels, width), fp16)
    taps = []
    for stage in range(4):
        channels = scale_channels(arch.stage_channels[stage], width)
        body = _stage(body, stage, channels, arch, norm)
        taps.append(body)
    both = mx.sym.Concat(taps[2], taps[3], name="cat4")
    return {
        "stage2": cast(taps[1], "float32", enabled=fp16, name="stage2_feat"),
        "stage3": cast(taps[2], "float32", enabled=fp16, name="conv_feat"),
        "stage3_4": cast(both, "float32", enabled=fp16, name="relu1"),
    }


def _stem(
    data: mx.sym.Symbol, arch: ResNetArch, norm: NormSettings, channels: int, fp16: bool
) -> mx.sym.Symbol:
    frozen = arch.frozen_stem
    body = batch_norm(data, "bn_data", norm, eps=EPSILON, fix_gamma=True, global_stats=frozen)
    body = _conv(body, "conv0", channels, kernel=7, pad=3, stride=2)
    body = cast(body, "float16", enabled=fp16, name="cast_fp16")
    body = batch_norm(body, "bn0", norm, eps=EPSILON, global_stats=frozen)
    body = mx.sym.Activation(body, act_type="relu", name="relu0")
    return mx.sym.Pooling(
        body, kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="max", name="pool0"
    )


def _stage(
    body: mx.sym.Symbol, stage: int, channels: int, arch: ResNetArch, norm: NormSettings
) -> mx.sym.Symbol:
    make_unit = _bottleneck_unit if arch.bottleneck else _basic_unit
    if arch.frozen_stem and stage == 0:
        norm = NormSettings(norm.momentum, frozen=True)
    for unit in range(arch.units[stage]):
        body = make_unit(
            body,
            f"stage{stage + 1}_unit{unit + 1}",
            channels,
            norm,
            stride=STAGE_STRIDES[stage] if unit == 0 else 1,
            # Stage 4 keeps the stride of stage 3 and widens its kernels instead.
            dilate=2 if stage == 3 else 1,
            deformable=arch.deformable and stage == 3,
            project=unit == 0,
        )
    return body


def _bottleneck_unit(
    data: mx.sym.Symbol,
    name: str,
    channels: int,
    norm: NormSettings,
    *,
    stride: int,
    dilate: int,
    deformable: bool,
    project: bool,
) -> mx.sym.Symbol:
    first = _norm_relu(data, name, 1, norm)
    body = _conv(first, f"{name}_conv1", channels // 4, kernel=1)
    body = _norm_relu(body, name, 2, norm)
    if deformable:
        body = _deformable_conv(body, name, channels // 4, dilate)
    else:
        body = _conv(body, f"{name}_conv2", channels // 4, stride=stride, pad=dilate, dilate=dilate)
    body = _norm_relu(body, name, 3, norm)
    body = _conv(body, f"{name}_conv3", channels, kernel=1)
    shortcut = _project(first, name, channels, stride) if project else data
    return mx.sym.elemwise_add(body, shortcut, name=f"{name}_plus")


def _basic_unit(
    data: mx.sym.Symbol,
    name: str,
    channels: int,
    norm: NormSettings,
    *,
    stride: int,
    dilate: int,
    deformable: bool,
    project: bool,
) -> mx.sym.Symbol:
    first = _norm_relu(data, name, 1, norm)
    body = _conv(first, f"{name}_conv1", channels, stride=stride, pad=dilate, dilate=dilate)
    body = _norm_relu(body, name, 2, norm)
    if deformable:
        body = _deformable_conv(body, name, channels, dilate)
    else:
        body = _conv(body, f"{name}_conv2", channels, pad=dilate, dilate=dilate)
    shortcut = _project(first, name, channels, stride) if project else data
    return mx.sym.elemwise_add(body, shortcut, name=f"{name}_plus")


def _norm_relu(data: mx.sym.Symbol, unit: str, index: int, norm: NormSettings) -> mx.sym.Symbol:
    body = batch_norm(data, f"{unit}_bn{index}", norm, eps=EPSILON)
    return mx.sym.Activation(body, act_type="relu", name=f"{unit}_relu{index}")


def _project(data: mx.sym.Symbol, unit: str, channels: int, stride: int) -> mx.sym.Symbol:
    return _conv(data, f"{unit}_sc", channels, kernel=1, stride=stride)


def _conv(
    data: mx.sym.Symbol,
    name: str,
    channels: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    pad: int = 0,
    dilate: int = 1,
) -> mx.sym.Symbol:
    return mx.sym.Convolution(
        data,
        name=name,
        num_filter=channels,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        pad=(pad, pad),
        dilate=(dilate, dilate),
        no_bias=True,
        workspace=WORKSPACE_MB,
    )


def _deformable_conv(data: mx.sym.Symbol, unit: str, channels: int, dilate: int) -> mx.sym.Symbol:
    """Deformable 3x3 `<unit>_conv2`; its weight is an ordinary pretrained convolution weight."""
    window = {
        "kernel": (3, 3),
        "stride": (1, 1),
        "pad": (dilate, dilate),
        "dilate": (dilate, dilate),
    }
    offset = mx.sym.Convolution(
        data, name=f"{unit}_offset", num_filter=OFFSET_CHANNELS, cudnn_off=True, **window
    )
    return mx.sym.contrib.DeformableConvolution(
        data=data,
        offset=offset,
        name=f"{unit}_conv2",
        num_filter=channels,
        num_deformable_group=DEFORMABLE_GROUPS,
        no_bias=True,
        **window,
    )
