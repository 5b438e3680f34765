"""Curves of training runs over the number of updates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from sniper.vis.figures import GREY, INK, cycle, new_figure

_COLUMNS = 3
_PANEL_PX = (470, 290)
_HEAD_PX, _FOOT_PX, _LEGEND_ROW_PX = 56, 54, 22
_GAP_PX = (76, 74)
# Beyond these the lines of the epochs would cover the curves.
_MOST_EPOCH_LINES = 12
# With fewer points a mean would hide more than it shows.
_FEW_POINTS = 30


@dataclass(frozen=True, eq=False)
class Curve:
    """A figure of a run.

    Attributes:
        updates: (n,) increasing numbers of updates.
        values: (n,) what was measured; NaN leaves a gap.
    """

    updates: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class RunCurves:
    """All figures of a run.

    Attributes:
        name: how the legend calls it.
        metrics: training metrics by name.
        lr: the learning rate; None when it is not known.
        speed: chips per second; None when it is not known.
        validation: average precisions by name, 0 to 1.
        epoch_ends: updates after which an epoch ended.
    """

    name: str
    metrics: Mapping[str, Curve]
    lr: Curve | None = None
    speed: Curve | None = None
    validation: Mapping[str, Curve] = field(default_factory=dict)
    epoch_ends: Sequence[int] = ()

    @property
    def last_update(self) -> int:
        """The last update that is known."""
        curves = [*self.metrics.values(), *self.validation.values()]
        return max(int(curve.updates[-1]) for curve in curves)


# Draws a figure of all runs: axes, runs, points that a bold curve averages over.
_Draw = Callable[[Axes, Sequence[RunCurves], Optional[int]], None]


def plot_runs(runs: Sequence[RunCurves], heading: str, smooth: int | None = None) -> Figure:
    """One plot for each figure, with a curve for each run that has it.

    Args:
        runs: at least one.
        heading: one line.
        smooth: points that a bold curve averages over; 1 draws the points only, None chooses.
    """
    panels = _panels(runs)
    rows = math.ceil(len(panels) / _COLUMNS)
    columns = min(_COLUMNS, len(panels))
    legend_rows = len(runs) if len(runs) > 1 else 0
    head = _HEAD_PX + legend_rows * _LEGEND_ROW_PX
    width = columns * (_PANEL_PX[0] + _GAP_PX[0]) + 30
    height = head + rows * (_PANEL_PX[1] + _GAP_PX[1])
    figure = new_figure(width, height)
    for index, (title, draw) in enumerate(panels):
        row, column = divmod(index, columns)
        left = _GAP_PX[0] + column * (_PANEL_PX[0] + _GAP_PX[0])
        top = head + 24 + row * (_PANEL_PX[1] + _GAP_PX[1])
        place = (left / width, 1 - (top + _PANEL_PX[1]) / height)
        size = (_PANEL_PX[0] / width, _PANEL_PX[1] / height)
        axes = figure.add_axes((*place, *size))
        draw(axes, runs, smooth)
        _finish(axes, title, runs)
    figure.text(30 / width, 1 - 20 / height, heading, fontsize=13, weight="bold", va="center")
    for index, run in enumerate(runs[:legend_rows]):
        y = 1 - (44 + index * _LEGEND_ROW_PX) / height
        figure.text(30 / width, y, "\u25a0", color=cycle(index), fontsize=13, va="center")
        figure.text(50 / width, y, run.name, color=INK, fontsize=10, va="center")
    return figure


def _panels(runs: Sequence[RunCurves]) -> list[tuple[str, _Draw]]:
    """(title, function that draws) of each plot that has data."""
    names = list(dict.fromkeys(name for run in runs for name in run.metrics))
    losses = [name for name in names if "loss" in name.lower()]
    others = [name for name in names if name not in losses]
    panels: list[tuple[str, _Draw]] = [(name, _metric(name)) for name in losses + others]
    if any(run.validation for run in runs):
        kinds = list(dict.fromkeys(name for run in runs for name in run.validation))
        panels.insert(0, (f"validation in %: {_styles_text(kinds)}", _draw_validation))
    if any(run.lr is not None for run in runs):
        panels.append(("learning rate", _draw_lr))
    if any(run.speed is not None for run in runs):
        panels.append(("chips per second", _draw_speed))
    return panels


def _metric(name: str) -> _Draw:
    def draw(axes: Axes, runs: Sequence[RunCurves], smooth: int | None) -> None:
        for index, run in enumerate(runs):
            if name in run.metrics:
                _draw_smooth(axes, run.metrics[name], cycle(index), smooth)

    return draw


def _draw_smooth(axes: Axes, curve: Curve, colour: str, smooth: int | None) -> None:
    count = len(curve.values)
    window = smooth or (1 if count < _FEW_POINTS else max(3, count // 20))
    thin = window > 1
    axes.plot(
        curve.updates,
        curve.values,
        color=colour,
        linewidth=0.9 if thin else 1.6,
        alpha=0.35 if thin else 1.0,
        marker="." if count < _FEW_POINTS else None,
    )
    if thin:
        means = running_mean(curve, window)
        axes.plot(curve.updates, means, color=colour, linewidth=1.8)


def running_mean(curve: Curve, window: int) -> np.ndarray:
    """Means over neighbours, weighted with the updates that each value stands for.

    Args:
        curve: values over the updates since the value before; NaN counts for nothing.
        window: values to look at when they are evenly spaced; fewer near both ends.

    Returns:
        (n,) means; NaN where all neighbours are NaN.
    """
    known = np.isfinite(curve.values)
    steps = np.diff(curve.updates, prepend=0)
    weights = np.where(known, steps, 0.0)
    sums = np.concatenate([[0.0], np.cumsum(weights * np.where(known, curve.values, 0.0))])
    totals = np.concatenate([[0.0], np.cumsum(weights)])
    # Equally far to both sides: the ends are not shifted.
    to_ends = np.minimum(curve.updates - curve.updates[0], curve.updates[-1] - curve.updates)
    spacing = (curve.updates[-1] - curve.updates[0]) / max(len(steps) - 1, 1)
    reach = np.minimum(to_ends, window / 2 * spacing)
    low = np.searchsorted(curve.updates, curve.updates - reach, "left")
    high = np.searchsorted(curve.updates, curve.updates + reach, "right")
    with np.errstate(invalid="ignore", divide="ignore"):
        return (sums[high] - sums[low]) / (totals[high] - totals[low])


_STYLES = ("-", "--", ":", "-.")


def _styles_text(kinds: Sequence[str]) -> str:
    marks = ("solid", "dashed", "dotted", "dash-dotted")
    if len(kinds) == 1:
        return kinds[0]
    return ", ".join(f"{kind} ({mark})" for kind, mark in zip(kinds, marks))


def _draw_validation(axes: Axes, runs: Sequence[RunCurves], smooth: int | None) -> None:
    kinds = list(dict.fromkeys(name for run in runs for name in run.validation))
    for index, run in enumerate(runs):
        for kind, style in zip(kinds, _STYLES):
            curve = run.validation.get(kind)
            if curve is not None:
                axes.plot(
                    curve.updates,
                    100 * curve.values,
                    marker="o",
                    markersize=4,
                    color=cycle(index),
                    linestyle=style,
                    linewidth=1.6,
                )
    axes.set_ylim(bottom=0)


def _draw_lr(axes: Axes, runs: Sequence[RunCurves], smooth: int | None) -> None:
    for index, run in enumerate(runs):
        if run.lr is not None:
            axes.plot(run.lr.updates, run.lr.values, color=cycle(index), linewidth=1.6)
    positive = [v for run in runs if run.lr is not None for v in run.lr.values if v > 0]
    if positive and max(positive) > 20 * min(positive):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _draw_speed(axes: Axes, runs: Sequence[RunCurves], smooth: int | None) -> None:
    for index, run in enumerate(runs):
        if run.speed is not None:
            _draw_smooth(axes, run.speed, cycle(index), smooth)
    axes.set_ylim(bottom=0)


def _finish(axes: Axes, title: str, runs: Sequence[RunCurves]) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    lines = _epoch_lines(runs)
    axes.set_xlabel("updates (dotted: ends of epochs)" if lines else "updates", fontsize=9)
    axes.tick_params(labelsize=9)
    last = max(run.last_update for run in runs)
    axes.set_xlim(0, last * 1.01)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if last >= 10000:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(axis="y", color="#eeeeee", zorder=0)
    axes.set_axisbelow(True)
    for update in lines:
        axes.axvline(update, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _epoch_lines(runs: Sequence[RunCurves]) -> Sequence[int]:
    """Where to draw the ends of epochs; nowhere when they would cover the curves."""
    ends = runs[0].epoch_ends
    return ends if len(runs) == 1 and len(ends) <= _MOST_EPOCH_LINES else ()
