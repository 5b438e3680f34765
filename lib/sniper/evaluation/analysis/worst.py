"""The images with the most errors, and the score at which detections are best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from sniper.data.dataset import Dataset
from sniper.evaluation.analysis.causes import unfound
from sniper.evaluation.analysis.matching import Matches, Verdict

_NAMES = {
    Verdict.CLASS: "class",
    Verdict.LOCALISATION: "localisation",
    Verdict.BOTH: "both",
    Verdict.DUPLICATE: "duplicate",
    Verdict.BACKGROUND: "background",
}


@dataclass(frozen=True)
class ImageErrors:
    """The errors of one image at a score threshold.

    Attributes:
        image: path of the image file.
        image_id: its id, as the annotation file has it.
        objects: that are to be found.
        found: of them.
        errors: cause -> wrong detections; `missed` -> objects that are not found.
    """

    image: str
    image_id: int | str
    objects: int
    found: int
    errors: Mapping[str, int]

    @property
    def total(self) -> int:
        """All errors."""
        return sum(self.errors.values())

    def as_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        return {**asdict(self), "total": self.total}


def worst_images(dataset: Dataset, matches: Matches, score: float, count: int) -> list[ImageErrors]:
    """The images with the most errors, worst first; images without errors are left out.

    Args:
        dataset: the set that was detected on.
        matches: of `match_detections`.
        score: detections below it do not count.
        count: images to name at most.
    """
    images = len(dataset.records)
    sure = matches.scores >= score
    lost = unfound(matches, score)
    per_cause = {
        name: np.bincount(matches.images[sure & (matches.verdicts == verdict)], minlength=images)
        for verdict, name in _NAMES.items()
    }
    per_cause["missed"] = np.bincount(matches.objects.images[lost], minlength=images)
    real = np.bincount(matches.objects.images[~matches.objects.ignored], minlength=images)
    totals = np.sum(list(per_cause.values()), axis=0)
    order = np.argsort(-totals, kind="stable")[:count]
    return [
        ImageErrors(
            image=dataset.records[index].image_path,
            image_id=dataset.records[index].original_id,
            objects=int(real[index]),
            found=int(real[index] - per_cause["missed"][index]),
            errors={name: int(counts[index]) for name, counts in per_cause.items()},
        )
        for index in order.tolist()
        if totals[index]
    ]


@dataclass(frozen=True)
class Working:
    """How detections do above a score.

    Attributes:
        score: the threshold.
        precision: share of the detections that are right; NaN without detections.
        recall: share of the objects that are found; NaN without objects.
        f1: harmonic mean of both; 0 without detections.
    """

    score: float
    precision: float
    recall: float
    f1: float


def working_point(matches: Matches, score: float | None = None) -> Working:
    """Precision and recall of all classes at a score, or where their harmonic mean is best."""
    counted = matches.verdicts != Verdict.IGNORED
    scores = matches.scores[counted]
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    hits = np.cumsum(matches.verdicts[counted][order] == Verdict.RIGHT)
    objects = int(np.count_nonzero(~matches.objects.ignored))
    # A threshold takes all detections of its score: only the last of equal ones is a choice.
    if score is None:
        last = np.flatnonzero(np.append(np.diff(scores) != 0, True))[: len(scores)]
        f1 = [2 * hits[i] / (i + 1 + objects) for i in last]
        index = int(last[int(np.argmax(f1))]) if len(f1) else -1
        score = float(scores[index]) if index >= 0 else 1.0
    else:
        index = int(np.searchsorted(-scores, -score, "right")) - 1
    if index < 0:
        return Working(score, float("nan"), 0.0 if objects else float("nan"), 0.0)
    right = int(hits[index])
    recall = right / objects if objects else float("nan")
    return Working(score, right / (index + 1), recall, 2 * right / (index + 1 + objects))
