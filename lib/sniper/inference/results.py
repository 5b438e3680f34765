"""Files and numbers of detections and proposals: result files, report, pictures."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from sniper.data import Dataset, ProposalSet
from sniper.data.detections import DetectionTable
from sniper.data.image import read_image
from sniper.evaluation import (
    CocoReport,
    ProposalReport,
    VocReport,
    evaluate_coco,
    evaluate_voc,
    proposal_recall,
    reason_not_evaluated,
    voc_rows,
    write_coco_results,
    write_image_list,
    write_report,
    write_upload,
    write_voc_results,
)
from sniper.vis.draw import draw_detections, save_image
from sniper.vis.figures import save_figure
from sniper.vis.precision_recall import plot_precision_recall

logger = logging.getLogger(__name__)


def report_detections(
    folder: Path,
    dataset: Dataset,
    table: DetectionTable,
    speed: Mapping[str, object] | None = None,
) -> CocoReport | VocReport | None:
    """Writes result files and report into a folder and logs the table.

    Args:
        folder: made when missing; files of an earlier test are replaced.
        dataset: the set that was detected on.
        table: the detections of its images.
        speed: how long it took, for the report.

    Returns:
        The evaluation; None for sets without annotations.

    Raises:
        DataError: the detections do not fit the set, or its annotation file is broken.
        TrainingError: a file could not be written.
    """
    if dataset.voc:
        if table.has_masks:
            logger.info("%s has result files and evaluation for boxes only", dataset.name)
        report = _voc_report(folder, dataset, table)
    else:
        report = _coco_report(folder, dataset, table)
        _plot_curves(folder, dataset, report)
    _tell(folder / f"detections_{dataset.image_set}_report.json", dataset, report, speed)
    return report


def report_proposals(
    path: Path,
    dataset: Dataset,
    proposals: ProposalSet,
    speed: Mapping[str, object] | None = None,
) -> ProposalReport | None:
    """Writes the recall of proposals beside their file, `<name>_report.json`, and logs it.

    Args:
        path: the proposal file.
        dataset: the set that they belong to.
        proposals: of all its images.
        speed: how long it took, for the report.

    Returns:
        The recall; None for sets without annotations.

    Raises:
        TrainingError: the file could not be written.
    """
    reason = reason_not_evaluated(dataset)
    if reason is not None:
        logger.info(reason)
    report = None if reason else proposal_recall(dataset, proposals)
    _tell(path.with_name(f"{path.stem}_report.json"), dataset, report, speed)
    return report


def _tell(
    path: Path,
    dataset: Dataset,
    report: CocoReport | VocReport | ProposalReport | None,
    speed: Mapping[str, object] | None,
) -> None:
    if report is not None:
        logger.info("%s", report.table())
    write_report(path, dataset, report, speed=speed)
    logger.info("report in %s", path)


def _coco_report(folder: Path, dataset: Dataset, table: DetectionTable) -> CocoReport | None:
    path = folder / f"detections_{dataset.image_set}_results.json"
    count = write_coco_results(path, dataset, table)
    logger.info("%d detections in %s", count, path)
    if not dataset.has_annotations:
        list_path = folder / f"detections_{dataset.image_set}_images.json"
        write_image_list(list_path, dataset)
        logger.info("the ids of the images in %s", list_path)
        logger.info("for an evaluation server: %s", write_upload(path))
    return evaluate_coco(dataset, table)


def _plot_curves(folder: Path, dataset: Dataset, report: CocoReport | None) -> None:
    """Precision over recall as pictures, for boxes and for masks."""
    masks = None if report is None else report.masks
    for kind, part in (("box", report), ("mask", masks)):
        if part is None or part.curves is None:
            continue
        suffix = "" if kind == "box" else "_masks"
        path = folder / f"detections_{dataset.image_set}_precision_recall{suffix}.png"
        heading = f"{dataset.name}: {part.num_images} images, {kind} AP {100 * part.ap:.1f}"
        save_figure(plot_precision_recall(part.curves, heading), path)
        logger.info("precision over recall in %s", path)


def _voc_report(folder: Path, dataset: Dataset, table: DetectionTable) -> VocReport | None:
    rows = voc_rows(dataset, table)
    path = write_voc_results(folder, dataset, rows)
    logger.info("%d detections in %s", sum(len(own.scores) for own in rows), path)
    return evaluate_voc(dataset, rows)


def draw_set(folder: Path, dataset: Dataset, table: DetectionTable) -> None:
    """Writes a picture with its detections for every image of a set.

    Raises:
        DataError: an image cannot be read or written.
    """
    paths = [record.image_path for record in dataset.records]
    for path, name, detections in zip(paths, picture_names(paths), table):
        save_image(
            folder / name, draw_detections(read_image(path), detections, dataset.class_names)
        )
    logger.info("%d pictures in %s", len(paths), folder)


def picture_names(paths: Sequence[str]) -> list[Path]:
    """Names of the pictures of images: their folders below the common one, `<stem>.jpg`.

    Images whose names differ in the ending only keep it: `a.png.jpg` and `a.bmp.jpg`.
    """
    if not paths:
        return []
    root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    inside = [Path(os.path.relpath(path, root)) for path in paths]
    plain = [path.with_suffix(".jpg") for path in inside]
    uses = Counter(plain)
    return [
        name if uses[name] == 1 else path.with_name(f"{path.name}.jpg")
        for path, name in zip(inside, plain)
    ]
