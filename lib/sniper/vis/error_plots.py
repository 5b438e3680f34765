"""Where the detections of a set go wrong: causes, scores, sizes of objects, thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, NullFormatter

from sniper.vis.figures import GREEN, GREY, INK, RED, add_axes_px, cycle, new_figure

# Right first, then the causes in the order of the bars; grey for what no detection is near.
COLOURS = {
    "right": GREEN,
    "class": "#f2a104",
    "localisation": "#4aa3ff",
    "both": "#9467bd",
    "duplicate": "#17a398",
    "background": RED,
    "missed": "#555555",
}
_OBJECT_COLOURS = (GREEN, "#a6e3b5", "#4aa3ff", "#555555")
_PANEL_PX = (560, 330)
_GAP_PX = (110, 96)
_HEAD_PX, _FOOT_PX, _STRIP_PX, _LEGEND_PX = 84, 60, 60, 22
_SCORE_BINS = 20
_BINS_PER_OCTAVE = 2


@dataclass(frozen=True, eq=False)
class ErrorsView:
    """What the plot of `analyze` shows.

    Attributes:
        heading: one line.
        ap50: as fraction of 1.
        gains: cause -> what AP50 would be more without it.
        counts: cause -> wrong detections at the threshold; `missed` -> objects at any score.
        score: the threshold.
        scores: (D,) of all detections.
        verdicts: (D,) names of `COLOURS`, by index in their order.
        object_sides: (M,) square roots of areas, image px.
        object_states: (M,) 0 found at the threshold, 1 found below it, 2 a detection is near (wrong
            class or box), 3 missed.
        thresholds: (T,) rising scores.
        precision: (T,) of the detections at or above each; NaN without any.
        recall: (T,) at each.
        best_score: the threshold of the best harmonic mean of both.
    """

    heading: str
    ap50: float
    gains: Mapping[str, float]
    counts: Mapping[str, int]
    score: float
    scores: np.ndarray
    verdicts: np.ndarray
    object_sides: np.ndarray
    object_states: np.ndarray
    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    best_score: float


def plot_errors(view: ErrorsView) -> Figure:
    """Four plots: what each cause costs, scores, sizes of objects, choice of a score threshold."""
    width = 2 * (_PANEL_PX[0] + _GAP_PX[0]) + 40
    height = _HEAD_PX + 2 * _PANEL_PX[1] + _GAP_PX[1] + _FOOT_PX
    figure = new_figure(width, height)
    figure.text(24 / width, 1 - 26 / height, view.heading, fontsize=13, weight="bold", va="center")
    left, right = _GAP_PX[0], 2 * _GAP_PX[0] + _PANEL_PX[0]
    top, bottom = _HEAD_PX, _HEAD_PX + _PANEL_PX[1] + _GAP_PX[1]
    _plot_causes(add_axes_px(figure, left, top, *_PANEL_PX), view)
    strip = add_axes_px(figure, right, top + _LEGEND_PX, _PANEL_PX[0], _STRIP_PX)
    used = _LEGEND_PX + _STRIP_PX + 8
    shares = add_axes_px(figure, right, top + used, _PANEL_PX[0], _PANEL_PX[1] - used)
    _plot_scores(strip, shares, view)
    _plot_sizes(add_axes_px(figure, left, bottom, *_PANEL_PX), view)
    _plot_thresholds(add_axes_px(figure, right, bottom, *_PANEL_PX), view)
    return figure


def _plot_causes(axes: Axes, view: ErrorsView) -> None:
    names = list(view.gains)[::-1]
    points = [100 * view.gains[name] for name in names]
    axes.barh(names, points, 0.62, color=[COLOURS[name] for name in names])
    for place, (name, value) in enumerate(zip(names, points)):
        what = "objects" if name == "missed" else f"of score {view.score:g} or more"
        text = f" {value:.1f}   ({view.counts[name]} {what})"
        axes.text(max(value, 0), place, text, va="center", fontsize=9.5)
    axes.set_xlim(min(0, *points), max(*points, 0.5) * 1.75)
    axes.set_xlabel("points of AP50 that would be won")
    _tidy(axes, f"AP50 is {100 * view.ap50:.1f}: what each cause of errors costs")


def _plot_scores(strip: Axes, axes: Axes, view: ErrorsView) -> None:
    edges = np.linspace(0, 1, _SCORE_BINS + 1)
    bins = np.clip(np.digitize(view.scores, edges) - 1, 0, _SCORE_BINS - 1)
    names = [name for name in COLOURS if name != "missed"]
    counts = np.zeros((len(names), _SCORE_BINS), np.int64)
    np.add.at(counts, (view.verdicts, bins), 1)
    totals = counts.sum(axis=0)
    centres, step = (edges[:-1] + edges[1:]) / 2, edges[1]
    strip.bar(centres, np.maximum(totals, 0.5), 0.9 * step, bottom=0.5, color="#b8c4d0")
    strip.set_yscale("log")
    strip.set_ylabel("number", fontsize=9)
    strip.yaxis.set_major_formatter(EngFormatter(sep=""))
    strip.set_xticks([])
    base = np.zeros(_SCORE_BINS)
    for name, own in zip(names, counts):
        share = 100 * own / np.maximum(totals, 1)
        axes.bar(centres, share, 0.9 * step, bottom=base, color=COLOURS[name], label=name)
        base += share
    for each in (strip, axes):
        each.set_xlim(0, 1)
        each.axvline(view.score, color=INK, linestyle="--", linewidth=1)
    axes.set_ylim(0, 100)
    axes.set_xlabel("score")
    axes.set_ylabel("% of the detections")
    strip.legend(
        *axes.get_legend_handles_labels(),
        frameon=False,
        fontsize=8.5,
        ncols=len(names),
        handlelength=1.2,
        loc="lower left",
        bbox_to_anchor=(-0.015, 0.92),
        columnspacing=1.2,
    )
    _tidy(strip, "what detections of a score are", pad=_LEGEND_PX)
    _tidy(axes, "")


def _plot_sizes(axes: Axes, view: ErrorsView) -> None:
    labels = (
        f"found, score {view.score:g} or more",
        "found with a lower score",
        "only with a wrong class or box",
        "missed",
    )
    _tidy(axes, "objects by size")
    if not len(view.object_sides):
        axes.text(0.5, 0.5, "no objects", ha="center", transform=axes.transAxes)
        return
    sides = np.maximum(view.object_sides, 1)
    low, high = np.floor(np.log2(sides.min())), np.ceil(np.log2(sides.max() + 1e-6))
    high = max(high, low + 1)
    edges = 2 ** np.linspace(low, high, int((high - low) * _BINS_PER_OCTAVE) + 1)
    groups = [sides[view.object_states == state] for state in range(len(labels))]
    total = len(sides)
    names = [f"{label}: {len(g)} ({len(g) / total:.0%})" for label, g in zip(labels, groups)]
    axes.hist(groups, bins=edges, stacked=True, color=_OBJECT_COLOURS, label=names)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(0, axes.get_ylim()[1] * 1.32)
    axes.set_xlabel("square root of the area, px")
    axes.set_ylabel("objects")
    axes.legend(frameon=False, fontsize=8.5, loc="upper left", ncols=2, columnspacing=1)


def _plot_thresholds(axes: Axes, view: ErrorsView) -> None:
    f1 = _harmonic_mean(view.precision, view.recall)
    lines = {"precision": view.precision, "recall": view.recall, "F1": f1}
    for index, (name, values) in enumerate(lines.items()):
        width = 2.2 if name == "F1" else 1.6
        axes.plot(view.thresholds, values, color=cycle(index), linewidth=width, label=name)
    marks = {view.score: ("--", "chosen"), view.best_score: (":", "best F1")}
    for score, (style, what) in marks.items():
        axes.axvline(score, color=INK, linestyle=style, linewidth=1, label=f"{what}: {score:.2f}")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("least score of a detection")
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)
    axes.legend(fontsize=9, loc="lower center", ncols=2, framealpha=0.9, edgecolor="none")
    _tidy(axes, "choice of a score threshold, all classes, IoU 0.50")


def _harmonic_mean(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(2 * precision * recall / (precision + recall))


def _tidy(axes: Axes, title: str, pad: float = 6) -> None:
    axes.set_title(title, loc="left", fontsize=11, pad=pad)
    axes.tick_params(labelsize=9, color=GREY)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def marks_of(names: Sequence[str]) -> np.ndarray:
    """(n,) indices into `COLOURS` of names."""
    places = {name: index for index, name in enumerate(COLOURS)}
    return np.array([places[name] for name in names], np.int64)
