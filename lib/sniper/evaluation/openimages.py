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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from sniper.data.openimages_truth import ClassTree, Marks, TrueBoxes, Verified
from sniper.evaluation.voc import average_precision

MIN_IOU = 0.5
MIN_SHARE_IN_GROUP = 0.5

# How a detection counts.
_WRONG, _RIGHT, _FINDS_GROUP = range(3)

_Overlap = Callable[[np.ndarray, np.ndarray], np.ndarray]
_Table = TypeVar("_Table", bound=Marks)


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


@dataclass(frozen=True)
class Limits:
    """What is held at once, and with it the memory beside the tables. No limit changes a result.

    Attributes:
        rows: boxes, labels and detections of a block of images; no image is parted.
        pairs: detections and true boxes that are compared; no detection is parted.
        outcomes: detections of a block of classes, those of classes below counted; no class is
            parted.
    """

    rows: int = 1 << 20
    pairs: int = 1 << 19
    outcomes: int = 1 << 22


_DEFAULT_LIMITS = Limits()


def evaluate_classes(
    tree: ClassTree,
    truth: TrueBoxes,
    verified: Verified,
    found: FoundBoxes,
    *,
    group_weights: Sequence[float] = (1.0, 0.0),
    limits: Limits = _DEFAULT_LIMITS,
) -> list[ClassResults]:
    """The average precision of every class.

    A block of classes is looked at at a time, and for it a block of images at a time. Tables whose
    rows do not stand by image take 8 bytes a row more.

    Args:
        tree: of the classes; `ClassTree.flat` takes them as they are annotated.
        truth: boxes.
        verified: labels of images.
        found: detections. Those with equal scores count in the order of images, then of rows.
        group_weights: what a group box counts as an object, 0 to 1.
        limits: of the blocks.

    Returns:
        The numbers for each weight.
    """
    num_classes = len(tree)

    def count(labels: np.ndarray) -> np.ndarray:
        return tree.spread_counts(np.bincount(labels, minlength=num_classes))

    groups = count(truth.labels[truth.groups])
    objects = count(truth.labels) - groups
    results = [
        ClassResults(objects, groups, np.zeros(num_classes, np.int64), np.full(num_classes, np.nan))
        for _ in group_weights
    ]
    tables = _Tables.of(truth, verified, found)
    for classes in _blocks(_before(count(found.labels)), limits.outcomes):
        chosen = np.zeros(num_classes, bool)
        chosen[slice(*classes)] = True
        up, down = tree.only(chosen), tree.turned().only(chosen)
        outcomes = _Outcomes.together(
            [_matched(*rows, limits.pairs) for rows in tables.blocks(up, down, limits.rows)]
        )
        for weight, result in zip(group_weights, results):
            _fill(result, outcomes, range(*classes), weight)
    return results


def _before(counts: np.ndarray) -> np.ndarray:
    """(n + 1,) how many stand before each of n things."""
    return np.concatenate([[0], np.cumsum(counts)])


