"""Which classes are taken for which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sniper.evaluation.analysis.matching import FOREGROUND_IOU, Matches, Verdict, overlaps


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """Objects by their class and the class that was detected.

    Attributes:
        names: C names, index 0 is the background.
        counts: (C, C) int64, [class of the object, class of the detection]. Row 0 has detections
            where no object is, column 0 objects without a detection; [0, 0] is 0.
        score: detections below it were left out.
        iou: least overlap of a detection with its object.
    """

    names: tuple[str, ...]
    counts: np.ndarray
    score: float
    iou: float = FOREGROUND_IOU

    def worst(self, count: int) -> list[tuple[str, str, int]]:
        """The most frequent confusions of two classes: (object, detected as, times)."""
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        wrong[0], wrong[:, 0] = 0, 0
        order = np.argsort(-wrong, axis=None, kind="stable")[:count]
        places = zip(*np.unravel_index(order, wrong.shape))
        return [(self.names[i], self.names[j], int(wrong[i, j])) for i, j in places if wrong[i, j]]

    def as_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        return {
            "score_threshold": self.score,
            "iou_threshold": self.iou,
            "names": list(self.names),
            "rows": "class of the object",
            "columns": "class of the detection",
            "counts": self.counts.tolist(),
        }


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
    counts = np.zeros((len(class_names), len(class_names)), np.int64)
    objects = matches.objects
    used = (matches.scores >= score) & (matches.verdicts != Verdict.IGNORED)
    for image in np.union1d(matches.images, objects.images).tolist():
        rows, of_image = matches.of_image(image), objects.of_image(image)
        detections = np.arange(rows.start, rows.stop)[used[rows]]
        things = np.arange(of_image.start, of_image.stop)[~objects.ignored[of_image]]
        pairs = _pairs(matches, detections, things)
        detected, annotated = matches.classes[detections], objects.classes[things]
        # Unlike `counts[...] += 1` this counts a pair of classes as often as it comes.
        np.add.at(counts, (annotated[pairs[:, 1]], detected[pairs[:, 0]]), 1)
        np.add.at(counts[0], np.delete(detected, pairs[:, 0]), 1)
        np.add.at(counts[:, 0], np.delete(annotated, pairs[:, 1]), 1)
    return ConfusionMatrix(class_names, counts, score)


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
