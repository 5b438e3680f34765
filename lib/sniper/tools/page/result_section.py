"""The page's section of the results: average precision by class, size and level, and curves."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from sniper.evaluation import PrecisionRecall
from sniper.evaluation.analysis import SizeRecall, ap50_of, recall_by_size
from sniper.evaluation.analysis.causes import unfound
from sniper.evaluation.analysis.matching import Verdict
from sniper.evaluation.protocol import NamedCurve
from sniper.evaluation.report import CURVE_IOUS, STATISTICS, CocoReport, settings_text
from sniper.tools.page.axes import Axis, size_axis
from sniper.tools.page.charts import Mark, Series, bar_chart, colour, line_chart
from sniper.tools.page.html import Child, Html, name, tag
from sniper.tools.page.inputs import Missing, PageInputs, Results
from sniper.tools.page.tables import Cell, Row, count, missing, numbers, percent, section, table

SIZES = {"small": (0.0, 32.0), "medium": (32.0, 96.0), "large": (96.0, math.inf)}
# Classes whose curves have a colour; more would be a tangle.
_MOST_NAMED, _BEST_AND_WORST, _MOST_FAINT = 8, 4, 200
_SHARE = Axis("", 0, 1)
_RECALLS = np.linspace(0, 1, 101)


def result_section(inputs: PageInputs) -> Html:
    """How good the detections are, and for which objects."""
    results = inputs.results
    if isinstance(results, Missing):
        return section("results", "Results", missing(results.sentence, results.command))
    study = results.study
    about = (
        f"{len(study.matches)} detections in {len(results.dataset.records)} images of "
        f"{results.dataset.name}, mode {results.mode}. \u201cAt the score\u201d: counting "
        f"detections of score {study.score:g} or more; all of it at IoU 0.50 unless it is said."
    )
    curves = [*_precision_recall(results), _threshold_chart(results)]
    return section(
        "results",
        "Results",
        tag("p", about),
        numbers(headline(results)),
        _settings(results),
        _size_table(results),
        _level_table(results),
        _class_table(results),
        tag("h3", "Precision and recall"),
        tag("div", curves, class_="charts"),
        tag("h3", "Recall against object size"),
        tag(
            "p",
            "Sizes are square roots of areas in px at the network's input: how large the network "
            "sees an object at a level. Each chart has the objects of the level's valid range; "
            "the first one has all of them, in px of the image. Levels are named by the short side "
            "and the longest long side of the image there, px, or by their factor; numbers in the "
            "bars are objects.",
        ),
        tag("div", _recall_charts(results), class_="charts"),
    )


def headline(results: Results) -> list[tuple[str, Child]]:
    """The figures that are read first."""
    report, study = results.report, results.study
    rows: list[tuple[str, Child]] = []
    if isinstance(report, CocoReport):
        chosen = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar_100")
        rows += [(_title(key), _share(getattr(report, key))) for key in chosen]
        masks = results.facts.get("masks")
        if isinstance(masks, Mapping):
            rows += [
                (f"mask {_title(key)}", _share(masks.get(key)))
                for key in chosen[:3]
                if key in STATISTICS
            ]
    elif report is not None:
        rows += [
            (_title(field.name), _share(getattr(report, field.name)))
            for field in dataclasses.fields(report)
            if isinstance(getattr(report, field.name), float)
        ]
    rows.append((f"precision at {study.score:g}", _share(study.chosen.precision)))
    rows.append((f"recall at {study.score:g}", _share(study.chosen.recall)))
    return rows


def _title(key: str) -> str:
    """`ap_small` as `AP small`, `mean_ap50` as `mAP50`, `ar` as `AR`."""
    words = key.replace("_", " ").replace("mean ap", "map")
    return re.sub(r"^(m?)(ap|ar)(?=\d|\b)", lambda match: match[1] + match[2].upper(), words)


def _share(value: object) -> str:
    if not isinstance(value, (int, float)) or math.isnan(value):
        return "-"
    return f"{100 * value:.1f} %"


def _points(value: float) -> str:
    return f"{100 * value:.1f}"


def _settings(results: Results) -> Html | None:
    settings, speed = results.facts.get("settings"), results.facts.get("speed")
    parts = []
    if isinstance(settings, Mapping):
        parts.append(f"Measured with {settings_text(settings)}.")
    if isinstance(speed, Mapping) and isinstance(speed.get("took_s"), (int, float)):
        images = speed.get("images")
        parts.append(f"It took {speed['took_s']:.1f} s for {images} images.")
    return tag("p", " ".join(parts), class_="note") if parts else None


def _sides(results: Results) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of objects and of detections, image px."""
    matches = results.study.matches
    return box_sides(matches.objects.boxes), box_sides(matches.boxes)


