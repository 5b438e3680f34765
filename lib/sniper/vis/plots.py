"""Plots of box sizes, pyramids and chips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from sniper.vis.figures import GREEN, GREY, INK, MAGENTA, ORANGE, RED, cycle, new_figure

_BINS_PER_OCTAVE = 4
_FATE_COLOURS = (GREEN, ORANGE, RED, "#7b2d8b", "#1f77b4", "#8c564b", GREY)
_MOST_BARS = 30


@dataclass(frozen=True, eq=False)
class ChipStatsView:
    """What the plot of `chip-stats` shows.

    Attributes:
        heading: one line.
        level_names: one per level.
        positive: positive chips of each level.
        negative: negative chips of each level.
        chips_per_image: (R,) chips of each image.
        pixels: millions of pixels per image by name.
        box_sides: square roots of areas in image px, by what becomes of the boxes.
    """

    heading: str
    level_names: Sequence[str]
    positive: Sequence[int]
    negative: Sequence[int]
    chips_per_image: np.ndarray
    pixels: Mapping[str, float]
    box_sides: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class PyramidView:
    """What the plot of `suggest-scales` shows.

    Attributes:
        heading: one line.
        sides: (N,) square roots of the boxes' areas, image px.
        level_names: one per level, finest first.
        ranges: valid range of each level, image px; an end that is not positive is open.
        shares: share of the boxes in each range.
        input_sides: for each level the sizes of its trained boxes at the network's input, px.
        comfort: the sizes that a network learns well, px.
        anchor_sides: sides of the square anchors, px.
    """

    heading: str
    sides: np.ndarray
    level_names: Sequence[str]
    ranges: Sequence[tuple[float, float]]
    shares: Sequence[float]
    input_sides: Sequence[np.ndarray]
    comfort: tuple[float, float]
    anchor_sides: Sequence[float]


def plot_chip_stats(view: ChipStatsView) -> Figure:
    """Four plots: chips per level, chips per image, pixels, and boxes by size and fate."""
    figure = new_figure(1400, 900)
    figure.suptitle(view.heading, fontsize=13, weight="bold", x=0.02, ha="left")
    axes = figure.subplots(2, 2)
    figure.subplots_adjust(left=0.08, right=0.98, top=0.9, bottom=0.08, hspace=0.34, wspace=0.2)
    _plot_levels(axes[0, 0], view)
    _plot_per_image(axes[0, 1], view.chips_per_image)
    _plot_pixels(axes[1, 0], view.pixels)
    _plot_fates(axes[1, 1], view.box_sides)
    for each in axes.flat:
        _tidy(each)
    return figure


def _plot_levels(axes: Axes, view: ChipStatsView) -> None:
    places = np.arange(len(view.level_names))
    positive, negative = np.array(view.positive), np.array(view.negative)
    axes.bar(places, positive, 0.6, color=[cycle(i) for i in places], label="positive")
    if negative.any():
        axes.bar(places, negative, 0.6, bottom=positive, color=MAGENTA, label="negative")
        axes.legend(frameon=False)
    images = max(len(view.chips_per_image), 1)
    for place, total in zip(places, positive + negative):
        text = f"{total}\n{total / images:.2f} an image"
        axes.text(place, total, text, ha="center", va="bottom", fontsize=9)
    axes.set_xticks(places, view.level_names)
    axes.set_title("chips per level", loc="left")
    axes.margins(y=0.2)


def _plot_per_image(axes: Axes, counts: np.ndarray) -> None:
    most = int(counts.max(initial=0))
    # Large images have hundreds of chips: bars of several numbers, without the last few images.
    top = most if most <= _MOST_BARS else int(max(np.percentile(counts, 99), _MOST_BARS))
    width = -(-(top + 1) // _MOST_BARS)
    number = top // width + 1
    values = np.bincount(np.minimum(counts // width, number - 1), minlength=number)
    places = np.arange(number) * width + (width - 1) / 2
    axes.bar(places, 100 * values / max(len(counts), 1), 0.9 * width, color="#5b7fa6")
    top = (number - 1) * width
    mean = counts.mean() if len(counts) else 0
    axes.axvline(mean, color=INK, linestyle="--", linewidth=1)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.1)
    axes.text(mean, axes.get_ylim()[1], f" mean {mean:.2f}", va="top", fontsize=9)
    more = f" (bars of {width} numbers" if width > 1 else " ("
    if most >= top + width:
        more += f"{', ' if width > 1 else ''}the last: {top} and more, up to {most}"
    more = f"{more})" if len(more) > len(" (") else ""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f"chips of an image{more}")
    axes.set_ylabel("% of the images")
    axes.set_title("chips per image", loc="left")


def _plot_pixels(axes: Axes, pixels: Mapping[str, float]) -> None:
    names, values = list(pixels), list(pixels.values())
    axes.barh(names[::-1], values[::-1], 0.55, color=["#b8c4d0", "#b8c4d0", "#5b7fa6"])
    for place, value in enumerate(values[::-1]):
        share = f" = {value / values[0]:.2f} x chips" if place != len(values) - 1 else ""
        axes.text(value, place, f" {value:.3g}{share}", va="center", fontsize=9)
    axes.margins(x=0.25)
    axes.set_xlabel("million px per image")
    axes.set_title("pixels that the network sees", loc="left")


def _plot_fates(axes: Axes, sides: Mapping[str, np.ndarray]) -> None:
    shown = {name: values for name, values in sides.items() if len(values)}
    axes.set_title("boxes by size", loc="left")
    if not shown:
        axes.set_axis_off()
        return
    total = sum(len(values) for values in shown.values())
    axes.hist(
        [np.maximum(values, 1) for values in shown.values()],
        bins=_log_bins(np.concatenate([*shown.values()])),
        stacked=True,
        color=[_FATE_COLOURS[list(sides).index(name) % len(_FATE_COLOURS)] for name in shown],
        label=[f"{name}: {len(v)} ({len(v) / total:.1%})" for name, v in shown.items()],
    )
    _log_axis(axes)
    axes.set_xlabel("sqrt(area) of the box, image px")
    axes.set_ylabel("boxes")
    axes.set_ylim(0, axes.get_ylim()[1] * (1.05 + 0.08 * len(shown)))
    axes.legend(frameon=False, fontsize=9, loc="upper left")


def plot_pyramid(view: PyramidView) -> Figure:
    """Three plots: box sizes, ranges of the levels, and sizes at the network's input."""
    figure = new_figure(1300, 1000)
    figure.suptitle(view.heading, fontsize=13, weight="bold", x=0.02, ha="left")
    ratios = [3, 0.55 * len(view.ranges) + 0.4, 3]
    axes = figure.subplots(3, 1, gridspec_kw={"height_ratios": ratios})
    figure.subplots_adjust(left=0.08, right=0.97, top=0.92, bottom=0.07, hspace=0.32)
    bins = _log_bins(view.sides)
    _plot_sizes(axes[0], view.sides, bins)
    _plot_ranges(axes[1], view, bins)
    axes[1].sharex(axes[0])
    _plot_input(axes[2], view)
    for each in axes:
        _tidy(each)
    axes[1].spines["left"].set_visible(False)
    return figure


