"""The protocols by the names that data sets give them."""

from __future__ import annotations

from typing import Any

from sniper.data.dataset import Dataset
from sniper.data.registry import Registry
from sniper.errors import DataError
from sniper.evaluation.coco_protocol import CocoProtocol
from sniper.evaluation.ilsvrc_protocol import IlsvrcProtocol
from sniper.evaluation.openimages_protocol import OpenImagesProtocol
from sniper.evaluation.protocol import EvaluationProtocol, Objects
from sniper.evaluation.report import reason_not_evaluated
from sniper.evaluation.voc_protocol import VocProtocol
from sniper.evaluation.wider_protocol import WiderProtocol

_PROTOCOLS: Registry[type[EvaluationProtocol[Any]]] = Registry(
    "protocol of evaluation",
    "--protocol, or the protocol of a data set",
    "sniper.protocols",
    {
        "coco": CocoProtocol,
        "ilsvrc": IlsvrcProtocol,
        "openimages": OpenImagesProtocol,
        "voc": VocProtocol,
        "wider": WiderProtocol,
    },
    is_part=lambda part: isinstance(part, type) and issubclass(part, EvaluationProtocol),
    kind="a class derived from sniper.evaluation.EvaluationProtocol",
)


def register_protocol(name: str, protocol: type[EvaluationProtocol[Any]]) -> None:
    """Makes a protocol known to `Dataset.protocol` and `sniper evaluate --protocol`.

    Installed packages can do without the call: an entry point of the group `sniper.protocols` whose
    name is the protocol's and whose object is the class.

    Args:
        name: case does not matter.
        protocol: a class without arguments.

    Raises:
        ConfigError: another protocol has that name.
    """
    _PROTOCOLS.register(name, protocol)


def protocol_names() -> list[str]:
    """All known protocols."""
    return _PROTOCOLS.names()


def protocol_named(name: str) -> EvaluationProtocol[Any]:
    """The protocol of a name.

    Raises:
        ConfigError: there is none.
    """
    return _PROTOCOLS.get(name)()


def protocol_of(dataset: Dataset) -> EvaluationProtocol[Any]:
    """The protocol that a set names.

    Raises:
        ConfigError: there is none of that name.
    """
    return protocol_named(dataset.protocol)


def objects_of(dataset: Dataset) -> Objects:
    """The objects of the images of a set.

    Raises:
        DataError: the set has no annotations, or they are broken.
    """
    reason = reason_not_evaluated(dataset)
    if reason is not None:
        raise DataError(reason, fix="choose a set with annotations")
    return protocol_of(dataset).objects(dataset).by_image()
