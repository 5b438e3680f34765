"""Whether weights belong to a network: every tensor there, and of the right shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mxnet as mx
import numpy as np

from sniper.data.classes import Classes
from sniper.data.ids import FileId
from sniper.errors import ConfigError, DataError
from sniper.models.assembly import DetectorSpec
from sniper.models.heads.proposals import Proposals
from sniper.models.initialisers import is_head
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


@dataclass(frozen=True)
class Model:
    """A network description with its weights, ready for inference.

    Attributes:
        spec: the network; `batch_images` is set per pyramid level.
        arg: parameters by name, `_test` tensors already in place.
        aux: batch-norm statistics by name.
        class_names: index 0 is the background.
        category_ids: id of each class in the annotation files, 0 for the background; None: not
            known.
        symbol: a whole detector that is ready to be bound, with the outputs of `build_detector`,
            for example in INT8; None means that `spec` describes the graph.
        legacy_boxes: `TRAIN.LEGACY_BOXES` of its training; None: nothing tells.
    """

    spec: DetectorSpec
    arg: Params
    aux: Params
    class_names: tuple[str, ...]
    symbol: mx.sym.Symbol | None = None
    category_ids: tuple[FileId, ...] | None = None
    legacy_boxes: bool | None = None

    @property
    def classes(self) -> Classes:
        """Names and category ids."""
        return Classes(self.class_names, self.category_ids)

    def check_has_features(self) -> None:
        """Raises ConfigError for a network that gives no features of RoIs: INT8, or SSH."""
        if self.symbol is not None:
            raise ConfigError(
                "an INT8 network has no output of features, which new classes are told by",
                fix="take the fp32 weights",
            )
        if not self.spec.network.has(Proposals):
            raise ConfigError(
                "new classes are told by the features of RoIs, which this network does not have",
                got=self.spec.symbol,
                fix="take a network with proposals, such as mobilenetv2_e2e",
            )


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