def _plot_sizes(axes: Axes, sides: np.ndarray, bins: list[float]) -> None:
    values = np.maximum(sides, 1)
    weights = np.full(len(values), 100 / max(len(values), 1))
    axes.hist(values, bins=bins, weights=weights, color="#5b7fa6", edgecolor="white", linewidth=0.5)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.15)
    for percent in (5, 50, 95):
        if len(values):
            where = float(np.percentile(values, percent))
            axes.axvline(where, color=INK, linewidth=1, linestyle=":")
            text = f" {percent} % are below {where:.0f} px"
            axes.text(where, axes.get_ylim()[1], text, fontsize=9, va="top")
    _log_axis(axes)
    axes.set_ylabel("% of the boxes")
    axes.set_title("sizes of the boxes: sqrt(area) in image px", loc="left")


def _plot_ranges(axes: Axes, view: PyramidView, bins: list[float]) -> None:
    left, right = bins[0], bins[-1]
    for row, (low, high) in enumerate(view.ranges):
        start = low if low > left else left
        end = high if 0 < high < right else right
        axes.barh(row + 0.16, end - start, 0.4, left=start, color=cycle(row))
        text = f"level {row}, {view.level_names[row]}: {view.shares[row]:.0%} of the boxes"
        axes.text(start, row - 0.08, text, ha="left", va="bottom", fontsize=9.5)
    axes.set_yticks([])
    axes.set_ylim(len(view.ranges) - 0.5, -0.5)
    _log_axis(axes)
    axes.set_title("valid ranges: which level trains a box", loc="left")


def _plot_input(axes: Axes, view: PyramidView) -> None:
    everything = np.concatenate([np.array(view.comfort), *view.input_sides])
    bins = _log_bins(everything)
    total = max(sum(len(values) for values in view.input_sides), 1)
    axes.axvspan(*view.comfort, color="#e8f6ec", zorder=0)
    axes.hist(
        [np.maximum(values, 1) for values in view.input_sides],
        bins=bins,
        stacked=True,
        weights=[np.full(len(values), 100 / total) for values in view.input_sides],
        color=[cycle(index) for index in range(len(view.input_sides))],
        label=[f"level {index}" for index in range(len(view.input_sides))],
    )
    top = axes.get_ylim()[1]
    axes.plot(
        view.anchor_sides,
        np.full(len(view.anchor_sides), top),
        "v",
        color=INK,
        markersize=7,
        clip_on=False,
        label="anchors",
    )
    axes.set_ylim(0, top)
    _log_axis(axes)
    axes.legend(frameon=False, fontsize=9.5, loc="upper left")
    low, high = view.comfort
    axes.set_xlabel("px")
    axes.set_ylabel("% of the trained boxes")
    axes.set_title(
        f"sizes at the network's input (shaded: {low:g} to {high:g} px, learned well)", loc="left"
    )


def _log_bins(values: np.ndarray) -> list[float]:
    """Bin edges from below the smallest to above the largest value, evenly spaced in log."""
    low = np.floor(np.log2(max(float(values.min(initial=1e9)), 1))) if len(values) else 0
    high = np.ceil(np.log2(max(float(values.max(initial=1)), 2)))
    high = max(high, low + 1)
    edges = 2 ** np.linspace(low, high, int((high - low) * _BINS_PER_OCTAVE) + 1)
    return edges.tolist()


def _log_axis(axes: Axes) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _tidy(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.title.set_fontsize(11)
