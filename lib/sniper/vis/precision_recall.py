"""Precision over recall: the mean of all classes and every class, or curves with names."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sniper.evaluation.protocol import CurvePlot, NamedCurve
from sniper.evaluation.report import CURVE_IOUS, PrecisionRecall
from sniper.vis.figures import CYCLE, GREY, INK, add_axes_px, cycle, new_figure, save_figure

logger = logging.getLogger(__name__)

_PANEL_PX = (430, 400)
_GAP_PX, _HEAD_PX, _FOOT_PX = 76, 88, 62
# More classes would be a tangle: then the best and the worst have a colour, the others are grey.
_MOST_NAMED = 2 * len(CYCLE)
_BEST_AND_WORST = len(CYCLE) // 2
_LEGEND_PX = 200
_WIDE_PX, _NOTE_WIDTH = 560, 105
_CLASS_IOU = 0


def save_precision_recall(plots: Iterable[CurvePlot], stem: Path, note: str = "") -> None:
    """Writes `<stem>_precision_recall<suffix>.png` for each, and says so in the log.

    Args:
        plots: what a protocol has to show.
        stem: folder and beginning of the pictures' names.
        note: how the detector looked, where the plots do not say it.

    Raises:
        TrainingError: a file cannot be written.
    """
    for plot in plots:
        path = stem.with_name(f"{stem.name}_precision_recall{plot.suffix}.png")
        if isinstance(plot.curves, PrecisionRecall):
            figure = plot_precision_recall(plot.curves, plot.heading)
        else:
            figure = plot_named_curves(plot.curves, plot.heading, plot.note or note)
        save_figure(figure, path)
        logger.info("precision over recall in %s", path)


def plot_named_curves(curves: Sequence[NamedCurve], heading: str, note: str = "") -> Figure:
    """One panel with some curves.

    Args:
        curves: at most as many as there are colours can be told apart.
        heading: one line.
        note: some more below it, at most two lines.
    """
    width, height = _WIDE_PX + 2 * _GAP_PX, _HEAD_PX + _PANEL_PX[1] + _FOOT_PX
    figure = new_figure(width, height)
    figure.text(24 / width, 1 - 24 / height, heading, fontsize=13, weight="bold", va="center")
    lines = "\n".join(textwrap.wrap(note, _NOTE_WIDTH)[:2])
    figure.text(24 / width, 1 - 36 / height, lines, fontsize=9, color=INK, va="top")
    axes = add_axes_px(figure, _GAP_PX, _HEAD_PX, _WIDE_PX, _PANEL_PX[1])
    for index, curve in enumerate(curves):
        # Thresholds above the best score count nothing.
        counted = (curve.recall > 0) | (curve.precision > 0)
        axes.plot(
            curve.recall[counted],
            curve.precision[counted],
            color=cycle(index),
            linewidth=2,
            label=curve.name,
        )
    _finish(axes, "precision at each threshold of the scores")
    axes.legend(frameon=False, fontsize=10, loc="lower left")
    return figure


def plot_precision_recall(curves: PrecisionRecall, heading: str) -> Figure:
    """Left the mean curves at three IoU thresholds, right one curve for each class at IoU 0.50.

    Args:
        curves: of an evaluation.
        heading: one line.
    """
    width = 2 * (_PANEL_PX[0] + _GAP_PX) + _LEGEND_PX
    height = _HEAD_PX + _PANEL_PX[1] + _FOOT_PX
    figure = new_figure(width, height)
    figure.text(24 / width, 1 - 24 / height, heading, fontsize=13, weight="bold", va="center")
    mean = add_axes_px(figure, _GAP_PX, _HEAD_PX, *_PANEL_PX)
    _draw_means(mean, curves)
    classes = add_axes_px(figure, 2 * _GAP_PX + _PANEL_PX[0], _HEAD_PX, *_PANEL_PX)
    _draw_classes(classes, curves)
    return figure


def _draw_means(axes: Axes, curves: PrecisionRecall) -> None:
    for index, (name, precision) in enumerate(zip(CURVE_IOUS, curves.mean)):
        label = f"IoU {name}: AP {_percent(precision.mean())}"
        axes.plot(curves.recall, precision, color=cycle(index), linewidth=2, label=label)
        axes.fill_between(curves.recall, 0, precision, color=cycle(index), alpha=0.07)
    _finish(axes, "mean of all classes")
    axes.legend(frameon=False, fontsize=10, loc="lower left")


def _draw_classes(axes: Axes, curves: PrecisionRecall) -> None:
    precision = curves.precision[_CLASS_IOU]  # (101, K)
    ap = precision.mean(axis=0)
    known = np.flatnonzero(~np.isnan(ap))
    order = known[np.argsort(-ap[known], kind="stable")]
    named = _named(order.tolist())
    for index in order.tolist():
        if index not in named:
            axes.plot(curves.recall, precision[:, index], color=GREY, linewidth=0.8)
    for place, index in enumerate(named):
        axes.plot(
            curves.recall,
            precision[:, index],
            linewidth=1.6,
            label=f"{_short(curves.class_names[index])}: {_percent(ap[index])}",
            color=cycle(place),
            linestyle="-" if place < len(CYCLE) else "--",
        )
    _finish(axes, f"{len(order)} classes with objects, IoU {CURVE_IOUS[_CLASS_IOU]}")
    if named:
        title = "AP50" if len(named) == len(order) else "AP50, best and worst\n(others grey)"
        axes.legend(
            frameon=False, fontsize=9.5, loc="upper left", bbox_to_anchor=(1.0, 1.0), title=title
        )


def _named(order: Sequence[int]) -> list[int]:
    """The classes that get a colour and a place in the legend, best first."""
    if len(order) <= _MOST_NAMED:
        return list(order)
    return [*order[:_BEST_AND_WORST], *order[-_BEST_AND_WORST:]]


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f}"


def _finish(axes: Axes, title: str) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
