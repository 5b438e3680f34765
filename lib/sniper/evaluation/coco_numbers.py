"""From the counts of a COCO evaluator to the numbers of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sniper.data.dataset import Dataset
from sniper.evaluation.coco_truth import Truth
from sniper.evaluation.evaluators import RECALLS, Accumulated
from sniper.evaluation.report import STATISTICS, ClassNumbers, CocoReport, PrecisionRecall

_NAN = float("nan")
# Positions of an evaluator's arrays.
_IOU_50, _IOU_75 = 0, 5
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
_BEST_1, _BEST_10, _BEST_100 = range(3)
_AREAS = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}


def coco_report(
    dataset: Dataset,
    counts: Accumulated,
    classes: np.ndarray,
    truth: Truth,
    num_detections: int,
    evaluator: str,
) -> CocoReport:
    """The report of one kind of detections.

    Args:
        dataset: the set that was detected on.
        counts: of the categories with objects, by rising id.
        classes: (K,) class index of each of them; other classes of the set have no numbers.
        truth: the objects that were matched.
        num_detections: of all classes.
        evaluator: who counted.
    """
    column = dict(zip(classes.tolist(), range(len(classes))))
    names = dataset.class_names[1:]
    sizes = _object_counts(dataset, truth)
    statistics: dict[str, Any] = dict(zip(STATISTICS, _statistics(counts.precision, counts.recall)))
    return CocoReport(
        dataset=dataset.name,
        num_images=len({record.image_id for record in dataset.records}),
        **statistics,
        classes={
            name: _class_numbers(counts, column.get(index), int(sizes[index - 1, _ALL]))
            for index, name in enumerate(names, 1)
        },
        num_objects={
            name: int(count) for name, count in zip(("all", *_AREAS), sizes.sum(axis=0).tolist())
        },
        num_detections=num_detections,
        evaluator=evaluator,
        curves=_curves(counts.precision[..., _ALL], classes, names),
    )


def _class_numbers(counts: Accumulated, column: int | None, objects: int) -> ClassNumbers:
    """The numbers of a category by its place in `counts`; NaN where it is not there."""
    if column is None:
        return ClassNumbers(objects, _NAN, _NAN, _NAN)
    precision = counts.precision[:, :, column, _ALL]
    return ClassNumbers(
        objects=objects,
        ap=_mean(precision),
        ap50=_mean(precision[_IOU_50]),
        ar=_mean(counts.recall[:, column, _ALL, _BEST_100]),
    )


def _statistics(precision: np.ndarray, recall: np.ndarray) -> list[float]:
    """The twelve numbers of an evaluator's summary, in its order."""
    return [
        _mean(precision[..., _ALL]),
        _mean(precision[_IOU_50, ..., _ALL]),
        _mean(precision[_IOU_75, ..., _ALL]),
        *(_mean(precision[..., area]) for area in (_SMALL, _MEDIUM, _LARGE)),
        *(_mean(recall[:, :, _ALL, limit]) for limit in (_BEST_1, _BEST_10, _BEST_100)),
        *(_mean(recall[:, :, area, _BEST_100]) for area in (_SMALL, _MEDIUM, _LARGE)),
    ]


def _mean(values: np.ndarray) -> float:
    """The mean of what is defined; NaN where nothing is."""
    values = values[values > -1]
    return float(np.mean(values)) if values.size else _NAN


def _object_counts(dataset: Dataset, truth: Truth) -> np.ndarray:
    """(C-1, 4) objects of each class: all, small, medium, large; crowd regions are none."""
    areas = truth.areas[~truth.crowd]
    columns = [np.ones(len(areas), bool)]
    columns += [(low <= areas) & (areas <= high) for low, high in _AREAS.values()]
    counts = np.zeros((len(dataset.category_ids) - 1, len(columns)), np.int64)
    np.add.at(counts, truth.classes[~truth.crowd] - 1, np.stack(columns, axis=1).astype(np.int64))
    return counts


def _curves(precision: np.ndarray, classes: np.ndarray, names: Sequence[str]) -> PrecisionRecall:
    """Curves of all classes; NaN for those that are not among the K `classes` of `precision`."""
    defined = np.where(precision > -1, precision, _NAN)  # (10, 101, K)
    chosen = np.full((3, len(RECALLS), len(names)), _NAN)
    chosen[..., classes - 1] = [defined[_IOU_50], defined[_IOU_75], defined.mean(axis=0)]
    return PrecisionRecall(RECALLS, tuple(names), chosen)
