"""The test run: detections (or proposals) of a data set, its results file and its evaluation."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import mxnet as mx
from easydict import EasyDict

from sniper.data import Dataset, save_proposals
from sniper.evaluation import Report
from sniper.inference.results import draw_set, report_detections, report_proposals
from sniper.models.fit import Model
from sniper.process import start_logging
from sniper.runs.datasets import open_dataset, proposal_file
from sniper.runs.detect_set import StoredRun, detect_in_memory
from sniper.runs.levels import make_detector, mode_in_force
from sniper.runs.load_model import load_model, weights_path
from sniper.runs.plan import contexts, model_folder

logger = logging.getLogger(__name__)


def test(
    cfg: EasyDict,
    *,
    save_prefix: str = "SNIPER",
    weights: Path | None = None,
    visualise: bool = False,
) -> Report | None:
    """Tests the model of a configuration on `dataset.test_image_set`.

    Finished blocks of images stay on disk until the results are written: a run that was killed goes
    on with them. With `TEST.CONCURRENT_JOBS` several processes share the blocks.

    Args:
        cfg: the configuration that the network was trained with.
        save_prefix: stem of the checkpoint files.
        weights: the file to take; None takes the checkpoint number `TEST.TEST_EPOCH`.
        visualise: draw the detections of every image below `TEST.VISUALIZATION_PATH`.

    Returns:
        The evaluation, with `TEST.EXTRACT_PROPOSALS` that of the proposals; None for sets without
        annotations.

    Raises:
        ConfigError, DataError: the configuration, the weights or the data are wrong.
        TrainingError: a file could not be written, or a process died.
    """
    folder = model_folder(cfg)
    start_logging(folder / f"{cfg.name}_test_{time.strftime('%Y-%m-%d-%H-%M')}.log")
    dataset = open_dataset(cfg, cfg.dataset.test_image_set)
    weights = weights or weights_path(cfg, save_prefix)
    logger.info("%s: %d images, weights of %s", dataset.name, len(dataset.records), weights)
    if visualise and cfg.TEST.VISUALIZE_INTERMEDIATE_SCALES:
        logger.info("TEST.VISUALIZE_INTERMEDIATE_SCALES is not in force: the results are drawn")
    devices = contexts(cfg.gpus)
    model = load_model(cfg, devices, weights, dataset.class_names)
    extracts = bool(cfg.TEST.EXTRACT_PROPOSALS)
    detector = make_detector(cfg, model, devices, rpn_only=extracts)
    folder = Path(cfg.output_path) / "results"
    run = StoredRun(cfg, detector, weights, dataset, folder)
    result, speed = run.run()
    logger.info(speed.table())
    if extracts:
        path = proposal_file(cfg.TEST.PROPOSAL_SAVE_PATH, dataset.name)
        save_proposals(path, result)
        logger.info("%d proposals in %s", len(result.boxes), path)
        report = report_proposals(path, dataset, result, speed.as_dict())
    else:
        if visualise:
            draw_set(Path(cfg.TEST.VISUALIZATION_PATH) / "dets_final", dataset, result)
        report = report_detections(folder, dataset, result, speed.as_dict())
    run.clean_up()
    return report


def evaluate_model(
    cfg: EasyDict, model: Model, devices: list[mx.Context], dataset: Dataset, *, folder: Path
) -> Report | None:
    """Detects as a configuration says, in this process; writes the results and evaluates them.

    Networks with a trained mask head give masks as well; these stand in COCO results and reports.

    Args:
        cfg: the configuration that the network was trained with.
        model: the network and its weights; see `load_model` and `inference_model`.
        devices: where it runs.
        dataset: what to detect on.
        folder: of result files and report, which is made when missing; files of an earlier call are
            replaced.

    Returns:
        The evaluation; None for sets without annotations.

    Raises:
        DataError: the weights do not fit the network, or images or annotations are broken.
        TrainingError: a file could not be written.
    """
    detector = make_detector(cfg, model, devices)
    table, speed = detect_in_memory(detector, dataset, mode_in_force(cfg))
    logger.info(speed.table())
    return report_detections(folder, dataset, table, speed.as_dict())
