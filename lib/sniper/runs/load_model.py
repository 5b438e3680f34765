"""From weights to detectors: `.params` files, archives, weights in memory.

MXNet is imported where a network of MXNet is made or read: detectors of ONNX graphs run without.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Union

from easydict import EasyDict

from sniper.config import config_of
from sniper.config.yaml_files import read_yaml
from sniper.data.class_names import check_class_names, read_classes
from sniper.data.classes import Classes, numbered_class_names
from sniper.errors import ConfigError, DataError
from sniper.inference.class_agnostic import ClassAgnosticExecutor
from sniper.inference.detector import Detector
from sniper.inference.executor import Executor
from sniper.inference.new_classes import NewClassesExecutor
from sniper.inference.onnx_engines import AUTO, onnx_engine
from sniper.inference.onnx_executor import OnnxExecutor
from sniper.inference.picture_classes import PictureClasses
from sniper.models.archive import ModelArchive, read_archive
from sniper.models.archive_file import META, ONNX, read_meta
from sniper.models.assembly import DetectorSpec
from sniper.models.heads.fine import FineHead
from sniper.models.int8_support import WITHOUT_INSTRUCTIONS, has_int8_instructions
from sniper.models.lazy import mx
from sniper.models.model import AnyModel, Model, OnnxModel
from sniper.models.onnx.archive import OnnxArchive, read_onnx_archive
from sniper.models.weights import Params, for_test, read_params
from sniper.process import usable_cores
from sniper.runs.devices import ON_CPU, uses_gpu
from sniper.runs.plan import TestPlan, test_plan
from sniper.runs.resolve import detector_spec

logger = logging.getLogger(__name__)

ARCHIVE_ENDING = ".zip"
MXNET = "mxnet"

AnyArchive = Union[ModelArchive, OnnxArchive]

# What a test graph does not depend on: all else must fit, since a saved graph cannot be built anew.
_TRAINING_FIELDS = (
    *("batch_images", "fp16", "loss_scale", "rpn_batch_size", "bn_momentum", "bn_mode"),
    *("legacy_gt_centre", "legacy_areas", "legacy_min_size", "bbox_loss_divisor", "max_masks"),
    *("max_gt", "soft_sampling", "crowd_ioa", "max_crowd", "targets"),
)


def make_detector(
    plan: TestPlan, model: AnyModel, classes: PictureClasses | None = None
) -> Detector:
    """The detector of a plan.

    Args:
        plan: what it does.
        model: the network and its weights.
        classes: to be told in place of the network's own, which it must have been learnt with.

    Raises:
        ConfigError: a network in INT8 or of ONNX graphs cannot do what is asked for, or the engine
            is not installed.
        DataError: the classes were learnt with another network, or the weights do not fit.
    """
    executor = _executor(plan, model, roi_features=classes is not None)
    if plan.class_agnostic and not plan.rpn_only:
        _check_own_classes(classes)
        executor = ClassAgnosticExecutor(executor)
    if classes is not None:
        # It computes with MXNet.
        from sniper.runs.picture_features import check_same_network

        check_same_network(plan, model, classes)
        executor = NewClassesExecutor(executor, classes)
    return Detector(
        executor,
        plan.levels,
        plan.merge,
        plan.pixel_means,
        pyramid=plan.pyramid,
        num_threads=usable_cores(),
        legacy_boxes=plan.legacy_boxes if model.legacy_boxes is None else model.legacy_boxes,
        flip=plan.flip,
    )


def _executor(plan: TestPlan, model: AnyModel, *, roi_features: bool) -> Executor:
    asked = {"rpn_only": plan.rpn_only, "roi_features": roi_features}
    if isinstance(model, OnnxModel):
        if uses_gpu(plan.devices):
            raise ConfigError(
                "detectors of ONNX graphs run on the CPU only",
                got=", ".join(map(str, plan.devices)),
                fix=f"{ON_CPU}, or take the weights of MXNet",
            )
        return OnnxExecutor(model, onnx_engine(plan.engine), **asked)
    if plan.engine not in (AUTO, MXNET):
        raise ConfigError(
            "these weights are MXNet's, which this engine does not read",
            where="TEST.ENGINE",
            got=plan.engine,
            expected=f"{AUTO} or {MXNET}",
            fix="`sniper export --format onnx` makes an archive for it",
        )
    from sniper.inference.mxnet_executor import MxnetExecutor

    return MxnetExecutor(model, [device.context() for device in plan.devices], **asked)


def _check_own_classes(classes: PictureClasses | None) -> None:
    if classes is not None:
        raise ConfigError(
            "detection is either of one class or of new classes",
            got="TEST.CLASS_AGNOSTIC and a file of classes",
            fix="leave one out",
        )


def load_model(
    spec: DetectorSpec, path: str | Path, class_names: tuple[str, ...] | None = None
) -> AnyModel:
    """Reads weights for inference.

    Args:
        spec: the test network, `TestPlan.detector`.
        path: a `.params` file, 2018 files included, or an archive (`.zip`) of `sniper export` or
            `sniper quantize`.
        class_names: names to use; None takes those of the archive or beside the weights, or
            numbers.

    Raises:
        ConfigError: an INT8 network is another one than `spec`.
        DataError: the file is missing, damaged, or no such file, or the class names are not those
            of the network.
    """
    path = Path(path)
    if is_archive(path):
        return archive_model(read_any_archive(path), spec, path, class_names)
    arg, aux = read_params(path)
    model = inference_model(
        spec, arg, aux, _named(spec, path, class_names) or weights_classes(path, spec.num_classes)
    )
    legacy_boxes = legacy_boxes_of(path)
    if legacy_boxes is None:
        _tell_fine_ids(model)
    return replace(model, legacy_boxes=legacy_boxes)


def _tell_fine_ids(model: Model) -> None:
    """Says how outputs become classes, for weights that do not say how they were trained."""
    if not model.spec.network.has(FineHead):
        return
    offset, names = model.spec.fine.id_offset, model.class_names
    logger.info(
        "output 0 of the fine head is taken for class %d, %r (network.FINE_ID_OFFSET %d): weights "
        "of 2018 may count from the other one, look at images that you know",
        *(1 + offset, names[1 + offset], offset),
    )


def inference_model(
    spec: DetectorSpec,
    arg: Mapping[str, mx.nd.NDArray],
    aux: Mapping[str, mx.nd.NDArray],
    classes: Classes,
) -> Model:
    """Weights in memory as a model for inference.

    Args:
        spec: the test network, `TestPlan.detector`.
        arg: parameters by name, `_test` pairs included, as checkpoints hold them (in training:
            `with_test_params`).
        aux: batch-norm statistics by name.
        classes: names and category ids.
    """
    spec = spec.for_classes(classes)
    return Model(spec, for_test(arg), dict(aux), classes.names, category_ids=classes.ids)


def legacy_boxes_of(weights: Path) -> bool | None:
    """`TRAIN.LEGACY_BOXES` of the run that left its configuration beside its weights.

    None where there is none, or none that can be read.
    """
    file = weights.parent / "config.yml"
    try:
        return trained_with_legacy_boxes(read_yaml(file)) if file.is_file() else None
    except ConfigError:
        return None


def trained_with_legacy_boxes(config: Mapping[str, Any]) -> bool:
    """The same of a complete configuration: before the key was there its rules were in force."""
    train = config.get("TRAIN")
    return bool(train.get("LEGACY_BOXES", True)) if isinstance(train, Mapping) else True


def weights_classes(path: Path, num_classes: int) -> Classes:
    """The classes beside a `.params` file; numbers where nobody named them.

    Raises:
        DataError: they are not those of the network.
    """
    classes = read_classes(path.parent, num_classes)
    return classes or Classes(numbered_class_names(num_classes), where=str(path))


def _named(spec: DetectorSpec, path: Path, class_names: tuple[str, ...] | None) -> Classes | None:
    """Names that the caller chose."""
    if class_names is None:
        return None
    check_class_names(class_names, spec.num_classes, path)
    return Classes(tuple(class_names), where=str(path))


def is_archive(path: str | Path) -> bool:
    """Whether a file of weights is an archive, by its ending."""
    return Path(path).suffix.lower() == ARCHIVE_ENDING


def read_any_archive(path: Path) -> AnyArchive:
    """Reads an archive for either engine.

    Raises:
        DataError: the file is missing, damaged, or no archive.
    """
    of_onnx = read_meta(path).get("engine") == ONNX
    return read_onnx_archive(path) if of_onnx else read_archive(path)


def archive_config(archive: AnyArchive, path: Path) -> EasyDict:
    """The configuration in an archive, with every key.

    Raises:
        ConfigError: a key or value is wrong.
        DataError: there is none.
    """
    values = archive.meta.get("config")
    if not isinstance(values, dict):
        raise DataError("the archive has no configuration", where=f"{META} of {path}")
    return config_of(values, where=f"{META} of {path}")


def archive_legacy_boxes(archive: AnyArchive) -> bool:
    """`TRAIN.LEGACY_BOXES` of the network in an archive."""
    config = archive.meta.get("config")
    return trained_with_legacy_boxes(config if isinstance(config, Mapping) else {})


def archive_weights(
    archive: ModelArchive, path: Path, num_classes: int
) -> tuple[Params, Params, Classes]:
    """Parameters and statistics of all networks of an archive, and its classes.

    Raises:
        DataError: it has no class names, or not those of the network.
    """
    networks = [archive.detector, *([archive.mask_head] if archive.mask_head else [])]
    arg = {name: value for network in networks for name, value in network.arg.items()}
    aux = {name: value for network in networks for name, value in network.aux.items()}
    return arg, aux, _archive_classes(archive.meta, path, num_classes)


def load_archive_model(
    path: str | Path,
    *,
    mode: str | None = None,
    devices: str | None = None,
    batch_images: int | None = None,
) -> tuple[TestPlan, AnyModel]:
    """A model, and how its own configuration detects with it.

    Args:
        path: an archive of `sniper export` or `sniper quantize`.
        mode, devices, batch_images: see `test_plan`; without `devices` it runs on the CPU.

    Raises:
        ConfigError: its configuration is wrong.
        DataError: the file is missing, damaged, or no archive.
    """
    path = Path(path)
    archive = read_any_archive(path)
    cfg = archive_config(archive, path)
    plan = test_plan(cfg, mode=mode, devices=devices or "cpu", batch_images=batch_images)
    return plan, archive_model(archive, plan.detector, path)


def archive_model(
    archive: AnyArchive,
    spec: DetectorSpec,
    path: Path,
    class_names: tuple[str, ...] | None = None,
) -> AnyModel:
    """The model of an archive.

    Args:
        archive: see `read_any_archive`.
        spec: the test network, `TestPlan.detector`.
        path: the archive's, for messages.
        class_names: names to use; None takes the archive's.

    Raises:
        ConfigError: an INT8 network, or one of ONNX graphs, is another one than `spec`.
        DataError: it has no class names, or not those of the network.
    """
    if isinstance(archive, OnnxArchive):
        classes = _named(spec, path, class_names) or _archive_classes(
            archive.meta, path, spec.num_classes
        )
        return OnnxModel(
            _saved_spec(archive, spec, path).for_classes(classes),
            *(archive.detector, archive.mask_head, classes.names, classes.ids),
            legacy_boxes=archive_legacy_boxes(archive),
        )
    arg, aux, classes = archive_weights(archive, path, spec.num_classes)
    classes = _named(spec, path, class_names) or classes
    if not archive.is_int8:
        # The graph is built as for any weights: for proposals alone, or with fp16 on a GPU.
        return Model(
            *(spec.for_classes(classes), arg, aux, classes.names),
            category_ids=classes.ids,
            legacy_boxes=archive_legacy_boxes(archive),
        )
    if not has_int8_instructions():
        logger.warning("%s: this processor has %s", path, WITHOUT_INSTRUCTIONS)
    return Model(
        _saved_spec(archive, spec, path).for_classes(classes),
        *(arg, aux, classes.names, archive.detector.symbol, classes.ids),
        legacy_boxes=archive_legacy_boxes(archive),
    )


def _saved_spec(archive: AnyArchive, asked: DetectorSpec, path: Path) -> DetectorSpec:
    """The network of an archive whose graph is complete and cannot be built anew.

    Raises:
        ConfigError: it is another one than that which is asked for.
    """
    saved = detector_spec(archive_config(archive, path), train=False, batch_images=1, fp16=False)
    names = {field.name for field in fields(DetectorSpec)} - {*_TRAINING_FIELDS, "auto_focus"}
    # Of the fine settings the graph depends on the number of super-classes alone.
    names = {*names - {"fine"}, "roi_classes"}
    different = sorted(name for name in names if getattr(asked, name) != getattr(saved, name))
    # The other way round does no harm: nobody reads the map.
    if asked.auto_focus and not saved.auto_focus:
        different.append("auto_focus")
    if different:
        raise ConfigError(
            "the network in the archive is another one than the configuration names",
            where=path,
            got="; ".join(f"{name} {getattr(asked, name)}" for name in different),
            expected="; ".join(f"{name} {getattr(saved, name)}" for name in different),
            fix="use the recipe and overrides that the archive was made with, or make it again",
        )
    return replace(saved, fine=asked.fine)


def _archive_classes(meta: Mapping[str, Any], path: Path, num_classes: int) -> Classes:
    where = f"{META} of {path}"
    names, ids = meta.get("classes"), meta.get("category_ids")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError("the class names must be a list of strings", where=where, got=names)
    check_class_names(names, num_classes, where)
    # Archives of older versions have no ids.
    if ids is not None and (not isinstance(ids, list) or len(ids) != len(names)):
        raise DataError(
            "the category ids must be a list with one of each class", where=where, got=ids
        )
    return Classes(tuple(names), None if ids is None else tuple(ids), where)
