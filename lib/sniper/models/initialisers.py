"""Starting values of a network: pretrained tensors where there are any, 2018 rules elsewhere."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sniper.errors import ConfigError, DataError
from sniper.models.lazy import mx
from sniper.models.networks import ends_residual, start_of
from sniper.models.parts import Head, Start

HEAD_STD = 0.01
NAMES_SHOWN = 8
# Of a 4-tap kernel at stride 2: what the two nearest pixels give to each new one.
_BILINEAR = (0.25, 0.75, 0.75, 0.25)

if TYPE_CHECKING:
    Arrays = dict[str, mx.nd.NDArray]
else:
    Arrays = dict


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor.

    Args:
        loaded: number of tensors taken from the pretrained file.
        missing: backbone tensors that the file does not have.
        unexpected: tensors of the file that the network does not have.
        reshaped: (name, shape in the file, shape in the network); such a tensor is not loaded.
        initialised: tensors that got a starting value here.
    """

    loaded: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    initialised: tuple[str, ...]

    def __str__(self) -> str:
        shapes = [f"{name} {saved} -> {needed}" for name, saved, needed in self.reshaped]
        new = len(self.initialised)
        parts = [f"weights: {self.loaded} arrays loaded, {new} begin at their first values"]
        for label, names in (
            ("at their first values", self.initialised if self.loaded else ()),
            ("missing in the file", self.missing),
            ("not used", self.unexpected),
            ("other shape, not loaded", shapes),
        ):
            if names:
                parts.append(f"  {label} ({len(names)}): {_shorten(names)}")
        return "\n".join(parts)


def initialise(
    symbol: mx.sym.Symbol,
    input_shapes: Mapping[str, tuple[int, ...]],
    pretrained: tuple[Mapping[str, mx.nd.NDArray], Mapping[str, mx.nd.NDArray]] | None,
    seed: int,
    *,
    allow_missing: bool = False,
    reset_heads: bool = False,
    init: str = "legacy",
    heads: Sequence[Head] = (),
) -> tuple[Arrays, Arrays, LoadReport]:
    """Float32 starting values of all parameters and auxiliary states.

    Biases, shifts and deformable offsets start at 0, scales and variances at 1, head weights at
    N(0, 0.01); backbone weights without pretrained values at He et al.'s Gaussian (fan in). Each
    tensor has its own random stream, so a tensor does not depend on which others exist.

    Args:
        symbol: the network.
        input_shapes: shapes of **all** data and label inputs.
        pretrained: arguments and auxiliary states to load, or None.
        seed: of the random streams.
        allow_missing: initialise backbone tensors that the file lacks instead of failing.
        reset_heads: never load the layers of heads (2018 always overwrote them).
        init: "legacy" (2018), or "scratch": the heads' hidden layers start like the backbone, and
            the residual blocks of MobileNetV2 and of bottleneck ResNets as identities.
        heads: of the network, where layers of different heads share a name.

    Raises:
        ConfigError: the shapes do not fit the network.
        DataError: the pretrained file lacks backbone tensors.
    """
    wanted_arg, wanted_aux = _shapes(symbol, input_shapes)
    loader = _Loader(seed, reset_heads, init, heads)
    source_arg, source_aux = pretrained or ({}, {})
    arg = loader.fill(wanted_arg, source_arg)
    aux = loader.fill(wanted_aux, source_aux)
    missing = tuple(loader.missing) if pretrained else ()
    if missing and not allow_missing:
        raise DataError(
            "the pretrained file lacks tensors of the backbone",
            got=_shorten(missing),
            expected=f"all {len(wanted_arg) + len(wanted_aux)} tensors but those of the heads",
            fix="check that network.pretrained belongs to this symbol",
        )
    report = LoadReport(
        loaded=loader.loaded,
        missing=missing,
        unexpected=tuple(_unexpected(source_arg, wanted_arg) + _unexpected(source_aux, wanted_aux)),
        reshaped=tuple(loader.reshaped),
        initialised=tuple(loader.initialised),
    )
    return arg, aux, report


