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
    no_counts,
)
from sniper.evaluation.report import CocoReport, reason_not_evaluated
from sniper.evaluation.result_rows import ResultRows, best_of_groups, result_rows

logger = logging.getLogger(__name__)

# Evaluators want a dict for every detection: about so many exist at a time, or those of a class.
_DETECTIONS_PER_BLOCK = 2_500
# Categories times images that evaluators walk through at a time.
_CELLS_PER_BLOCK = 5_000
# They make some 12,000 numbers of each category, and faster-coco-eval Python objects of these.
_CATEGORIES_PER_BLOCK = 40


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

    Categories are independent of each other, so that some at a time are matched and counted. Those
    without an object that is to be found have no numbers, whatever was detected: of thousands of
    categories a set often has few.
    """
    ids = task.dataset.category_ids[1:]
    by_id: dict[FileId, list[Annotation]] = {i: [] for i in ids}
    for entry in truth:
        by_id[entry["category_id"]].append(entry)
    order = np.argsort(id_numbers(ids), kind="stable") + 1  # by id, as evaluators
    classes = [index for index in order.tolist() if _is_counted(by_id[ids[index - 1]])]
    categories = [_category(task, index, by_id[ids[index - 1]]) for index in classes]
    counts = no_counts(len(classes))
    for block in _blocks(categories):
        part = _accumulate(task, [categories[place] for place in block], kind)
        counts.precision[:, :, block], counts.recall[:, block] = part.precision, part.recall
    return coco_report(
        task.dataset,
        counts,
        np.array(classes, np.int64),
        truth,
        len(task.detections),
        evaluator_version(task.evaluator),
    )


def _is_counted(objects: Sequence[Annotation]) -> bool:
    return any(not entry["iscrowd"] for entry in objects)


@dataclass(frozen=True, eq=False)
class _Category:
    """What is evaluated of one category.

    Attributes:
        objects: its annotations, and (n,) int64 the number of the image of each.
        detections: places of the detections that count, and (n,) int64 numbers of their images.
        images: (n,) int64 numbers of the images with one or the other, rising.
    """

    objects: tuple[list[Annotation], np.ndarray]
    detections: tuple[np.ndarray, np.ndarray]
    images: np.ndarray


def _category(task: _Task, index: int, objects: list[Annotation]) -> _Category:
    of_objects = np.array([task.number_of[entry["image_id"]] for entry in objects], np.int64)
    of_class = task.detections.of_class(index)
    images = task.detections.images[of_class]
    # Evaluators would drop the others themselves, but each of them costs a dict before.
    counted = best_of_groups(images, task.detections.scores[of_class], MAX_DETECTIONS[-1])
    kept = np.arange(of_class.start, of_class.stop)[counted]
    of_detections = task.image_ids[images[counted]]
    used = np.unique(np.concatenate([of_objects, of_detections]))
    return _Category((objects, of_objects), (kept, of_detections), used)


def _blocks(categories: Sequence[_Category]) -> Iterator[list[int]]:
    """Places of categories that are evaluated together: all of them, those with few images first.

    Evaluators look at every category of a block in every image of it. The images of each category
    are counted anew for them (`_accumulate`), so that categories with about as many images waste
    little, and the work grows with detections and objects, not with categories times images.
    """
    block: list[int] = []
    count = 0
    sizes = [len(category.images) for category in categories]
    for place in np.argsort(sizes, kind="stable").tolist():
        detections = len(categories[place].detections[0])
        is_full = (
            count + detections > _DETECTIONS_PER_BLOCK
            or (len(block) + 1) * sizes[place] > _CELLS_PER_BLOCK
            or len(block) == _CATEGORIES_PER_BLOCK
        )
        if block and is_full:
            yield block
            block, count = [], 0
        block.append(place)
        count += detections
    if block:
        yield block


def _accumulate(task: _Task, categories: Sequence[_Category], kind: str) -> Accumulated:
    """Counts of some categories."""
    numbers = list(range(1, len(categories) + 1))
    truth: list[Annotation] = []
    detections: list[Annotation] = []
    for number, category in zip(numbers, categories):
        objects, images = category.objects
        places = np.searchsorted(category.images, images) + 1
        truth += [
            {**entry, "image_id": place, "category_id": number}
            for entry, place in zip(objects, places.tolist())
        ]
        detections += _counted(task, category, number, kind)
    # Image k is the k-th one of each category. Evaluators match nothing across categories, and take
    # equal scores in the order of images, which stays. Masks bring the sizes of their own images.
    most = max(len(category.images) for category in categories)
    sizes = {number: {"id": number, "height": 1, "width": 1} for number in range(1, most + 1)}
    return accumulate(
        AnnotationIndex(_numbered(truth), sizes, numbers),
        AnnotationIndex(_numbered(detections), sizes, numbers),
        kind,
        task.evaluator,
    )


def _numbered(entries: list[Annotation]) -> list[Annotation]:
    """Ids count from 1: evaluators take a match with id 0 for none."""
    for number, entry in enumerate(entries, start=1):
        entry["id"] = number
    return entries


def _counted(task: _Task, category: _Category, number: int, kind: str) -> list[Annotation]:
    """The detections of a category; their areas decide between small, medium and large."""
    detections, (kept, images) = task.detections, category.detections
    places = np.searchsorted(category.images, images) + 1
    boxes = detections.boxes[kept]
    entries = [
        {
            "image_id": image_id,
            "category_id": number,
            "bbox": box,
            "area": area,
            "iscrowd": 0,
            "score": score,
        }
        for image_id, box, area, score in zip(
            places.tolist(),
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
