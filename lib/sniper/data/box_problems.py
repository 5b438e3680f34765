"""Boxes that a reader leaves out or changes: without extent, outside, beyond the border; and boxes
that are written in another way than the format's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sniper.data import account
from sniper.data.problems import (
    AREA_FROM_BOX,
    BOX_CUT,
    BOX_DEGENERATE,
    BOX_MOVED,
    BOX_NO_AREA,
    BOX_OUTSIDE,
    BOX_TRUNCATED,
    CORNERS,
    FRACTIONS,
    REPEATED_OBJECT,
    OnProblem,
    Problem,
    ProblemKind,
)
from sniper.errors import DataError

# Annotations count in fractions of a px: only what is further out is worth a line.
BORDER_SLACK_PX = 1.0
# What is closer to a whole px than this is one: 0.1 * 3 is no fraction of 0.3.
_WHOLE_PX = 1e-3

# Corners in place of x, y, width and height: all boxes can be read so, and many of them would reach
# far out of their image as they stand.
_MOST_BOXES = 0.99
_MANY_BEYOND = 0.2
_FAR_OUT = 1.05
_FEWEST_BOXES = 2
_SAME_AREA = 0.02


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
        counts_from: the file's number of the first pixel.
        with_sides: the file has x, y, width and height instead of corners.
    """

    corners: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    areas: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    kept: np.ndarray
    read: np.ndarray
    label: Callable[[int], str]
    legacy: bool = False
    counts_from: int = 0
    with_sides: bool = False

    def written(self, row: int) -> str:
        """A box as it stands in its file."""
        x1, y1, x2, y2 = (float(column[row]) for column in self.corners)
        if self.with_sides:
            return f"[{x1:g}, {y1:g}, {x2 - x1:g}, {y2 - y1:g}]"
        start = self.counts_from
        # Inclusive corners.
        return f"[{x1 + start:g}, {y1 + start:g}, {x2 + start - 1:g}, {y2 + start - 1:g}]"


@dataclass(frozen=True)
class BoxCounts:
    """What `report_boxes` counted, by names of `account.LEFT_OUT` and `account.REMARKS`."""

    left_out: dict[str, int]
    remarks: dict[str, int]


def report_boxes(boxes: AnnotatedBoxes, where: str, on_problem: OnProblem) -> BoxCounts:
    """Reports boxes without extent, outside of their image, beyond its border, and changed ones.

    Returns:
        The boxes that are not kept by their first reason, and the kept ones that are changed.
    """
    x1, y1, x2, y2 = boxes.corners
    width, height, slack = boxes.widths, boxes.heights, BORDER_SLACK_PX
    degenerate = (x2 <= x1) | (y2 <= y1)
    no_area = ~degenerate & (boxes.areas <= 0) & (boxes.kept | boxes.legacy)
    sound = ~degenerate & ~(no_area & ~boxes.kept)
    outside = (x1 >= width) | (y1 >= height) | (x2 <= 0) | (y2 <= 0) | ~boxes.kept
    moved = _moved(boxes) & sound
    beyond = (x1 < -slack) | (y1 < -slack) | (x2 > width + slack) | (y2 > height + slack)
    cut = sound & ~outside & beyond & ~moved
    truncated = sound & _truncated(boxes)
    for kind, chosen in (
        (BOX_DEGENERATE, degenerate),
        (BOX_NO_AREA, no_area & ~boxes.kept),
        (AREA_FROM_BOX, no_area & boxes.kept),
        (BOX_OUTSIDE, sound & outside & ~moved),
        (BOX_CUT, cut),
        (BOX_MOVED, moved),
        (BOX_TRUNCATED, truncated),
    ):
        rows = np.flatnonzero(chosen)
        if len(rows):
            on_problem(Problem(kind, where, len(rows), _texts(boxes, rows.tolist(), kind)))
    left_out = ~boxes.kept
    return BoxCounts(
        left_out={
            account.NO_EXTENT.name: _count(left_out & degenerate),
            account.NO_AREA.name: _count(left_out & no_area),
            account.OUTSIDE.name: _count(left_out & sound),
        },
        remarks={
            account.CUT.name: _count(cut),
            account.MOVED.name: _count(moved),
            account.TRUNCATED.name: _count(truncated),
        },
    )


def _count(chosen: np.ndarray) -> int:
    return int(np.count_nonzero(chosen))


