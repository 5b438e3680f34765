"""How many errors of each cause there are, and what AP50 would be without them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sniper.evaluation.analysis.matching import Matches, Verdict
from sniper.evaluation.evaluators import RECALLS

# Name of a cause -> what it means.
CAUSES = {
    "class": "right place, wrong class",
    "localisation": "right class, box off (IoU 0.1 to 0.5)",
    "both": "wrong class and box off",
    "duplicate": "object found by a better detection already",
    "background": "nothing there (IoU below 0.1)",
    "missed": "object without any detection near it",
}
_VERDICTS = {
    "class": Verdict.CLASS,
    "localisation": Verdict.LOCALISATION,
    "both": Verdict.BOTH,
    "duplicate": Verdict.DUPLICATE,
    "background": Verdict.BACKGROUND,
}
_REPAIRED = ("class", "localisation")


@dataclass(frozen=True)
class Cause:
    """Errors of one cause.

    Attributes:
        count: detections with it; for `missed` objects.
        confident: those with a score of the threshold or more; for `missed` objects that no
            detection finds with such a score, whatever the reason.
        gain: what AP50 would be more without them, as fraction of 1.
    """

    count: int
    confident: int
    gain: float


@dataclass(frozen=True)
class Effects:
    """The errors of a set.

    Attributes:
        ap50: as it is, as fraction of 1; NaN without objects.
        causes: name -> its errors.
        gain_false_positives: what AP50 would be more without any wrong detection.
        gain_false_negatives: what it would be more with every object found that has no detection.
    """

    ap50: float
    causes: Mapping[str, Cause]
    gain_false_positives: float
    gain_false_negatives: float


def error_effects(matches: Matches, num_classes: int, score: float) -> Effects:
    """Counts errors, and mends one cause after the other to see what it costs (TIDE, section 2.3).

    Errors of class and localisation are mended by giving the detection the class or the box of the
    object that it was meant for; when that object is found already, or by a better one of these,
    the detection goes. Both, duplicate and background: the detection goes. Missed objects: they
    count no more; a class that misses all of its objects then counts as perfect.

    Args:
        matches: of `match_detections`.
        num_classes: background included.
        score: threshold of `confident`.
    """
    base = _Curve.of(matches, num_classes)
    ap50 = base.mean_ap()
    causes = {}
    for name in CAUSES:
        if name == "missed":
            mended = base.without_objects(matches.missed, matches)
            count, confident = int(matches.missed.sum()), _not_found(matches, score)
        else:
            rows = matches.verdicts == _VERDICTS[name]
            mended = base.repaired(rows, matches) if name in _REPAIRED else base.without(rows)
            count, confident = int(rows.sum()), int((rows & (matches.scores >= score)).sum())
        causes[name] = Cause(count, confident, mended.mean_ap() - ap50)
    wrong = (matches.verdicts != Verdict.RIGHT) & (matches.verdicts != Verdict.IGNORED)
    not_found = (matches.found_by < 0) & ~matches.objects.ignored
    return Effects(
        ap50=ap50,
        causes=causes,
        gain_false_positives=base.without(wrong).mean_ap() - ap50,
        gain_false_negatives=base.without_objects(not_found, matches).mean_ap() - ap50,
    )


def ap50_of(
    matches: Matches, num_classes: int, objects: np.ndarray, detections: np.ndarray
) -> float:
    """AP50 of some objects, such as those of a level's sizes; NaN without any.

    All detections are matched first: one that finds another object counts for nothing.

    Args:
        matches: of `match_detections`.
        num_classes: background included.
        objects: (M,) bool, those that are to be found.
        detections: (D,) bool, those that count where they are wrong.
    """
    counted = objects & ~matches.objects.ignored
    base = _Curve.of(matches, num_classes)
    right = matches.verdicts == Verdict.RIGHT
    # The target of a detection that is not right is no place where it counts.
    finds = right & counted[np.where(right, matches.targets, 0)] if len(counted) else right
    return base.of_some(counted, np.where(right, finds, detections), matches).mean_ap()


def _not_found(matches: Matches, score: float) -> int:
    """Objects that no detection of at least this score finds."""
    return int(np.count_nonzero(unfound(matches, score)))


def unfound(matches: Matches, score: float) -> np.ndarray:
    """(M,) bool: objects that no detection of at least this score finds."""
    found = matches.found_by >= 0
    found[found] = matches.scores[matches.found_by[found]] >= score
    return ~found & ~matches.objects.ignored


@dataclass(frozen=True, eq=False)
class _Curve:
    """What average precision depends on, for all classes.

    Attributes:
        classes: (D,) class of each detection.
        right: (D,) bool.
        scores: (D,).
        image_ids: (D,) by which equal scores are ordered.
        kept: (D,) bool: the detections that count.
        positives: (C,) objects of each class that are to be found.
        annotated: (C,) bool: classes that have objects.
    """

    classes: np.ndarray
    right: np.ndarray
    scores: np.ndarray
    image_ids: np.ndarray
    kept: np.ndarray
    positives: np.ndarray
    annotated: np.ndarray

    @classmethod
    def of(cls, matches: Matches, num_classes: int) -> _Curve:
        real = ~matches.objects.ignored
        positives = np.bincount(matches.objects.classes[real], minlength=num_classes)
        return cls(
            classes=matches.classes,
            right=matches.verdicts == Verdict.RIGHT,
            scores=matches.scores,
            image_ids=matches.image_ids,
            kept=matches.verdicts != Verdict.IGNORED,
            positives=positives,
            annotated=positives > 0,
        )

    def without(self, rows: np.ndarray) -> _Curve:
        """Some detections go."""
        return self._changed(kept=self.kept & ~rows)

    def repaired(self, rows: np.ndarray, matches: Matches) -> _Curve:
        """Some detections find the object that they were meant for, if it is free."""
        candidates = np.flatnonzero(rows)
        candidates = candidates[matches.found_by[matches.targets[candidates]] < 0]
        # The best detection of each object; the first row on equal scores.
        candidates = candidates[np.argsort(-self.scores[candidates], kind="stable")]
        _, first = np.unique(matches.targets[candidates], return_index=True)
        lucky = candidates[first]
        right, classes, kept = self.right.copy(), self.classes.copy(), self.kept & ~rows
        right[lucky], kept[lucky] = True, True
        classes[lucky] = matches.objects.classes[matches.targets[lucky]]
        return self._changed(right=right, classes=classes, kept=kept)

    def without_objects(self, gone: np.ndarray, matches: Matches) -> _Curve:
        """Some objects need not be found."""
        less = np.bincount(matches.objects.classes[gone], minlength=len(self.positives))
        return self._changed(positives=self.positives - less)

    def of_some(self, objects: np.ndarray, rows: np.ndarray, matches: Matches) -> _Curve:
        """Only some objects and some detections are there."""
        classes = matches.objects.classes[objects]
        positives = np.bincount(classes, minlength=len(self.positives))
        return self._changed(positives=positives, annotated=positives > 0, kept=self.kept & rows)

    def _changed(self, **fields: np.ndarray) -> _Curve:
        return _Curve(**{**self.__dict__, **fields})

    def mean_ap(self) -> float:
        """Mean over the classes that have objects."""
        rows = np.flatnonzero(self.kept)
        # By class once for all: looking for the rows of each would take classes x detections.
        rows = rows[np.lexsort((self.image_ids[rows], -self.scores[rows], self.classes[rows]))]
        bounds = np.searchsorted(self.classes[rows], np.arange(len(self.positives) + 1))
        aps = [
            self._ap(index, rows[bounds[index] : bounds[index + 1]])
            for index in np.flatnonzero(self.annotated).tolist()
        ]
        return float(np.mean(aps)) if aps else float("nan")

    def _ap(self, index: int, rows: np.ndarray) -> float:
        """Mean of the best precisions at 101 recalls (COCO).

        Args:
            index: of the class.
            rows: its detections by falling score.
        """
        if self.positives[index] == 0:
            return 1.0
        hits = np.cumsum(self.right[rows])
        precision = hits / np.arange(1, len(rows) + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        place = np.searchsorted(hits / self.positives[index], RECALLS, "left")
        return float(np.append(best, 0.0)[np.minimum(place, len(rows))].mean())
