"""COCO metrics of boxes and masks, by pycocotools or faster-coco-eval."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable
from sniper.evaluation.coco_numbers import coco_report
from sniper.evaluation.coco_truth import (
    annotations_of,
    ground_truth_masks,
    reason_without_masks,
)
from sniper.evaluation.evaluators import (
    AUTO,
    MAX_DETECTIONS,
    Accumulated,
    Annotation,
    AnnotationIndex,
    accumulate,
    choose_evaluator,
    evaluator_version,
    join_categories,
)
from sniper.evaluation.report import CocoReport, reason_not_evaluated
from sniper.evaluation.result_rows import ResultRows, best_of_groups, result_rows

logger = logging.getLogger(__name__)

# Evaluators want a dict for every detection: about so many exist at a time, or those of a class.
_DETECTIONS_PER_BLOCK = 2_500


def evaluate_coco(
    dataset: Dataset, table: DetectionTable, *, evaluator: str = AUTO
) -> CocoReport | None:
    """COCO metrics of detections against the set's own annotation file.

    The numbers are those of the result file: boxes and scores are rounded as there. No detections
    at all give zeros. Only the images of `dataset` count, so that a part of a set can be
    evaluated. Masks are evaluated when the table has them and every object of these images has a
    segmentation; else the report and the log say why not.

    Args:
        dataset: the set that was detected on.
        table: its detections.
        evaluator: `pycocotools`, `faster-coco-eval`, or `auto`: the second where it is installed.

    Returns:
        The report; None, with the reason in the log, if the set has no annotations.

    Raises:
        ConfigError: the evaluator is unknown or not installed.
        DataError: the annotation file is broken, or the detections do not fit the set.
    """
    name = choose_evaluator(evaluator)
    reason = reason_not_evaluated(dataset)
    if reason is not None:
        logger.info(reason)
        return None
    rows = result_rows(dataset, table)

    def mask(place: int) -> bytes:
        return table.mask(int(rows.rows[place]))

    return evaluate_rows(dataset, rows, mask if table.has_masks else None, evaluator=name)


def evaluate_rows(
    dataset: Dataset,
    rows: ResultRows,
    masks: Callable[[int], bytes] | None = None,
    *,
    evaluator: str = AUTO,
) -> CocoReport:
    """`evaluate_coco` of detections that are rounded as they shall be.

    Args:
        dataset: a set with annotations.
        rows: its detections.
        masks: compressed run lengths by the place of a detection in `rows`; None without masks.
        evaluator: as there.

    Raises:
        ConfigError, DataError: as there.
    """
    name = choose_evaluator(evaluator)
    logger.info("evaluation by %s", evaluator_version(name))
    annotations = annotations_of(dataset, with_masks=masks is not None)
    image_ids = np.array([record.image_id for record in dataset.records])
    task = _Task(dataset, rows, masks, image_ids, name)
    boxes = _evaluate(task, [_with_defaults(entry) for entry in annotations], "bbox")
    if masks is None:
        return boxes
    reason = reason_without_masks(dataset, annotations)
    if reason is not None:
        logger.info(reason)
        return replace(boxes, masks_not_evaluated=reason)
    true_masks = ground_truth_masks(dataset, annotations)
    truth = [
        {**_with_defaults(entry, mask), "segmentation": mask}
        for entry, mask in zip(annotations, true_masks)
    ]
    return replace(boxes, masks=_evaluate(task, truth, "segm"))


def _with_defaults(entry: Annotation, mask: dict[str, Any] | None = None) -> Annotation:
    """A ground truth annotation with the keys that the evaluators want."""
    area = entry.get("area")
    if area is None:
        box_area = entry["bbox"][2] * entry["bbox"][3]
        area = box_area if mask is None else float(coco_mask.area(mask))
    return {
        "image_id": entry["image_id"],
        "category_id": entry["category_id"],
        "bbox": entry["bbox"],
        "area": area,
        "iscrowd": int(entry.get("iscrowd") or 0),
    }


@dataclass(frozen=True, eq=False)
class _Task:
    """What is evaluated: a set, its detections and their masks, and who evaluates."""

    dataset: Dataset
    detections: ResultRows
    masks: Callable[[int], bytes] | None
    image_ids: np.ndarray
    evaluator: str


def _evaluate(task: _Task, truth: Sequence[Annotation], kind: str) -> CocoReport:
    """The metrics of `kind` bbox or segm.

    Categories are independent of each other, so that some at a time are matched and counted.
    """
    classes = np.argsort(task.dataset.category_ids[1:], kind="stable") + 1  # by id, as evaluators
    by_category: dict[int, list[Annotation]] = {i: [] for i in task.dataset.category_ids[1:]}
    for entry in truth:
        by_category[entry["category_id"]].append(entry)
    parts = [
        _accumulate(task, block, by_category, kind) for block in _blocks(task, classes.tolist())
    ]
    return coco_report(
        task.dataset,
        join_categories(parts),
        classes,
        truth,
        len(task.detections),
        evaluator_version(task.evaluator),
    )


def _blocks(task: _Task, classes: list[int]) -> Iterator[list[int]]:
    """Classes in the given order, some at a time."""
    block: list[int] = []
    count = 0
    for index in classes:
        of_class = task.detections.of_class(index)
        if block and count + of_class.stop - of_class.start > _DETECTIONS_PER_BLOCK:
            yield block
            block, count = [], 0
        block.append(index)
        count += of_class.stop - of_class.start
    if block:
        yield block


def _accumulate(
    task: _Task, classes: list[int], by_category: dict[int, list[Annotation]], kind: str
) -> Accumulated:
    """Counts of some classes."""
    ids = [task.dataset.category_ids[index] for index in classes]
    truth = [entry for category_id in ids for entry in by_category[category_id]]
    detections = [entry for index in classes for entry in _counted(task, index, kind)]
    # Images without objects and detections change nothing; without any, one keeps evaluators happy.
    used = {entry["image_id"] for entry in truth}
    for index in classes:
        used.update(
            task.image_ids[
                np.unique(task.detections.images[task.detections.of_class(index)])
            ].tolist()
        )
    records = [r for r in task.dataset.records if r.image_id in used] or task.dataset.records[:1]
    images = {r.image_id: {"id": r.image_id, "height": r.height, "width": r.width} for r in records}
    return accumulate(
        AnnotationIndex(_numbered(truth), images, ids),
        AnnotationIndex(_numbered(detections), images, ids),
        kind,
        task.evaluator,
    )


def _numbered(entries: list[Annotation]) -> list[Annotation]:
    """Ids count from 1: evaluators take a match with id 0 for none."""
    for number, entry in enumerate(entries, start=1):
        entry["id"] = number
    return entries


def _counted(task: _Task, index: int, kind: str) -> list[Annotation]:
    """The detections of a class that count; their areas decide between small, medium and large."""
    detections, of_class = task.detections, task.detections.of_class(index)
    # Evaluators would drop the others themselves, but each of them costs a dict before.
    counted = best_of_groups(
        detections.images[of_class], detections.scores[of_class], MAX_DETECTIONS[-1]
    )
    kept = np.arange(of_class.start, of_class.stop)[counted]
    boxes = detections.boxes[kept]
    category_id = task.dataset.category_ids[index]
    entries = [
        {
            "image_id": image_id,
            "category_id": category_id,
            "bbox": box,
            "area": area,
            "iscrowd": 0,
            "score": score,
        }
        for image_id, box, area, score in zip(
            task.image_ids[detections.images[kept]].tolist(),
            boxes.tolist(),
            (boxes[:, 2] * boxes[:, 3]).tolist(),
            detections.scores[kept].tolist(),
        )
    ]
    if kind == "segm" and task.masks is not None:
        _add_masks(task, task.masks, entries, kept)
    return entries


def _add_masks(
    task: _Task, masks: Callable[[int], bytes], entries: list[Annotation], kept: np.ndarray
) -> None:
    for entry, place in zip(entries, kept.tolist()):
        record = task.dataset.records[task.detections.images[place]]
        size = [record.height, record.width]
        entry["segmentation"] = {"size": size, "counts": masks(place)}
    areas = coco_mask.area([entry["segmentation"] for entry in entries]) if entries else []
    for entry, area in zip(entries, areas):
        entry["area"] = float(area)
