"""What is drawn on pictures of chips: boxes, outlines, anchors, FocusPixels, and the legends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke

from sniper.vis.figures import BLUE, CYAN, DPI, GREEN, GREY, MAGENTA, ORANGE, RED, YELLOW, cycle

if TYPE_CHECKING:  # matplotlib 3.8 or newer
    from matplotlib.typing import LineStyleType

# What a box is for a level or a chip.
VALID, IGNORED, NEVER = "valid", "ignored", "never"
TRAINING_TEXTS = {
    VALID: "box trained at this level",
    IGNORED: "box of other levels: ignored here",
    NEVER: "box that no level trains",
}

_LEGEND_ENTRY_PX = 225
_FOCUS_COLOUR = (1.0, 0.88, 0.1, 0.45)
_BOX_COLOUR = {VALID: GREEN, IGNORED: ORANGE, NEVER: RED}
_BOX_WIDTH = {VALID: 1.8, IGNORED: 1.2, NEVER: 1.8}
_BOX_STYLE: Mapping[str, LineStyleType] = {VALID: "-", IGNORED: (0, (4, 2)), NEVER: (0, (1, 1))}
# Lines and numbers of small chips, which would hide what they show.
_THIN = 0.5
_NUMBER_PT = 9
_CROWD_WIDTH, _CROWD_HATCH = 1.8, "//"
_CROWD_STYLE: LineStyleType = (0, (5, 2))
_CROWD_TEXT = "group or crowd region: no object"
# Drawn in this order, so that valid boxes come out on top.
_BOX_ORDER = {IGNORED: 0, NEVER: 1, VALID: 2}


@dataclass(frozen=True)
class ChipOutline:
    """A chip on an image: its number, x1 y1 x2 y2 in image px, whether it is a negative one."""

    number: int
    rect: tuple[float, float, float, float]
    negative: bool = False


def pixel_extent(height: int, width: int) -> tuple[float, float, float, float]:
    """Pixel centres at whole numbers, so that boxes lie exactly."""
    return -0.5, width - 0.5, height - 0.5, -0.5


def draw_boxes(
    axes: Axes,
    boxes: np.ndarray,
    states: Sequence[str],
    labels: Sequence[str] = (),
    *,
    thin: bool = False,
) -> None:
    """Draws boxes in the style of their states, with a word for each if there are `labels`.

    Args:
        axes: the picture.
        boxes: (N, 4) in its px.
        states: one of each box.
        labels: a word for each box, or none.
        thin: with thin lines, for boxes of few screen px.
    """
    finer = _THIN if thin else 1.0
    for row in sorted(range(len(boxes)), key=lambda index: _BOX_ORDER[states[index]]):
        state = states[row]
        x1, y1, x2, y2 = (float(value) for value in boxes[row])
        width = finer * _BOX_WIDTH[state]
        _outline(axes, (x1, y1, x2, y2), _BOX_COLOUR[state], width, _BOX_STYLE[state])
        if labels:
            # Inside the box, so that the words of the upper row do not hide the picture.
            _write(axes, x1 + 1, y1 + 1, labels[row], _BOX_COLOUR[state])


def _outline(
    axes: Axes,
    box: tuple[float, float, float, float],
    colour: str,
    width: float,
    style: LineStyleType,
) -> None:
    """A rectangle around inclusive corners, readable on any ground."""
    x1, y1, x2, y2 = box
    patch = Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1 + 1, y2 - y1 + 1, fill=False)
    patch.set(edgecolor=colour, linewidth=width, linestyle=style)
    if style == "-":
        patch.set_path_effects([withStroke(linewidth=width + 1.4, foreground="#00000090")])
    axes.add_patch(patch)


def _write(axes: Axes, x: float, y: float, text: str, colour: str) -> None:
    ink = "black" if colour == ORANGE else "white"
    ground = {"facecolor": colour, "edgecolor": "none", "pad": 0.8}
    axes.text(x, y, text, color=ink, fontsize=7.5, va="top", ha="left", clip_on=True, bbox=ground)


def draw_crowd(axes: Axes, boxes: np.ndarray, *, thin: bool = False) -> None:
    """Regions of many objects, hatched with a dashed line around them.

    Args:
        axes: the picture.
        boxes: (M, 4) in its px.
        thin: with thin lines, for regions of few screen px.
    """
    width = _CROWD_WIDTH * (_THIN if thin else 1.0)
    for x1, y1, x2, y2 in np.asarray(boxes, np.float64).reshape(-1, 4).tolist():
        # Faint, so that what is in the region can still be seen.
        hatched = Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1 + 1, y2 - y1 + 1, fill=False)
        hatched.set(edgecolor=CYAN, linewidth=0, hatch=_CROWD_HATCH, alpha=0.45)
        axes.add_patch(hatched)
        _outline(axes, (x1, y1, x2, y2), CYAN, width, _CROWD_STYLE)


def draw_alarms(axes: Axes, alarms: np.ndarray) -> None:
    """Crosses at the centres of false alarms, (K, 4) image px."""
    if len(alarms):
        centres = (alarms[:, :2] + alarms[:, 2:]) / 2
        axes.plot(centres[:, 0], centres[:, 1], "x", color=MAGENTA, markersize=4, alpha=0.8)


def draw_chip(
    axes: Axes,
    chip: ChipOutline,
    index: int,
    size_hw: tuple[int, int],
    *,
    thin: bool = False,
    numbered: bool = True,
) -> None:
    """The outline with a number; chips next to each other have other colours.

    Args:
        axes: the picture.
        chip: what to draw.
        index: chooses the colour.
        size_hw: height and width of the image, px.
        thin: with thin lines and a small number.
        numbered: with its number.
    """
    height, width = size_hw
    x1, y1, x2, y2 = chip.rect
    # Outlines at the border of the image would be cut in half.
    x1, y1 = max(x1, 0.5), max(y1, 0.5)
    x2, y2 = min(x2, width - 1.5), min(y2, height - 1.5)
    colour = MAGENTA if chip.negative else cycle(index)
    finer = _THIN if thin else 1.0
    _outline(axes, (x1, y1, x2, y2), colour, 2.4 * finer, (0, (6, 3)) if chip.negative else "-")
    if not numbered:
        return
    axes.text(
        x2,
        y2,
        f" {chip.number} ",
        color="white",
        fontsize=6.5 if thin else _NUMBER_PT,
        weight="bold",
        va="bottom",
        ha="right",
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.4 if thin else 1.2},
    )


def draw_anchors(axes: Axes, label: np.ndarray, stride: int, zoom: int) -> None:
    """Centres of the cells whose anchors are sampled; the anchors of a cell share their centre."""
    for value, marker, colour, size in ((0, ".", BLUE, 2.5 + zoom), (1, "+", YELLOW, 5 + zoom)):
        rows, columns = np.nonzero((label == value).any(axis=0))
        offset = (stride - 1) / 2
        axes.plot(
            columns * stride + offset,
            rows * stride + offset,
            marker,
            color=colour,
            markersize=size,
            markeredgewidth=1.2,
            linestyle="none",
            path_effects=[withStroke(linewidth=2.4, foreground="#000000a0")],
        )


def draw_focus(axes: Axes, focus: np.ndarray, stride: int) -> None:
    """Cells to focus on in yellow, cells without an opinion in grey."""
    height, width = focus.shape
    size_px = height * stride, width * stride
    for value, colour in ((1, _FOCUS_COLOUR), (-1, (0.85, 0.85, 0.85, 0.45))):
        _tint(axes, focus == value, colour, size_px)


def draw_focus_picture(axes: Axes, focus: np.ndarray) -> None:
    """FocusPixels as (H, W) bool in image px, in yellow."""
    height, width = focus.shape
    _tint(axes, focus, _FOCUS_COLOUR, (height, width))


def _tint(
    axes: Axes, where: np.ndarray, colour: tuple[float, ...], size_px: tuple[int, int]
) -> None:
    layer = np.zeros((*where.shape, 4))
    layer[where] = colour
    axes.imshow(layer, extent=pixel_extent(*size_px), interpolation="nearest")


def draw_content(axes: Axes, size_hw: tuple[float, float], side: int) -> None:
    """A line around what the network is told to look at, where that is not all."""
    height, width = size_hw
    if height < side or width < side:
        _outline(axes, (0.5, 0.5, width - 1.5, height - 1.5), "white", 1.0, (0, (2, 2)))


def draw_frame(axes: Axes) -> None:
    """Marks the tensor of a negative chip."""
    for spine in axes.spines.values():
        spine.set(visible=True, color=MAGENTA, linewidth=3)


def legend_columns(width: float, entries: int) -> int:
    """Entries that stand side by side below a sheet of so many px."""
    return max(1, min(entries, int(width // _LEGEND_ENTRY_PX)))


def add_legend(figure: Figure, handles: list[Artist]) -> None:
    """Rows at the bottom of the sheet."""
    figure.legend(
        handles=handles,
        loc="lower left",
        ncol=legend_columns(figure.get_size_inches()[0] * DPI, len(handles)),
        frameon=False,
        fontsize=9.5,
        handlelength=1.8,
        columnspacing=1.6,
    )


def _box_handle(state: str, text: str) -> Patch:
    return Patch(
        fill=False,
        edgecolor=_BOX_COLOUR[state],
        linewidth=_BOX_WIDTH[state],
        linestyle=_BOX_STYLE[state],
        label=text,
    )


def _crowd_handle() -> Patch:
    return Patch(
        fill=False,
        edgecolor=CYAN,
        linewidth=_CROWD_WIDTH,
        linestyle=_CROWD_STYLE,
        hatch=_CROWD_HATCH * 2,  # the patch is small
        label=_CROWD_TEXT,
    )


def _focus_handle() -> Patch:
    return Patch(facecolor=YELLOW, alpha=0.6, label="FocusPixel")


def level_legend(
    texts: Mapping[str, str],
    has_negative: bool,
    has_alarms: bool,
    has_focus: bool = False,
    has_crowd: bool = False,
) -> list[Artist]:
    """What the marks on an image mean; `texts` has the states of boxes that occur."""
    handles: list[Artist] = [
        Patch(
            fill=False, edgecolor=cycle(0), linewidth=2.4, label="chip (numbered; others dimmed)"
        ),
    ]
    if has_negative:
        handles.append(
            Patch(
                fill=False, edgecolor=MAGENTA, linewidth=2.4, linestyle="--", label="negative chip"
            )
        )
    handles += [_box_handle(state, text) for state, text in texts.items()]
    if has_crowd:
        handles.append(_crowd_handle())
    if has_focus:
        handles.append(_focus_handle())
    if has_alarms:
        handles.append(_marker("x", MAGENTA, "false alarm"))
    return handles


def tensor_legend(
    has_focus: bool, has_negative: bool, has_crowd: bool = False, is_sampled: bool = True
) -> list[Artist]:
    """What the marks on tensors mean."""
    handles: list[Artist] = [
        _box_handle(VALID, "valid box"),
        _box_handle(IGNORED, "ignored box"),
        _marker("+", YELLOW, "positive anchors", edge="#8a7a00"),
        *([_marker(".", BLUE, "negative anchors")] if is_sampled else []),
        Patch(fill=False, edgecolor="#777777", linestyle=":", label="im_info, where smaller"),
    ]
    if has_crowd:
        handles.append(_crowd_handle())
    if has_focus:
        handles.append(_focus_handle())
        handles.append(Patch(facecolor=GREY, label="FocusPixel: ignored"))
    if has_negative:
        handles.append(Patch(fill=False, edgecolor=MAGENTA, linewidth=3, label="negative chip"))
    return handles


def _marker(marker: str, colour: str, text: str, edge: str | None = None) -> Line2D:
    return Line2D(
        [], [], marker=marker, color=edge or colour, linestyle="none", markersize=8, label=text
    )
