"""A confusion matrix as a picture."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sniper.evaluation.analysis.confusion import ConfusionMatrix
from sniper.vis.figures import INK, add_axes_px, new_figure

# With more classes numbers would not be legible.
_MOST_WITH_NUMBERS = 25
_CELL_PX, _SMALL_CELL_PX = 44, 13
_MIN_SIDE_PX = 300
_HEAD_PX, _FOOT_PX, _RIGHT_PX = 92, 40, 40
_LETTER_PX, _SMALL_LETTER_PX = 7.2, 6.2
_MOST_LETTERS = 20
# Of thousands of classes those with the most errors are shown: 200 of them fill a screen.
_MOST_CLASSES = 200


def plot_confusion(matrix: ConfusionMatrix, heading: str) -> Figure:
    """Shares of the objects of each class (rows) by what they were detected as (columns).

    The row "nothing there" has shares of all detections that no object has. Shades go with the
    square root, so that rare confusions can be seen. Classes without objects and detections are
    left out, and of more than 200 those with the fewest errors.

    Args:
        matrix: of a set.
        heading: one line.
    """
    used, total = _used_classes(matrix)
    # Classes first, the background last, as tables have their sums.
    order = np.append(used, 0)
    counts = matrix.counts_of(order)
    names = [_short(matrix.names[i]) for i in used]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with_numbers = len(order) <= _MOST_WITH_NUMBERS
    cell = _CELL_PX if with_numbers else _SMALL_CELL_PX
    side = max(cell * len(order), _MIN_SIDE_PX)
    letter = _LETTER_PX if with_numbers else _SMALL_LETTER_PX
    labels = int(max(len("nothing there"), *map(len, names), 1) * letter) + 44
    explained = "rows: objects; columns: what was detected"
    explained += "; percent of the row, in the last row numbers" if with_numbers else ""
    if total > len(used):
        explained += f"; the {len(used)} classes with the most errors, of {total}"
    width, height = labels + side + _RIGHT_PX, _HEAD_PX + labels + side + _FOOT_PX
    width = max(width, int(len(heading) * 9.5) + 40, int(len(explained) * _LETTER_PX) + 40)
    figure = new_figure(width, height)
    figure.text(24 / width, 1 - 26 / height, heading, fontsize=13, weight="bold", va="center")
    figure.text(24 / width, 1 - 52 / height, explained, fontsize=9.5, color=INK, va="center")
    axes = add_axes_px(figure, labels, _HEAD_PX + labels - 40, side, side)
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1, aspect="equal")
    size = 9.5 if with_numbers else 7
    places = np.arange(len(order))
    axes.set_xticks(places, [*names, "not found"], rotation=90, fontsize=size)
    axes.set_yticks(places, [*names, "nothing there"], fontsize=size)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_xticks(places[:-1] + 0.5, minor=True)
    axes.set_yticks(places[:-1] + 0.5, minor=True)
    axes.grid(which="minor", color="#e4e4e4", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    for edge in (axes.axhline, axes.axvline):
        edge(len(order) - 1.5, color=INK, linewidth=1)
    if with_numbers:
        _write_numbers(axes, counts, shares)
    return figure


def _used_classes(matrix: ConfusionMatrix) -> tuple[np.ndarray, int]:
    """The classes to show, rising, and how many have objects or detections."""
    used = np.unique(matrix.pairs)
    used = used[used > 0]
    if len(used) <= _MOST_CLASSES:
        return used, len(used)
    wrong = matrix.pairs[:, 0] != matrix.pairs[:, 1]
    errors = np.zeros(len(matrix.names), np.int64)
    for side in range(2):
        np.add.at(errors, matrix.pairs[wrong, side], matrix.times[wrong])
    worst = used[np.argsort(-errors[used], kind="stable")[:_MOST_CLASSES]]
    return np.sort(worst), len(used)


def _write_numbers(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    """Shares of the objects; in the last row, which has none, numbers of detections."""
    last = len(counts) - 1
    for row, column in zip(*np.nonzero(counts)):
        share = shares[row, column]
        text = str(counts[row, column]) if row == last else f"{100 * share:.0f}"
        ink = "white" if share > 0.35 else INK
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color=ink)


def _short(name: str) -> str:
    return name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 1]}…"
