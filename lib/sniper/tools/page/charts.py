"""Charts as inline SVG: lines, and bars on top of each other, each with its numbers as a table.

Colours are classes of the style sheet, which has them for light and dark; series differ in their
dashes, or in the order of their bars, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sniper.tools.page.axes import Axis, tick_text
from sniper.tools.page.html import Html, escape, join, tag
from sniper.tools.page.tables import Row, grid

_WIDTH, _HEIGHT = 440, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 38
# A letter of the charts, about.
_LETTER = 5.8
_COLOURS = 8
# Points of a line that a screen can show, and rows of its table that a reader would read.
_MOST_POINTS, _MOST_ROWS = 240, 25


@dataclass(frozen=True, eq=False)
class Series:
    """A line or a row of bars.

    Attributes:
        name: for the legend.
        values: (n,) NaN leaves a gap.
        colour: number of a class.
        faint: thin and pale, and not in the legend.
    """

    name: str
    values: np.ndarray
    colour: int
    faint: bool = False


@dataclass(frozen=True)
class Mark:
    """A vertical line at a number, with its words."""

    at: float
    text: str


def colour(index: int) -> int:
    """The colour of the series, level or cause of a number."""
    return index % _COLOURS


def line_chart(
    title: str,
    x: np.ndarray,
    series: Sequence[Series],
    x_axis: Axis,
    y_axis: Axis,
    *,
    about: str,
    marks: Sequence[Mark] = (),
    digits: int = 3,
) -> Html:
    """Lines over common numbers.

    Args:
        title: of the figure.
        x: (n,) rising.
        series: of n values each.
        x_axis: below.
        y_axis: on the left.
        about: a sentence that says what there is to see, for who does not see it.
        marks: vertical lines.
        digits: of the numbers in the table.
    """
    chosen = _some(len(x), _MOST_POINTS)
    paths = []
    for one in sorted(series, key=lambda one: not one.faint):
        text = _path(x[chosen], one.values[chosen], x_axis, y_axis)
        if text:
            style = "faint" if one.faint else f"line s{one.colour} d{one.colour}"
            paths.append(tag("path", d=text, class_=style))
        if not one.faint and np.count_nonzero(np.isfinite(one.values)) <= _MOST_ROWS:
            paths += _dots(x, one, x_axis, y_axis)
    named = [one for one in series if not one.faint]
    rows: list[Row] = [
        [f"{x[index]:.4g}", *(_number(one.values[index], digits) for one in named)]
        for index in _some(len(x), _MOST_ROWS).tolist()
    ]
    drawing = join(_frame(x_axis, y_axis), paths, _marks(marks, x_axis))
    legend = _legend(named, lines=True) if len(named) > 1 else None
    return _figure(title, about, drawing, legend, [x_axis.label, *(s.name for s in named)], rows)


def bar_chart(
    title: str,
    edges: np.ndarray,
    series: Sequence[Series],
    x_axis: Axis,
    y_axis: Axis,
    *,
    about: str,
    marks: Sequence[Mark] = (),
    names: Sequence[str] = (),
    digits: int = 0,
    counts: np.ndarray | None = None,
) -> Html:
    """Bars on top of each other.

    Args:
        title: of the figure.
        edges: (n + 1,) where bars begin and end on the lower axis.
        series: of n values each, from below.
        x_axis: below.
        y_axis: on the left.
        about: as in `line_chart`.
        marks: vertical lines.
        names: of the bars; else their edges name them.
        digits: of the numbers in the table.
        counts: (n,) how many things a bar stands for, written above it where there is room.
    """
    base = np.zeros(len(edges) - 1)
    bars = []
    for one in series:
        values = np.nan_to_num(one.values)
        for place, value in enumerate(values.tolist()):
            if value > 0:
                bars.append(_bar(edges[place : place + 2], base[place], value, one, x_axis, y_axis))
        base = base + values
    if counts is not None:
        bars += _counts(edges, counts, x_axis)
    labels = list(names) or [f"{low:.3g} to {high:.3g}" for low, high in zip(edges, edges[1:])]
    rows: list[Row] = [
        [
            label,
            *([] if counts is None else [str(counts[place])]),
            *(_number(one.values[place], digits) for one in series),
        ]
        for place, label in enumerate(labels)
        if names or any(one.values[place] > 0 for one in series)
    ]
    frame = _frame(x_axis, y_axis, edges if names else None, names)
    drawing = join(frame, bars, _marks(marks, x_axis))
    legend = _legend(series, lines=False) if len(series) > 1 else None
    head = [x_axis.label, *([] if counts is None else ["number"]), *(s.name for s in series)]
    return _figure(title, about, drawing, legend, head, rows)


def range_chart(
    title: str,
    ranges: Sequence[tuple[float, float]],
    names: Sequence[str],
    x_axis: Axis,
    *,
    about: str,
) -> Html:
    """One bar for each range, with its words, below each other; an end of 0 or less is open."""
    step = 34
    height = _TOP + step * len(ranges) + _BOTTOM
    parts = [_x_ticks(x_axis, height), _x_label(x_axis, height)]
    rows: list[Row] = []
    for row, ((low, high), text) in enumerate(zip(ranges, names)):
        left = _x(x_axis, low if low > 0 else x_axis.low)
        right = _x(x_axis, high if high > 0 else x_axis.high)
        top = _TOP + step * row
        parts.append(
            tag(
                "rect",
                x=f"{left:.1f}",
                y=top + 15,
                width=f"{max(right - left, 1):.1f}",
                height=12,
                class_=f"f{colour(row)}",
            )
        )
        place = max(2.0, min(left, _WIDTH - 2 - _LETTER * len(text)))
        parts.append(tag("text", text, x=f"{place:.1f}", y=top + 10))
        ends = [f"{low:g}" if low > 0 else "open", f"{high:g}" if high > 0 else "open"]
        rows.append([text, *ends])
    return _figure(title, about, join(parts), None, ["level", "from px", "to px"], rows, height)


def _figure(
    title: str,
    about: str,
    drawing: Html,
    legend: Html | None,
    head: Sequence[str],
    rows: Sequence[Row],
    height: float = _HEIGHT,
) -> Html:
    picture = tag(
        "svg",
        drawing,
        viewBox=f"0 0 {_WIDTH} {height:g}",
        role="img",
        aria_label=f"{title}. {about}",
    )
    hidden = tag("span", f" of: {title}", class_="hidden")
    folded = tag("details", tag("summary", "Numbers", hidden), grid(title, head, rows))
    return tag("figure", tag("figcaption", title), picture, legend, folded, class_="chart")


def _legend(series: Sequence[Series], *, lines: bool) -> Html:
    entries = []
    for one in series:
        if lines:
            sample = tag("path", d="M0 5H26", class_=f"line s{one.colour} d{one.colour}")
        else:
            sample = tag("rect", width=26, height=10, class_=f"f{one.colour}")
        swatch = tag("svg", sample, viewBox="0 0 26 10", class_="swatch", aria_hidden="true")
        entries.append(tag("li", swatch, tag("bdi", one.name)))
    return tag("ul", entries, class_="legend")


def _frame(
    x_axis: Axis, y_axis: Axis, edges: np.ndarray | None = None, names: Sequence[str] = ()
) -> Html:
    """Grid, ticks and labels."""
    parts = []
    for value in y_axis.ticks():
        y = _y(y_axis, value)
        parts.append(
            tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}", class_="grid")
        )
        text = tick_text(value)
        parts.append(tag("text", text, x=_LEFT - 5, y=f"{y + 4:.1f}", text_anchor="end"))
    if edges is None:
        parts.append(_x_ticks(x_axis, _HEIGHT))
    else:
        for low, high, text in zip(edges, edges[1:], names):
            x = _x(x_axis, (low + high) / 2)
            parts.append(
                tag("text", text, x=f"{x:.1f}", y=_HEIGHT - _BOTTOM + 15, text_anchor="middle")
            )
    parts.append(_x_label(x_axis, _HEIGHT))
    middle = _TOP + (_HEIGHT - _TOP - _BOTTOM) / 2
    turn = f"translate(11 {middle:g}) rotate(-90)"
    parts.append(
        tag("text", y_axis.label, transform=turn, text_anchor="middle", class_="axis-label")
    )
    return join(parts)


def _x_ticks(axis: Axis, height: float) -> Html:
    base = height - _BOTTOM
    parts = [tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=base, y2=base, class_="axis")]
    for value in axis.ticks():
        x = f"{_x(axis, value):.1f}"
        parts.append(tag("line", x1=x, x2=x, y1=base, y2=base + 4, class_="axis"))
        parts.append(tag("text", tick_text(value), x=x, y=base + 16, text_anchor="middle"))
    return join(parts)


def _x_label(axis: Axis, height: float) -> Html:
    x = _LEFT + (_WIDTH - _LEFT - _RIGHT) / 2
    return tag("text", axis.label, x=x, y=height - 5, text_anchor="middle", class_="axis-label")


def _marks(marks: Sequence[Mark], axis: Axis) -> Html:
    parts = []
    for row, mark in enumerate(marks):
        x = _x(axis, mark.at)
        right = x > _WIDTH * 0.7
        parts.append(
            tag("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=_TOP, y2=_HEIGHT - _BOTTOM, class_="mark")
        )
        parts.append(
            tag(
                "text",
                mark.text,
                x=f"{x - 4 if right else x + 4:.1f}",
                y=_TOP + 10 + 13 * row,
                text_anchor="end" if right else "start",
                class_="mark-text",
            )
        )
    return join(parts)


def _bar(
    ends: np.ndarray, base: float, value: float, one: Series, x_axis: Axis, y_axis: Axis
) -> Html:
    left, right = (_x(x_axis, float(end)) for end in ends)
    gap = 1.0 if right - left > 4 else 0.0
    top, bottom = _y(y_axis, base + value), _y(y_axis, base)
    return tag(
        "rect",
        x=f"{left + gap / 2:.1f}",
        y=f"{top:.1f}",
        width=f"{max(right - left - gap, 0.5):.1f}",
        height=f"{bottom - top:.1f}",
        class_=f"f{one.colour}",
    )


def _counts(edges: np.ndarray, counts: np.ndarray, axis: Axis) -> list[Html]:
    """Numbers of things inside of the upper ends of their bars."""
    texts = []
    for low, high, number in zip(edges.tolist(), edges[1:].tolist(), counts.tolist()):
        left, right, text = _x(axis, low), _x(axis, high), tick_text(number)
        if number and right - left > 1.1 * _LETTER * len(text):
            middle = f"{(left + right) / 2:.1f}"
            texts.append(
                tag("text", text, x=middle, y=_TOP + 12, text_anchor="middle", class_="on-bar")
            )
    return texts


def _dots(x: np.ndarray, one: Series, x_axis: Axis, y_axis: Axis) -> list[Html]:
    return [
        tag(
            "circle",
            cx=f"{_x(x_axis, float(at)):.1f}",
            cy=f"{_y(y_axis, float(value)):.1f}",
            r=2.6,
            class_=f"f{one.colour}",
        )
        for at, value in zip(x, one.values)
        if math.isfinite(value)
    ]


def _path(x: np.ndarray, values: np.ndarray, x_axis: Axis, y_axis: Axis) -> str:
    words, pen = [], "M"
    for at, value in zip(x.tolist(), values.tolist()):
        if not math.isfinite(value):
            pen = "M"
            continue
        words.append(f"{pen}{_x(x_axis, at):.1f} {_y(y_axis, value):.1f}")
        pen = "L"
    return "".join(words)


def _x(axis: Axis, value: float) -> float:
    return _LEFT + axis.place(value) * (_WIDTH - _LEFT - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return _HEIGHT - _BOTTOM - axis.place(value) * (_HEIGHT - _TOP - _BOTTOM)


def _some(length: int, most: int) -> np.ndarray:
    """At most `most` places, evenly spread."""
    if length <= most:
        return np.arange(length)
    return np.linspace(0, length - 1, most).round().astype(np.int64)


def _number(value: float, digits: int) -> Html:
    return escape("-" if math.isnan(value) else f"{value:.{digits}f}")
