"""Windows of an image at any place and scale: exact to a fraction of a px."""

from __future__ import annotations

import cv2
import numpy as np

# OpenCV counts the px of an image that it warps in 16 bits.
_LONGEST_WARP_PX = 32000


def resample(
    image: np.ndarray, start: tuple[float, float], step: tuple[float, float], out: np.ndarray
) -> None:
    """Fills `out` with what the image shows at equally spaced points.

    Pixel (0, 0) of `out` is what the image shows at `start`, its neighbours what it shows at one
    `step` further. Between the middles of pixels values are bilinear, beyond the border they are
    those of the border.

    Args:
        image: (H, W, 3) uint8; whole numbers are the middles of its pixels.
        start: x, y in image px.
        step: x, y in image px; negative for a mirrored window.
        out: (h, w, 3) uint8, not empty; all of it is written.
    """
    height, width = out.shape[:2]
    (x, y), (step_x, step_y) = start, step
    if max(image.shape[:2]) > _LONGEST_WARP_PX:
        rows, columns = _reach(y, step_y, height), _reach(x, step_x, width)
        image, (x, y), thinning = _part(image, rows, columns, (x, y))
        step_x, step_y = step_x / thinning, step_y / thinning
    to_image = np.array([[step_x, 0, x], [0, step_y, y]])
    warped = cv2.warpAffine(
        image,
        to_image,
        (width, height),
        dst=out,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if warped is not out:
        np.copyto(out, warped)


def _reach(start: float, step: float, count: int) -> tuple[int, int]:
    """First and last px that count for points from `start` on."""
    end = start + step * (count - 1)
    return int(np.floor(min(start, end))), int(np.floor(max(start, end))) + 1


def _part(
    image: np.ndarray,
    rows: tuple[int, int],
    columns: tuple[int, int],
    start: tuple[float, float],
) -> tuple[np.ndarray, tuple[float, float], int]:
    """What counts of a large image, `start` in it, and of how many px it has one."""
    top, bottom = (min(max(row, 0), image.shape[0] - 1) for row in rows)
    left, right = (min(max(column, 0), image.shape[1] - 1) for column in columns)
    part = image[top : bottom + 1, left : right + 1]
    # Where even the part is too large, the points are so far apart that neighbours do not matter.
    thinning = -(-max(part.shape[:2]) // _LONGEST_WARP_PX)
    place = (start[0] - left) / thinning, (start[1] - top) / thinning
    return np.ascontiguousarray(part[::thinning, ::thinning]), place, thinning
