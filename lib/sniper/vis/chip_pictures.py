"""Pictures of chips: where they lie on an image, and the tensors that the network gets of them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sniper.errors import DataError
from sniper.vis.chip_marks import (
    IGNORED,
    NEVER,
    TRAINING_TEXTS,
    VALID,
    ChipOutline,
    add_legend,
    draw_alarms,
    draw_anchors,
    draw_boxes,
    draw_chip,
    draw_content,
    draw_crowd,
    draw_focus,
    draw_focus_picture,
    draw_frame,
    level_legend,
    pixel_extent,
    tensor_legend,
)
from sniper.vis.figures import add_axes_px, new_figure

__all__ = [
    "IGNORED",
    "NEVER",
    "VALID",
    "ChipOutline",
    "LevelPanel",
    "TensorPanel",
    "denormalise",
    "draw_levels",
    "draw_tensors",
]

_MARGIN, _TITLE, _HEADER, _LEGEND = 12, 44, 40, 64  # px
_PANELS_IN_ROW = 3
_LEVEL_WIDTH = {1: 900, 2: 760}
_LEVEL_WIDTH_ELSE = 600
_LEVEL_MAX_HEIGHT = 800
# Small chips of large images get more room: so many screen px as far as a panel may grow.
_CHIP_PX, _LARGEST_PANEL_PX = 64, 2000
# Chips that are smaller on the screen have thin lines, and even smaller ones no numbers.
_SMALL_PX, _TINY_PX = 72, 22
# Panels from here on stand one below the other.
_WIDE_PANEL_PX = 1200
_TITLE_WIDTH = 440
_TENSOR_MIN_SIDE = 384
_DIMMED = 0.35


def _no_boxes() -> np.ndarray:
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True, eq=False)
class LevelPanel:
    """One level of an image.

    Attributes:
        title: at most two lines.
        chips: the chips of this level.
        boxes: (N, 4), image px.
        states: one of VALID, IGNORED, NEVER for each box.
        alarms: (K, 4), proposals that the negative chips were made for, image px.
        focus: (H, W) bool, image px that are FocusPixels of this level; None shows none.
        crowd: (M, 4), regions of many objects, image px.
    """

    title: str
    chips: Sequence[ChipOutline]
    boxes: np.ndarray
    states: Sequence[str]
    alarms: np.ndarray = field(default_factory=_no_boxes)
    focus: np.ndarray | None = None
    crowd: np.ndarray = field(default_factory=_no_boxes)


@dataclass(frozen=True, eq=False)
class TensorPanel:
    """The arrays that the network gets of one chip.

    Attributes:
        title: at most two lines.
        data: (3, S, S) float32 RGB minus the means.
        size_hw: height and width that the network is told (`im_info`).
        boxes: (n, 4), chip px.
        states: VALID or IGNORED for each box.
        labels: a word for each box.
        anchors: of each map (A, H, W) -1 / 0 / 1 for each anchor, and px per cell.
        focus: (H, W) -1 / 0 / 1 for each cell, and px per cell; None without FocusPixels.
        negative: a negative chip.
        crowd: (m, 4), regions of many objects, chip px.
    """

    title: str
    data: np.ndarray
    size_hw: tuple[float, float]
    boxes: np.ndarray
    states: Sequence[str]
    labels: Sequence[str]
    anchors: Sequence[tuple[np.ndarray, int]]
    focus: tuple[np.ndarray, int] | None = None
    negative: bool = False
    crowd: np.ndarray = field(default_factory=_no_boxes)


def denormalise(data: np.ndarray, pixel_means: Sequence[float]) -> np.ndarray:
    """The picture in a tensor: (3, H, W) float32 RGB minus means -> (H, W, 3) uint8 RGB.

    Args:
        data: the tensor; its padding (0) becomes the mean colour.
        pixel_means: three means, BGR.
    """
    means = np.asarray(pixel_means, np.float32)[::-1, None, None]
    picture = np.clip(np.rint(data + means), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(picture.transpose(1, 2, 0))


def draw_levels(
    image_bgr: np.ndarray,
    heading: str,
    panels: Sequence[LevelPanel],
    texts: Mapping[str, str] = TRAINING_TEXTS,
) -> Figure:
    """A sheet with one panel per level: the image, dimmed outside the chips, and the boxes.

    Args:
        image_bgr: (H, W, 3) uint8.
        heading: one line over the sheet.
        panels: the levels, at least one.
        texts: what the states of boxes mean, for the legend.

    Raises:
        DataError: there is no panel.
    """
    _need_panels(panels)
    height, width = image_bgr.shape[:2]
    widest = _LEVEL_WIDTH.get(len(panels), _LEVEL_WIDTH_ELSE)
    zoom = min(widest / width, _LEVEL_MAX_HEIGHT / height)
    sides = [chip.rect[2] - chip.rect[0] for panel in panels for chip in panel.chips]
    if sides:
        wanted = _CHIP_PX / float(np.median(sides))
        zoom = max(zoom, min(wanted, _LARGEST_PANEL_PX / max(width, height)))
    panel_width = max(zoom * width, _TITLE_WIDTH)
    figure, places = _sheet(len(panels), panel_width, zoom * height, heading)
    for panel, axes in zip(panels, places):
        _show(axes, panel.title, (height, width))
        axes.imshow(_dim(image_bgr[:, :, ::-1], panel.chips), extent=pixel_extent(height, width))
        if panel.focus is not None:
            draw_focus_picture(axes, panel.focus)
        side = min((chip.rect[2] - chip.rect[0] for chip in panel.chips), default=width) * zoom
        draw_crowd(axes, panel.crowd, thin=side < _SMALL_PX)
        draw_boxes(axes, panel.boxes, panel.states, thin=side < _SMALL_PX)
        draw_alarms(axes, panel.alarms)
        look = {"thin": side < _SMALL_PX, "numbered": side >= _TINY_PX}
        for index, chip in enumerate(panel.chips):
            draw_chip(axes, chip, index, (height, width), **look)
    has_alarms = any(len(panel.alarms) for panel in panels)
    states = {state for panel in panels for state in panel.states}
    has_negative = any(chip.negative for panel in panels for chip in panel.chips)
    has_focus = any(panel.focus is not None for panel in panels)
    named = {state: text for state, text in texts.items() if state in states}
    has_crowd = any(len(panel.crowd) for panel in panels)
    add_legend(figure, level_legend(named, has_negative, has_alarms, has_focus, has_crowd))
    return figure


def draw_tensors(
    heading: str, panels: Sequence[TensorPanel], pixel_means: Sequence[float]
) -> Figure:
    """A sheet with the input of the network: one panel per chip, pixel by pixel.

    Args:
        heading: one line over the sheet.
        panels: the chips, at least one, all of one size.
        pixel_means: three means, BGR.

    Raises:
        DataError: there is no panel.
    """
    _need_panels(panels)
    side = panels[0].data.shape[1]
    zoom = max(1, -(-_TENSOR_MIN_SIDE // side))  # whole screen px per tensor px
    figure, places = _sheet(len(panels), zoom * side, zoom * side, heading)
    for panel, axes in zip(panels, places):
        _show(axes, panel.title, (side, side))
        picture = denormalise(panel.data, pixel_means)
        axes.imshow(picture, extent=pixel_extent(side, side), interpolation="nearest")
        if panel.focus is not None:
            draw_focus(axes, *panel.focus)
        for label, stride in panel.anchors:
            draw_anchors(axes, label, stride, zoom)
        draw_crowd(axes, panel.crowd)
        draw_boxes(axes, panel.boxes, panel.states, panel.labels)
        draw_content(axes, panel.size_hw, side)
        if panel.negative:
            draw_frame(axes)
    has_focus = any(panel.focus is not None for panel in panels)
    has_negative = any(panel.negative for panel in panels)
    has_crowd = any(len(panel.crowd) for panel in panels)
    is_sampled = any((label == 0).any() for panel in panels for label, _ in panel.anchors)
    add_legend(figure, tensor_legend(has_focus, has_negative, has_crowd, is_sampled))
    return figure


def _need_panels(panels: Sequence[object]) -> None:
    if not panels:
        raise DataError("there is nothing to draw", expected="at least one panel")


def _sheet(count: int, width: float, height: float, heading: str) -> tuple[Figure, list[Axes]]:
    """A figure with rows of panels, titles above them, a heading and room for the legend."""
    columns = 1 if width > _WIDE_PANEL_PX else min(count, _PANELS_IN_ROW)
    rows = -(-count // columns)
    total_width = max(columns * (width + _MARGIN) + _MARGIN, 700)
    total_height = _HEADER + rows * (_TITLE + height + _MARGIN) + _LEGEND
    figure = new_figure(total_width, total_height)
    figure.text(
        _MARGIN / total_width,
        1 - _HEADER / 2 / total_height,
        "\n".join(textwrap.wrap(heading, max(60, int(total_width / 8)))[:2]),
        fontsize=12,
        weight="bold",
        va="center",
    )
    places = []
    for index in range(count):
        row, column = divmod(index, columns)
        left = _MARGIN + column * (width + _MARGIN)
        top = _HEADER + _TITLE + row * (_TITLE + height + _MARGIN)
        places.append(add_axes_px(figure, left, top, width, height))
    return figure, places


def _show(axes: Axes, title: str, size_hw: tuple[int, int]) -> None:
    axes.set_title(title, fontsize=9.5, loc="left", pad=4, linespacing=1.25)
    axes.set_anchor("NW")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal")
    axes.set_autoscale_on(False)
    height, width = size_hw
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _dim(image: np.ndarray, chips: Sequence[ChipOutline]) -> np.ndarray:
    """The image with everything outside the chips darkened; all of it without chips."""
    inside = np.zeros(image.shape[:2], bool)
    for chip in chips:
        x1, y1, x2, y2 = (max(0, round(value)) for value in chip.rect)
        inside[y1 : y2 + 1, x1 : x2 + 1] = True
    return np.where(inside[:, :, None], image, (image * _DIMMED).astype(np.uint8))
