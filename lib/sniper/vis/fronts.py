"""Settings of a test: accuracy against time, and recall against the size of objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sniper.vis.figures import GREY, INK, cycle, new_figure

_MODES = ("single", "pyramid", "focus", "slice")
_MARKS = ("o", "s", "D", "^")
# More curves than that cannot be told apart.
_MOST_CURVES = 6


@dataclass(frozen=True, eq=False)
class SettingView:
    """A setting in the picture.

    Attributes:
        name: of the setting.
        mode: `single`, `pyramid`, `focus` or `slice`.
        cost_s: seconds an image.
        accuracy: as a fraction of 1.
        spread: its standard error.
        is_on_front: no other setting beats it.
        is_chosen: it was chosen.
        recall: (K,) of objects by size; NaN for sizes without objects.
    """

    name: str
    mode: str
    cost_s: float
    accuracy: float
    spread: float
    is_on_front: bool
    is_chosen: bool
    recall: np.ndarray


def plot_front(
    settings: Sequence[SettingView],
    *,
    heading: str,
    cost_name: str,
    accuracy_name: str,
    sizes: Sequence[str],
    objects: Sequence[int],
    budget_s: float | None = None,
) -> Figure:
    """Two plots: all settings with their front, and what those on the front find of each size.

    Args:
        settings: at least one.
        heading: one line.
        cost_name: what the time is.
        accuracy_name: what the accuracy is.
        sizes: names of the sizes of objects.
        objects: how many there are of each size.
        budget_s: a line there; None: none.
    """
    figure = new_figure(1300, 600)
    figure.suptitle(heading, fontsize=13, weight="bold", x=0.02, ha="left", color=INK)
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [3, 2]})
    figure.subplots_adjust(left=0.06, right=0.985, top=0.88, bottom=0.26, wspace=0.16)
    _plot_costs(left, settings, budget_s)
    left.set_xlabel(cost_name)
    left.set_ylabel(f"{accuracy_name}, % (bars: one standard error)")
    _plot_recall(right, settings, sizes, objects)
    return figure


def _plot_costs(axes: Axes, settings: Sequence[SettingView], budget_s: float | None) -> None:
    axes.set_xscale("log")
    front = sorted((s for s in settings if s.is_on_front), key=lambda s: s.cost_s)
    axes.step(
        [1000 * s.cost_s for s in front],
        [100 * s.accuracy for s in front],
        where="post",
        color=INK,
        lw=1,
        zorder=1,
        label="front",
    )
    for index, mode in enumerate(_MODES):
        of_mode = [s for s in settings if s.mode == mode]
        if not of_mode:
            continue
        axes.errorbar(
            [1000 * s.cost_s for s in of_mode],
            [100 * s.accuracy for s in of_mode],
            [100 * s.spread for s in of_mode],
            fmt=_MARKS[index],
            color=cycle(index),
            ms=7,
            elinewidth=0.8,
            label=mode,
            zorder=2,
        )
    middle = np.sqrt(front[0].cost_s * front[-1].cost_s)
    for setting in settings:
        place = (1000 * setting.cost_s, 100 * setting.accuracy)
        if setting.is_chosen:
            axes.plot(*place, "o", ms=15, mfc="none", mec=INK, mew=2, zorder=3)
        if setting.is_on_front:
            # Towards the middle, where there is room.
            is_left = setting.cost_s <= middle
            axes.annotate(
                setting.name,
                place,
                xytext=(7, -13) if is_left else (-7, 8),
                textcoords="offset points",
                ha="left" if is_left else "right",
                fontsize=8,
            )
    axes.plot([], [], "o", ms=9, mfc="none", mec=INK, mew=2, label="chosen")
    if budget_s is not None:
        axes.axvline(1000 * budget_s, color=INK, ls=":", lw=1.2, label="budget")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(bottom=0)
    axes.margins(x=0.12, y=0.12)
    axes.grid(True, color=GREY, lw=0.5)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=7, frameon=False)


def _plot_recall(
    axes: Axes, settings: Sequence[SettingView], sizes: Sequence[str], objects: Sequence[int]
) -> None:
    front = sorted((s for s in settings if s.is_on_front), key=lambda s: s.cost_s)
    shown = front if len(front) <= _MOST_CURVES else front[-_MOST_CURVES:]
    shown += [s for s in settings if s.is_chosen and s not in shown]
    places = np.arange(len(sizes))
    for index, setting in enumerate(shown):
        axes.plot(
            places,
            100 * setting.recall,
            color=cycle(index),
            marker=_MARKS[_MODES.index(setting.mode)],
            lw=2.4 if setting.is_chosen else 1.2,
            label=setting.name + (" (chosen)" if setting.is_chosen else ""),
        )
    axes.set_xticks(places, [f"{size}\n{count}" for size, count in zip(sizes, objects)], fontsize=8)
    axes.set_xlabel("sqrt(area) of objects, image px; how many there are")
    axes.set_ylabel("recall at IoU 0.5, %")
    axes.set_ylim(0, 102)
    axes.grid(True, color=GREY, lw=0.5)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, frameon=False)