def box_sides(boxes: np.ndarray) -> np.ndarray:
    """(n,) square roots of the areas of (n, 4) x y width height."""
    return np.sqrt(boxes[:, 2:].prod(axis=1))


def _part_row(
    title: Child, results: Results, objects: np.ndarray, detections: np.ndarray
) -> list[Child | Cell]:
    """Number, AP50 and recalls of some objects."""
    study = results.study
    matches = study.matches
    counted = objects & ~matches.objects.ignored
    total = int(counted.sum())
    ap50 = ap50_of(matches, len(results.dataset.class_names), counted, detections)
    found = int((counted & (matches.found_by >= 0)).sum())
    sure = int((counted & ~unfound(matches, study.score)).sum())
    shares = (number / total if total else math.nan for number in (found, sure))
    return [title, count(total), percent(ap50), *map(percent, shares)]


_PART_HEAD = ("objects", "AP50", "recall", "recall at the score")


def _size_table(results: Results) -> Html:
    report, rows = results.report, []
    objects, detections = _sides(results)
    for key, (low, high) in SIZES.items():
        limits = f"below {high:g} px" if low == 0 else f"{low:g} to {high:g} px"
        limits = f"from {low:g} px" if high == math.inf else limits
        of_objects = (objects >= low) & (objects < high)
        of_detections = (detections >= low) & (detections < high)
        row = _part_row(f"{key}, {limits}", results, of_objects, of_detections)
        if isinstance(report, CocoReport):
            row.append(percent(getattr(report, f"ap_{key}")))
        rows.append(row)
    head = ["size of the box", *_PART_HEAD]
    head += ["AP by the protocol's areas"] if isinstance(report, CocoReport) else []
    return table("By size of the object", head, rows)


def _level_table(results: Results) -> Html:
    objects, detections = _sides(results)
    rows = [
        _part_row(
            f"{place}: {level.name}, {level.sizes}",
            results,
            level.holds(objects),
            level.holds(detections),
        )
        for place, level in enumerate(results.levels)
    ]
    outside = ~np.any([level.holds(objects) for level in results.levels], axis=0)
    if (outside & ~results.study.matches.objects.ignored).any():
        nowhere = ~np.any([level.holds(detections) for level in results.levels], axis=0)
        rows.append(_part_row("in no level's range", results, outside, nowhere))
    head = ("level", *_PART_HEAD)
    return table("By level of the test", head, rows)


def _class_table(results: Results) -> Html:
    study, names = results.study, results.dataset.class_names
    matches, size = study.matches, len(results.dataset.class_names)
    real = ~matches.objects.ignored
    totals = np.bincount(matches.objects.classes[real], minlength=size)
    lost = np.bincount(matches.objects.classes[unfound(matches, study.score)], minlength=size)
    sure = (matches.scores >= study.score) & (matches.verdicts != Verdict.IGNORED)
    given = np.bincount(matches.classes[sure], minlength=size)
    right = np.bincount(matches.classes[sure & (matches.verdicts == Verdict.RIGHT)], minlength=size)
    columns = _class_columns(results)
    rows: list[Row] = []
    for index in range(1, size):
        total, shown = int(totals[index]), int(given[index])
        rows.append(
            [
                name(names[index]),
                count(total),
                *(percent(values.get(names[index], math.nan)) for values in columns.values()),
                percent(right[index] / shown if shown else math.nan),
                percent((total - lost[index]) / total if total else math.nan),
                count(shown),
            ]
        )
    # The worst first: they are what a reader can do something about.
    first = next(iter(columns.values()), {})
    rows = [
        row
        for _, row in sorted(
            zip(names[1:], rows), key=lambda pair: _last_if_unknown(first.get(pair[0], math.nan))
        )
    ]
    head = ["class", "objects", *columns, "precision at the score", "recall at the score"]
    rest = "All of them are in the report file of the test."
    caption = "By class, worst first"
    return table(caption, [*head, "detections at it"], rows, sortable=True, rest=rest)


