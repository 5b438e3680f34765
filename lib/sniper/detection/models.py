"""Models for inference: from `.params` files, from archives, and from weights in memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import mxnet as mx
from easydict import EasyDict

from sniper.config import config_of
from sniper.errors import ConfigError, DataError
from sniper.inference.weights import Model
from sniper.models.archive import META, ModelArchive, read_archive
from sniper.models.detector import DetectorSpec
from sniper.models.int8_support import WITHOUT_INSTRUCTIONS, has_int8_instructions
from sniper.models.weights import Params, for_test, read_params
from sniper.setup.classes import numbered_class_names, read_class_names
from sniper.setup.settings import detector_spec, fp16_in_force

logger = logging.getLogger(__name__)

ARCHIVE_ENDING = ".zip"

# What decides a test graph: an INT8 network is such a graph and cannot be built anew.
_GRAPH_FIELDS = (
    *("symbol", "num_classes", "anchor_scales", "anchor_ratios", "feature_stride", "padding"),
    *("width", "activation", "dilate", "rpn_channels", "roi_channels", "fc_channels", "proposal"),
    *("with_masks", "mask_size"),
)


def load_model(
    cfg: EasyDict,
    devices: Sequence[mx.Context],
    path: str | Path,
    class_names: tuple[str, ...] | None = None,
) -> Model:
    """Reads weights for inference.

    Args:
        cfg: the configuration that the network was trained with.
        devices: where it will run (the CPU needs a graph without fp16).
        path: a `.params` file, 2018 files included, or an archive (`.zip`) of `sniper export` or
            `sniper quantize`.
        class_names: names to use; None takes those of the archive or beside the weights, or
            numbers.

    Raises:
        ConfigError: an INT8 network is another one than `cfg` names.
        DataError: the file is missing, damaged, or no such file.
    """
    path = Path(path)
    if is_archive(path):
        archive = read_archive(path)
        spec = detector_spec(cfg, train=False, batch_images=1, fp16=_fp16(cfg, archive, devices))
        return _archive_model(archive, spec, path, class_names)
    arg, aux = read_params(path)
    names = class_names or read_class_names(path.parent)
    names = names or numbered_class_names(cfg.dataset.NUM_CLASSES)
    return inference_model(cfg, devices, arg, aux, names)


def load_archive_model(
    path: str | Path, devices: Sequence[mx.Context] = ()
) -> tuple[EasyDict, Model]:
    """A model with the configuration that it brings along.

    Args:
        path: an archive of `sniper export` or `sniper quantize`.
        devices: where it will run; empty means the CPU.

    Raises:
        ConfigError: its configuration is wrong.
        DataError: the file is missing, damaged, or no archive.
    """
    path, devices = Path(path), list(devices) or [mx.cpu()]
    archive = read_archive(path)
    cfg = archive_config(archive, path)
    spec = detector_spec(cfg, train=False, batch_images=1, fp16=_fp16(cfg, archive, devices))
    return cfg, _archive_model(archive, spec, path, None)


def inference_model(
    cfg: EasyDict,
    devices: Sequence[mx.Context],
    arg: Mapping[str, mx.nd.NDArray],
    aux: Mapping[str, mx.nd.NDArray],
    class_names: tuple[str, ...],
) -> Model:
    """Weights in memory as a model for inference.

    Args:
        cfg: the configuration that the network was trained with.
        devices: where it will run (the CPU needs a graph without fp16).
        arg: parameters by name, `_test` pairs included, as checkpoints hold them (in training:
            `with_test_params`).
        aux: batch-norm statistics by name.
        class_names: index 0 is the background.
    """
    spec = detector_spec(cfg, train=False, batch_images=1, fp16=fp16_in_force(cfg, list(devices)))
    return Model(spec, for_test(arg), dict(aux), tuple(class_names))


def is_archive(path: str | Path) -> bool:
    """Whether a file of weights is an archive, by its ending."""
    return Path(path).suffix.lower() == ARCHIVE_ENDING


def archive_config(archive: ModelArchive, path: Path) -> EasyDict:
    """The configuration in an archive, with every key.

    Raises:
        ConfigError: a key or value is wrong.
        DataError: there is none.
    """
    values = archive.meta.get("config")
    if not isinstance(values, dict):
        raise DataError("the archive has no configuration", where=f"{META} of {path}")
    return config_of(values, where=f"{META} of {path}")


def archive_weights(archive: ModelArchive, path: Path) -> tuple[Params, Params, tuple[str, ...]]:
    """Parameters and statistics of all networks of an archive, and its class names.

    Raises:
        DataError: it has no class names.
    """
    parts = [archive.detector, *([archive.mask_head] if archive.mask_head else [])]
    arg = {name: value for part in parts for name, value in part.arg.items()}
    aux = {name: value for part in parts for name, value in part.aux.items()}
    return arg, aux, _class_names(archive.meta, path)


def _archive_model(
    archive: ModelArchive,
    spec: DetectorSpec,
    path: Path,
    class_names: tuple[str, ...] | None,
) -> Model:
    arg, aux, own_names = archive_weights(archive, path)
    names = class_names or own_names
    if not archive.is_int8:
        # The graph is built as for any weights: for proposals alone, or with fp16 on a GPU.
        return Model(spec, arg, aux, names)
    if not has_int8_instructions():
        logger.warning("%s: this processor has %s", path, WITHOUT_INSTRUCTIONS)
    saved = detector_spec(archive_config(archive, path), train=False, batch_images=1, fp16=False)
    _check_same_network(spec, saved, path)
    return Model(saved, arg, aux, names, archive.detector.symbol)


def _fp16(cfg: EasyDict, archive: ModelArchive, devices: Sequence[mx.Context]) -> bool:
    return not archive.is_int8 and fp16_in_force(cfg, list(devices))


def _check_same_network(asked: DetectorSpec, saved: DetectorSpec, path: Path) -> None:
    names = [field.name for field in fields(DetectorSpec) if field.name in _GRAPH_FIELDS]
    different = [name for name in names if getattr(asked, name) != getattr(saved, name)]
    if asked.auto_focus and not saved.auto_focus:
        different.append("auto_focus")
    if different:
        raise ConfigError(
            "the INT8 network is another one than the configuration names",
            where=path,
            got="; ".join(f"{name} {getattr(asked, name)}" for name in different),
            expected="; ".join(f"{name} {getattr(saved, name)}" for name in different),
            fix="use the recipe and overrides of `sniper quantize`, or quantise again",
        )


def _class_names(meta: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    names = meta.get("classes")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(
            "the class names must be a list of strings", where=f"{META} of {path}", got=names
        )
    return tuple(names)
