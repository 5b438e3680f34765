"""Plots: they come out for usual, empty and extreme numbers, the same bytes every time."""

from __future__ import annotations

import io

import matplotlib.image
import numpy as np
import pytest

from sniper.vis.figures import png_bytes, save_figure
from sniper.vis.plots import ChipStatsView, PyramidView, plot_chip_stats, plot_pyramid


def texts(figure):
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    found += [axes.get_title(loc="left") for axes in figure.axes]
    for axes in figure.axes:
        legend = axes.get_legend()
        found += [text.get_text() for text in legend.get_texts()] if legend else []
    return "\n".join(found)


def stats_view(**changes):
    values = {
        "heading": "heading",
        "level_names": ["0: x3\nbelow 80 px", "1: long side 512\nall"],
        "positive": [30, 10],
        "negative": [5, 0],
        "chips_per_image": np.array([1, 2, 2, 3, 37]),
        "pixels": {"chips": 1.0, "full pyramid": 3.5, "800x1333": 0.8},
        "box_sides": {"trained": np.array([5.0, 50, 500]), "too long": np.array([300.0])},
    }
    return ChipStatsView(**(values | changes))


def pyramid_view(**changes):
    values = {
        "heading": "heading",
        "sides": np.geomspace(4, 600, 50),
        "level_names": ["x3", "long side 512"],
        "ranges": [(-1, 80), (44, -1)],
        "shares": [0.6, 0.5],
        "input_sides": [np.geomspace(12, 240, 30), np.geomspace(40, 500, 20)],
        "comfort": (32, 452),
        "anchor_sides": [32, 64, 128],
    }
    return PyramidView(**(values | changes))


def test_chip_stats_say_their_numbers():
    shown = texts(plot_chip_stats(stats_view()))
    assert "35\n7.00 an image" in shown
    assert "mean 9.00" in shown
    assert "3.5 = 3.50 x chips" in shown
    assert "trained: 3 (75.0%)" in shown
    assert "too long: 1 (25.0%)" in shown


def test_pyramids_say_their_numbers():
    shown = texts(plot_pyramid(pyramid_view()))
    assert "level 0, x3: 60% of the boxes" in shown
    assert "shaded: 32 to 452 px" in shown
    assert "50 % are below" in shown


@pytest.mark.parametrize(
    "figure",
    [
        lambda: plot_chip_stats(stats_view(chips_per_image=np.zeros(3, np.int64))),
        lambda: plot_chip_stats(stats_view(box_sides={"trained": np.zeros(0)})),
        lambda: plot_chip_stats(stats_view(positive=[0, 0], negative=[0, 0])),
        lambda: plot_pyramid(pyramid_view(sides=np.zeros(0), input_sides=[np.zeros(0)] * 2)),
        lambda: plot_pyramid(pyramid_view(sides=np.full(9, 40.0))),
        lambda: plot_pyramid(
            pyramid_view(
                level_names=["all"], ranges=[(-1, -1)], shares=[1.0], input_sides=[np.ones(3)]
            )
        ),
    ],
)
def test_extreme_numbers_can_be_drawn(figure):
    image = matplotlib.image.imread(io.BytesIO(png_bytes(figure())))
    assert image.shape[1] >= 1300
    assert image[:, :, :3].std() > 0


def test_the_same_plot_has_the_same_bytes(tmp_path):
    assert png_bytes(plot_pyramid(pyramid_view())) == png_bytes(plot_pyramid(pyramid_view()))
    save_figure(plot_chip_stats(stats_view()), tmp_path / "deep" / "plot.png")
    assert (tmp_path / "deep" / "plot.png").read_bytes().startswith(b"\x89PNG")