class _Loader:
    """Fills groups of tensors and keeps the account."""

    def __init__(self, seed: int, reset_heads: bool, init: str, heads: Sequence[Head]) -> None:
        self.seed = seed
        self.init = init
        self.heads = heads
        self.reset_heads = reset_heads
        self.loaded = 0
        self.missing: list[str] = []
        self.reshaped: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
        self.initialised: list[str] = []

    def fill(
        self, wanted: Mapping[str, tuple[int, ...]], source: Mapping[str, mx.nd.NDArray]
    ) -> Arrays:
        return {name: self._tensor(name, shape, source) for name, shape in wanted.items()}

    def _tensor(
        self, name: str, shape: tuple[int, ...], source: Mapping[str, mx.nd.NDArray]
    ) -> mx.nd.NDArray:
        saved = None if self.reset_heads and is_head(name) else source.get(name)
        if saved is not None and saved.shape == shape:
            self.loaded += 1
            return saved.astype("float32")  # fp16 runs of 2018 saved float16
        if saved is not None:
            self.reshaped.append((name, saved.shape, shape))
        elif not is_head(name):
            self.missing.append(name)
        self.initialised.append(name)
        value = initial_value(name, shape, self.seed, self.init, self.heads)
        return mx.nd.array(value, dtype="float32")


def is_head(name: str) -> bool:
    """True for tensors that no backbone file has: those of all heads, and deformable offsets."""
    return start_of(name.rpartition("_")[0]) is not None


def is_parameter(name: str) -> bool:
    """True for the names of learned arguments, false for data and labels."""
    return name.endswith(("_weight", "_bias", "_gamma", "_beta")) and name != "bbox_weight"


def initial_value(
    name: str,
    shape: tuple[int, ...],
    seed: int,
    init: str = "legacy",
    heads: Sequence[Head] = (),
) -> np.ndarray:
    """Starting value of one tensor, float32; depends on these arguments only."""
    layer, _, kind = name.rpartition("_")
    if name.endswith("_moving_mean") or kind in ("bias", "beta"):
        return np.zeros(shape, np.float32)
    if init == "scratch" and ends_residual(name):
        return np.zeros(shape, np.float32)
    if name.endswith("_moving_var") or kind == "gamma":
        return np.ones(shape, np.float32)
    start = start_of(layer, heads)
    if start is Start.OFFSET:
        return np.zeros(shape, np.float32)
    if start is Start.BILINEAR:
        return np.broadcast_to(np.outer(_BILINEAR, _BILINEAR), shape).astype(np.float32)
    is_small = start is Start.OUTPUT or (start is not None and init != "scratch")
    std = HEAD_STD if is_small else np.sqrt(2.0 / _fan_in(start, shape))
    # CRC and not `hash`, which Python salts anew in every process.
    generator = np.random.default_rng([seed, zlib.crc32(name.encode("utf-8"))])
    return (std * generator.standard_normal(shape)).astype(np.float32)


def _fan_in(start: Start | None, shape: tuple[int, ...]) -> int:
    """Numbers of the layer's input that one number of its output is made of."""
    if start is Start.UPSAMPLING:  # one pixel makes each pixel, and the inputs come first
        return shape[0]
    return int(np.prod(shape[1:]))


def _shapes(
    symbol: mx.sym.Symbol, input_shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    arguments = symbol.list_arguments()
    inputs = [name for name in arguments if name in input_shapes or not is_parameter(name)]
    # With an unknown input MXNet overruns a buffer inside the shape inference of our operators.
    if set(inputs) != set(input_shapes):
        raise ConfigError(
            "the input shapes do not belong to this network",
            got=sorted(input_shapes),
            expected=sorted(inputs),
        )
    try:
        arg_shapes, _, aux_shapes = symbol.infer_shape(**input_shapes)
    except mx.MXNetError as error:
        raise ConfigError(
            "the input shapes do not fit the network",
            got=dict(input_shapes),
            expected=str(error).strip().splitlines()[-1],
        ) from error
    args = zip(symbol.list_arguments(), arg_shapes)
    wanted_arg = {name: shape for name, shape in args if name not in input_shapes}
    return wanted_arg, dict(zip(symbol.list_auxiliary_states(), aux_shapes))


def _unexpected(
    source: Mapping[str, mx.nd.NDArray], wanted: Mapping[str, tuple[int, ...]]
) -> list[str]:
    # The `_test` pair of a checkpoint is derived from tensors that are loaded themselves.
    return [
        name for name in source if name not in wanted and name.removesuffix("_test") not in wanted
    ]


def _shorten(names: list[str] | tuple[str, ...]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    rest = len(names) - NAMES_SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown
