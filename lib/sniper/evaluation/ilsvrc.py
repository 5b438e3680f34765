"""Average precision as the ILSVRC detection challenge defines it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from sniper.data.dataset import Dataset
from sniper.data.ilsvrc import IlsvrcTruth
from sniper.evaluation.ilsvrc_rows import IlsvrcRows, ilsvrc_truth
from sniper.evaluation.overlaps import paired_iou
from sniper.evaluation.report import reason_not_evaluated
from sniper.evaluation.voc import average_precision

logger = logging.getLogger(__name__)

MOST_IOU = 0.5
# Of an object of w x h px a detection may miss 5 px on every side.
_SLACK_PX = 10
_CLASS_COLUMNS = 2


@dataclass(frozen=True)
class IlsvrcClass:
    """Numbers of a class; average precisions are fractions of 1, NaN where it has no objects.

    Attributes:
        objects: of the class, without those of blacklisted images.
        detections: that were counted.
        ap: average precision by the challenge's rule.
        ap50: average precision at IoU 0.5, however small the objects are.
    """

    objects: int
    detections: int
    ap: float
    ap50: float


@dataclass(frozen=True)
class IlsvrcReport:
    """Box metrics of ILSVRC DET as fractions of 1; NaN where the set has no such object.

    Attributes:
        dataset: name of the data set.
        num_images: images that were evaluated.
        num_objects: objects, without those of blacklisted images.
        num_detections: detections that were counted.
        mean_ap: mean of the classes' average precision by the challenge's rule; `mAP` in JSON.
        mean_ap50: the same at IoU 0.5 for objects of all sizes; `mAP_50` in JSON.
        median_ap: median of the classes' average precision.
        mean_ap_known: `mean_ap` over the classes that the detector can give; None if all.
        num_known: how many of the classes it can give.
        not_annotated: detections in listed images that are not annotated; they are not counted.
        blacklisted: detections in images where their class is not evaluated; the same.
        classes: class name -> its numbers.
    """

    dataset: str
    num_images: int
    num_objects: int
    num_detections: int
    mean_ap: float
    mean_ap50: float
    median_ap: float
    mean_ap_known: float | None
    num_known: int
    not_annotated: int
    blacklisted: int
    classes: Mapping[str, IlsvrcClass]

    def as_dict(self) -> dict[str, object]:
        """All numbers, ready for JSON: NaN becomes None."""
        known = self.mean_ap_known
        return {
            "dataset": self.dataset,
            "num_images": self.num_images,
            "num_objects": self.num_objects,
            "num_detections": self.num_detections,
            "mAP": _for_json(self.mean_ap),
            "mAP_50": _for_json(self.mean_ap50),
            "median_AP": _for_json(self.median_ap),
            **({} if known is None else {"mAP_known": _for_json(known)}),
            "num_known_classes": self.num_known,
            "not_annotated": self.not_annotated,
            "blacklisted": self.blacklisted,
            "classes": {
                name: {key: _for_json(value) for key, value in asdict(of_class).items()}
                for name, of_class in self.classes.items()
            },
        }

    def table(self) -> str:
        """The average precision of every class with objects, and the means; in percent."""
        rows = [(n, c.objects, c.ap, c.ap50) for n, c in self.classes.items() if c.objects]
        width = max(len(name) for name in ("class", *(row[0] for row in rows)))
        cells = [
            f"{name:<{width}} {objects:>7} {_percent(ap):>6} {_percent(ap50):>6}"
            for name, objects, ap, ap50 in rows
        ]
        height = math.ceil(len(cells) / _CLASS_COLUMNS)
        head = f"{'class':<{width}} {'objects':>7} {'AP':>6} {'AP50':>6}"
        lines = [
            [head] * min(_CLASS_COLUMNS, len(cells)),
            *(cells[i::height] for i in range(height)),
        ]
        return "\n".join([*self._head(len(rows)), "", *("  |  ".join(line) for line in lines)])

    def _head(self, num_classes: int) -> list[str]:
        known = self.mean_ap_known
        of_known = (
            []
            if known is None
            else [f"mean AP of the {self.num_known} classes of the model: {_percent(known)}"]
        )
        return [
            f"{self.dataset}: {self.num_images} images, {self.num_objects} objects of "
            f"{num_classes} classes, AP in percent",
            f"mean AP: {_percent(self.mean_ap)}   median AP: {_percent(self.median_ap)}   "
            f"mean AP at IoU 0.5: {_percent(self.mean_ap50)}",
            *of_known,
            f"{self.num_detections} detections counted; not counted: {self.not_annotated} in "
            f"images without annotations, {self.blacklisted} of blacklisted classes",
        ]


def _for_json(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def evaluate_ilsvrc(dataset: Dataset, rows: IlsvrcRows) -> IlsvrcReport | None:
    """Box metrics of ILSVRC DET.

    Detections of a class are taken by falling score (equal ones in their order). Each one finds,
    of the objects of its image and class that no other has found, the one that it overlaps most
    among those whose threshold it meets: min(0.5, wh / ((w + 10) (h + 10))) for w x h px. The rest
    is false. Classes are not evaluated in images where they are blacklisted. Average precision is
    the area below the falling envelope of precision over recall (development kit of 2014).

    Args:
        dataset: a set with the truth of ILSVRC.
        rows: of `ilsvrc_rows` or a result file.

    Returns:
        The report; None, with the reason in the log, if the set has no annotations.

    Raises:
        DataError: the set has no such truth.
    """
    reason = reason_not_evaluated(dataset)
    if reason is not None:
        logger.info(reason)
        return None
    truth = ilsvrc_truth(dataset)
    in_set = np.array(sorted(record.image_id for record in dataset.records), np.int64)
    annotated = np.isin(rows.image_ids, in_set)
    blacklist = truth.blacklist @ [len(truth.class_names) + 1, 1]
    banned = np.isin(_groups(truth, rows.image_ids, rows.classes), blacklist)
    counted = rows.taken(annotated & ~banned)
    kept = np.isin(truth.image_ids, in_set)
    kept &= ~np.isin(_groups(truth, truth.image_ids, truth.classes), blacklist)
    objects = _Objects(_groups(truth, truth.image_ids, truth.classes)[kept], truth.boxes[kept])
    counts = np.bincount(truth.classes[kept], minlength=len(truth.class_names) + 1)
    order = np.argsort(-counted.scores, kind="stable")
    counted = counted.taken(order)
    hits = [
        _hits(_groups(truth, counted.image_ids, counted.classes), counted.boxes, objects, rule)
        for rule in (_thresholds(objects.boxes), np.full(len(objects.boxes), MOST_IOU))
    ]
    classes = _classes(truth, counted.classes, hits, counts)
    return _report(dataset, truth, classes, rows, annotated, banned)


def _groups(truth: IlsvrcTruth, image_ids: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """A number for each pair of an image and a class."""
    return image_ids.astype(np.int64) * (len(truth.class_names) + 1) + classes


class _Objects:
    """Objects ordered by group."""

    def __init__(self, groups: np.ndarray, boxes: np.ndarray) -> None:
        order = np.argsort(groups, kind="stable")
        self.groups, self.boxes = groups[order], boxes[order]


def _thresholds(boxes: np.ndarray) -> np.ndarray:
    width, height = (boxes[:, 2:] - boxes[:, :2] + 1).T
    allowed = width * height / ((width + _SLACK_PX) * (height + _SLACK_PX))
    return np.minimum(MOST_IOU, allowed)


def _hits(
    groups: np.ndarray, boxes: np.ndarray, objects: _Objects, thresholds: np.ndarray
) -> np.ndarray:
    """(n,) bool: which detections, ordered by falling score, find an object.

    Only pairs of a detection and an object of its image and class are looked at.
    """
    starts = np.searchsorted(objects.groups, groups, "left")
    counts = np.searchsorted(objects.groups, groups, "right") - starts
    detection = np.repeat(np.arange(len(groups)), counts)
    first = np.cumsum(counts) - counts
    candidate = np.arange(len(detection)) - np.repeat(first - starts, counts)
    ious = paired_iou(boxes[detection], objects.boxes[candidate])
    met = np.flatnonzero(ious >= thresholds[candidate])
    met = met[np.lexsort((-ious[met], detection[met]))]  # equal overlaps: the first object
    is_hit = np.zeros(len(groups), bool)
    is_found = np.zeros(len(objects.groups), bool)
    for row, place in zip(detection[met].tolist(), candidate[met].tolist()):
        if not is_hit[row] and not is_found[place]:
            is_hit[row] = is_found[place] = True
    return is_hit


def _classes(
    truth: IlsvrcTruth, classes: np.ndarray, hits: list[np.ndarray], counts: np.ndarray
) -> dict[str, IlsvrcClass]:
    """The numbers of each class, of detections ordered by falling score."""
    order = np.argsort(classes, kind="stable")
    bounds = np.searchsorted(classes[order], np.arange(1, len(truth.class_names) + 2))
    result = {}
    for place, (name, start, stop) in enumerate(zip(truth.class_names, bounds, bounds[1:]), 1):
        rows = order[start:stop]
        ap, ap50 = (_average_precision(is_hit[rows], int(counts[place])) for is_hit in hits)
        result[name] = IlsvrcClass(int(counts[place]), len(rows), ap, ap50)
    return result


def _average_precision(is_hit: np.ndarray, positives: int) -> float:
    if positives == 0:
        return math.nan
    found = np.cumsum(is_hit)
    precision = found / np.arange(1, len(is_hit) + 1)
    return average_precision(found / positives, precision, eleven_points=False)


def _report(
    dataset: Dataset,
    truth: IlsvrcTruth,
    classes: Mapping[str, IlsvrcClass],
    rows: IlsvrcRows,
    annotated: np.ndarray,
    banned: np.ndarray,
) -> IlsvrcReport:
    known = {truth.class_names[i - 1] for i in np.unique(truth.evaluated_as).tolist() if i}
    aps = {name: c.ap for name, c in classes.items() if c.objects}
    of_known = [ap for name, ap in aps.items() if name in known]
    return IlsvrcReport(
        dataset=dataset.name,
        num_images=len(dataset.records),
        num_objects=sum(c.objects for c in classes.values()),
        num_detections=sum(c.detections for c in classes.values()),
        mean_ap=_mean(list(aps.values())),
        mean_ap50=_mean([c.ap50 for c in classes.values() if c.objects]),
        median_ap=float(np.median(list(aps.values()))) if aps else math.nan,
        mean_ap_known=None if len(known) == len(classes) else _mean(of_known),
        num_known=len(known),
        not_annotated=int(np.count_nonzero(~annotated)),
        blacklisted=int(np.count_nonzero(annotated & banned)),
        classes=classes,
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
