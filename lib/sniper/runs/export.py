"""From a configuration and its weights to one archive: for MXNet, or as ONNX graphs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import sniper
from sniper.data.classes import Classes
from sniper.errors import ConfigError
from sniper.models.archive import ModelArchive, WeightedGraph, read_archive, write_archive
from sniper.models.assembly import (
    DetectorSpec,
    build_detector,
    build_mask_head,
    data_names,
    inference_input_shapes,
)
from sniper.models.fit import fit_params
from sniper.models.lazy import mx
from sniper.models.onnx.archive import OnnxArchive, write_onnx_archive
from sniper.models.onnx.steps import Program
from sniper.models.weights import Params, for_test, read_params
from sniper.runs.category_ids import with_category_ids
from sniper.runs.load_model import (
    MXNET,
    archive_legacy_boxes,
    archive_weights,
    is_archive,
    legacy_boxes_of,
    weights_classes,
)
from sniper.runs.model_card import model_card
from sniper.runs.plan import TestPlan

# Any size does: parameters do not depend on it.
PROBE_CELLS = 4


def export_model(plan: TestPlan, weights: Path, out: Path, form: str = MXNET) -> None:
    """Writes the archive of a detector.

    Args:
        plan: of the network (`sniper.runs.plan.test_plan`).
        weights: see `exported`.
        out: the archive.
        form: "mxnet", or "onnx".

    Raises:
        ConfigError, DataError: see `exported` and `as_onnx`.
        TrainingError: the archive could not be written.
    """
    archive = exported(plan, weights)
    if form == MXNET:
        write_archive(out, archive)
    else:
        write_onnx_archive(out, as_onnx(plan.detector.in_fp32(), archive))


def as_onnx(spec: DetectorSpec, archive: ModelArchive) -> OnnxArchive:
    """The same networks as ONNX graphs.

    Args:
        spec: the test network, which decides how many sides the inputs have.
        archive: in fp32, see `exported`.

    Raises:
        ConfigError: the package `onnx` is not installed.
        DataError: ONNX cannot say what a layer does.
    """
    networks = [archive.detector, *([archive.mask_head] if archive.mask_head else [])]
    programs = [
        _program(network, shapes)
        for network, (_, shapes) in zip(networks, inference_networks(spec))
    ]
    mask_head = programs[1] if archive.mask_head is not None else None
    return OnnxArchive(programs[0], mask_head, archive.meta)


def _program(network: WeightedGraph, shapes: Mapping[str, tuple[int, ...]]) -> Program:
    try:
        from sniper.models.onnx.program import convert
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise ConfigError(
            "ONNX graphs are made with the package `onnx`, which is not installed",
            fix='pip install "sniper-mxnet[export]"',
        ) from error
    params = {name: value.asnumpy() for name, value in {**network.arg, **network.aux}.items()}
    ranks = {name: len(shape) for name, shape in shapes.items()}
    return convert(network.symbol.tojson(), params, ranks)


def exported(plan: TestPlan, weights: Path) -> ModelArchive:
    """The test network of a configuration with its weights, in fp32.

    Args:
        plan: of the network (`sniper.runs.plan.test_plan`).
        weights: a `.params` file, 2018 files included, with the class names beside it; or another
            archive.

    Raises:
        ConfigError: the archive is in INT8.
        DataError: the weights are missing, damaged or do not fit the network.
    """
    spec = plan.detector.in_fp32()
    arg, aux, classes = _weights(spec.num_classes, weights)
    classes = with_category_ids(classes, plan.source, plan.recipe_sets)
    networks = [
        _fp32(symbol, *fit_params(symbol, shapes, arg, aux, weights))
        for symbol, shapes in inference_networks(spec)
    ]
    mask_head = networks[1] if spec.with_masks else None
    meta = _meta(plan, classes, networks[0], weights)
    legacy_boxes = _legacy_boxes(weights)
    if legacy_boxes is not None:
        meta["config"]["TRAIN"]["LEGACY_BOXES"] = legacy_boxes
    return ModelArchive(networks[0], mask_head, meta)


def _legacy_boxes(weights: Path) -> bool | None:
    """How the weights were trained; None: nothing tells."""
    if is_archive(weights):
        return archive_legacy_boxes(read_archive(weights))
    return legacy_boxes_of(weights)


def _weights(num_classes: int, weights: Path) -> tuple[Params, Params, Classes]:
    if not is_archive(weights):
        arg, aux = read_params(weights)
        return for_test(arg), aux, weights_classes(weights, num_classes)
    archive = read_archive(weights)
    if archive.is_int8:
        raise ConfigError(
            "this network is in INT8 already",
            where=weights,
            fix="start from the fp32 weights: a .params file, or an archive of `sniper export`",
        )
    return archive_weights(archive, weights, num_classes)


def inference_networks(
    spec: DetectorSpec,
) -> list[tuple[mx.sym.Symbol, dict[str, tuple[int, ...]]]]:
    """Test network and, where masks are trained, mask head; each with input shapes that fit it."""
    side = PROBE_CELLS * spec.feature_stride
    # A fresh counter: unnamed nodes would otherwise be numbered by what the process did before.
    with mx.name.NameManager():
        detector = build_detector(spec, train=False, roi_map=spec.with_masks)
        networks = [(detector, inference_input_shapes(spec, 1, side, side))]
        if spec.with_masks:
            networks.append((build_mask_head(spec), _mask_shapes(spec)))
    return networks


def _fp32(symbol: mx.sym.Symbol, arg: Params, aux: Params) -> WeightedGraph:
    """Float16 tensors of 2018 as float32, which holds them exactly: a CPU has no other kernels."""
    arg, aux = ({n: v.astype("float32") for n, v in part.items()} for part in (arg, aux))
    return WeightedGraph(symbol, arg, aux)


def _mask_shapes(spec: DetectorSpec) -> dict[str, tuple[int, ...]]:
    return {
        "roi_map": (1, spec.roi_channels, PROBE_CELLS, PROBE_CELLS),
        "mask_rois": (1, 5),
        "mask_classes": (1,),
    }


def _meta(
    plan: TestPlan, classes: Classes, detector: WeightedGraph, weights: Path
) -> dict[str, Any]:
    ids = {} if classes.ids is None else {"category_ids": list(classes.ids)}
    passed = " and ".join(f"{name} (N,)" for name in data_names(plan.detector)[2:])
    return {
        "sniper_version": sniper.__version__,
        "mxnet_version": mx.__version__,
        "network": plan.detector.symbol,
        "classes": list(classes.names),
        **ids,
        # What a reader without our loader must know.
        "input": "data (N, 3, H, W) float32: RGB minus pixel_means_bgr, zero padded; im_info (N, 3)"
        f" height, width, scale; {passed} pass through",
        "pixel_means_bgr": list(plan.pixel_means),
        "outputs": detector.symbol.list_outputs(),
        "card": model_card(plan, weights),
        "config": yaml.safe_load(plan.config),
    }
