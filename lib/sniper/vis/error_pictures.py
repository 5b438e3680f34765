"""One image with what is wrong in it: wrong detections by cause, objects that are missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from sniper.vis.figures import BLUE, GREEN, MAGENTA, ORANGE, RED, YELLOW, add_axes_px, new_figure

if TYPE_CHECKING:  # matplotlib 3.8 or newer
    from matplotlib.typing import LineStyleType

FOUND, MISSED = "found", "missed"
# What is drawn -> colour, line, words for the legend.
_LOOKS: Mapping[str, tuple[str, LineStyleType, str]] = {
    FOUND: (GREEN, "-", "object, found"),
    MISSED: (RED, "--", "object, missed"),
    "background": (MAGENTA, "-", "nothing there"),
    "class": (ORANGE, "-", "wrong class"),
    "localisation": (YELLOW, "-", "box off"),
    "both": ("#7b2d8b", "-", "class and box wrong"),
    "duplicate": (BLUE, "-", "found before"),
}
_DARK = (RED, MAGENTA, "#7b2d8b")
_WIDTH_PX, _MAX_HEIGHT_PX = 1000, 1000
_MARGIN, _HEADER, _LEGEND = 12, 40, 52


@dataclass(frozen=True)
class ErrorMark:
    """A box to draw: what it is (FOUND, MISSED or a cause), x y width height in px, its words."""

    kind: str
    box: tuple[float, float, float, float]
    text: str


def draw_errors(image_bgr: np.ndarray, heading: str, marks: Sequence[ErrorMark]) -> Figure:
    """The image with all marks; found objects lie below the errors.

    Args:
        image_bgr: (H, W, 3) uint8.
        heading: one line.
        marks: what to draw.
    """
    height, width = image_bgr.shape[:2]
    zoom = min(_WIDTH_PX / width, _MAX_HEIGHT_PX / height)
    shown_w, shown_h = zoom * width, zoom * height
    total_w = max(shown_w, 700) + 2 * _MARGIN
    total_h = _HEADER + shown_h + _LEGEND
    figure = new_figure(total_w, total_h)
    place = _MARGIN / total_w, 1 - _HEADER / 2 / total_h
    figure.text(place[0], place[1], heading, fontsize=11, weight="bold", va="center")
    axes = add_axes_px(figure, _MARGIN, _HEADER, shown_w, shown_h)
    axes.imshow(image_bgr[:, :, ::-1], extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    axes.set_axis_off()
    axes.set_autoscale_on(False)
    for mark in sorted(marks, key=lambda mark: list(_LOOKS).index(mark.kind)):
        colour, line, _ = _LOOKS[mark.kind]
        x, y, w, h = mark.box
        thick = 1.0 if mark.kind == FOUND else 1.8
        patch = Rectangle((x - 0.5, y - 0.5), w, h, fill=False, edgecolor=colour, linewidth=thick)
        patch.set_linestyle(line)
        patch.set_path_effects([withStroke(linewidth=thick + 1.2, foreground="#00000080")])
        axes.add_patch(patch)
        if mark.kind != FOUND:
            ink = "white" if colour in _DARK else "black"
            ground = {"facecolor": colour, "edgecolor": "none", "pad": 0.8}
            # Inside the image, so that boxes at its upper border have their words, too.
            above = y - 2 > 0.03 * height
            axes.text(
                max(x, 0),
                y - 2 if above else y + h + 2,
                mark.text,
                color=ink,
                fontsize=7.5,
                va="bottom" if above else "top",
                bbox=ground,
                clip_on=True,
            )
    used = [kind for kind in _LOOKS if any(mark.kind == kind for mark in marks)]
    figure.legend(
        handles=[
            Patch(
                fill=False,
                edgecolor=_LOOKS[kind][0],
                linestyle=_LOOKS[kind][1],
                linewidth=1.8,
                label=f"{_LOOKS[kind][2]}: {sum(mark.kind == kind for mark in marks)}",
            )
            for kind in used
        ],
        loc="lower left",
        ncol=4,
        frameon=False,
        fontsize=9.5,
    )
    return figure
