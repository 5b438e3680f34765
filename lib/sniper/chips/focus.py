"""FocusChips: which windows of an image AutoFocus looks at on the next finer level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from sniper.chips.checks import check_finite, check_positive
from sniper.errors import ConfigError, DataError

# A chip side this close to the image's own side is no border inside the image (2018 behaviour).
_SAME_SIDE_PX = 0.5
# 333 px * (800 / 333) is a little more than 800 px. 2018 counted 51 cells of 16 px then, and so
# does the grid that chips are moved into; content is in 50 of them.
_ROUNDING_CELLS = 1e-6

Cells = tuple[int, int, int, int]  # x y width height


@dataclass(frozen=True)
class FocusSettings:
    """How a map of focus probabilities becomes chips: one row of `TEST.CHIP_HYPERPARAMS`.

    Attributes:
        dilation: side of the box that widens every focus cell, cells.
        threshold: smallest probability of a focus cell.
        min_side: shortest side of a chip, cells.

    Raises:
        ConfigError: a size is not positive, or the threshold not from 0 to 1.
    """

    dilation: int
    threshold: float
    min_side: int

    def __post_init__(self) -> None:
        sizes_fit = self.dilation >= 1 and self.min_side >= 1
        if not (sizes_fit and 0 <= self.threshold <= 1):
            raise ConfigError(
                "dilation and shortest side of FocusChips must be positive, the threshold a "
                "probability",
                where="TEST.CHIP_HYPERPARAMS",
                got=[self.dilation, self.threshold, self.min_side],
                expected="dilation, threshold, shortest side, like [3, 0.02, 16]",
            )


@dataclass(frozen=True)
class _Grid:
    """Cells of the chip's own content."""

    width: int
    height: int

    def chip(self, contour: np.ndarray, min_side: int) -> Cells:
        """The rectangle around a contour, grown to the shortest side, moved into the grid."""
        x, y, width, height = cv2.boundingRect(contour)
        center_x, center_y = (2 * x + width) // 2, (2 * y + height) // 2
        width, height = max(min_side, width), max(min_side, height)
        x, y = _start(center_x, width, self.width), _start(center_y, height, self.height)
        return x, y, width, height


def focus_chips(
    focus_map: np.ndarray,
    settings: FocusSettings,
    chip_size_px: tuple[float, float],
    factor: float,
    origin: Sequence[float] = (0.0, 0.0),
    *,
    stride: int = 16,
    mask_padding: bool = True,
) -> np.ndarray:
    """The chips of the next finer level (AutoFocus, section 3.2; 2018 behaviour but for two fixes).

    Focus cells are widened; each connected group gets the rectangle around it, which has a shortest
    side; rectangles that meet are merged until their number stays the same. No chip is returned
    twice, and cells beyond the image's content make no chips.

    Args:
        focus_map: (h, w) float, probability that a cell has small objects; may be larger than the
            chip, when its batch was padded.
        settings: how chips are made.
        chip_size_px: width and height of the chip that the map belongs to, network px.
        factor: image px -> network px.
        origin: x1 y1 of that chip, image px.
        stride: network px per cell.
        mask_padding: leave out the cells beyond the chip; False: 2018, where chips depend on the
            other images of a batch.

    Returns:
        (K, 4) float64 x1 y1 x2 y2, image px; (0, 4) without focus.

    Raises:
        ConfigError: a size, the factor or the stride is not positive, or the origin not finite.
        DataError: the map has NaN.
    """
    width, height = chip_size_px
    check_positive("focus_chips", width=width, height=height, factor=factor, stride=stride)
    check_finite("focus_chips", "origin", origin)
    if np.isnan(focus_map).any():
        raise DataError(
            "the map of FocusPixels has NaN",
            where="focus_chips",
            got=f"{np.isnan(focus_map).sum()} of {focus_map.size} cells",
            fix="look at the weights and the image: a network that works gives probabilities",
        )
    grid = _Grid(*(math.ceil(side / stride) for side in chip_size_px))
    if mask_padding:
        columns, rows = (math.ceil(side / stride - _ROUNDING_CELLS) for side in chip_size_px)
        focus_map = focus_map[:rows, :columns]
    mask: np.ndarray = (focus_map >= settings.threshold).astype(np.uint8)
    if not mask.any():
        return np.zeros((0, 4))
    mask = cv2.dilate(mask, np.ones((settings.dilation, settings.dilation), np.uint8))
    chips = np.array(_merged_chips(mask, grid, settings.min_side), np.float64)
    chips[:, 2:] += chips[:, :2]
    chips = _end_inside(chips * stride, chip_size_px, settings.min_side * stride)
    return unique_chips(chips / factor + np.tile(np.asarray(origin[:2], np.float64), 2))