def _blocks(before: np.ndarray, limit: int) -> Iterator[tuple[int, int]]:
    """Ranges of n things with at most so many rows in each, but at least one thing."""
    first, end = 0, len(before) - 1
    while first < end:
        last = int(np.searchsorted(before, before[first] + limit, "right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last


@dataclass(frozen=True, eq=False)
class _ByImage(Generic[_Table]):
    """A table's rows by image: those of image i are `order[before[i]:before[i + 1]]`.

    `order` is None where the rows stand by image already.
    """

    table: _Table
    before: np.ndarray
    order: np.ndarray | None

    @classmethod
    def of(cls, table: _Table, num_images: int) -> _ByImage[_Table]:
        images = table.images
        is_sorted = bool((images[:-1] <= images[1:]).all())
        order = None if is_sorted else np.argsort(images, kind="stable")
        return cls(table, _before(np.bincount(images, minlength=num_images)), order)

    def chosen(self, images: tuple[int, int]) -> _Table:
        rows = slice(*self.before[list(images)].tolist())
        return self.table.take(rows if self.order is None else self.order[rows])


class _Tables(NamedTuple):
    """All that is evaluated."""

    truth: _ByImage[TrueBoxes]
    verified: _ByImage[Verified]
    found: _ByImage[FoundBoxes]

    @classmethod
    def of(cls, truth: TrueBoxes, verified: Verified, found: FoundBoxes) -> _Tables:
        tables: tuple[Marks, ...] = (truth, verified, found)
        num_images = 1 + max(int(table.images.max(initial=0)) for table in tables)
        return cls(
            _ByImage.of(truth, num_images),
            _ByImage.of(verified, num_images),
            _ByImage.of(found, num_images),
        )

    def blocks(
        self, up: ClassTree, down: ClassTree, limit: int
    ) -> Iterator[tuple[TrueBoxes, FoundBoxes, int]]:
        """Of some images at a time the boxes, and the detections that count."""
        num_classes = len(up)
        before = self.truth.before + self.verified.before + self.found.before
        for images in _blocks(before, limit):
            truth = self.truth.chosen(images).spread(up)
            looked_for = _looked_for(up, down, truth, self.verified.chosen(images))
            found = self.found.chosen(images).spread(up)
            keys = found.keys(num_classes)
            place = np.searchsorted(looked_for, keys)
            yield truth, found.take(np.append(looked_for, -1)[place] == keys), num_classes


def _looked_for(up: ClassTree, down: ClassTree, truth: TrueBoxes, verified: Verified) -> np.ndarray:
    """Sorted keys of image and class where detections count; the boxes are spread already."""
    labels = (
        verified.take(verified.present).spread(up),
        verified.take(~verified.present).spread(down),
    )
    return np.unique(np.concatenate([table.keys(len(up)) for table in (truth, *labels)]))


class _Outcomes(NamedTuple):
    """(N,) int32 labels, (N,) uint8 how each detection counts, (N,) float64 scores."""

    labels: np.ndarray
    kinds: np.ndarray
    scores: np.ndarray

    @classmethod
    def together(cls, blocks: Sequence[_Outcomes]) -> _Outcomes:
        """Of all images, by class and by falling score."""
        labels, kinds, scores = (np.concatenate(columns) for columns in zip(*blocks))
        order = np.lexsort((-scores, labels))
        return cls(labels[order], kinds[order], scores[order])


def _matched(truth: TrueBoxes, found: FoundBoxes, num_classes: int, pairs: int) -> _Outcomes:
    """How all that counts does."""
    keys = found.keys(num_classes)
    order = np.lexsort((-found.scores, keys))
    keys, found = keys[order], found.take(order)
    kinds = np.full(len(keys), _WRONG, np.uint8)

    box, overlap = _best(keys, found.boxes, truth.take(~truth.groups), num_classes, _iou, pairs)
    hits = np.flatnonzero(overlap >= MIN_IOU)
    # Detections of a box stand by falling score: the first one has it.
    kinds[hits[np.unique(box[hits], return_index=True)[1]]] = _RIGHT

    group, share = _best(
        keys, found.boxes, truth.take(truth.groups), num_classes, _share_inside, pairs
    )
    inside = np.flatnonzero((share >= MIN_SHARE_IN_GROUP) & (kinds == _WRONG))
    best = inside[np.unique(group[inside], return_index=True)[1]]
    kinds[best] = _FINDS_GROUP
    counts = np.ones(len(keys), bool)
    counts[inside] = False
    counts[best] = True
    return _Outcomes(found.labels[counts].astype(np.int32), kinds[counts], found.scores[counts])


def _best(
    keys: np.ndarray,
    boxes: np.ndarray,
    truth: TrueBoxes,
    num_classes: int,
    overlap: _Overlap,
    pairs: int,
) -> tuple[np.ndarray, np.ndarray]:
    """For each detection the true box of its key that it overlaps most, -1 if none; how much."""
    true_keys = truth.keys(num_classes)
    by_key = np.argsort(true_keys, kind="stable")
    first = np.searchsorted(true_keys, keys, "left", sorter=by_key)
    counts = np.searchsorted(true_keys, keys, "right", sorter=by_key) - first
    which, value = np.full(len(keys), -1, np.int64), np.zeros(len(keys))
    compared = np.flatnonzero(counts)
    before = _before(counts[compared])
    for block in _blocks(before, pairs):
        rows = compared[slice(*block)]
        starts = before[slice(*block)] - before[block[0]]
        of_row = counts[rows]
        mine = np.repeat(np.arange(len(rows)), of_row)
        theirs = by_key[first[rows][mine] + np.arange(len(mine)) - starts[mine]]
        values = overlap(boxes[rows[mine]], truth.boxes[theirs])
        value[rows] = np.maximum.reduceat(values, starts)
        # Of equals the first one: pairs of a detection stand in the order of its true boxes.
        equal = np.flatnonzero(values == value[rows][mine])
        which[rows] = theirs[equal[np.unique(mine[equal], return_index=True)[1]]]
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


def _fill(
    results: ClassResults, outcomes: _Outcomes, classes: Sequence[int], group_weight: float
) -> None:
    """Enters the detections and the average precision of some classes."""
    counts_as = np.array([0.0, 1.0, group_weight])
    ends = np.searchsorted(outcomes.labels, [*classes, classes[-1] + 1])
    positives = results.objects + group_weight * results.groups
    for label, first, last in zip(classes, ends, ends[1:]):
        kinds = outcomes.kinds[first:last]
        if group_weight <= 0:
            kinds = kinds[kinds != _FINDS_GROUP]
        results.detections[label] = len(kinds)
        if positives[label] > 0:
            right = counts_as[kinds]
            hits = np.cumsum(right)
            precision = hits / (hits + np.cumsum(right <= 0))
            recall = hits / positives[label]
            results.ap[label] = average_precision(recall, precision, eleven_points=False)
