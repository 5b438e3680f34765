"""Boxes that a reader leaves out or changes: without extent, outside, beyond the border."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sniper.data.problems import (
    BOX_CUT,
    BOX_DEGENERATE,
    BOX_OUTSIDE,
    OnProblem,
    Problem,
    ProblemKind,
)

# Annotations count in fractions of a px: only what is further out is worth a line.
BORDER_SLACK_PX = 1.0


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
    """

    corners: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    areas: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    kept: np.ndarray
    read: np.ndarray
    label: Callable[[int], str]


def report_boxes(boxes: AnnotatedBoxes, where: str, on_problem: OnProblem) -> None:
    """Reports boxes without extent, outside of their image, and beyond its border."""
    x1, y1, x2, y2 = boxes.corners
    width, height, slack = boxes.widths, boxes.heights, BORDER_SLACK_PX
    degenerate = (x2 <= x1) | (y2 <= y1) | (boxes.areas <= 0)
    outside = (x1 >= width) | (y1 >= height) | (x2 <= 0) | (y2 <= 0) | ~boxes.kept
    beyond = (x1 < -slack) | (y1 < -slack) | (x2 > width + slack) | (y2 > height + slack)
    for kind, chosen in (
        (BOX_DEGENERATE, degenerate),
        (BOX_OUTSIDE, ~degenerate & outside),
        (BOX_CUT, ~degenerate & ~outside & beyond),
    ):
        rows = np.flatnonzero(chosen)
        if len(rows):
            on_problem(Problem(kind, where, len(rows), _texts(boxes, rows.tolist(), kind)))


def _texts(boxes: AnnotatedBoxes, rows: list[int], kind: ProblemKind) -> Iterator[str]:
    for row in rows:
        x1, y1, x2, y2 = (float(column[row]) for column in boxes.corners)
        size = f"{boxes.widths[row]:g}x{boxes.heights[row]:g} px"
        text = f"{boxes.label(row)}: x {x1:g} to {x2:g}, y {y1:g} to {y2:g} in {size}"
        if kind is BOX_DEGENERATE and x2 > x1 and y2 > y1:
            text += f", area {boxes.areas[row]:g}"
        if kind is not BOX_CUT and boxes.kept[row]:
            # The rule of 2018 moves a box inwards that starts left of its image or above it.
            x1, y1, x2, y2 = boxes.read[row].tolist()
            text += f", trained as x {x1:g} to {x2 + 1:g}, y {y1:g} to {y2 + 1:g}"
        yield text
