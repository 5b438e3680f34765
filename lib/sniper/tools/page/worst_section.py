"""The page's section of the worst images: tiles that the script fills, filters and enlarges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sniper.data.record import Record
from sniper.evaluation.analysis.matching import Verdict
from sniper.tools.page.html import Html, code, join, json_block, name, tag
from sniper.tools.page.inputs import Missing, PageInputs, Results
from sniper.tools.page.pictures import Thumbnail
from sniper.tools.page.result_section import SIZES, box_sides
from sniper.tools.page.tables import Row, count, missing, section, table

RIGHT, MISSED = 0, 1
# What a mark is, by its number in the data; the words of the legend.
KINDS = (
    ("right", "right"),
    ("missed", "missed"),
    ("class", "wrong class"),
    ("localisation", "box off"),
    ("both", "class and box wrong"),
    ("duplicate", "found before"),
    ("background", "nothing there"),
)
_KIND_OF = {
    Verdict.RIGHT: RIGHT,
    Verdict.CLASS: 2,
    Verdict.LOCALISATION: 3,
    Verdict.BOTH: 4,
    Verdict.DUPLICATE: 5,
    Verdict.BACKGROUND: 6,
}
# Detections of an image: the best ones, from this score on.
_MOST_DETECTIONS, _LEAST_SCORE = 100, 0.02
_LISTED = 10


@dataclass(frozen=True, eq=False)
class Tile:
    """An image among the worst: the record, and what the script draws on it.

    Attributes:
        record: the image.
        marks: kind, x, y, width, height (image px), class, score, bits of the levels, other class
            (0: none). A missed object has the score of the detection that finds it, or -1; it is
            an error where that is below the threshold.
        left_out: detections that are not among the marks.
    """

    record: Record
    marks: list[list[float]]
    left_out: int

    def as_json(self, picture: Thumbnail | None) -> dict[str, Any]:
        """What the script gets."""
        return {
            "n": Path(self.record.image_path).name,
            "w": self.record.width,
            "h": self.record.height,
            "u": "" if picture is None else picture.uri,
            "p": [0, 0] if picture is None else [picture.width, picture.height],
            "m": self.marks,
            "x": self.left_out,
        }


def tiles(results: Results) -> list[Tile]:
    """The worst images, worst first."""
    dataset = results.dataset
    places = {record.original_id: place for place, record in enumerate(dataset.records)}
    return [
        Tile(dataset.records[index], *_marks(results, index))
        for index in (places[image.image_id] for image in results.study.worst)
    ]


def _marks(results: Results, index: int) -> tuple[list[list[float]], int]:
    matches = results.study.matches
    objects = matches.objects
    marks = []
    rows = np.arange(objects.of_image(index).start, objects.of_image(index).stop)
    rows = rows[~objects.ignored[rows]]
    bits = _level_bits(results, objects.boxes[rows])
    for row, levels in zip(rows.tolist(), bits):
        finder = int(matches.found_by[row])
        score = -1.0 if finder < 0 else round(float(matches.scores[finder]), 4)
        box = _rounded(objects.boxes[row])
        marks.append([MISSED, *box, int(objects.classes[row]), score, levels, 0])
    found = np.arange(matches.of_image(index).start, matches.of_image(index).stop)
    counted = found[matches.verdicts[found] != Verdict.IGNORED]
    # Those of an image stand by falling score.
    shown = counted[matches.scores[counted] >= min(_LEAST_SCORE, results.study.score)]
    shown = shown[:_MOST_DETECTIONS]
    bits = _level_bits(results, matches.boxes[shown])
    for row, levels in zip(shown.tolist(), bits):
        verdict, target = Verdict(matches.verdicts[row]), int(matches.targets[row])
        other = int(objects.classes[target]) if verdict == Verdict.CLASS else 0
        score = round(float(matches.scores[row]), 4)
        box = _rounded(matches.boxes[row])
        kind = _KIND_OF[verdict]
        marks.append([kind, *box, int(matches.classes[row]), score, levels, other])
    return marks, len(counted) - len(shown)


def _rounded(box: np.ndarray) -> list[float]:
    return [round(float(value), 1) for value in box]


def _level_bits(results: Results, boxes: np.ndarray) -> list[int]:
    """For each box a number whose bit k says that level k may find its size."""
    sides = box_sides(boxes)
    bits = np.zeros(len(sides), np.int64)
    for place, level in enumerate(results.levels):
        bits |= level.holds(sides).astype(np.int64) << place
    return bits.tolist()


def data_block(
    results: Results, shown: Sequence[Tile], pictures: Sequence[Thumbnail | None]
) -> Html:
    """All tiles for the script."""
    used = sorted(
        {int(c) for tile in shown for mark in tile.marks for c in (mark[5], mark[8]) if c}
    )
    content = {
        "score": results.study.score,
        "kinds": [list(kind) for kind in KINDS],
        "classes": {str(index): results.dataset.class_names[index] for index in used},
        "levels": [f"{k}: {level.name}, {level.sizes}" for k, level in enumerate(results.levels)],
        "sizes": [[low, None if high == math.inf else high] for low, high in SIZES.values()],
        "tiles": [tile.as_json(picture) for tile, picture in zip(shown, pictures)],
    }
    return json_block("tiles-data", content)


def worst_section(inputs: PageInputs, shown: int, notes: Sequence[str], data: Html) -> Html:
    """Filters, tiles and the dialog of an enlarged one.

    Args:
        inputs: of the page.
        shown: tiles.
        notes: what was left out, a sentence each.
        data: of `data_block`.
    """
    results = inputs.results
    title = "Worst images"
    if isinstance(results, Missing):
        return section("worst", title, missing(results.sentence, results.command))
    if not results.study.worst:
        text = f"No image has an error at score {results.study.score:g} or more."
        return section("worst", title, tag("p", text))
    about = tag(
        "p",
        f"The {shown} images with the most errors at score {results.study.score:g} or more. "
        "Filters count what fits all of them at once; a press on a picture enlarges it. Drawn as "
        "files, in full size: ",
        code(inputs.command("analyze")),
    )
    grid = tag("ul", id="tiles", class_="tiles", aria_label="Images that fit the filters")
    return section(
        "worst",
        title,
        about,
        [tag("p", note, class_="note") for note in notes],
        tag("noscript", tag("p", "Pictures and filters need scripts.", class_="warning")),
        _filters(results),
        _legend(),
        tag("p", id="tile-count", role="status", aria_live="polite"),
        grid,
        _listed(results),
        _dialog(),
        data,
    )


def _filters(results: Results) -> Html:
    causes = [("", "all causes"), *((str(i), text) for i, (_, text) in enumerate(KINDS) if i)]
    sizes = [("", "all sizes")]
    for place, (key, (low, high)) in enumerate(SIZES.items()):
        limits = f"{low:g} px and more" if high == math.inf else f"{low:g} to {high:g} px"
        sizes.append((str(place), f"{key}, {limits}"))
    levels = [("", "all levels")]
    levels += [(str(k), f"{k}: {level.name}") for k, level in enumerate(results.levels)]
    orders = [("errors", "most errors"), ("score", "most certain error"), ("name", "name")]
    return tag(
        "form",
        _choice("cause", "Cause", causes),
        _choice("class", "Class", [("", "all classes")]),
        _choice("size", "Size of the box", sizes),
        _choice("level", "Level", levels),
        _choice("order", "Order", orders),
        _slider(results.study.score),
        tag("div", tag("button", "Reset", type="button", id="filter-reset"), class_="field"),
        class_="filters",
        aria_label="Filters of the worst images",
        id="filters",
    )


def _slider(score: float) -> Html:
    value = f"{score:.3f}"
    shown = tag("span", value, id="score-text")
    limits = {"min": 0, "max": 1, "step": 0.001, "value": value}
    slider = tag("input", type="range", id="filter-score", autocomplete="off", **limits)
    label = tag("label", "Least score ", shown, for_="filter-score")
    return tag("div", label, slider, class_="field")


def _choice(identity: str, label: str, options: Sequence[tuple[str, str]]) -> Html:
    entries = [tag("option", text, value=value) for value, text in options]
    key = f"filter-{identity}"
    select = tag("select", entries, id=key, autocomplete="off")
    return tag("div", tag("label", label, for_=key), select, class_="field")


def _legend() -> Html:
    entries = []
    for key, text in KINDS:
        sample = tag("rect", x=2, y=2, width=22, height=10, class_=f"mark k-{key}")
        swatch = tag("svg", sample, viewBox="0 0 26 14", class_="swatch", aria_hidden="true")
        entries.append(tag("li", swatch, text))
    return tag("ul", entries, class_="legend")


def _listed(results: Results) -> Html:
    rows: list[Row] = []
    for image in results.study.worst[:_LISTED]:
        errors = ", ".join(f"{number} {key}" for key, number in image.errors.items() if number)
        found = f"{image.found} of {image.objects}"
        rows.append([name(image.image), count(image.total), errors, found])
    head = ("image", "errors", "of these", "objects found")
    caption = f"The {len(rows)} worst images as a list"
    return tag("details", tag("summary", caption), table(caption, head, rows))


def _dialog() -> Html:
    button = tag("button", "Close", type="button", id="dialog-close")
    before = tag("button", "Previous", type="button", id="dialog-previous")
    after = tag("button", "Next", type="button", id="dialog-next")
    head = tag("div", tag("h3", id="dialog-title"), before, after, button, class_="dialog-head")
    body = tag("div", id="dialog-body")
    return tag("dialog", join(head, body), id="dialog", aria_labelledby="dialog-title")
