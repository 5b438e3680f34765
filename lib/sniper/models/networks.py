"""Which networks there are: every backbone with every set of heads."""

from __future__ import annotations

from dataclasses import dataclass

from sniper.models import mobilenetv2, resnet


@dataclass(frozen=True)
class BackboneTraits:
    """What the heads must know of a backbone.

    Args:
        strides: px per feature cell that the network can be built with.
        rpn_channels: channels of `rpn_conv_3x3`.
        fc_channels: width of the RoI head's layers.
        resnet: the architecture of a ResNet; None is the MobileNetV2 family, with its own loss
            normalisation, padding and activation.
    """

    strides: tuple[int, ...]
    rpn_channels: int
    fc_channels: int
    resnet: resnet.ResNetArch | None = None

    @property
    def mobile(self) -> bool:
        """Of the MobileNetV2 family."""
        return self.resnet is None


@dataclass(frozen=True)
class HeadTraits:
    """What distinguishes the `*_mask` networks of 2018 from the others.

    Args:
        masks: a mask head can be trained.
        rpn_on_stage3: the RPN of a ResNet reads stage 3 alone, not its concatenation with stage 4.
    """

    masks: bool = False
    rpn_on_stage3: bool = False


@dataclass(frozen=True)
class NetworkTraits:
    """A backbone with its heads."""

    backbone: BackboneTraits
    heads: HeadTraits


_STRIDES = (resnet.FEATURE_STRIDE,)
BACKBONES = {
    "resnet_mx_101": BackboneTraits(_STRIDES, 512, 1024, resnet.RESNET_101),
    "resnet_mx_50": BackboneTraits(_STRIDES, 512, 1024, resnet.RESNET_50),
    "resnet_mx_18": BackboneTraits(_STRIDES, 256, 1024, resnet.RESNET_18),
    "mobilenetv2": BackboneTraits(mobilenetv2.FEATURE_STRIDES, 256, 512),
}
HEADS = {"e2e": HeadTraits(), "e2e_mask": HeadTraits(masks=True, rpn_on_stage3=True)}
NETWORKS = {
    f"{backbone}_{head}": NetworkTraits(BACKBONES[backbone], HEADS[head])
    for backbone in BACKBONES
    for head in HEADS
}
