"""VGG-16 without its dense layers (Simonyan and Zisserman, 2015, configuration D).

Names are those of the Caffe model, and so is the pooling: 2x2 at stride 2 with the size rounded up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from sniper.models.backbones.blocks import cast, scale_channels
from sniper.models.lazy import mx
from sniper.models.parts import Backbone, Released

if TYPE_CHECKING:
    from sniper.models.spec import DetectorSpec

FEATURE_STRIDE = 16
# Convolutions and output channels of the five blocks; a pooling stands between two of them.
BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
# Biases learn twice as fast and decay like weights, as in Caffe's models.
BIAS_MULTIPLIERS = {"lr_mult": "2.0", "wd_mult": "1.0"}


def vgg16_layers() -> list[str]:
    """Names of the convolutions, in order: `conv1_1` to `conv5_3`."""
    return [
        f"conv{block}_{number}"
        for block, (count, _) in enumerate(BLOCKS, 1)
        for number in range(1, count + 1)
    ]


@dataclass(frozen=True)
class Vgg16(Backbone):
    """VGG-16 as the backbone of detectors: `conv5_3`, and `conv4_3` at half its stride."""

    has_batch_norms: ClassVar[bool] = False
    strides: tuple[int, ...] = (FEATURE_STRIDE,)
    rpn_channels: int = 512
    fc_channels: int = 1024
    released: Mapping[str, Released] = field(
        default_factory=lambda: {
            "vgg16": Released(
                "data/pretrained_model/vgg16",
                "use it with --set network.pretrained PREFIX",
            )
        }
    )

    def maps(self, stride: int) -> dict[str, int]:
        """`conv5_3`."""
        return {"conv5_3": stride}

    def by_stride(self, stride: int) -> dict[int, str]:
        """`conv4_3` at stride 8, `conv5_3` at stride 16."""
        return {8: "conv4_3", 16: "conv5_3"}

    def features(
        self, data: mx.sym.Symbol, spec: DetectorSpec, *, train: bool
    ) -> Mapping[str, mx.sym.Symbol]:
        """See `vgg16_features`."""
        return vgg16_features(data, width=spec.width, fp16=spec.fp16)


def vgg16_features(
    data: mx.sym.Symbol, *, width: float = 1.0, fp16: bool = False
) -> dict[str, mx.sym.Symbol]:
    """Maps `conv4_3` and `conv5_3` behind their ReLU, float32, strides 8 and 16.

    Sides are rounded up at every pooling: 901x1203 px give 113x151 and 57x76 cells.

    Args:
        data: (N, 3, H, W) float32, RGB minus the pixel means.
        width: multiplies all channels.
        fp16: everything behind the first layer is float16.
    """
    body, maps = data, {}
    for block, (count, channels) in enumerate(BLOCKS, 1):
        if block > 1:
            body = mx.sym.Pooling(
                body,
                kernel=(2, 2),
                stride=(2, 2),
                pool_type="max",
                pooling_convention="full",
                name=f"pool{block - 1}",
            )
        for number in range(1, count + 1):
            name = f"conv{block}_{number}"
            body = mx.sym.Convolution(
                body,
                bias=mx.sym.Variable(f"{name}_bias", **BIAS_MULTIPLIERS),
                num_filter=scale_channels(channels, width),
                kernel=(3, 3),
                pad=(1, 1),
                name=name,
            )
            body = mx.sym.Activation(body, act_type="relu", name=f"relu{block}_{number}")
            if name == "conv1_1":
                body = cast(body, "float16", enabled=fp16, name="cast_fp16")
        maps[block] = body
    return {
        f"conv{block}_3": cast(maps[block], "float32", enabled=fp16, name=f"conv{block}_3_feat")
        for block in (4, 5)
    }
