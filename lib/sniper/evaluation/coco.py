"""COCO metrics of boxes and masks, by pycocotools or faster-coco-eval."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable
from sniper.data.ids import FileId, id_numbers
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
    task = _Task(dataset, rows, masks, _numbers(dataset), name)
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


def _numbers(dataset: Dataset) -> np.ndarray:
    """(n,) int64, 1...n in the order of the image ids.

    Evaluators take equal scores in that order, and not all hold ids beyond 2^53.
    """
    order = np.argsort([record.image_id for record in dataset.records], kind="stable")
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.arange(1, len(order) + 1)
    return numbers


def _with_defaults(entry: Annotation, mask: dict[str, Any] | None = None) -> Annotation:
    """A ground truth annotation with the keys that the evaluators want."""
    box, area = _floats(entry["bbox"]), entry.get("area")
    if area is None:
        area = box[2] * box[3] if mask is None else coco_mask.area(mask)
    return {
        "image_id": entry["image_id"],
        "category_id": entry["category_id"],
        "bbox": box,
        "area": float(area),
        "iscrowd": int(entry.get("iscrowd") or 0),
    }


def _floats(numbers: Sequence[Any]) -> list[Any]:
    """Some tools make texts of numbers, which training takes, too."""
    texts = any(isinstance(number, str) for number in numbers)
    return [float(number) for number in numbers] if texts else list(numbers)


@dataclass(frozen=True, eq=False)
class _Task:
    """What is evaluated: a set, its detections and their masks, and who evaluates."""

    dataset: Dataset
    detections: ResultRows
    masks: Callable[[int], bytes] | None
    image_ids: np.ndarray  # 1...n, see `_numbers`
    evaluator: str

    @cached_property
    def number_of(self) -> dict[int, int]:
        """The number by the id of the record."""
        ids = [record.image_id for record in self.dataset.records]
        return dict(zip(ids, self.image_ids.tolist()))


def _evaluate(task: _Task, truth: Sequence[Annotation], kind: str) -> CocoReport:
    """The metrics of `kind` bbox or segm.

    Categories are independent of each other, so that some at a time are matched and counted.
    """
    ids = task.dataset.category_ids[1:]
    classes = np.argsort(id_numbers(ids), kind="stable") + 1  # by id, as evaluators
    by_category: dict[FileId, list[Annotation]] = {i: [] for i in ids}
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
    task: _Task, classes: list[int], by_category: dict[FileId, list[Annotation]], kind: str
) -> Accumulated:
    """Counts of some classes."""
    numbers = list(range(1, len(classes) + 1))
    truth: list[Annotation] = []
    detections: list[Annotation] = []
    for number, index in zip(numbers, classes):
        for entry in by_category[task.dataset.category_ids[index]]:
            image_id = task.number_of[entry["image_id"]]
            truth.append({**entry, "image_id": image_id, "category_id": number})
        detections += _counted(task, index, number, kind)
    # Images without objects and detections change nothing; without any, one keeps evaluators happy.
    used = {entry["image_id"] for entry in truth}
    for index in classes:
        used.update(
            task.image_ids[
                np.unique(task.detections.images[task.detections.of_class(index)])
            ].tolist()
        )
    images = {
        number: {"id": number, "height": record.height, "width": record.width}
        for number, record in zip(task.image_ids.tolist(), task.dataset.records)
        if number in (used or {1})
    }
    return accumulate(
        AnnotationIndex(_numbered(truth), images, numbers),
        AnnotationIndex(_numbered(detections), images, numbers),
        kind,
        task.evaluator,
    )


def _numbered(entries: list[Annotation]) -> list[Annotation]:
    """Ids count from 1: evaluators take a match with id 0 for none."""
    for number, entry in enumerate(entries, start=1):
        entry["id"] = number
    return entries


def _counted(task: _Task, index: int, category_id: int, kind: str) -> list[Annotation]:
    """The detections of a class that count; their areas decide between small, medium and large."""
    detections, of_class = task.detections, task.detections.of_class(index)
    # Evaluators would drop the others themselves, but each of them costs a dict before.
    counted = best_of_groups(
        detections.images[of_class], detections.scores[of_class], MAX_DETECTIONS[-1]
    )
    kept = np.arange(of_class.start, of_class.stop)[counted]
    boxes = detections.boxes[kept]
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
