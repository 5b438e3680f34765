"""Which networks there are: every backbone with every set of heads, `<backbone>_<heads>`."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sniper.errors import ConfigError
from sniper.models.backbones.mobilenetv2 import MobileNetV2
from sniper.models.backbones.resnet import (
    RESNET_18,
    RESNET_50,
    RESNET_101,
    ResNet,
    gluon_zoo,
)
from sniper.models.backbones.vgg import Vgg16
from sniper.models.heads.fine import FineHead
from sniper.models.heads.focus import FocusHead
from sniper.models.heads.mask import MaskHead
from sniper.models.heads.proposals import Proposals
from sniper.models.heads.rfcn import RfcnBoxHead, RfcnClassHead
from sniper.models.heads.roi import RoiHead
from sniper.models.heads.rpn import RpnHead
from sniper.models.heads.ssh import SshModule
from sniper.models.parts import Backbone, Head, Start

BACKBONES: dict[str, Backbone] = {}
HEADS: dict[str, tuple[Head, ...]] = {}


@dataclass(frozen=True)
class Network:
    """A backbone with its heads.

    Attributes:
        backbone: see there.
        heads: all that it can have, in the order of their labels, results and metrics.
    """

    backbone: Backbone
    heads: tuple[Head, ...]

    def has(self, kind: type[Head]) -> bool:
        """Whether one of the heads is of this kind."""
        return any(isinstance(head, kind) for head in self.heads)


def register_backbone(name: str, backbone: Backbone) -> None:
    """Makes a backbone known: `<name>_<heads>` can be built with every set of heads.

    Raises:
        ConfigError: the name is taken, gives a network that there is already, or it is no backbone.
    """
    _check_kind("backbone", backbone, Backbone)
    _check_free("backbone", name, BACKBONES, [f"{name}_{heads}" for heads in HEADS])
    BACKBONES[name] = backbone


def register_heads(name: str, heads: Sequence[Head]) -> None:
    """Makes a set of heads known: `<backbone>_<name>` can be built with every backbone.

    Args:
        name: end of the networks' names.
        heads: in the order of their labels, results and metrics; a head stands behind those whose
            results it needs.

    Raises:
        ConfigError: the name is taken, or gives a network that there is already.
    """
    for head in heads:
        _check_kind("head", head, Head)
    _check_free("set of heads", name, HEADS, [f"{backbone}_{name}" for backbone in BACKBONES])
    HEADS[name] = tuple(heads)


def _check_kind(what: str, part: object, base: type) -> None:
    if not isinstance(part, base):
        raise ConfigError(
            f"this is no {what}",
            got=repr(part),
            expected=f"an object of a class derived from {base.__module__}.{base.__name__}",
        )


def _check_free(what: str, name: str, known: Collection[str], networks: Sequence[str]) -> None:
    taken = set(networks) & set(network_names())
    if name in known or taken:
        raise ConfigError(
            f"there is a {what} of this name already" if name in known else "the name is ambiguous",
            got=name if name in known else f"{name}, which would be part of {', '.join(taken)}",
            fix="choose another name",
        )


def network_names() -> list[str]:
    """All names that `symbol` can have."""
    return [f"{backbone}_{heads}" for backbone in BACKBONES for heads in HEADS]


def network_of(symbol: str) -> Network:
    """The network of a name.

    Raises:
        ConfigError: there is none.
    """
    for backbone, heads in itertools.product(BACKBONES, HEADS):
        if symbol == f"{backbone}_{heads}":
            return Network(BACKBONES[backbone], HEADS[heads])
    names = sorted(network_names())
    near = difflib.get_close_matches(symbol, names, n=1, cutoff=0)
    raise ConfigError(
        "this network is not available",
        where="symbol",
        got=symbol,
        expected=", ".join(names),
        fix=f"did you mean {near[0]}?",
    )


def start_of(layer: str, heads: Iterable[Head] = ()) -> Start | None:
    """How a layer starts that no file of a pretrained backbone has; None for all others.

    Args:
        layer: its name.
        heads: of the network; they come first, for heads of others may use the name, too.
    """
    for head in itertools.chain(heads, *HEADS.values()):
        if layer in head.layers:
            return head.layers[layer]
    fresh = (backbone.no_pretrained for backbone in BACKBONES.values())
    is_fresh = any(pattern is not None and pattern.fullmatch(layer) for pattern in fresh)
    return Start.OFFSET if is_fresh else None


def output_scales() -> dict[str, Sequence[float]]:
    """By layer, what the numbers were divided by that each of its outputs learns."""
    every = itertools.chain.from_iterable(HEADS.values())
    return {layer: scales for head in every for layer, scales in head.output_scales.items()}


def ends_residual(name: str) -> bool:
    """Whether a parameter is the end of a residual branch beside an identity."""
    ends = (backbone.residual_end for backbone in BACKBONES.values())
    return any(pattern is not None and pattern.fullmatch(name) for pattern in ends)


register_backbone("resnet_mx_101", ResNet(arch=RESNET_101, released=gluon_zoo(101)))
register_backbone("resnet_mx_50", ResNet(arch=RESNET_50, released=gluon_zoo(50)))
register_backbone("resnet_mx_18", ResNet(arch=RESNET_18, rpn_channels=256))
register_backbone("mobilenetv2", MobileNetV2())
register_backbone("vgg16", Vgg16())
register_heads("e2e", (RpnHead(), Proposals(), RoiHead(), FocusHead()))
# The RPN reads an early map (in a ResNet stage 3, "C4") alone: 2018's for Open Images.
register_heads("e2e_c4", (RpnHead(level=0), Proposals(), RoiHead(), FocusHead()))
# The RPN of the mask networks of 2018 reads an early map: in a ResNet stage 3 alone.
register_heads("e2e_mask", (RpnHead(level=0), Proposals(), RoiHead(), FocusHead(), MaskHead()))
# R-FCN: its RPN reads the early map, too. With the fine head it is R-FCN-3K, in the order of 2018;
# without it every class has position-sensitive maps of its own.
register_heads("3k", (RpnHead(level=0), Proposals(), RfcnClassHead(), FineHead(), RfcnBoxHead()))
register_heads("rfcn", (RpnHead(level=0), Proposals(), RfcnClassHead(), RfcnBoxHead()))
# SSH: three modules find faces of three sizes by themselves.
register_heads("ssh", (*(SshModule(number) for number in (1, 2, 3)), FocusHead()))
