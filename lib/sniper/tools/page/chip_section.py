"""The page's section of chips: how many of each level, what they hold, and some of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sniper.chips.measures import evenly
from sniper.runs.start_up_report import NEGATIVES_REMEDY, lacks_negatives
from sniper.tools.explain.chip_numbers import ChipStatistics, LevelRow, chips_per_image
from sniper.tools.explain.chip_sheets import ImageChips, level_panels, summary
from sniper.tools.page.axes import Axis, count_axis
from sniper.tools.page.charts import Series, bar_chart
from sniper.tools.page.html import Html, code, name, prose, tag
from sniper.tools.page.inputs import Missing, PageInputs, TrainingPart
from sniper.tools.page.pictures import Thumbnail
from sniper.tools.page.tables import Row, count, missing, numbers, percent, section, table
from sniper.vis.chip_pictures import IGNORED, NEVER, VALID, LevelPanel

_MOST_BARS = 30
_STATES = {
    VALID: "trained at this level",
    IGNORED: "trained at another level",
    NEVER: "trained nowhere",
}


def chip_section(inputs: PageInputs, sheets: Html) -> Html:
    """Chips of the first epoch.

    Args:
        inputs: of the page.
        sheets: examples, of `example_sheet`.
    """
    part = inputs.training
    if isinstance(part, Missing):
        return section("chips", "Chips", missing(part.sentence, part.command))
    figures = part.numbers
    explained = (
        f"Chips are the {inputs.cfg.TRAIN.CHIP_SIZE} px windows that are trained: positive ones "
        "around the objects of a level, negative ones where there are none. These are those of "
        "the first epoch."
    )
    return section(
        "chips",
        "Chips",
        tag("p", explained),
        tag("p", part.note, class_="warning") if part.note else None,
        _figures(figures),
        tag("div", _level_chart(figures.levels), _image_chart(part), class_="charts"),
        _level_table(figures),
        _bare_levels(figures),
        sheets,
        tag("p", "More of them, and what the network gets: ", code(inputs.command("show-chips"))),
    )


def _figures(figures: ChipStatistics) -> Html:
    pixels = figures.pixels
    return numbers(
        [
            ("chips of an epoch", count(figures.chips).text),
            ("chips per image, mean", f"{figures.chips_per_image:.2f}"),
            ("negative chips", f"{figures.negative_chips / max(figures.chips, 1):.1%}"),
            ("pixels of the full pyramid", f"{pixels.share_of_pyramid:.0%}"),
            ("times one 800 \u00d7 1333 image", f"{pixels.times_single_scale:.2f}"),
            ("images without chips", count(figures.images_without_chips).text),
            ("most objects in a chip", f"{figures.fullest_chip} (limit {figures.max_gt})"),
        ]
    )


def _level_chart(levels: Sequence[LevelRow]) -> Html:
    positive = np.array([row.positive for row in levels], float)
    negative = np.array([row.negative for row in levels], float)
    series = [Series("positive", positive, 0)]
    if negative.any():
        series.append(Series("negative", negative, 1))
    edges = np.arange(len(levels) + 1.0)
    names = [f"{row.level}: {row.scale}" for row in levels]
    words = [
        f"{text}: {row.positive} positive, {row.negative} negative"
        for text, row in zip(names, levels)
    ]
    return bar_chart(
        "Chips of each level",
        edges,
        series,
        Axis("level", 0, len(levels)),
        count_axis("chips", float((positive + negative).max(initial=1))),
        about="; ".join(words),
        names=names,
    )


def _image_chart(part: TrainingPart) -> Html:
    counts = chips_per_image(part.measures)
    most = int(counts.max(initial=0))
    step = max(1, math.ceil((most + 1) / _MOST_BARS))
    edges = np.arange(0, most + step + 1, step) - 0.5
    values = 100 * np.histogram(counts, edges)[0] / max(len(counts), 1)
    return bar_chart(
        "Chips per image",
        edges,
        [Series("images in %", values, 0)],
        Axis("chips of an image", float(edges[0]), float(edges[-1])),
        count_axis("% of the images", float(values.max(initial=1))),
        about=f"{part.numbers.chips_per_image:.2f} in the mean, at most {most}.",
        digits=1,
    )


def _level_table(figures: ChipStatistics) -> Html:
    rows: list[Row] = [
        [
            f"{row.level}: {row.scale}",
            f"{row.valid_range} px",
            count(row.boxes_in_range),
            count(row.boxes_trained),
            count(row.positive),
            count(row.negative),
            f"{(row.positive + row.negative) / max(figures.images, 1):.2f}",
            percent(row.area_unseen),
            percent(row.others_unseen / row.others if row.others else math.nan),
        ]
        for row in figures.levels
    ]
    head = (
        *("level", "valid range", "objects in it", "objects trained", "positive chips"),
        *("negative chips", "chips per image", "area never shown, %"),
        "objects of other levels never shown, %",
    )
    return table("Chips of each level, mirrored images included", head, rows)


def _bare_levels(figures: ChipStatistics) -> Html | None:
    bare = [row for row in figures.levels if lacks_negatives(row.negative, row.area_unseen)]
    if not bare:
        return None
    names = ", ".join(f"{row.level} ({row.scale})" for row in bare)
    return tag(
        "p", prose(f"No negative chips at level {names}: {NEGATIVES_REMEDY}."), class_="warning"
    )


def examples(part: TrainingPart, how_many: int) -> list[ImageChips]:
    """Images to show, evenly spread over those that have chips."""
    have = np.flatnonzero(chips_per_image(part.measures) > 0)
    shown = [index for index in have.tolist() if not part.data.records[index].flipped]
    chosen = evenly(np.array(shown, np.int64), how_many + 2)
    # Neither the first nor the last of a set is like the others.
    chosen = chosen[1:-1] if len(chosen) > how_many else chosen[:how_many]
    chips = part.measures.epoch.chips
    return [
        ImageChips(str(part.data.records[i].original_id), part.data.records[i], list(chips[i]))
        for i in chosen.tolist()
    ]


def example_sheet(part: TrainingPart, item: ImageChips, thumbnail: Thumbnail) -> Html:
    """An image once for each level, with the level's chips and what becomes of the objects."""
    record = item.record
    panels = [
        _panel(panel, thumbnail, record.width, record.height)
        for panel in level_panels(part.data, item)
    ]
    file = Path(record.image_path).name
    heading = tag("h4", name(file), f", {record.width} \u00d7 {record.height} px: {summary(item)}")
    return tag("div", heading, tag("div", panels, class_="panels"), class_="sheet")


