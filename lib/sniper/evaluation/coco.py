"""COCO metrics of boxes and masks, by hotcoco, faster-coco-eval or pycocotools."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable
from sniper.data.ids import id_numbers
from sniper.evaluation.coco_numbers import coco_report
from sniper.evaluation.coco_truth import (
    Truth,
    annotations_of,
    ground_truth_masks,
    plain_truth,
    reason_without_masks,
    truth_of,
)
from sniper.evaluation.evaluators import (
    AUTO,
    LIMITS,
    MAX_DETECTIONS,
    Accumulated,
    BlockLimits,
    Columns,
    accumulate,
    choose_evaluator,
    evaluator_version,
    no_counts,
)
from sniper.evaluation.report import CocoReport, reason_not_evaluated
from sniper.evaluation.result_rows import ResultRows, best_of_groups, result_rows

logger = logging.getLogger(__name__)


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
        evaluator: `hotcoco`, `faster-coco-eval`, `pycocotools`, or `auto`: the first of them that
            is installed. Their numbers are the same.

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
    task = _Task(dataset, rows, masks, _numbers(dataset), name)
    if masks is None:
        plain = plain_truth(dataset)
        if plain is None:
            plain = truth_of(dataset, annotations_of(dataset, with_masks=False))
        return _evaluate(task, plain)
    annotations = annotations_of(dataset, with_masks=True)
    boxes = _evaluate(task, truth_of(dataset, annotations))
    reason = reason_without_masks(dataset, annotations)
    if reason is not None:
        logger.info(reason)
        return replace(boxes, masks_not_evaluated=reason)
    truth = truth_of(dataset, annotations, ground_truth_masks(dataset, annotations))
    return replace(boxes, masks=_evaluate(task, truth))


def _numbers(dataset: Dataset) -> np.ndarray:
    """(n,) int64, 1...n in the order of the image ids.

    Evaluators take equal scores in that order, and not all hold ids beyond 2^53.
    """
    order = np.argsort([record.image_id for record in dataset.records], kind="stable")
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.arange(1, len(order) + 1)
    return numbers


@dataclass(frozen=True, eq=False)
class _Task:
    """What is evaluated: a set, its detections and their masks, and who evaluates."""

    dataset: Dataset
    detections: ResultRows
    masks: Callable[[int], bytes] | None
    image_numbers: np.ndarray  # 1...n, see `_numbers`
    evaluator: str


def _evaluate(task: _Task, truth: Truth) -> CocoReport:
    """The metrics of boxes or, where the objects have masks, of these.

    Categories are independent of each other, so that some at a time are matched and counted. Those
    without an object that is to be found have no numbers, whatever was detected: of thousands of
    categories a set often has few.
    """
    dataset = task.dataset
    by_id = np.argsort(id_numbers(dataset.category_ids[1:]), kind="stable") + 1  # as evaluators
    counted = np.bincount(truth.classes[~truth.crowd], minlength=len(dataset.category_ids)) > 0
    classes = by_id[counted[by_id]]
    rows = np.argsort(truth.classes, kind="stable")
    ends = np.searchsorted(truth.classes[rows], [classes, classes + 1]).T.tolist()
    categories = [
        _category(task, truth, index, rows[start:end])
        for index, (start, end) in zip(classes.tolist(), ends)
    ]
    counts = no_counts(len(classes))
    for block in _blocks(categories, LIMITS[task.evaluator]):
        part = _accumulate(task, truth, [categories[place] for place in block])
        counts.precision[:, :, block], counts.recall[:, block] = part.precision, part.recall
    return coco_report(
        dataset, counts, classes, truth, len(task.detections), evaluator_version(task.evaluator)
    )


@dataclass(frozen=True, eq=False)
class _Category:
    """What is evaluated of one category.

    Attributes:
        objects: rows of its objects in the truth, and (n,) int64 the number of the image of each.
        detections: places of the detections that count, and (n,) int64 numbers of their images.
        images: (n,) int64 numbers of the images with one or the other, rising.
    """

    objects: tuple[np.ndarray, np.ndarray]
    detections: tuple[np.ndarray, np.ndarray]
    images: np.ndarray


def _category(task: _Task, truth: Truth, index: int, objects: np.ndarray) -> _Category:
    of_objects = task.image_numbers[truth.images[objects]]
    of_class = task.detections.of_class(index)
    images = task.detections.images[of_class]
    # Evaluators would drop the others themselves, but each of them costs a dict before.
    counted = best_of_groups(images, task.detections.scores[of_class], MAX_DETECTIONS[-1])
    kept = np.arange(of_class.start, of_class.stop)[counted]
    of_detections = task.image_numbers[images[counted]]
    used = np.unique(np.concatenate([of_objects, of_detections]))
    return _Category((objects, of_objects), (kept, of_detections), used)


def _blocks(categories: Sequence[_Category], limits: BlockLimits) -> Iterator[list[int]]:
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
            count + detections > limits.detections
            or (len(block) + 1) * sizes[place] > limits.cells
            or len(block) == limits.categories
        )
        if block and is_full:
            yield block
            block, count = [], 0
        block.append(place)
        count += detections
    if block:
        yield block


def _accumulate(task: _Task, truth: Truth, categories: Sequence[_Category]) -> Accumulated:
    """Counts of some categories."""
    # Image k is the k-th one of each category. Evaluators match nothing across categories, and take
    # equal scores in the order of images, which stays. Masks bring the sizes of their own images.
    most = max(len(category.images) for category in categories)
    rows, images, numbers = _places([(one.images, *one.objects) for one in categories])
    objects = Columns(
        images=images,
        categories=numbers,
        boxes=truth.boxes[rows],
        areas=truth.areas[rows],
        crowd=truth.crowd[rows],
        masks=None if truth.masks is None else [truth.masks[row] for row in rows.tolist()],
    )
    kept, images, numbers = _places([(one.images, *one.detections) for one in categories])
    boxes = task.detections.boxes[kept]
    masks = None if truth.masks is None else _masks(task, kept)
    detections = Columns(
        images=images,
        categories=numbers,
        boxes=boxes,
        areas=coco_mask.area(masks).astype(np.float64) if masks else boxes[:, 2] * boxes[:, 3],
        scores=task.detections.scores[kept],
        masks=masks,
    )
    return accumulate(objects, detections, most, len(categories), task.evaluator)


def _places(
    categories: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of categories one after the other: rows, and the image and the category of each, from 1 on.

    Args:
        categories: of each (m,) its images, (n,) rows, and (n,) the image of each row.
    """
    images, rows, owners = zip(*categories)
    places = [np.searchsorted(own, owner) + 1 for own, owner in zip(images, owners)]
    counts = list(map(len, rows))
    numbers = np.repeat(np.arange(1, len(counts) + 1), counts)
    return np.concatenate(rows), np.concatenate(places), numbers


def _masks(task: _Task, kept: np.ndarray) -> list[dict[str, Any]]:
    """Run lengths of detections with their sizes."""
    if task.masks is None:
        raise ValueError("detections without masks are matched with objects that have some")
    records = task.dataset.records
    of_images = [records[index] for index in task.detections.images[kept].tolist()]
    return [
        {"size": [record.height, record.width], "counts": task.masks(place)}
        for record, place in zip(of_images, kept.tolist())
    ]
