"""Average precision as the Open Images challenges define it.

Boxes are annotated with the most special class, not in all images are all classes looked for, and
some boxes are around several objects. So (2018 and 2019 challenges, of which Google's evaluator is
the reference):

* a class stands for all classes above it: boxes, labels that are present and detections count for
  these too; a label that is absent is absent of all classes below it;
* detections of a class count in images where it was verified, present or absent, or has boxes;
* a detection with IoU >= 0.5 finds the box it overlaps most; the best one of a box is right, others
  are wrong;
* of what finds none, a detection most of whose area (>= 0.5) is inside a group box is not wrong.
  With group weight 1 a group is an object that its best detection finds; with 0 it is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sniper.data.openimages_truth import ClassTree, Marks, TrueBoxes, Verified
from sniper.evaluation.voc import average_precision

MIN_IOU = 0.5
MIN_SHARE_IN_GROUP = 0.5

_Overlap = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class FoundBoxes(Marks):
    """Detections.

    Attributes:
        boxes: (N, 4) float64 x1 y1 x2 y2.
        scores: (N,) float64.
    """

    boxes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class ClassResults:
    """Numbers of C classes.

    Attributes:
        objects: (C,) boxes, groups not among them.
        groups: (C,) group boxes.
        detections: (C,) that counted, right or wrong.
        ap: (C,) average precision, NaN for classes without objects.
    """

    objects: np.ndarray
    groups: np.ndarray
    detections: np.ndarray
    ap: np.ndarray

    @property
    def mean_ap(self) -> float:
        """Over the classes with objects; NaN if there are none."""
        known = self.ap[~np.isnan(self.ap)]
        return float(known.mean()) if len(known) else float("nan")


def evaluate_classes(
    tree: ClassTree,
    truth: TrueBoxes,
    verified: Verified,
    found: FoundBoxes,
    *,
    group_weight: float,
) -> ClassResults:
    """The average precision of every class.

    Args:
        tree: of the classes; `ClassTree.flat` takes them as they are annotated.
        truth: boxes.
        verified: labels of images.
        found: detections.
        group_weight: what a group box counts as an object, 0 to 1.
    """
    num_classes = len(tree)
    rows, labels = tree.spread(truth.labels)
    truth = TrueBoxes(truth.images[rows], labels, truth.boxes[rows], truth.groups[rows])
    looked_for = _looked_for(tree, truth, verified)
    rows, labels = tree.spread(found.labels)
    images = found.images[rows]
    kept = np.isin(images * num_classes + labels, looked_for)
    rows, labels, images = rows[kept], labels[kept], images[kept]
    found = FoundBoxes(images, labels, found.boxes[rows], found.scores[rows])
    counted, right, scores = _matched(num_classes, truth, found, group_weight)
    objects = np.bincount(truth.labels[~truth.groups], minlength=num_classes)
    groups = np.bincount(truth.labels[truth.groups], minlength=num_classes)
    return ClassResults(
        objects,
        groups,
        np.bincount(counted, minlength=num_classes),
        _average_precisions(counted, right, scores, objects + group_weight * groups),
    )


def _looked_for(tree: ClassTree, truth: TrueBoxes, verified: Verified) -> np.ndarray:
    """Sorted keys of image and class where detections count; the boxes are spread already."""
    num_classes, present = len(tree), verified.present
    keys = [truth.keys(num_classes)]
    for way, chosen in ((tree, present), (tree.turned(), ~present)):
        rows, labels = way.spread(verified.labels[chosen])
        keys.append(verified.images[chosen][rows] * num_classes + labels)
    return np.unique(np.concatenate(keys))


def _matched(
    num_classes: int, truth: TrueBoxes, found: FoundBoxes, group_weight: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(labels, how far right 0 to 1, scores) of all that counts."""
    keys = found.keys(num_classes)
    order = np.lexsort((-found.scores, keys))
    keys, boxes, scores = keys[order], found.boxes[order], found.scores[order]
    labels = found.labels[order]
    right = np.zeros(len(keys))
    true_keys = truth.keys(num_classes)

    single = np.flatnonzero(~truth.groups)
    box, overlap = _best(keys, boxes, true_keys[single], truth.boxes[single], _iou)
    hits = np.flatnonzero(overlap >= MIN_IOU)
    # Detections of a box stand by falling score: the first one has it.
    right[hits[np.unique(box[hits], return_index=True)[1]]] = 1.0

    groups = np.flatnonzero(truth.groups)
    group, share = _best(keys, boxes, true_keys[groups], truth.boxes[groups], _share_inside)
    inside = np.flatnonzero((share >= MIN_SHARE_IN_GROUP) & (right == 0))
    counts = np.ones(len(keys), bool)
    counts[inside] = False
    if group_weight > 0:
        best = inside[np.unique(group[inside], return_index=True)[1]]
        counts[best] = True
        right[best] = group_weight
    return labels[counts], right[counts], scores[counts]


def _best(
    keys: np.ndarray,
    boxes: np.ndarray,
    true_keys: np.ndarray,
    true_boxes: np.ndarray,
    overlap: _Overlap,
) -> tuple[np.ndarray, np.ndarray]:
    """For each detection the true box of its key that it overlaps most, -1 if none; how much."""
    by_key = np.argsort(true_keys, kind="stable")
    first = np.searchsorted(true_keys, keys, "left", sorter=by_key)
    counts = np.searchsorted(true_keys, keys, "right", sorter=by_key) - first
    mine = np.repeat(np.arange(len(keys)), counts)
    within = np.arange(len(mine)) - np.repeat(np.cumsum(counts) - counts, counts)
    theirs = by_key[first[mine] + within]
    values = overlap(boxes[mine], true_boxes[theirs])
    order = np.lexsort((theirs, -values, mine))
    best = order[np.unique(mine[order], return_index=True)[1]]
    which, value = np.full(len(keys), -1, np.int64), np.zeros(len(keys))
    which[mine[best]], value[mine[best]] = theirs[best], values[best]
    return which, value


def _intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    return np.maximum(sides, 0).prod(axis=1)


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)


def _iou(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    common = _intersection(found, true)
    together = _area(found) + _area(true) - common
    return np.divide(common, together, out=np.zeros(len(common)), where=together > 0)


def _share_inside(found: np.ndarray, group: np.ndarray) -> np.ndarray:
    common, area = _intersection(found, group), _area(found)
    return np.divide(common, area, out=np.zeros(len(common)), where=area > 0)


def _average_precisions(
    labels: np.ndarray, right: np.ndarray, scores: np.ndarray, positives: np.ndarray
) -> np.ndarray:
    ap = np.full(len(positives), np.nan)
    order = np.lexsort((-scores, labels))
    ends = np.searchsorted(labels[order], np.arange(len(positives) + 1))
    for label in np.flatnonzero(positives > 0):
        of_class = right[order[ends[label] : ends[label + 1]]]
        hits, wrong = np.cumsum(of_class), np.cumsum(of_class <= 0)
        seen = hits + wrong
        precision = np.divide(hits, seen, out=np.zeros(len(seen)), where=seen > 0)
        ap[label] = average_precision(hits / positives[label], precision, eleven_points=False)
    return ap
