"""Figures measured in px, without a display, the same bytes for the same content and Matplotlib."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sniper.files import atomic_write

DPI = 100

# Colours that differ in brightness too, so that grey prints and colour-blind readers can follow.
GREEN, RED, GREY, ORANGE = "#1fbf4a", "#e6194b", "#c8c8c8", "#ff9f1c"
MAGENTA, YELLOW, BLUE, INK = "#f032e6", "#ffe119", "#4aa3ff", "#222222"
CYAN = "#00e5ff"
# One colour per pyramid level (or chip), by index.
CYCLE = ("#1f77b4", "#ff7f0e", "#17a398", "#9467bd", "#8c564b", "#e377c2", "#bcbd22", "#3b3b98")


def cycle(index: int) -> str:
    """The colour of a level or chip."""
    return CYCLE[index % len(CYCLE)]


def new_figure(width_px: float, height_px: float) -> Figure:
    """An empty white figure of the given size."""
    figure = Figure(figsize=(width_px / DPI, height_px / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def add_axes_px(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in px, counted from the top left corner of the figure."""
    total_width, total_height = figure.get_size_inches() * DPI
    place = (
        left / total_width,
        1 - (top + height) / total_height,
        width / total_width,
        height / total_height,
    )
    return figure.add_axes(place)


def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    content = io.BytesIO()
    # Without the version of the library the bytes depend on the drawing alone.
    figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    return content.getvalue()


def save_figure(figure: Figure, path: str | Path) -> None:
    """Writes a PNG file; its folder is made when missing.

    Raises:
        TrainingError: the file cannot be written.
    """
    content = png_bytes(figure)
    atomic_write(path, lambda temporary: temporary.write_bytes(content))