def _panel(panel: LevelPanel, thumbnail: Thumbnail, width: int, height: int) -> Html:
    alt = f"The image with its chips, {panel.title}".replace("\n", ": ")
    outlines = [
        _rect(chip.rect, "chip negative" if chip.negative else "chip", f"chip {chip.number}")
        for chip in panel.chips
    ]
    boxes = [_rect(box, f"box {state}") for box, state in zip(panel.boxes.tolist(), panel.states)]
    overlay = tag(
        "svg",
        *(_rect(box, "box crowd") for box in panel.crowd.tolist()),
        outlines,
        boxes,
        viewBox=f"0 0 {width} {height}",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
    picture = tag(
        "img",
        src=thumbnail.uri,
        alt=alt,
        width=thumbnail.width,
        height=thumbnail.height,
    )
    lines = [tag("br") if part is None else part for part in _lines(panel.title)]
    return tag(
        "figure",
        tag("div", picture, overlay, class_="overlay"),
        tag("figcaption", lines),
        class_="panel",
    )


def _lines(text: str) -> list[str | None]:
    first, *rest = text.split("\n")
    lines: list[str | None] = [first]
    for line in rest:
        lines += [None, line]
    return lines


def _rect(box: Sequence[float], kind: str, hint: str = "") -> Html:
    x1, y1, x2, y2 = box
    return tag(
        "rect",
        tag("title", hint) if hint else None,
        x=f"{x1:.1f}",
        y=f"{y1:.1f}",
        width=f"{max(x2 - x1, 1):.1f}",
        height=f"{max(y2 - y1, 1):.1f}",
        class_=kind,
    )


def sheet_legend() -> Html:
    """What the lines of the sheets mean."""
    kinds = [("chip", "positive chip"), ("chip negative", "negative chip")]
    kinds += [(f"box {state}", f"object, {text}") for state, text in _STATES.items()]
    kinds.append(("box crowd", "crowd region"))
    entries = [
        tag(
            "li",
            tag(
                "svg",
                tag("rect", x=2, y=2, width=22, height=10, class_=kind),
                viewBox="0 0 26 14",
                class_="swatch",
                aria_hidden="true",
            ),
            text,
        )
        for kind, text in kinds
    ]
    return tag("ul", entries, class_="legend")
