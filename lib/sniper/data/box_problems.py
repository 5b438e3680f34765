"""Boxes that a reader leaves out or changes: without extent, outside, beyond the border."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sniper.data.problems import (
    BOX_CUT,
    BOX_DEGENERATE,
    BOX_MOVED,
    BOX_OUTSIDE,
    BOX_TRUNCATED,
    OnProblem,
    Problem,
    ProblemKind,
)

# Annotations count in fractions of a px: only what is further out is worth a line.
BORDER_SLACK_PX = 1.0
# What is closer to a whole px than this is one: 0.1 * 3 is no fraction of 0.3.
_WHOLE_PX = 1e-3


@dataclass(frozen=True, eq=False)
class AnnotatedBoxes:
    """N boxes as annotated, and what the reader makes of them.

    Attributes:
        corners: four (N,) float64 x1 y1 x2 y2, image px, the far corner exclusive.
        areas: (N,) float64 px^2 as annotated.
        widths: (N,) of each box's image, px.
        heights: (N,) px.
        kept: (N,) bool: the reader keeps the box.
        read: (N, 4) float32 what it keeps: inclusive corners.
        label: the name of a box in messages, by its row.
        legacy: the reader follows the 2018 rules (`TRAIN.LEGACY_BOXES`).
    """

    corners: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    areas: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    kept: np.ndarray
    read: np.ndarray
    label: Callable[[int], str]
    legacy: bool = False


def report_boxes(boxes: AnnotatedBoxes, where: str, on_problem: OnProblem) -> None:
    """Reports boxes without extent, outside of their image, beyond its border, and changed ones."""
    x1, y1, x2, y2 = boxes.corners
    width, height, slack = boxes.widths, boxes.heights, BORDER_SLACK_PX
    degenerate = (x2 <= x1) | (y2 <= y1) | (boxes.areas <= 0)
    outside = (x1 >= width) | (y1 >= height) | (x2 <= 0) | (y2 <= 0) | ~boxes.kept
    moved = _moved(boxes) & ~degenerate
    beyond = (x1 < -slack) | (y1 < -slack) | (x2 > width + slack) | (y2 > height + slack)
    for kind, chosen in (
        (BOX_DEGENERATE, degenerate),
        (BOX_OUTSIDE, ~degenerate & outside & ~moved),
        (BOX_CUT, ~degenerate & ~outside & beyond & ~moved),
        (BOX_MOVED, moved),
        (BOX_TRUNCATED, ~degenerate & _truncated(boxes)),
    ):
        rows = np.flatnonzero(chosen)
        if len(rows):
            on_problem(Problem(kind, where, len(rows), _texts(boxes, rows.tolist(), kind)))


def _moved(boxes: AnnotatedBoxes) -> np.ndarray:
    """(N,) bool: trained beyond their own right or lower end."""
    if not boxes.legacy:
        return np.zeros(len(boxes.kept), bool)
    _, _, x2, y2 = boxes.corners
    beyond_x = boxes.read[:, 2] + 1 > x2 + BORDER_SLACK_PX
    beyond_y = boxes.read[:, 3] + 1 > y2 + BORDER_SLACK_PX
    return boxes.kept & (beyond_x | beyond_y)


def _truncated(boxes: AnnotatedBoxes) -> np.ndarray:
    """(N,) bool: they have a fraction inside of their image, and lose it."""
    if not boxes.legacy:
        return np.zeros(len(boxes.kept), bool)
    truncated = np.zeros(len(boxes.kept), bool)
    limits = (boxes.widths, boxes.heights) * 2
    for corner, limit in zip(boxes.corners, limits):
        inside = (corner > 0) & (corner < limit)
        truncated |= inside & (np.abs(corner - np.rint(corner)) > _WHOLE_PX)
    return truncated & boxes.kept


def _texts(boxes: AnnotatedBoxes, rows: list[int], kind: ProblemKind) -> Iterator[str]:
    for row in rows:
        x1, y1, x2, y2 = (float(column[row]) for column in boxes.corners)
        size = f"{boxes.widths[row]:g}x{boxes.heights[row]:g} px"
        text = f"{boxes.label(row)}: x {x1:g} to {x2:g}, y {y1:g} to {y2:g} in {size}"
        if kind is BOX_DEGENERATE and x2 > x1 and y2 > y1:
            text += f", area {boxes.areas[row]:g}"
        if kind is not BOX_CUT and boxes.kept[row]:
            x1, y1, x2, y2 = boxes.read[row].tolist()
            text += f", trained as x {x1:g} to {x2 + 1:g}, y {y1:g} to {y2 + 1:g}"
        yield text
