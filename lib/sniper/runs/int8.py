"""From fp32 weights to an archive with an INT8 detector, and what that changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from easydict import EasyDict

from sniper.chips.slices import slice_windows
from sniper.data import Record
from sniper.data.classes import Classes, match_set
from sniper.errors import ConfigError, DataError
from sniper.inference.detector import Detector
from sniper.inference.onnx_engines import OnnxRuntimeEngine, onnx_engine
from sniper.inference.onnx_executor import ProgramRunner
from sniper.loader.windows import TestLoader
from sniper.models.archive import ModelArchive, WeightedGraph, write_archive
from sniper.models.archive_file import INT8
from sniper.models.assembly import data_names
from sniper.models.int8_support import WITHOUT_INSTRUCTIONS, has_int8_instructions
from sniper.models.model import AnyModel, Model, OnnxModel
from sniper.models.onnx.archive import write_onnx_archive
from sniper.models.onnx.steps import OnnxStep, Program
from sniper.models.quantize import quantize_network
from sniper.process import usable_cores
from sniper.runs.compare_models import FP32, QUANTISED, Comparison, compare, spread
from sniper.runs.datasets import TrainingData, open_dataset
from sniper.runs.devices import Device, uses_gpu
from sniper.runs.export import as_onnx, exported
from sniper.runs.load_model import (
    MXNET,
    archive_legacy_boxes,
    archive_weights,
    inference_model,
    make_detector,
)
from sniper.runs.plan import test_plan
from sniper.runs.resolve import training_data

logger = logging.getLogger(__name__)

# With fewer images the ranges are those of a few scenes.
ENOUGH_IMAGES = 16


@dataclass(frozen=True)
class QuantizeSettings:
    """How a detector is quantised.

    Args:
        calib_images: images of the training set that decide the ranges.
        calibration: "naive" or "entropy", see `quantize_network`.
        fp32_layers: layers that stay in fp32.
        eval_images: images of the test set that both networks are compared on; 0: no comparison.
        any_cpu: also on a processor without INT8 instructions (MXNet only: ONNX Runtime's numbers
            do not depend on them).
        form: "mxnet", or "onnx" for an archive of ONNX graphs.
    """

    calib_images: int
    calibration: str = "naive"
    fp32_layers: tuple[str, ...] = ()
    eval_images: int = 0
    any_cpu: bool = False
    form: str = MXNET


def quantize_model(
    cfg: EasyDict, weights: Path, out: Path, settings: QuantizeSettings
) -> Comparison | None:
    """Writes the archive of an INT8 detector, which `load_model` reads on CPUs.

    The mask head, if there is one, stays in fp32.

    Args:
        cfg: the configuration that the network was trained with.
        weights: a `.params` file or an archive, both in fp32.
        out: the archive.
        settings: how.

    Returns:
        What it changes on the test set; None without `eval_images`.

    Raises:
        ConfigError: the run is for GPUs, the processor has no INT8 instructions, the weights are in
            INT8 already, or a setting is wrong.
        DataError: weights or data are missing or wrong, or there are too few images.
        TrainingError: the archive could not be written.
    """
    plan = test_plan(cfg)
    _check(plan.devices, settings)
    archive = exported(plan, weights)
    fp32 = replace(
        inference_model(
            plan.detector, *archive_weights(archive, weights, plan.detector.num_classes)
        ),
        legacy_boxes=archive_legacy_boxes(archive),
    )
    data = training_data(cfg)
    records = calibration_records(data, settings.calib_images, fp32.classes)
    logger.info("%s calibration on %d training images", settings.calibration, len(records))
    about = {
        "precision": INT8,
        "calibration": {"method": settings.calibration, "images": len(records)},
        "fp32_layers": list(settings.fp32_layers),
    }
    names = data_names(plan.detector)
    detector = make_detector(plan, fp32)

    def inputs() -> Iterator[dict[str, np.ndarray]]:
        return calibration_inputs(detector, records, plan.pixel_means, names)

    int8: AnyModel
    if settings.form == MXNET:
        quantised = quantize_network(
            archive.detector,
            inputs(),
            calibration=settings.calibration,
            fp32_layers=settings.fp32_layers,
        )
        meta = {**archive.meta, **about, "outputs": quantised.symbol.list_outputs()}
        write_archive(out, ModelArchive(quantised, archive.mask_head, meta))
        int8 = _int8_model(fp32, quantised)
    else:
        graphs = as_onnx(plan.detector.in_fp32(), archive)
        program = quantized_program(graphs.detector, inputs, settings)
        write_onnx_archive(out, replace(graphs, detector=program, meta={**archive.meta, **about}))
        int8 = OnnxModel(
            *(fp32.spec, program, graphs.mask_head, fp32.class_names, fp32.category_ids),
            legacy_boxes=fp32.legacy_boxes,
        )
    if not settings.eval_images:
        return None
    return compare(plan, {FP32: fp32, QUANTISED: int8}, settings.eval_images)


def quantized_program(
    program: Program,
    inputs: Callable[[], Iterator[Mapping[str, np.ndarray]]],
    settings: QuantizeSettings,
) -> Program:
    """A program whose graphs compute in INT8.

    Args:
        program: in fp32.
        inputs: gives what the network is calibrated with, all inputs by name, from the start.
        settings: how.

    Raises:
        ConfigError: ONNX Runtime is not installed, or a layer is not in the network.
        DataError: see `quantize_step`.
    """
    runner = ProgramRunner(program, onnx_engine(OnnxRuntimeEngine.name))
    from sniper.models.onnx.quantize import layers_of, quantize_step

    layers = [
        name for step in program.steps if isinstance(step, OnnxStep) for name in layers_of(step)
    ]
    unknown = sorted(set(settings.fp32_layers) - set(layers))
    if unknown:
        raise ConfigError(
            "the network has no such layers to leave out",
            got=", ".join(unknown),
            expected=", ".join(layers),
        )
    steps = [
        quantize_step(
            step,
            (runner.inputs_of(place, sample) for sample in inputs()),
            calibration=settings.calibration,
            fp32_layers=settings.fp32_layers,
        )
        if isinstance(step, OnnxStep)
        else step
        for place, step in enumerate(program.steps)
    ]
    return replace(program, steps=tuple(steps))


def _check(devices: Sequence[Device], settings: QuantizeSettings) -> None:
    if uses_gpu(devices):
        raise ConfigError(
            "INT8 networks run on the CPU only",
            where="gpus",
            got=", ".join(map(str, devices)),
            fix="--set gpus cpu",
        )
    if settings.calib_images < 1 or settings.eval_images < 0:
        raise ConfigError(
            "calibration needs images",
            got=f"--calib {settings.calib_images} --eval {settings.eval_images}",
            expected=f"--calib of 1 or more, {ENOUGH_IMAGES} or more to be of use; --eval of 0 "
            "or more",
        )
    if settings.calib_images < ENOUGH_IMAGES:
        logger.warning("the ranges of %d images may not fit others", settings.calib_images)
    if has_int8_instructions() or settings.form != MXNET:
        return
    if not settings.any_cpu:
        raise ConfigError(
            f"this processor has {WITHOUT_INSTRUCTIONS}",
            fix="--any-cpu makes the archive, for this machine (compare with --eval) or for others",
        )
    logger.warning("this processor has %s; --eval compares on it", WITHOUT_INSTRUCTIONS)


def calibration_records(data: TrainingData, count: int, classes: Classes) -> list[Record]:
    """`count` images of the training sets, evenly spread over them.

    Args:
        data: where they are.
        count: how many.
        classes: of the model, which has to know those of the sets.

    Raises:
        DataError: the sets have fewer images or other classes, or are missing.
    """
    sets = [match_set(open_dataset(data.source, name), classes).dataset for name in data.sets]
    records = [record for dataset in sets for record in dataset.records]
    if len(records) < count:
        raise DataError(
            "the training set has too few images for this calibration",
            where="+".join(data.sets),
            got=f"{len(records)} images",
            expected=f"{count} images",
            fix=f"--calib {len(records)}",
        )
    return spread(records, count)


def calibration_inputs(
    detector: Detector,
    records: Sequence[Record],
    pixel_means: Sequence[float],
    names: Sequence[str],
) -> Iterator[dict[str, np.ndarray]]:
    """Inputs `names` of the network for every image on every level, as in a test, one by one."""
    for level in detector.levels:
        with TestLoader(
            records,
            [
                # FocusChips are parts of the image at the same scale.
                slice_windows(record.width, record.height, level.slices).tolist()
                if level.slices is not None
                else [(0.0, 0.0, float(record.width), float(record.height))]
                for record in records
            ],
            [level.factor(record) for record in records],
            batch_size=1,
            pixel_means=pixel_means,
            num_threads=usable_cores(),
        ) as loader:
            for batch in loader:
                inputs = {
                    "data": batch.data,
                    "im_info": batch.im_info,
                    "im_ids": np.zeros(1, np.float32),
                    "chip_ids": np.zeros(1, np.float32),
                }
                yield {name: inputs[name] for name in names}


def _int8_model(fp32: Model, detector: WeightedGraph) -> Model:
    return replace(
        fp32,
        arg={**fp32.arg, **detector.arg},
        aux={**fp32.aux, **detector.aux},
        symbol=detector.symbol,
    )
