"""The page's sections of what goes wrong: causes with remedies, and confusions."""

from __future__ import annotations

import numpy as np

from sniper.evaluation.analysis import CAUSES, ConfusionMatrix
from sniper.tools.explain.error_study import REMEDIES, Study
from sniper.tools.page.html import Html, join, name, prose, tag
from sniper.tools.page.inputs import Missing, PageInputs
from sniper.tools.page.tables import Row, bar, count, missing, scrolling, section, table

# Points of AP50 from which a remedy is worth its line.
_MUCH = 0.01
_MOST_CLASSES, _MOST_PAIRS = 20, 12
_SHADES = 9


def error_section(inputs: PageInputs) -> Html:
    """Errors by cause, what AP50 would win without them, and what to do."""
    results = inputs.results
    if isinstance(results, Missing):
        return section("errors", "Errors", missing(results.sentence, results.command))
    study = results.study
    effects = study.effects
    largest = max((cause.gain for cause in effects.causes.values()), default=0.0)
    rows: list[Row] = []
    remedies: list[Html] = []
    for key, cause in sorted(effects.causes.items(), key=lambda item: -item[1].gain):
        if cause.gain >= _MUCH:
            remedies.append(join(tag("dt", key), tag("dd", prose(REMEDIES[key]))))
        rows.append(
            [
                [tag("strong", key), tag("br"), tag("small", CAUSES[key])],
                f"{100 * cause.gain:+.1f}",
                bar(cause.gain / largest if largest > 0 else 0.0, 1),
                count(cause.count),
                count(cause.confident),
            ]
        )
    head = ("cause", "points of AP50", "share", "errors", f"at score {study.score:g}")
    ap50 = "-" if np.isnan(effects.ap50) else f"{100 * effects.ap50:.1f}"
    about = (
        f"AP50 is {ap50}; \u201cpoints\u201d is what it would win without a cause (causes as "
        "TIDE, IoU 0.50 and 0.10). Without any wrong detection it would win "
        f"{100 * effects.gain_false_positives:.1f}, with every object found "
        f"{100 * effects.gain_false_negatives:.1f}."
    )
    return section(
        "errors",
        "Errors",
        tag("p", about),
        table("Causes of errors, the most costly first", head, rows),
        join(tag("h3", "What to do"), tag("dl", remedies, class_="remedies")) if remedies else None,
        tag("h3", "Confusions"),
        _confusions(study),
    )


def _confusions(study: Study) -> Html:
    matrix = study.confusion
    pairs = matrix.worst(_MOST_PAIRS)
    if not len(matrix.pairs):
        return tag("p", "There is neither an object nor a detection of such a score.")
    rows: list[Row] = [
        [join(name(there), " \u2192 ", name(seen)), count(times)] for there, seen, times in pairs
    ]
    head = ("object \u2192 detected as", "times")
    listed = (
        table("Most frequent confusions of two classes", head, rows)
        if rows
        else tag("p", f"No two classes are confused at score {study.score:g} or more.")
    )
    return tag("div", tag("div", _matrix(matrix)), tag("div", listed), class_="beside")


def _matrix(matrix: ConfusionMatrix) -> Html:
    """Objects by their class and what they were detected as; shades go with the square root."""
    used = np.unique(matrix.pairs)
    used = used[used > 0]
    left_out = max(len(used) - _MOST_CLASSES, 0)
    if left_out:
        used = np.sort(_most_confused(matrix, used))
    order = np.append(used, 0)
    counts = matrix.counts_of(order)
    sums = counts.sum(axis=1, keepdims=True)
    if left_out:
        sums[:, 0] = _all_of_rows(matrix, order)
    shares = counts / np.maximum(sums, 1)
    names = [name(matrix.names[index]) for index in used]
    heads = [tag("td"), *(tag("th", tag("span", text), scope="col") for text in names)]
    heads.append(tag("th", tag("span", "not found"), scope="col"))
    rows = []
    for row, text in enumerate([*names, "nothing there"]):
        last = row == len(order) - 1
        cells = []
        for column in range(len(order)):
            number = int(counts[row, column])
            shade = int(np.ceil(np.sqrt(shares[row, column]) * _SHADES))
            shown = (
                "" if not number else f"{number}" if last else f"{100 * shares[row, column]:.0f}"
            )
            hint = f"{number} times" if number else None
            cells.append(tag("td", shown, class_=f"h{shade}", title=hint))
        rows.append(tag("tr", tag("th", text, scope="row"), cells))
    caption = (
        f"Confusion matrix at score {matrix.score:g} or more: rows are objects, columns what was "
        "detected, in percent of the row; in the last row numbers of detections where no object is"
    )
    grid = tag(
        "table",
        tag("thead", tag("tr", heads)),
        tag("tbody", rows),
        class_="matrix",
        aria_label=caption,
    )
    note = None
    if left_out:
        text = f"The {len(used)} classes with the most confusions are shown, {left_out} are not."
        note = tag("p", text, class_="note")
    figure = tag(
        "figure",
        tag("figcaption", caption),
        scrolling(grid, "confusion matrix"),
        class_="table",
    )
    return join(figure, note)


def _most_confused(matrix: ConfusionMatrix, used: np.ndarray) -> np.ndarray:
    there, seen = matrix.pairs.T
    wrong = (there != seen) & (there > 0) & (seen > 0)
    errors = np.zeros(len(matrix.names), np.int64)
    for side in (there, seen):
        np.add.at(errors, side[wrong], matrix.times[wrong])
    return used[np.argsort(-errors[used], kind="stable")[:_MOST_CLASSES]]


def _all_of_rows(matrix: ConfusionMatrix, rows: np.ndarray) -> np.ndarray:
    totals = np.zeros(len(matrix.names), np.int64)
    np.add.at(totals, matrix.pairs[:, 0], matrix.times)
    return totals[rows]
