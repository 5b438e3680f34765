"""A network with its weights, ready for inference: in MXNet, or as ONNX graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from sniper.data.classes import Classes
from sniper.data.ids import FileId
from sniper.errors import ConfigError
from sniper.models.heads.proposals import Proposals
from sniper.models.lazy import mx
from sniper.models.onnx.steps import Program
from sniper.models.spec import DetectorSpec
from sniper.models.weights import Params


@dataclass(frozen=True)
class Model:
    """A network description with its weights for MXNet, ready for inference.

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


@dataclass(frozen=True)
class OnnxModel:
    """A network with its weights as ONNX graphs, ready for inference; compare `Model`.

    Attributes:
        spec: the network.
        detector: its graphs, with the outputs of `build_detector`.
        mask_head: None for networks without masks.
        class_names: index 0 is the background.
        category_ids: id of each class in the annotation files; None: not known.
        legacy_boxes: `TRAIN.LEGACY_BOXES` of its training; None: nothing tells.
    """

    spec: DetectorSpec
    detector: Program
    mask_head: Program | None
    class_names: tuple[str, ...]
    category_ids: tuple[FileId, ...] | None = None
    legacy_boxes: bool | None = None

    @property
    def classes(self) -> Classes:
        """Names and category ids."""
        return Classes(self.class_names, self.category_ids)


AnyModel = Union[Model, OnnxModel]


def with_features(model: AnyModel) -> Model:
    """The model, if it gives features of RoIs, which new classes are told by.

    Raises:
        ConfigError: it does not: its graph is complete (INT8, ONNX), or it has no RoIs (SSH).
    """
    if not isinstance(model, Model) or model.symbol is not None:
        raise ConfigError(
            "the network has no output of features, which new classes are told by",
            got="an INT8 network" if isinstance(model, Model) else "a detector of ONNX graphs",
            fix="take the fp32 weights of MXNet",
        )
    if not model.spec.network.has(Proposals):
        raise ConfigError(
            "new classes are told by the features of RoIs, which this network does not have",
            got=model.spec.symbol,
            fix="take a network with proposals, such as mobilenetv2_e2e",
        )
    return model
