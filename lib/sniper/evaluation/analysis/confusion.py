"""Which classes are taken for which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sniper.evaluation.analysis.matching import FOREGROUND_IOU, Matches, Verdict, overlaps

# A dense matrix of more classes would have millions of zeros.
_MOST_DENSE = 400


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """Objects by their class and the class that was detected.

    Attributes:
        names: C names, index 0 is the background.
        pairs: (P, 2) int64, class of the object and class of the detection, in the order of both.
            The background stands for a detection where no object is, and for an object without a
            detection.
        times: (P,) int64, how often each comes, at least once.
        score: detections below it were left out.
        iou: least overlap of a detection with its object.
    """

    names: tuple[str, ...]
    pairs: np.ndarray
    times: np.ndarray
    score: float
    iou: float = FOREGROUND_IOU

    @classmethod
    def of_counts(cls, names: tuple[str, ...], counts: np.ndarray, score: float) -> ConfusionMatrix:
        """From a dense (C, C) matrix, [class of the object, class of the detection]."""
        pairs = np.argwhere(counts)
        return cls(names, pairs, counts[tuple(pairs.T)], score)

    @property
    def counts(self) -> np.ndarray:
        """(C, C) int64, [class of the object, class of the detection]; [0, 0] is 0."""
        return self.counts_of(np.arange(len(self.names)))

    def counts_of(self, classes: np.ndarray) -> np.ndarray:
        """The rows and columns (n, n) of some classes, in their order."""
        place = np.full(len(self.names), -1)
        place[classes] = np.arange(len(classes))
        rows, columns = place[self.pairs].T
        shown = (rows >= 0) & (columns >= 0)
        counts = np.zeros((len(classes), len(classes)), np.int64)
        counts[rows[shown], columns[shown]] = self.times[shown]
        return counts

    def worst(self, count: int) -> list[tuple[str, str, int]]:
        """The most frequent confusions of two classes: (object, detected as, times)."""
        there, seen = self.pairs.T
        wrong = np.flatnonzero((there != seen) & (there > 0) & (seen > 0))
        wrong = wrong[np.argsort(-self.times[wrong], kind="stable")[:count]]
        return [
            (self.names[i], self.names[j], times)
            for (i, j), times in zip(self.pairs[wrong].tolist(), self.times[wrong].tolist())
        ]

    def as_dict(self) -> dict[str, object]:
        """Everything, ready for JSON; of more than 400 classes only the pairs that there are."""
        about = {
            "score_threshold": self.score,
            "iou_threshold": self.iou,
            "names": list(self.names),
            "rows": "class of the object",
            "columns": "class of the detection",
        }
        if len(self.names) <= _MOST_DENSE:
            return {**about, "counts": self.counts.tolist()}
        rows = np.column_stack([self.pairs, self.times])
        return {**about, "row_column_count": rows.tolist()}


def confusion_matrix(
    matches: Matches, class_names: tuple[str, ...], score: float
) -> ConfusionMatrix:
    """Pairs every object with at most one detection, whatever their classes.

    Pairs of one class come first, then pairs of different ones, each by falling overlap. Detections
    in crowd regions and on difficult objects count for nothing.

    Args:
        matches: of `match_detections`.
        class_names: index 0 is the background.
        score: the least score of a detection.
    """
    found: list[np.ndarray] = [np.zeros((0, 2), np.int64)]  # class of object and detection
    objects = matches.objects
    used = (matches.scores >= score) & (matches.verdicts != Verdict.IGNORED)
    for image in np.union1d(matches.images, objects.images).tolist():
        rows, of_image = matches.of_image(image), objects.of_image(image)
        detections = np.arange(rows.start, rows.stop)[used[rows]]
        things = np.arange(of_image.start, of_image.stop)[~objects.ignored[of_image]]
        pairs = _pairs(matches, detections, things)
        detected, annotated = matches.classes[detections], objects.classes[things]
        alone = np.delete(detected, pairs[:, 0])
        missed = np.delete(annotated, pairs[:, 1])
        found += [
            np.column_stack([annotated[pairs[:, 1]], detected[pairs[:, 0]]]),
            np.column_stack([np.zeros_like(alone), alone]),
            np.column_stack([missed, np.zeros_like(missed)]),
        ]
    pairs, times = np.unique(np.concatenate(found), axis=0, return_counts=True)
    return ConfusionMatrix(class_names, pairs, times, score)


def _pairs(matches: Matches, detections: np.ndarray, things: np.ndarray) -> np.ndarray:
    """(p, 2) positions in `detections` and `things`, each at most once."""
    objects = matches.objects
    iou = overlaps(matches.boxes[detections], objects.boxes[things], objects.crowd[things])
    same = matches.classes[detections][:, None] == objects.classes[things]
    rows, columns = np.nonzero(iou >= FOREGROUND_IOU)
    order = np.lexsort((-iou[rows, columns], ~same[rows, columns]))
    pairs: list[tuple[int, int]] = []
    done: tuple[set[int], set[int]] = (set(), set())
    for row, column in zip(rows[order].tolist(), columns[order].tolist()):
        if row not in done[0] and column not in done[1]:
            pairs.append((row, column))
            done[0].add(row)
            done[1].add(column)
    return np.array(pairs, np.int64).reshape(-1, 2)
