"""From a mask in the frame of its box to a mask of the whole image.

The frame is that of the targets in training (`sniper.ops.mask_rcnn_target`): a map of m x m cells
covers the box from its corner x1, y1 to its corner x2, y2, in coordinates where pixel p reaches
from p to p + 1. The centre of pixel p lies at p + 0.5, so it falls on cell
(p + 0.5 - x1) m / w - 0.5 with w = max(x2 - x1, 1), and there the map is interpolated between the
centres of its cells. The pixels of the box are round(x1) ... round(x2), both included, as its width
is x2 - x1 + 1 elsewhere; pixels behind the outermost centres repeat the outermost cells.
"""

from __future__ import annotations

import numpy as np

from sniper.evaluation.rle import encode_mask

THRESHOLD = 0.5


class MaskPaster:
    """Encodes the masks of one image, one after the other, in one buffer of the image's size."""

    def __init__(self, height: int, width: int) -> None:
        self._frame = np.zeros((height, width), np.uint8, order="F")

    def encode(self, probability: np.ndarray, box: np.ndarray) -> bytes:
        """Compressed run lengths of the pixels with a probability of 0.5 or more.

        Args:
            probability: (m, m) float32, m >= 2.
            box: (4,) x1 y1 x2 y2, image px, finite; what lies outside the image is cut off.
        """
        height, width = self._frame.shape
        columns = pixels_of_side(box[0], box[2], width)
        rows = pixels_of_side(box[1], box[3], height)
        values = interpolate(
            probability,
            cells_of_pixels(rows, box[1], box[3], len(probability)),
            cells_of_pixels(columns, box[0], box[2], len(probability)),
        )
        part = self._frame[rows.start : rows.stop, columns.start : columns.stop]
        np.greater_equal(values, THRESHOLD, out=part, casting="unsafe")
        counts = encode_mask(self._frame)
        part[:] = 0
        return counts


def pixels_of_side(start: float, end: float, limit: int) -> range:
    """Pixels round(start) ... round(end), at least one, those from 0 to `limit` - 1."""
    first = np.floor(float(start) + 0.5)
    last = max(np.floor(float(end) + 0.5), first)
    begin = int(np.clip(first, 0, limit))
    return range(begin, max(begin, int(np.clip(last + 1, 0, limit))))


def cells_of_pixels(pixels: range, start: float, end: float, cells: int) -> np.ndarray:
    """(n,) float64 positions of pixel centres on a map of `cells`, 0 being its first centre."""
    side = max(float(end) - float(start), 1.0)
    return (np.arange(pixels.start, pixels.stop) + 0.5 - float(start)) * cells / side - 0.5


def interpolate(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Bilinear interpolation on a grid; positions outside take the border's value.

    Args:
        values: (m, m) float32.
        rows: (h,) positions, 0 ... m - 1.
        columns: (w,) positions.

    Returns:
        (h, w) float64.
    """
    top, down = _taps(rows, len(values))
    left, right = _taps(columns, len(values))
    lines = values[top] * (1 - down)[:, None] + values[top + 1] * down[:, None]  # (h, m)
    return lines[:, left] * (1 - right) + lines[:, left + 1] * right


def _taps(positions: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The lower neighbour of each position, and the weight of the upper one."""
    inside = np.clip(positions, 0, count - 1)
    lower = np.minimum(inside.astype(np.int64), count - 2)
    return lower, inside - lower
