"""All numbers of an analysis of detections."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable
from sniper.errors import DataError
from sniper.evaluation import objects_of
from sniper.evaluation.analysis import (
    CAUSES,
    ConfusionMatrix,
    Effects,
    ImageErrors,
    Matches,
    confusion_matrix,
    error_effects,
    match_detections,
    worst_images,
)
from sniper.evaluation.analysis.causes import unfound
from sniper.evaluation.analysis.matching import Verdict
from sniper.evaluation.analysis.worst import Working, working_point
from sniper.vis.error_pictures import FOUND, MISSED, ErrorMark
from sniper.vis.error_plots import ErrorsView, marks_of

_THRESHOLDS = np.linspace(0, 1, 101)
_VERDICT_NAMES = {
    Verdict.RIGHT: "right",
    Verdict.LOCALISATION: "localisation",
    Verdict.CLASS: "class",
    Verdict.DUPLICATE: "duplicate",
    Verdict.BACKGROUND: "background",
    Verdict.BOTH: "both",
}


@dataclass(frozen=True, eq=False)
class Study:
    """What `analyze` found out.

    Attributes:
        dataset: the set.
        score: the threshold of everything that counts confident detections only.
        matches: detections and objects.
        effects: errors by cause.
        confusion: at the threshold.
        worst: the images with the most errors at the threshold.
        chosen: precision and recall at the threshold.
        best: where their harmonic mean is best.
    """

    dataset: Dataset
    score: float
    matches: Matches
    effects: Effects
    confusion: ConfusionMatrix
    worst: list[ImageErrors]
    chosen: Working
    best: Working

    def as_dict(self) -> dict[str, object]:
        """All numbers but those of single detections, ready for JSON."""
        effects = self.effects
        return {
            "tool": "analyze",
            "version": 1,
            "dataset": self.dataset.name,
            "num_images": len(self.dataset.records),
            "num_objects": int(np.count_nonzero(~self.matches.objects.ignored)),
            "num_detections": len(self.matches),
            "score_threshold": self.score,
            "ap50": effects.ap50,
            "causes": {name: asdict(cause) for name, cause in effects.causes.items()},
            "gain_false_positives": effects.gain_false_positives,
            "gain_false_negatives": effects.gain_false_negatives,
            "chosen": _working(self.chosen),
            "best_f1": _working(self.best),
            "confusion": self.confusion.as_dict(),
            "worst_images": [image.as_dict() for image in self.worst],
        }

    def view(self) -> ErrorsView:
        """What the plot shows."""
        matches = self.matches
        counted = matches.verdicts != Verdict.IGNORED
        marks = np.zeros(len(Verdict), np.int64)
        marks[list(_VERDICT_NAMES)] = marks_of(list(_VERDICT_NAMES.values()))
        points = [working_point(matches, float(score)) for score in _THRESHOLDS]
        real = ~matches.objects.ignored
        return ErrorsView(
            heading=f"{self.dataset.name}: {len(self.dataset.records)} images, {real.sum()} "
            f"objects, {len(matches)} detections",
            ap50=self.effects.ap50,
            gains={name: self.effects.causes[name].gain for name in CAUSES},
            counts={
                name: cause.count if name == "missed" else cause.confident
                for name, cause in self.effects.causes.items()
            },
            score=self.score,
            scores=matches.scores[counted],
            verdicts=marks[matches.verdicts[counted]],
            object_sides=np.sqrt(matches.objects.boxes[real, 2:].prod(axis=1)),
            object_states=_states(matches, self.score)[real],
            thresholds=_THRESHOLDS,
            precision=np.array([point.precision for point in points]),
            recall=np.array([point.recall for point in points]),
            best_score=self.best.score,
        )


def _working(point: Working) -> dict[str, float | None]:
    return {name: None if np.isnan(v) else v for name, v in asdict(point).items()}


def _states(matches: Matches, score: float) -> np.ndarray:
    """(M,) as in `ErrorsView.object_states`."""
    states = np.where(matches.missed, 3, 2)
    states[matches.found_by >= 0] = 1
    states[~unfound(matches, score)] = 0
    return states


def study(dataset: Dataset, table: DetectionTable, score: float | None, worst: int) -> Study:
    """Analyses the detections of a set.

    Args:
        dataset: the set that was detected on.
        table: its detections.
        score: detections below it are left out of confusions, counts and worst images; None takes
            that of the best F1, rounded down to three decimals.
        worst: images to name at most.

    Raises:
        DataError: the set has no annotations or no objects, or the detections do not fit it.
    """
    objects = objects_of(dataset)
    if objects.ignored.all():
        raise DataError("there is no object to find in this set", where=dataset.name)
    matches = match_detections(dataset, table, objects)
    best = working_point(matches)
    if score is None:
        score = math.floor(1000 * best.score) / 1000
    return Study(
        dataset=dataset,
        score=score,
        matches=matches,
        effects=error_effects(matches, len(dataset.class_names), score),
        confusion=confusion_matrix(matches, dataset.class_names, score),
        worst=worst_images(dataset, matches, score, worst),
        chosen=working_point(matches, score),
        best=best,
    )


# What to do about a cause that costs much.
REMEDIES = {
    "class": "the confusion matrix shows which classes: check their labels with sniper check-data "
    "and by eye, add images of the rarer one, train longer (TRAIN.end_epoch).",
    "localisation": "train longer (TRAIN.end_epoch, TRAIN.lr_step); anchors that fit the boxes and "
    "a finer first level (sniper suggest-scales); check that the labels are tight.",
    "both": "mostly goes with the causes `class` and `localisation`.",
    "duplicate": "a stricter --set TEST.NMS 0.4 TEST.NMS_SIGMA -1, or a smaller TEST.NMS_SIGMA; it "
    "counts at testing, nothing has to be trained again.",
    "background": "sniper chip-stats says what training never saw. Train with negative chips: "
    "--set TRAIN.USE_NEG_CHIPS mine cuts them around false alarms, TRAIN.BACKGROUND_CHIPS 1 at "
    "random places. Until then take the score of the best F1 as threshold.",
    "missed": "sniper chip-stats says which objects are not trained, the plot of sizes which "
    "are missed: small ones need a finer level (TRAIN.SCALES and TEST.SCALES, sniper "
    "suggest-scales), rare ones more images, all of them longer training.",
}
# Points of AP50 from which a remedy is worth its line.
_MUCH = 0.01

_CONFUSIONS = 10
_WORST = 10


def marks_of_image(study: Study, index: int) -> list[ErrorMark]:
    """What to draw on an image: its objects, and its wrong detections at the threshold.

    Args:
        study: the analysis.
        index: of the record.
    """
    matches, names = study.matches, study.dataset.class_names
    objects, lost = matches.objects, unfound(matches, study.score)
    here = np.flatnonzero((objects.images == index) & ~objects.ignored).tolist()
    marks = [
        ErrorMark(
            MISSED if lost[row] else FOUND,
            tuple(objects.boxes[row].tolist()),
            names[objects.classes[row]],
        )
        for row in here
    ]
    rows = range(*matches.of_image(index).indices(len(matches)))
    for row in rows:
        verdict = Verdict(matches.verdicts[row])
        if verdict in (Verdict.RIGHT, Verdict.IGNORED) or matches.scores[row] < study.score:
            continue
        text = f"{names[matches.classes[row]]} {matches.scores[row]:.2f}"
        if verdict == Verdict.CLASS:
            text += f", is {names[objects.classes[matches.targets[row]]]}"
        box = tuple(matches.boxes[row].tolist())
        marks.append(ErrorMark(_VERDICT_NAMES[verdict], box, text))
    return marks


def summary(study: Study) -> str:
    """The analysis as text."""
    parts = [_head(study), _causes(study), _thresholds(study), _confusions(study), _worst(study)]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _head(study: Study) -> list[str]:
    objects = int((~study.matches.objects.ignored).sum())
    return [
        f"{study.dataset.name}: {len(study.dataset.records)} images, {objects} objects, "
        f"{len(study.matches)} detections, AP50 {_percent(study.effects.ap50)}"
    ]


def _causes(study: Study) -> list[str]:
    effects = study.effects
    lines = [
        "Errors by cause, as in TIDE: a box is right from an IoU of 0.50 on, and belongs to no",
        "object below 0.10. `points` is what AP50 would win without a cause; `sure` counts errors",
        f"at score {study.score:g} or more.",
        f"{'cause':<14} {'points':>7} {'errors':>8} {'sure':>7}  meaning",
    ]
    for name, cause in sorted(effects.causes.items(), key=lambda item: -item[1].gain):
        lines.append(
            f"{name:<14} {100 * cause.gain:>7.1f} {cause.count:>8} {cause.confident:>7}  "
            f"{CAUSES[name]}"
        )
    lines.append(
        f"All wrong detections gone: {100 * effects.gain_false_positives:+.1f} points; all objects "
        f"found: {100 * effects.gain_false_negatives:+.1f} points."
    )
    lines += [
        f"Against {name}: {REMEDIES[name]}"
        for name, cause in effects.causes.items()
        if name in REMEDIES and cause.gain >= _MUCH
    ]
    if effects.causes["missed"].confident:
        lines.append("`sure` of missed: objects that no detection with such a score finds.")
    return lines


def _thresholds(study: Study) -> list[str]:
    return [
        f"At score {study.score:g}: {_working_text(study.chosen)}.",
        f"Best F1 at score {study.best.score:.3f}: {_working_text(study.best)}.",
    ]


def _working_text(point: Working) -> str:
    return (
        f"precision {_percent(point.precision)}, recall {_percent(point.recall)}, "
        f"F1 {_percent(point.f1)}"
    )


def _confusions(study: Study) -> list[str]:
    pairs = study.confusion.worst(_CONFUSIONS)
    if not pairs:
        return [f"No two classes are confused at score {study.score:g} or more."]
    width = max(len(name) for name, _, _ in pairs)
    head = f"Most frequent confusions at score {study.score:g} or more (object -> detected as):"
    return [head, *(f"  {there:<{width}} -> {seen}: {count}" for there, seen, count in pairs)]


def _worst(study: Study) -> list[str]:
    if not study.worst:
        return [f"No image has an error at score {study.score:g} or more."]
    lines = [f"Images with the most errors at score {study.score:g} or more:"]
    for image in study.worst[:_WORST]:
        errors = ", ".join(f"{count} {name}" for name, count in image.errors.items() if count)
        found = f"{image.found} of {image.objects} objects found"
        lines.append(f"  {image.image}: {image.total} errors ({errors}); {found}")
    return lines


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"
