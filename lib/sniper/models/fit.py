"""Whether weights belong to a network: every tensor there, and of the right shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sniper.errors import DataError
from sniper.models.initialisers import is_head
from sniper.models.lazy import mx
from sniper.models.model import Model
from sniper.models.weights import Params

SHOWN = 8


def fit_params(
    symbol: mx.sym.Symbol,
    input_shapes: Mapping[str, tuple[int, ...]],
    arg: Mapping[str, mx.nd.NDArray],
    aux: Mapping[str, mx.nd.NDArray],
    where: str | Path,
    *,
    backbone_only: bool = False,
) -> tuple[Params, Params]:
    """The tensors that a network needs, in the order of its graph; others are left out.

    Args:
        symbol: the network.
        input_shapes: shapes of all its inputs.
        arg: parameters, `_test` tensors already in place.
        aux: batch-norm statistics.
        where: the file that they come from, for messages.
        backbone_only: without the layers that training starts afresh: RPN, heads and offsets.

    Raises:
        DataError: tensors are missing, have other shapes or values that are not finite; names them.
    """
    arg_shapes, _, aux_shapes = symbol.infer_shape(**input_shapes)
    wanted_arg = dict(zip(symbol.list_arguments(), arg_shapes))
    for name in [n for n in wanted_arg if n in input_shapes or (backbone_only and is_head(n))]:
        del wanted_arg[name]
    wanted_aux = dict(zip(symbol.list_auxiliary_states(), aux_shapes))
    problems = [*_problems(wanted_arg, arg), *_problems(wanted_aux, aux)]
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if problems[SHOWN:] else ""
        raise DataError(
            "the weights do not fit the network",
            where=where,
            got="; ".join(problems[:SHOWN]) + more,
            expected=f"{len(wanted_arg) + len(wanted_aux)} tensors by name and shape",
            fix="use the recipe that the weights were trained with; for values that are not finite "
            "another checkpoint",
        )
    return {name: arg[name] for name in wanted_arg}, {name: aux[name] for name in wanted_aux}


def _problems(
    wanted: Mapping[str, tuple[int, ...]], have: Mapping[str, mx.nd.NDArray]
) -> list[str]:
    unfit = [
        f"{name} {have[name].shape if name in have else 'is missing'}, expected {shape}"
        for name, shape in wanted.items()
        if name not in have or have[name].shape != shape
    ]
    # A network with one such value finds nothing, and says nothing.
    return unfit or [
        f"{name} has values that are not finite"
        for name in wanted
        if not np.isfinite(have[name].asnumpy()).all()
    ]


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
    return fit_params(symbol, input_shapes, model.arg, model.aux, model.spec.symbol)
