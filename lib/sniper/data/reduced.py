"""Coarse chips of large JPEG files, cut from an image that was decoded at 1/2, 1/4 or 1/8.

The decoder then averages over blocks of pixels. 2018 did not: it sampled single pixels of the full
image, so that the pixels differ wherever an image has fine texture.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from sniper.data.image import chip_window, content_size
from sniper.data.record import Record

_REDUCTIONS = (8, 4, 2)


def reduction_of(factor: float) -> int:
    """The largest n of 1, 2, 4 and 8 for which an image reduced to 1/n need not be enlarged.

    Args:
        factor: chip px per image px.
    """
    return next((n for n in _REDUCTIONS if factor * n <= 1), 1)


def cut_reduced(
    image: np.ndarray,
    reduction: int,
    record: Record,
    rect: Sequence[float],
    factor: float,
    out: np.ndarray,
) -> tuple[int, int]:
    """`sniper.data.image.cut_chip` from a reduced image: the same content at the same place.

    Args:
        image: uint8 BGR, 1/n of the stored image; its sides are rounded up.
        reduction: n.
        record: the size of the stored image, and whether the chip belongs to its mirror image.
        rect: x1 y1 x2 y2 of the chip, image px.
        factor: chip px per image px.
        out: (h, w, 3) uint8; receives the content at its top left, cut off at its borders.

    Returns:
        Height and width of the content in `out`.

    Raises:
        DataError: the window holds no pixel.
    """
    image_hw = (record.height, record.width)
    rows, columns = chip_window(image_hw, rect, factor)
    content_hw = content_size(image_hw, rect, factor)
    height, width = (min(*sides) for sides in zip(content_hw, out.shape[:2]))
    # Reduced px of the middle of the chip's pixel 0.
    left = (columns.start + 0.5 / factor) / reduction - 0.5
    top = (rows.start + 0.5 / factor) / reduction - 0.5
    step_y = step_x = 1 / (factor * reduction)
    if record.flipped:
        left, step_x = record.width / reduction - 1 - left, -step_x
    chip_to_image = np.array([[step_x, 0, left], [0, step_y, top]])
    target = out[:height, :width]
    cut = cv2.warpAffine(
        image,
        chip_to_image,
        (width, height),
        dst=target,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if cut is not target:
        np.copyto(target, cut)
    return height, width
