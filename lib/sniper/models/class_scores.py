"""Scores of boxes for thousands of classes, of which few are worth a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

import numpy as np

# Detections with a lower class score are dropped before merging (2018 behaviour).
MIN_SCORE = 1e-3


@dataclass(frozen=True, eq=False)
class ClassScores:
    """The scores above `MIN_SCORE` of R boxes, by box and class.

    A dense (R, C) array of 300 boxes and 3130 classes takes 4 MB a window, and nearly all of its
    numbers are close to 0.

    Attributes:
        boxes: (P,) int64, which box, rising.
        classes: (P,) int32, 1 ... C-1, rising for each box.
        scores: (P,) float32.
        objectness: (R,) float32, the probability of being any object.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    objectness: np.ndarray

    def __len__(self) -> int:
        """R."""
        return len(self.objectness)

    def __getitem__(self, kept: np.ndarray) -> ClassScores:
        """The scores of some boxes, (R,) bool, which are numbered anew."""
        pairs = kept[self.boxes]
        numbers = np.cumsum(kept) - 1
        return ClassScores(
            numbers[self.boxes[pairs]],
            self.classes[pairs],
            self.scores[pairs],
            self.objectness[kept],
        )


# (R, C) probabilities with the background in front, or the few that count; of an RPN alone (R,).
Scores = Union[np.ndarray, ClassScores]


def above_floor(scores: Scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(P,) box, (P,) int32 class (never 0) and (P,) score of all scores above `MIN_SCORE`."""
    if isinstance(scores, ClassScores):
        return scores.boxes, scores.classes, scores.scores
    box, klass = np.nonzero(scores[:, 1:] > MIN_SCORE)
    return box, (klass + 1).astype(np.int32), scores[box, klass + 1]


def objectness_of(scores: Scores) -> np.ndarray:
    """(R,) float32, the probability that a box is an object of any class."""
    if isinstance(scores, ClassScores):
        return scores.objectness
    if scores.ndim == 1:
        return scores
    return np.minimum(scores[:, 1:].sum(axis=1, dtype=np.float32), np.float32(1))


def two_factor_scores(
    supers: np.ndarray, fine: np.ndarray, super_of: Sequence[int], *, id_offset: int = 0
) -> ClassScores:
    """P(super-class) x P(class | object) of R-FCN-3K, of what can be above `MIN_SCORE`.

    Besides its inputs it needs a bit for each of their numbers, and what it returns.

    Args:
        supers: (R, K + 1) float32, the background in front.
        fine: (R, C) float32.
        super_of: C numbers, the super-class 1 ... K of each class.
        id_offset: column c - 1 - id_offset of `fine` is class c; the first classes have none then
            (weights of 2018).
    """
    # A product is no larger than its second factor.
    boxes, columns = np.nonzero(fine > MIN_SCORE)
    places = columns + id_offset  # of the class among the C
    if id_offset:
        known = places < len(super_of)
        boxes, columns, places = boxes[known], columns[known], places[known]
    scores = fine[boxes, columns] * supers[boxes, np.asarray(super_of)[places]]
    kept = scores > MIN_SCORE
    return ClassScores(
        boxes[kept],
        (places[kept] + 1).astype(np.int32),
        scores[kept],
        1 - supers[:, 0],
    )
