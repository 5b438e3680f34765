"""A network with its weights, and whether the weights fit a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import mxnet as mx

from sniper.errors import DataError
from sniper.models.detector import DetectorSpec

_SHOWN = 5

Params = dict[str, mx.nd.NDArray]


@dataclass(frozen=True)
class Model:
    """A network description with its weights, ready for inference.

    Attributes:
        spec: the network; `batch_images` is set per pyramid level.
        arg: parameters by name, `_test` tensors already in place.
        aux: batch-norm statistics by name.
        class_names: index 0 is the background.
        symbol: a whole detector that is ready to be bound, with the outputs of `build_detector`,
            for example in INT8; None means that `spec` describes the graph.
    """

    spec: DetectorSpec
    arg: Params
    aux: Params
    class_names: tuple[str, ...]
    symbol: mx.sym.Symbol | None = None


def params_of(
    symbol: mx.sym.Symbol, input_shapes: Mapping[str, tuple[int, ...]], model: Model
) -> tuple[Params, Params]:
    """The parameters and statistics that a graph of the network needs.

    Args:
        symbol: the graph.
        input_shapes: of all its inputs, on one device.
        model: where they come from.

    Raises:
        DataError: one is missing or has another shape.
    """
    arg_shapes, _, aux_shapes = symbol.infer_shape(**input_shapes)
    arg = _chosen(symbol.list_arguments(), arg_shapes, model.arg, input_shapes, model)
    aux = _chosen(symbol.list_auxiliary_states(), aux_shapes, model.aux, input_shapes, model)
    return arg, aux


def _chosen(
    names: list[str],
    shapes: list[tuple[int, ...]],
    have: Params,
    inputs: Mapping[str, tuple[int, ...]],
    model: Model,
) -> Params:
    wanted = {name: shape for name, shape in zip(names, shapes) if name not in inputs}
    wrong = [
        f"{name} {have[name].shape if name in have else 'missing'}, expected {shape}"
        for name, shape in wanted.items()
        if name not in have or have[name].shape != shape
    ]
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if wrong[_SHOWN:] else ""
        raise DataError(
            "the weights do not fit the network",
            where=model.spec.symbol,
            got="; ".join(wrong[:_SHOWN]) + more,
            fix="use the recipe that the weights were trained with",
        )
    return {name: have[name] for name in wanted}