def unique_chips(chips: np.ndarray) -> np.ndarray:
    """The rows of (K, 4) chips without repetitions, in the order of their first occurrence."""
    _, first = np.unique(chips, axis=0, return_index=True)
    return chips[np.sort(first)]


def on_whole_pixels(chips: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """(K, 4) chips widened to whole image px.

    In 2018 the picture was cut at the pixel below, but boxes counted from the fraction: they were
    up to one pixel off.
    """
    low = np.floor(chips[:, :2])
    high = np.minimum(np.ceil(chips[:, 2:]), image_size)
    return np.concatenate([low, high], axis=1)


def inside_borders(
    boxes: np.ndarray,
    chip: Sequence[float],
    image_size: tuple[float, float],
    margin_px: float = 10.0,
) -> np.ndarray:
    """Which boxes of a chip are whole: not cut by a side of the chip that lies inside the image.

    Args:
        boxes: (n, 4), image px.
        chip: x1 y1 x2 y2, image px.
        image_size: width and height, px.
        margin_px: a box side that is less than this from the same side of the chip is cut.

    Returns:
        (n,) bool.
    """
    width, height = image_size
    is_border = np.array(
        [
            chip[0] >= _SAME_SIDE_PX,
            chip[1] >= _SAME_SIDE_PX,
            chip[2] < width - _SAME_SIDE_PX,
            chip[3] < height - _SAME_SIDE_PX,
        ]
    )
    distance = np.abs(np.asarray(boxes, np.float64) - np.asarray(chip, np.float64))
    return ~((distance < margin_px) & is_border).any(axis=1)


def _merged_chips(mask: np.ndarray, grid: _Grid, min_side: int) -> list[Cells]:
    """Rectangles of the contours, painted and searched again until their number stays the same."""
    contours = _contours(mask)
    count = 0
    # Painting only adds cells, and a pass that adds none finds the same contours again: the number
    # of passes is bounded by the cells.
    for _ in range(mask.size + 2):
        for contour in contours:
            x, y, width, height = grid.chip(contour, min_side)
            mask[y : y + height, x : x + width] = 1
        contours = _contours(mask)
        if len(contours) == count:
            break
        count = len(contours)
    return [grid.chip(contour, min_side) for contour in contours]


def _contours(mask: np.ndarray) -> Sequence[np.ndarray]:
    """Outer and inner contours; OpenCV 3 returns three values, others two."""
    return cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)[-2]


def _start(center: int, side: int, grid_side: int) -> int:
    """Where a rectangle begins that has its centre here, as far as the grid allows."""
    if center + side // 2 >= grid_side:
        return max(grid_side - side, 0)
    return max(center - side // 2, 0)


def _end_inside(chips: np.ndarray, size_px: tuple[float, float], min_side_px: int) -> np.ndarray:
    """Chips that end beyond the content end with it and begin earlier; (K, 4), network px."""
    start, end = chips[:, :2], chips[:, 2:]
    limit = np.asarray(size_px, np.float64)
    moved = np.maximum(np.minimum(start, limit - min_side_px), 0)
    start = np.where(end > limit, moved, start)
    return np.concatenate([start, np.minimum(end, limit)], axis=1)
