"""The test run: detections (or proposals) of a data set, its results file and its evaluation."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from easydict import EasyDict

from sniper.data import Dataset, ProposalSet, save_proposals
from sniper.data.cache import file_sha256
from sniper.data.classes import Classes
from sniper.data.one_class import match_detected
from sniper.data.proposals import LEAST_SCORE, proposals_of_detections
from sniper.evaluation import Report
from sniper.inference.results import draw_set, report_detections, report_proposals
from sniper.locks import folder_lock
from sniper.models.model import AnyModel
from sniper.process import start_logging
from sniper.runs.bad_images import BadImages
from sniper.runs.category_ids import with_category_ids
from sniper.runs.datasets import proposal_file
from sniper.runs.detect_set import StoredRun, detect_in_memory
from sniper.runs.find_weights import weights_path
from sniper.runs.levels import untrained_windows
from sniper.runs.load_model import load_model, make_detector
from sniper.runs.model_card import detector_settings
from sniper.runs.plan import TestPlan, test_plan

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
        weights: the file to take; None takes checkpoint `TEST.TEST_EPOCH`, or the newest one.
        visualise: draw the detections of every image below `TEST.VISUALIZATION_PATH`.

    Returns:
        The evaluation, with `TEST.EXTRACT_PROPOSALS` that of the proposals; None for sets without
        annotations.

    Raises:
        ConfigError, DataError: the configuration, the weights or the data are wrong; with
            `TEST.SKIP_BAD_IMAGES` at the very end also where images were left out.
        TrainingError: another run tests on the set, a file could not be written, or a process died.
    """
    plan = test_plan(cfg, rpn_only=cfg.TEST.EXTRACT_PROPOSALS is True)
    fix = "or give this one a folder of its own: --set output_path DIR, and --weights FILE"
    kind = "proposals" if plan.rpn_only else "test"
    with _results_lock(plan.results_dir, plan.image_set, fix, kind):
        return _test(cfg, plan, save_prefix, weights, visualise)


def _results_lock(
    folder: Path, image_set: str, fix: str, kind: str = "test"
) -> AbstractContextManager[None]:
    """Sets have result files of their own: they can be tested side by side."""
    return folder_lock(folder, name=f"{kind}_{image_set}", fix=fix)


def _test(
    cfg: EasyDict, plan: TestPlan, save_prefix: str, weights: Path | None, visualise: bool
) -> Report | None:
    start_logging(plan.model_dir / f"{plan.name}_test_{time.strftime('%Y-%m-%d-%H-%M')}.log")
    for note in plan.notes:
        logger.info("%s", note)
    if visualise and cfg.TEST.VISUALIZE_INTERMEDIATE_SCALES:
        logger.info("TEST.VISUALIZE_INTERMEDIATE_SCALES is not in force: the results are drawn")
    bad_images = BadImages(plan.skip_bad_images)
    dataset = bad_images.open_dataset(plan.source, plan.image_set)
    weights = weights or weights_path(plan.model_dir, plan.epoch, save_prefix)
    logger.info("%s: %d images, weights of %s", dataset.name, len(dataset.records), weights)
    _tell_untrained_windows(plan, dataset)
    model = load_model(plan.detector, weights)
    detector = make_detector(plan, model)
    dataset = bad_images.leave_out(dataset, detector)
    classes = _classes_for(dataset, model, plan)
    matched = match_detected(dataset, classes, class_agnostic=plan.class_agnostic)
    dataset = matched.dataset
    run = StoredRun(plan, detector, weights, dataset)
    result, speed = run.run()
    logger.info(speed.table())
    report: Report | None
    if isinstance(result, ProposalSet):
        report = _write_proposals(plan, dataset, result, speed.as_dict())
    else:
        table, left_out = matched.detections(result)
        if visualise:
            draw_set(plan.drawings_dir, dataset, table)
        if plan.detections_as_proposals:
            proposals = proposals_of_detections(dataset, table, LEAST_SCORE)
            report = _write_proposals(plan, dataset, proposals, speed.as_dict())
        else:
            report = report_detections(
                *(plan.results_dir, dataset, table, speed.as_dict()),
                left_out=left_out,
                settings=detector_settings(plan),
                weights_sha256=file_sha256(weights),
            )
    # Only now: a run that is killed before its results are written goes on with its blocks.
    run.clean_up()
    bad_images.tell(plan.results_dir / f"detections_{plan.image_set}_skipped.json")
    return report


def _write_proposals(
    plan: TestPlan, dataset: Dataset, proposals: ProposalSet, speed: dict
) -> Report | None:
    path = proposal_file(plan.proposal_dir, dataset.name)
    save_proposals(path, proposals)
    logger.info("%d proposals in %s", len(proposals.boxes), path)
    return report_proposals(path, dataset, proposals, speed)


def _tell_untrained_windows(plan: TestPlan, dataset: Dataset) -> None:
    if not dataset.records:
        return
    sizes = np.array([(record.width, record.height) for record in dataset.records])
    width, height = np.median(sizes, axis=0).tolist()
    warning = untrained_windows(plan.levels, plan.trained_scales, width, height)
    if warning is not None:
        logger.warning("%s", warning)


def evaluate_model(
    plan: TestPlan, model: AnyModel, dataset: Dataset, *, folder: Path
) -> Report | None:
    """Detects as a plan says, in this process; writes the results and evaluates them.

    Networks with a trained mask head give masks as well; these stand in COCO results and reports.

    Args:
        plan: how to detect.
        model: the network and its weights; see `load_model` and `inference_model`.
        dataset: what to detect on.
        folder: of result files and report, which is made when missing; files of an earlier call are
            replaced.

    Returns:
        The evaluation; None for sets without annotations.

    Raises:
        DataError: the weights do not fit the network, the set has classes that the model does not
            have, or images or annotations are broken.
        TrainingError: a file could not be written, or another run works on the set in this folder.
    """
    matched = match_detected(dataset, model.classes, class_agnostic=plan.class_agnostic)
    with _results_lock(folder, dataset.image_set, "or choose another folder"):
        table, speed = detect_in_memory(make_detector(plan, model), dataset, plan.mode)
        logger.info(speed.table())
        table, left_out = matched.detections(table)
        return report_detections(
            *(folder, matched.dataset, table, speed.as_dict()),
            left_out=left_out,
            settings=detector_settings(plan),
        )


def _classes_for(dataset: Dataset, model: AnyModel, plan: TestPlan) -> Classes:
    """The model's classes, with ids where the set has none of its own."""
    if dataset.has_annotations or len(dataset.class_names) > 1:
        return model.classes
    return with_category_ids(model.classes, plan.source, plan.recipe_sets)