def _last_if_unknown(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _class_columns(results: Results) -> dict[str, Mapping[str, float]]:
    """The protocol's figures of classes, by the name of the figure."""
    report = results.report
    classes = getattr(report, "classes", None)
    if isinstance(classes, Mapping) and classes:
        first = next(iter(classes.values()))
        if dataclasses.is_dataclass(first):
            return {
                _title(field.name): {key: getattr(one, field.name) for key, one in classes.items()}
                for field in dataclasses.fields(first)
                if isinstance(getattr(first, field.name), float)
            }
    columns = {}
    for field, title in (("per_class", "AP"), ("per_class_70", "AP at IoU 0.70")):
        values = getattr(report, field, None)
        if isinstance(values, Mapping):
            columns[title] = values
    return columns


def _precision_recall(results: Results) -> list[Html]:
    charts = []
    for plot in results.curves:
        if isinstance(plot.curves, PrecisionRecall):
            charts += [_mean_chart(plot.curves), _class_chart(plot.curves)]
        else:
            charts.append(_named_chart(plot.heading, plot.curves))
    return charts


def _mean_chart(curves: PrecisionRecall) -> Html:
    series = [
        Series(f"IoU {text}: AP {_points(float(values.mean()))}", values, place)
        for place, (text, values) in enumerate(zip(CURVE_IOUS, curves.mean))
    ]
    return _recall_chart("Precision over recall, mean of the classes", curves.recall, series)


def _class_chart(curves: PrecisionRecall) -> Html:
    precision = curves.precision[0]  # (101, K) at IoU 0.50
    ap = precision.mean(axis=0)
    known = np.flatnonzero(~np.isnan(ap))
    order = known[np.argsort(-ap[known], kind="stable")].tolist()
    named = order
    if len(order) > _MOST_NAMED:
        named = [*order[:_BEST_AND_WORST], *order[-_BEST_AND_WORST:]]
    series = [
        Series(curves.class_names[index], precision[:, index], 0, faint=True)
        for index in order[:_MOST_FAINT]
        if index not in named
    ]
    series += [
        Series(f"{curves.class_names[index]}: {_points(ap[index])}", precision[:, index], place)
        for place, index in enumerate(named)
    ]
    title = "Precision over recall of the classes, IoU 0.50"
    if len(named) < len(order):
        title += ", best and worst named"
    return _recall_chart(title, curves.recall, series)


def _named_chart(heading: str, curves: Sequence[NamedCurve]) -> Html:
    """Curves whose points have recalls of their own, drawn at common ones."""
    series = []
    for place, curve in enumerate(curves):
        values = np.full(len(_RECALLS), math.nan)
        inside = curve.recall > 0
        if inside.any():
            recall, precision = curve.recall[inside], curve.precision[inside]
            values = np.interp(_RECALLS, recall, precision, right=math.nan)
        series.append(Series(curve.name, values, colour(place)))
    return _recall_chart(heading, _RECALLS, series)


def _recall_chart(title: str, recall: np.ndarray, series: Sequence[Series]) -> Html:
    named = [one.name for one in series if not one.faint]
    return line_chart(
        title,
        recall,
        series,
        Axis("recall", 0, 1),
        Axis("precision", 0, 1),
        about=f"Lines: {', '.join(named)}.",
    )


def _threshold_chart(results: Results) -> Html:
    study = results.study
    view = study.view()
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * view.precision * view.recall / (view.precision + view.recall)
    series = [
        Series("precision", view.precision, 0),
        Series("recall", view.recall, 1),
        Series("F1", np.nan_to_num(f1), 2),
    ]
    best = study.best
    return line_chart(
        "Choice of a score threshold, all classes",
        view.thresholds,
        series,
        Axis("least score of a detection", 0, 1),
        _SHARE,
        about=f"The best F1 is {100 * best.f1:.1f} % at score {best.score:.3f}.",
        marks=[Mark(best.score, f"best F1 at {best.score:.2f}")],
    )


def _recall_charts(results: Results) -> list[Html]:
    matches, score = results.study.matches, results.study.score
    sides, _ = _sides(results)
    whole = recall_by_size(matches, sides, np.ones(len(sides), bool), score)
    charts = [_size_chart("All objects, px of the image", "px of the image", whole, score)]
    for place, level in enumerate(results.levels):
        at_input = sides * results.factors[matches.objects.images, place]
        part = recall_by_size(matches, at_input, level.holds(sides), score)
        title = f"Level {place} ({level.name}): objects {level.sizes}"
        charts.append(_size_chart(title, "px at the network's input", part, score))
    return charts


def _size_chart(title: str, unit: str, part: SizeRecall, score: float) -> Html:
    if not len(part.objects):
        return tag(
            "figure",
            tag("figcaption", title),
            tag("p", "There is no object of these sizes.", class_="note"),
            class_="chart",
        )
    sure, found = part.share(part.confident), part.share(part.found)
    total = int(part.objects.sum())
    about = (
        f"{total} objects, {100 * part.found.sum() / total:.0f} % found at any score, "
        f"{100 * part.confident.sum() / total:.0f} % at score {score:g} or more."
    )
    axis = size_axis(unit, float(part.edges[0]), float(part.edges[-1]))
    chart = bar_chart(
        title,
        part.edges,
        [
            Series(f"found, score {score:g} or more", sure, 0),
            Series("found with a lower score", found - sure, 2),
            Series("not found", 1 - found, 7),
        ],
        axis,
        Axis("share of the objects", 0, 1),
        about=about,
        digits=2,
        counts=part.objects,
    )
    return chart