def report_repeated(
    boxes: AnnotatedBoxes, owners: np.ndarray, where: str, on_problem: OnProblem
) -> int:
    """Reports kept boxes that were there before; returns how many there are.

    Args:
        boxes: of all images.
        owners: (N, k) numbers that tell image and class of each box.
        where: the set or file.
        on_problem: is told.
    """
    kept = np.flatnonzero(boxes.kept)
    rows = np.column_stack([owners[kept], *(corner[kept] for corner in boxes.corners)])
    order = np.lexsort(rows.T[::-1])  # stable: of equal rows the first one stays in front
    ordered = rows[order]
    same = np.zeros(len(rows), bool)
    same[1:] = (ordered[1:] == ordered[:-1]).all(axis=1)
    places = kept[np.sort(order[same])].tolist()
    if places:
        texts = _texts(boxes, places, REPEATED_OBJECT)
        on_problem(Problem(REPEATED_OBJECT, where, len(places), texts))
    return len(places)


def report_fractions(
    boxes: AnnotatedBoxes, where: str, path: object, on_problem: OnProblem
) -> bool:
    """Reports boxes that are fractions of their image, if nearly all are; whether it did."""
    x1, y1, x2, y2 = boxes.corners
    # Corners that count from 1 have become negative.
    inside = (x2 <= 1) & (y2 <= 1) & (x1 >= -1) & (y1 >= -1) & (x2 > x1) & (y2 > y1)
    inside &= (boxes.widths > 1) & (boxes.heights > 1)
    # The first px of an image, in a file whose corners count from 1, is no fraction.
    inside &= (x2 > 0) | (np.mod(boxes.corners, 1) != 0).any(axis=0)
    return _report_all(boxes, inside, FRACTIONS, where, path, on_problem)


def report_corners(
    boxes: AnnotatedBoxes,
    areas_given: np.ndarray,
    where: str,
    path: object,
    on_problem: OnProblem,
) -> bool:
    """Reports boxes of x, y, width and height that are corners, if nearly all are; whether it did.

    Args:
        boxes: of all images.
        areas_given: (N,) bool: `boxes.areas` is what was annotated.
        where: the set or file.
        path: the file.
        on_problem: is told.
    """
    x1, y1 = boxes.corners[:2]
    x2, y2 = boxes.corners[2] - x1, boxes.corners[3] - y1  # if they are corners
    slack = BORDER_SLACK_PX
    fits = (x2 > x1) & (y2 > y1) & (x1 >= -slack) & (y1 >= -slack)
    fits &= (x2 <= boxes.widths + slack) & (y2 <= boxes.heights + slack)
    beyond = (x1 + x2 > _FAR_OUT * boxes.widths) | (y1 + y2 > _FAR_OUT * boxes.heights)
    area = (x2 - x1) * (y2 - y1)
    told = areas_given & (np.abs(boxes.areas - area) <= _SAME_AREA * np.abs(area))
    told &= np.abs(boxes.areas - x2 * y2) > _SAME_AREA * np.abs(area)
    if not len(fits) or (beyond.mean() < _MANY_BEYOND and told.mean() < _MOST_BOXES):
        return False
    return _report_all(boxes, fits, CORNERS, where, path, on_problem)


def _report_all(
    boxes: AnnotatedBoxes,
    chosen: np.ndarray,
    kind: ProblemKind,
    where: str,
    path: object,
    on_problem: OnProblem,
) -> bool:
    """Reports the chosen boxes as an error if nearly all of them are; whether it did."""
    if len(chosen) < _FEWEST_BOXES or chosen.mean() < _MOST_BOXES:
        return False
    rows = np.flatnonzero(chosen).tolist()
    error = DataError(
        f"{len(rows)} of {len(chosen)} {kind.title}",
        where=path,
        got=next(_texts(boxes, rows, kind)),
        fix=kind.fix,
    )
    on_problem(Problem(kind, where, len(rows), _texts(boxes, rows, kind), error))
    return True


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


_TRAINED_OTHERWISE = (BOX_DEGENERATE, BOX_OUTSIDE, BOX_MOVED, BOX_TRUNCATED)


def _texts(boxes: AnnotatedBoxes, rows: list[int], kind: ProblemKind) -> Iterator[str]:
    for row in rows:
        x1, y1, x2, y2 = (float(column[row]) for column in boxes.corners)
        size = f"{boxes.widths[row]:g}x{boxes.heights[row]:g} px"
        text = f"{boxes.label(row)}: x {x1:g} to {x2:g}, y {y1:g} to {y2:g} in {size}"
        if kind in (FRACTIONS, CORNERS):
            text = f"{boxes.label(row)}: {boxes.written(row)} in {size}"
        elif kind in _TRAINED_OTHERWISE and boxes.kept[row]:
            x1, y1, x2, y2 = boxes.read[row].tolist()
            text += f", trained as x {x1:g} to {x2 + 1:g}, y {y1:g} to {y2 + 1:g}"
        yield text
