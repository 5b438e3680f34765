"""Average precision as Pascal VOC defines it: before 2010 with 11 points, then as an area."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from sniper.data.dataset import Dataset
from sniper.data.voc import VocTruth
from sniper.evaluation.overlaps import paired_iou
from sniper.evaluation.report import reason_not_evaluated
from sniper.evaluation.voc_files import VocRows, voc_truth

logger = logging.getLogger(__name__)

# Overlaps that a match must exceed (2018 behaviour: both are reported).
IOU_THRESHOLDS = (0.5, 0.7)


@dataclass(frozen=True)
class VocReport:
    """Pascal VOC box metrics as fractions of 1; NaN where the set has no such object.

    Attributes:
        dataset: name of the data set.
        num_images: images that were evaluated.
        metric: "11 points" or "area".
        map50: mean over the classes of the average precision at IoU > 0.5.
        map70: the same at IoU > 0.7.
        per_class: class name -> average precision at IoU > 0.5.
        per_class_70: class name -> average precision at IoU > 0.7.
    """

    dataset: str
    num_images: int
    metric: str
    map50: float
    map70: float
    per_class: Mapping[str, float]
    per_class_70: Mapping[str, float]

    def as_dict(self) -> dict[str, object]:
        """All fields, ready for JSON: NaN becomes None."""
        return {name: _for_json(value) for name, value in asdict(self).items()}

    def table(self) -> str:
        """The average precision of every class and the means; in percent, '-' for NaN."""
        width = max(map(len, [*self.per_class, "mean"]))
        rows = [(name, self.per_class[name], self.per_class_70[name]) for name in self.per_class]
        lines = [
            f"{name:<{width}} {_percent(ap50):>7} {_percent(ap70):>7}"
            for name, ap50, ap70 in [*rows, ("mean", self.map50, self.map70)]
        ]
        title = f"{self.dataset}: {self.num_images} images, AP ({self.metric}) in percent"
        return "\n".join([title, f"{'':<{width}} {'IoU .5':>7} {'IoU .7':>7}", *lines])


def _for_json(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _for_json(entry) for name, entry in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def evaluate_voc(dataset: Dataset, rows: Sequence[VocRows]) -> VocReport | None:
    """Pascal VOC box metrics of detections.

    A detection counts as found when its IoU with the best object of its class is above the
    threshold and no better one has found the same object; further ones are false. Best matches
    with difficult objects count for nothing, nor do the objects. Equal scores keep the order of
    the data set. Only the images of `dataset` count, so that a part of a set can be evaluated.

    Args:
        dataset: a Pascal VOC set.
        rows: per class, of `voc_rows`.

    Returns:
        The report; None, with the reason in the log, if the set has no annotations.

    Raises:
        DataError: the set is none of Pascal VOC.
    """
    reason = reason_not_evaluated(dataset)
    if reason is not None:
        logger.info(reason)
        return None
    truth = voc_truth(dataset)
    known = np.isin(truth.image_ids, [record.image_id for record in dataset.records])
    results = {
        name: _class_aps(truth, known & (truth.classes == index), rows[index])
        for index, name in enumerate(dataset.class_names)
        if index
    }
    per_class, per_class_70 = ({name: aps[i] for name, aps in results.items()} for i in range(2))
    return VocReport(
        dataset=dataset.name,
        num_images=len(dataset.records),
        metric="11 points" if truth.eleven_points else "area",
        map50=_mean(per_class),
        map70=_mean(per_class_70),
        per_class=per_class,
        per_class_70=per_class_70,
    )


def _mean(aps: Mapping[str, float]) -> float:
    defined = [ap for ap in aps.values() if not math.isnan(ap)]
    return sum(defined) / len(defined) if defined else math.nan


def average_precision(recall: np.ndarray, precision: np.ndarray, *, eleven_points: bool) -> float:
    """Average precision of a curve.

    Args:
        recall: (n,) rising.
        precision: (n,).
        eleven_points: the mean of the best precisions at recalls of 0, 0.1, ..., 1, else the area
            under the falling envelope of the curve.
    """
    if eleven_points:
        # The thresholds carry the rounding errors that they had in 2018: 0.6 is a little more.
        return float(
            np.mean([_best(precision[recall >= point]) for point in np.arange(0, 1.1, 0.1)])
        )
    recall = np.concatenate([[0.0], recall, [1.0]])
    envelope = np.maximum.accumulate(np.concatenate([[0.0], precision, [0.0]])[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope[1:]))


def _best(precision: np.ndarray) -> float:
    return float(precision.max()) if precision.size else 0.0


def _class_aps(truth: VocTruth, of_class: np.ndarray, rows: VocRows) -> tuple[float, ...]:
    """Average precision of a class at each threshold."""
    positives = int(np.count_nonzero(of_class & ~truth.difficult))
    if positives == 0:
        return (math.nan,) * len(IOU_THRESHOLDS)
    objects = np.flatnonzero(of_class)
    objects = objects[np.argsort(truth.image_ids[objects], kind="stable")]
    order = np.argsort(-rows.scores, kind="stable")
    best, overlap = _best_objects(
        rows.boxes[order],
        rows.image_ids[order],
        truth.boxes[objects].astype(np.float64),
        truth.image_ids[objects],
    )
    difficult = truth.difficult[objects]
    aps = []
    for threshold in IOU_THRESHOLDS:
        match = np.where(overlap > threshold, best, -1)
        match = match[(match < 0) | ~difficult[match]]  # -1 picks any flag, and does not matter
        is_hit = _first_of_each(match)
        hits, misses = np.cumsum(is_hit), np.cumsum(~is_hit)
        precision = hits / np.maximum(hits + misses, 1)
        aps.append(
            average_precision(hits / positives, precision, eleven_points=truth.eleven_points)
        )
    return tuple(aps)


def _first_of_each(match: np.ndarray) -> np.ndarray:
    """Which entries are the first of their value; -1 never is."""
    first = np.zeros(len(match), bool)
    first[np.unique(match, return_index=True)[1]] = True
    return first & (match >= 0)


def _best_objects(
    boxes: np.ndarray, image_ids: np.ndarray, objects: np.ndarray, object_images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For every detection the object of its image that it overlaps most, the first on ties.

    Args:
        boxes: (n, 4) float64 detections.
        image_ids: (n,) their images.
        objects: (m, 4) float64.
        object_images: (m,) their images, rising.

    Returns:
        (n,) int64 rows of `objects`, -1 where the image has none; (n,) float64 IoU, 0 there.
    """
    best, overlap = np.full(len(boxes), -1), np.zeros(len(boxes))
    starts = np.searchsorted(object_images, image_ids, "left")
    counts = np.searchsorted(object_images, image_ids, "right") - starts
    with_objects = np.flatnonzero(counts)
    if not with_objects.size:
        return best, overlap
    # All pairs of a detection with the objects of its image, detection by detection.
    detection = np.repeat(with_objects, counts[with_objects])
    first = np.cumsum(counts[with_objects]) - counts[with_objects]
    rank = np.arange(len(detection)) - np.repeat(first, counts[with_objects])
    candidate = starts[detection] + rank
    ious = paired_iou(boxes[detection], objects[candidate])
    overlap[with_objects] = np.maximum.reduceat(ious, first)
    winners = np.flatnonzero(ious == overlap[detection])
    # Of equal overlaps the first object counts.
    matched, first_winner = np.unique(detection[winners], return_index=True)
    best[matched] = candidate[winners[first_winner]]
    return best, overlap
