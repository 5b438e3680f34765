"""An analysis in words and columns."""

from __future__ import annotations

import math

from sniper.evaluation.analysis import CAUSES
from sniper.evaluation.analysis.worst import Working
from sniper.tools.analysis.study import Study

_CONFUSIONS = 10
_WORST = 10


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
        "Errors by cause (as TIDE, IoU 0.50 and 0.10). `points` is what AP50 would win without a",
        f"cause; `sure` counts errors at score {study.score:g} or more.",
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
    if effects.causes["missed"].confident:
        lines.append("`sure` of missed: objects that no detection with such a score finds.")
    return lines


def _thresholds(study: Study) -> list[str]:
    return [
        f"At score {study.score:g}: {_working(study.chosen)}.",
        f"Best F1 at score {study.best.score:.3f}: {_working(study.best)}.",
    ]


def _working(point: Working) -> str:
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
