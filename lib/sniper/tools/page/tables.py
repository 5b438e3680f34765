"""Tables and the small pieces that all sections share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sniper.tools.page.html import Child, Html, code, join, tag

# Of longer tables the rest is folded, and from here on left out.
_MOST_SHOWN, _MOST_ROWS = 25, 400


@dataclass(frozen=True)
class Cell:
    """A cell with a number: what is shown, and by what a reader may sort."""

    text: Child
    value: float


Row = Sequence["Child | Cell"]


def percent(share: float) -> Cell:
    """A fraction of 1 in percent; `-` for NaN."""
    return Cell("-", -1.0) if math.isnan(share) else Cell(f"{100 * share:.1f}", share)


def count(number: int) -> Cell:
    """A number of things, with thin spaces between thousands."""
    return Cell(f"{number:,}".replace(",", "\u202f"), float(number))


def bar(share: float, colour: int = 0) -> Html:
    """A bar beside a number that says the same; nothing for NaN."""
    width = 0.0 if math.isnan(share) else 100 * min(max(share, 0.0), 1.0)
    return tag(
        "svg",
        tag("rect", width=f"{width:.1f}", height=8, class_=f"f{colour}"),
        viewBox="0 0 100 8",
        preserveAspectRatio="none",
        class_="bar",
        aria_hidden="true",
    )


def table(
    caption: str,
    head: Sequence[Child],
    rows: Sequence[Row],
    *,
    sortable: bool = False,
    rest: str = "",
) -> Html:
    """A table whose first column names its rows; a long one is folded.

    Args:
        caption: what it shows.
        head: of its columns.
        rows: at most 400 of them are shown.
        sortable: the script makes buttons of the heads.
        rest: where to find the rows that are left out.
    """
    shown = rows[:_MOST_ROWS]
    kind = "sortable" if sortable and len(rows) > 2 else None
    body = tag(
        "figure", tag("figcaption", caption), grid(caption, head, shown, kind), class_="table"
    )
    if len(rows) > _MOST_ROWS:
        left = f"{len(rows) - _MOST_ROWS} more rows are left out. {rest}"
        body = join(body, tag("p", left, class_="note"))
    if len(rows) <= _MOST_SHOWN:
        return body
    return tag("details", tag("summary", f"{caption} ({len(rows)} rows)"), body)


def grid(caption: str, head: Sequence[Child], rows: Sequence[Row], kind: str | None = None) -> Html:
    """A table of all rows, whose first column names them, and which scrolls where it is wide.

    Its caption is its name; whoever wants it to be seen as well writes it above.
    """
    heads = [tag("th", text, scope="col") for text in head]
    content = tag(
        "table",
        tag("thead", tag("tr", heads)),
        tag("tbody", [tag("tr", _cells(row)) for row in rows]),
        class_=kind,
        aria_label=caption,
    )
    return scrolling(content, caption)


def scrolling(content: Html, label: str) -> Html:
    """Content that scrolls by itself where it is wider than the page.

    The script makes it a place for the keyboard where it does.
    """
    return tag("div", content, class_="wide", data_label=label)


def _cells(row: Row) -> list[Html]:
    cells = []
    for place, cell in enumerate(row):
        name = "td" if place else "th"
        scope = None if place else "row"
        if isinstance(cell, Cell):
            cells.append(
                tag(name, cell.text, scope=scope, class_="number", data_value=f"{cell.value:.6g}")
            )
        else:
            cells.append(tag(name, cell, scope=scope))
    return cells


def section(identity: str, title: str, *children: Child) -> Html:
    """A section of the page with its heading."""
    heading = tag("h2", title, id=f"{identity}-title")
    return tag("section", heading, children, id=identity, aria_labelledby=f"{identity}-title")


def missing(sentence: str, command: str = "") -> Html:
    """What is not there, and the command that makes it."""
    return tag("p", sentence, [" ", code(command)] if command else None, class_="missing")


def numbers(pairs: Sequence[tuple[str, Child]]) -> Html:
    """Names and values side by side."""
    return tag(
        "dl",
        [tag("div", tag("dt", title), tag("dd", value)) for title, value in pairs],
        class_="numbers",
    )
