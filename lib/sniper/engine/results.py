"""Files and numbers of detections: result files, report, pictures."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from sniper.data import Dataset
from sniper.data.image import read_image
from sniper.evaluation import (
    CocoReport,
    Masks,
    VocReport,
    coco_results,
    evaluate_coco,
    evaluate_voc,
    voc_rows,
    write_coco_results,
    write_image_list,
    write_report,
    write_voc_results,
)
from sniper.vis.draw import draw_detections, save_image

logger = logging.getLogger(__name__)


def report_detections(
    folder: Path, dataset: Dataset, detections: list[list[np.ndarray]], masks: Masks | None = None
) -> CocoReport | VocReport | None:
    """Writes result files and report into a folder and logs the table.

    Args:
        folder: made when missing; files of an earlier test are replaced.
        dataset: the set that was detected on.
        detections: per image and class (n, 5) float32 x1 y1 x2 y2 score, image px.
        masks: per image and class the compressed run lengths of each detection's mask.

    Returns:
        The evaluation; None for sets without annotations.

    Raises:
        DataError: the detections do not fit the set, or its annotation file is broken.
        TrainingError: a file could not be written.
    """
    if dataset.voc:
        if masks is not None:
            logger.info("%s has result files and evaluation for boxes only", dataset.name)
        report = _voc_report(folder, dataset, detections)
    else:
        report = _coco_report(folder, dataset, detections, masks)
    if report is not None:
        logger.info("%s\n%s", dataset.name, report.table())
    path = folder / f"detections_{dataset.image_set}_report.json"
    write_report(path, dataset, report)
    logger.info("report in %s", path)
    return report


def _coco_report(
    folder: Path, dataset: Dataset, detections: list[list[np.ndarray]], masks: Masks | None
) -> CocoReport | None:
    results = coco_results(dataset, detections, masks)
    path = folder / f"detections_{dataset.image_set}_results.json"
    write_coco_results(path, results)
    logger.info("%d detections in %s", len(results), path)
    if not dataset.has_annotations:
        list_path = folder / f"detections_{dataset.image_set}_images.json"
        write_image_list(list_path, dataset)
        logger.info("the ids of the images in %s", list_path)
    return evaluate_coco(dataset, results, with_masks=masks is not None)


def _voc_report(
    folder: Path, dataset: Dataset, detections: list[list[np.ndarray]]
) -> VocReport | None:
    rows = voc_rows(dataset, detections)
    path = write_voc_results(folder, dataset, rows)
    logger.info("%d detections in %s", sum(len(own.scores) for own in rows), path)
    return evaluate_voc(dataset, rows)


def draw_set(
    folder: Path, dataset: Dataset, detections: list[list[np.ndarray]], masks: Masks | None = None
) -> None:
    """Writes a picture with its detections for every image of a set.

    Raises:
        DataError: an image cannot be read or written.
    """
    for number, (record, per_class) in enumerate(zip(dataset.records, detections)):
        image = read_image(record.image_path)
        own_masks = None if masks is None else masks[number]
        drawn = draw_detections(image, per_class, dataset.class_names, masks=own_masks)
        save_image(folder / f"{Path(record.image_path).stem}.jpg", drawn)
    logger.info("%d pictures in %s", len(dataset.records), folder)
