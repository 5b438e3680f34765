"""The test run: detections (or proposals) of a data set, its results file and its evaluation."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import mxnet as mx
import numpy as np
from easydict import EasyDict

from sniper.data import Dataset, save_proposals
from sniper.engine.classes import numbered_class_names, read_class_names
from sniper.engine.data import open_dataset, proposal_file
from sniper.engine.progress import start_logging
from sniper.engine.results import draw_set, report_detections
from sniper.engine.settings import contexts, detector_spec, fp16_in_force, model_folder
from sniper.errors import DataError
from sniper.evaluation import CocoReport, VocReport
from sniper.inference.merge import MergeSettings
from sniper.inference.proposals import extract_proposals
from sniper.inference.pyramid import Level, PyramidDetector
from sniper.inference.weights import Model
from sniper.models.weights import for_test, read_params
from sniper.process import usable_cores

logger = logging.getLogger(__name__)


def test(
    cfg: EasyDict, *, save_prefix: str = "SNIPER", visualise: bool = False
) -> CocoReport | VocReport | None:
    """Tests the model of a configuration on `dataset.test_image_set`.

    Returns:
        The evaluation; None for sets without annotations and for proposal extraction.

    Raises:
        ConfigError, DataError: the configuration, the weights or the data are wrong.
    """
    folder = model_folder(cfg)
    start_logging(folder / f"{cfg.name}_test_{time.strftime('%Y-%m-%d-%H-%M')}.log")
    dataset = open_dataset(cfg, cfg.dataset.test_image_set)
    logger.info("%s: %d images, weights of %s", dataset.name, len(dataset.records), folder)
    devices = contexts(cfg.gpus)
    _say_what_is_not_in_force(cfg)
    model = load_model(cfg, devices, weights_path(cfg, save_prefix), dataset.class_names)
    if cfg.TEST.EXTRACT_PROPOSALS:
        _extract(cfg, pyramid_detector(cfg, model, devices, rpn_only=True), dataset)
        return None
    pictures = Path(cfg.TEST.VISUALIZATION_PATH) / "dets_final" if visualise else None
    folder = Path(cfg.output_path) / "results"
    return evaluate_model(cfg, model, devices, dataset, folder=folder, pictures=pictures)


def evaluate_model(
    cfg: EasyDict,
    model: Model,
    devices: list[mx.Context],
    dataset: Dataset,
    *,
    folder: Path,
    pictures: Path | None = None,
) -> CocoReport | VocReport | None:
    """Detects on the test pyramid of a configuration, writes the results and evaluates them.

    Networks with a trained mask head give masks as well; these stand in COCO results and reports.

    Args:
        cfg: the configuration that the network was trained with.
        model: the network and its weights; see `load_model` and `inference_model`.
        devices: where it runs.
        dataset: what to detect on.
        folder: of result files and report, which is made when missing; files of an earlier call are
            replaced.
        pictures: folder of drawings of all images; None for no drawings.

    Returns:
        The evaluation; None for sets without annotations.

    Raises:
        DataError: the weights do not fit the network, or images or annotations are broken.
        TrainingError: a file could not be written.
    """
    detector = pyramid_detector(cfg, model, devices)
    started = time.monotonic()
    detections, masks = detector.detect_with_masks(dataset.records, merge_settings(cfg))
    took = time.monotonic() - started
    images = max(len(dataset.records), 1)
    logger.info("%d images in %.1f s, %.3f s an image", images, took, took / images)
    if pictures is not None:
        draw_set(pictures, dataset, detections, masks)
    return report_detections(folder, dataset, detections, masks)


def _say_what_is_not_in_force(cfg: EasyDict) -> None:
    """Keys of 2018 that this version reads but does not act on: no silence about them."""
    if cfg.TEST.AUTO_FOCUS:
        logger.info("TEST.AUTO_FOCUS is not in force: every level sees whole images")
    if cfg.TEST.CONCURRENT_JOBS > 1:
        logger.info("TEST.CONCURRENT_JOBS %d runs as one job", cfg.TEST.CONCURRENT_JOBS)


def weights_path(cfg: EasyDict, save_prefix: str) -> Path:
    """`<model folder>/<prefix>-<TEST_EPOCH>.params`, or `<prefix>.params` (`SNIPER-best`).

    Raises:
        DataError: there is no such file.
    """
    path = model_folder(cfg) / f"{save_prefix}-{cfg.TEST.TEST_EPOCH:04d}.params"
    without_epoch = model_folder(cfg) / f"{save_prefix}.params"
    if not path.exists() and without_epoch.exists():
        return without_epoch
    if not path.exists():
        there = sorted(p.name for p in path.parent.glob("*.params"))
        raise DataError(
            "the weights are missing",
            where=path,
            got=f"{', '.join(there)} in that folder" if there else "no weights in that folder",
            fix="train first (main_train.py with the same --cfg), or choose an epoch that is "
            "there with --set TEST.TEST_EPOCH N",
        )
    return path


def load_model(
    cfg: EasyDict, devices: list[mx.Context], path: Path, class_names: tuple[str, ...] | None = None
) -> Model:
    """Reads weights for inference.

    Args:
        cfg: the configuration that the network was trained with.
        devices: where it will run (the CPU needs a graph without fp16).
        path: a `.params` file, 2018 files included.
        class_names: names to use; None takes those beside the weights, or numbers.
    """
    arg, aux = read_params(path)
    names = class_names or read_class_names(path.parent)
    names = names or numbered_class_names(cfg.dataset.NUM_CLASSES)
    return inference_model(cfg, devices, arg, aux, names)


def inference_model(
    cfg: EasyDict,
    devices: list[mx.Context],
    arg: dict[str, mx.nd.NDArray],
    aux: dict[str, mx.nd.NDArray],
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
    spec = detector_spec(cfg, train=False, batch_images=1, fp16=fp16_in_force(cfg, devices))
    return Model(spec, for_test(arg), aux, tuple(class_names))


def pyramid_detector(
    cfg: EasyDict, model: Model, devices: list[mx.Context], *, rpn_only: bool = False
) -> PyramidDetector:
    """The test pyramid of a configuration."""
    levels = [
        Level(tuple(scale), batch) for scale, batch in zip(cfg.TEST.SCALES, cfg.TEST.BATCH_IMAGES)
    ]
    return PyramidDetector(
        model,
        levels,
        devices,
        np.asarray(cfg.network.PIXEL_MEANS),
        num_threads=usable_cores(),
        rpn_only=rpn_only,
    )


def merge_settings(cfg: EasyDict) -> MergeSettings:
    """Valid ranges and NMS of a configuration."""
    return MergeSettings(
        tuple(tuple(pair) for pair in cfg.TEST.VALID_RANGES),
        cfg.TEST.NMS,
        cfg.TEST.NMS_SIGMA,
        cfg.TEST.MAX_PER_IMAGE,
    )


def _extract(cfg: EasyDict, detector: PyramidDetector, dataset: Dataset) -> None:
    proposals = extract_proposals(
        detector, dataset.records, dataset.name, cfg.TEST.N_PROPOSAL_PER_SCALE
    )
    path = proposal_file(cfg.TEST.PROPOSAL_SAVE_PATH, dataset.name)
    save_proposals(path, proposals)
    logger.info("%d proposals of %d images in %s", len(proposals.boxes), len(dataset.records), path)
