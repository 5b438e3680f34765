"""Cutting the network's input out of images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from sniper.data.record import Record
from sniper.data.resample import resample
from sniper.errors import DataError
from sniper.native._native import image_to_chw

# Chips that begin so close to a whole chip px of the resized image are cut out of it.
_SAME_PLACE_PX = 0.01

Rect = Sequence[float]


def content_size(image_hw: tuple[int, int], rect: Rect, factor: float) -> tuple[int, int]:
    """Height and width in px of what `chip_image` places, before truncation."""
    rows, columns = _window(image_hw, rect)
    # Python rounds half to even, as cv2.resize does.
    return (
        round((rows.stop - rows.start) * factor),
        round((columns.stop - columns.start) * factor),
    )


def cut_chip(
    image: np.ndarray,
    rect: Rect,
    factor: float,
    out: np.ndarray,
    *,
    flipped: bool = False,
    legacy: bool = False,
) -> tuple[int, int]:
    """Cuts a training chip out of an image: a point of the image lies where boxes say it does.

    Args:
        image: (H, W, 3) uint8 BGR, as it is stored.
        rect: x1 y1 x2 y2, image px; x2 and y2 are where the chip's last pixel begins.
        factor: chip px per image px.
        out: (h, w, 3) uint8; receives the content at its top left, cut off at its borders. The
            rest of it is left as it is.
        flipped: the chip belongs to the mirror image: its pixels are mirrored, not all of them.
        legacy: the window of 2018, [int(x1), int(x2)) x [int(y1), int(y2)): it begins up to one px
            too early, which moves the content, and it loses the last row and column.

    Returns:
        Height and width of the content in `out`.

    Raises:
        DataError: the window holds no pixel.
    """
    image_hw = image.shape[0], image.shape[1]
    if legacy:
        return _place(image, chip_window(image_hw, rect, factor), factor, out, (0, 0), flipped)
    height, width = exact_size(image_hw, rect, factor, out.shape[:2])
    first = int(rect[0]), int(rect[1])
    # Chip px between the pixel that the chip begins in and the chip itself.
    surplus = (rect[0] - first[0]) * factor, (rect[1] - first[1]) * factor
    whole = round(surplus[0]), round(surplus[1])
    distance = max(abs(exact - near) for exact, near in zip(surplus, whole))
    if distance < _SAME_PLACE_PX and min(rect[:2]) >= 0:
        # Faster, and the very pixels that a test at this scale sees.
        ends = (
            math.ceil(start + (skipped + side + 1) / factor) + 1
            for start, skipped, side in zip(first, whole, (width, height))
        )
        window = _window(image_hw, (*first, *ends))
        return _place(image, window, factor, out[:height, :width], whole, flipped)
    _resample_chip(image, image_hw, rect, factor, out[:height, :width], flipped=flipped)
    return height, width


def _place(
    image: np.ndarray,
    window: tuple[slice, slice],
    factor: float,
    out: np.ndarray,
    skipped: tuple[int, int],
    flipped: bool,
) -> tuple[int, int]:
    """Resizes a window of whole px into `out`, without its first `skipped` columns and rows."""
    rows, columns = window
    if flipped:
        width = image.shape[1]
        columns = slice(width - columns.stop, width - columns.start)
    crop = image[rows, columns]
    if flipped:
        crop = cv2.flip(crop, 1)
    if factor != 1:
        crop = _resize(crop, factor, out) if skipped == (0, 0) else _resize(crop, factor, None)
    crop = crop[skipped[1] :, skipped[0] :]
    height, width = (min(*sides) for sides in zip(crop.shape, out.shape[:2]))
    if not np.may_share_memory(crop, out):
        np.copyto(out[:height, :width], crop[:height, :width])
    return height, width


def _resize(crop: np.ndarray, factor: float, out: np.ndarray | None) -> np.ndarray:
    """The resized crop: in `out` itself where it fits in."""
    height, width = (round(side * factor) for side in crop.shape[:2])
    fits = out is not None and height <= out.shape[0] and width <= out.shape[1]
    target = out[:height, :width] if out is not None and fits else None
    # The factor, not the rounded size, must set the sampling grid.
    return cv2.resize(crop, None, target, factor, factor, cv2.INTER_LINEAR)


def chip_image(
    image: np.ndarray,
    rect: Rect,
    factor: float,
    size_hw: tuple[int, int],
    pixel_means: Sequence[float],
) -> np.ndarray:
    """`cut_chip` as a tensor, by the rules of 2018: exact for windows on whole px.

    Args:
        image: (H, W, 3) uint8 BGR.
        rect: x1 y1 x2 y2, image px; bounds are clamped to the image, which is (0, 0, W, H).
        factor: chip px per image px.
        size_hw: height and width of the result; content beyond it is cut off.
        pixel_means: three means, BGR.

    Returns:
        (3, h, w) float32 RGB minus the means; zero where there is no content.

    Raises:
        DataError: the window holds no pixel.
    """
    tensor = np.empty((3, *size_hw), np.float32)  # (3, h, w)
    write_chip(image, rect, factor, tensor, pixel_means)
    return tensor


def write_chip(
    image: np.ndarray, rect: Rect, factor: float, out: np.ndarray, pixel_means: Sequence[float]
) -> None:
    """`chip_image` into an array (3, h, w) float32, C-contiguous: all of it is written.

    On the caller's thread: those who test have a thread for each of several images.

    Raises:
        DataError: the window holds no pixel.
    """
    if factor == 1:
        pixels = image[chip_window((image.shape[0], image.shape[1]), rect, factor)]
        content_hw = pixels.shape[0], pixels.shape[1]
    else:
        pixels = np.empty((*out.shape[1:], 3), np.uint8)
        content_hw = cut_chip(image, rect, factor, pixels, legacy=True)
    content = np.array([content_hw], np.int32)
    image_to_chw(pixels[None], content, pixel_means, out[None], one_thread=True)


def chip_window(image_hw: tuple[int, int], rect: Rect, factor: float) -> tuple[slice, slice]:
    """Rows and columns of the image that a chip shows.

    Raises:
        DataError: they hold no pixel, or are scaled to none.
    """
    if min(content_size(image_hw, rect, factor)) < 1:
        raise _no_pixel(image_hw, rect, factor)
    return _window(image_hw, rect)


def _no_pixel(image_hw: tuple[int, int], rect: Rect, factor: float) -> DataError:
    return DataError(
        "a chip holds no pixel of its image",
        where=f"chip {tuple(rect)} at scale {factor}",
        got=f"an image of {image_hw[1]}x{image_hw[0]} px",
    )


def _window(image_hw: tuple[int, int], rect: Rect) -> tuple[slice, slice]:
    height, width = image_hw
    x1, y1, x2, y2 = (int(value) for value in rect)
    rows = slice(min(max(y1, 0), height), max(min(y2, height), 0))
    columns = slice(min(max(x1, 0), width), max(min(x2, width), 0))
    return rows, columns


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
    *,
    legacy: bool = False,
) -> tuple[int, int]:
    """`cut_chip` from a reduced image: the same content at the same place.

    Args:
        image: uint8 BGR, 1/n of the stored image; its sides are rounded up.
        reduction: n.
        record: the size of the stored image, and whether the chip belongs to its mirror image.
        rect: x1 y1 x2 y2 of the chip, image px.
        factor: chip px per image px.
        out: (h, w, 3) uint8; receives the content at its top left, cut off at its borders.
        legacy: the window of 2018, see `cut_chip`.

    Returns:
        Height and width of the content in `out`.

    Raises:
        DataError: the window holds no pixel.
    """
    image_hw = (record.height, record.width)
    if legacy:
        rows, columns = chip_window(image_hw, rect, factor)
        height, width = content_size(image_hw, rect, factor)
        height, width = min(height, out.shape[0]), min(width, out.shape[1])
        rect = (columns.start, rows.start)
    else:
        height, width = exact_size(image_hw, rect, factor, out.shape[:2])
    target = out[:height, :width]
    _resample_chip(
        image, image_hw, rect, factor, target, flipped=record.flipped, reduction=reduction
    )
    return height, width


def exact_size(
    image_hw: tuple[int, int], rect: Rect, factor: float, out_hw: Sequence[int]
) -> tuple[int, int]:
    """Height and width in px of what `cut_chip` places in an array of `out_hw`.

    Raises:
        DataError: the chip holds no pixel of the image.
    """
    x1, y1, x2, y2 = rect
    sides = (
        (round((y2 - y1) * factor) + 1, round((image_hw[0] - y1) * factor)),
        (round((x2 - x1) * factor) + 1, round((image_hw[1] - x1) * factor)),
    )
    height, width = (min(*of_side, limit) for of_side, limit in zip(sides, out_hw))
    if min(height, width) < 1:
        raise _no_pixel(image_hw, rect, factor)
    return height, width


def _resample_chip(
    image: np.ndarray,
    image_hw: tuple[int, int],
    rect: Rect,
    factor: float,
    out: np.ndarray,
    *,
    flipped: bool,
    reduction: int = 1,
) -> None:
    """Fills `out` from where a chip begins, out of an image of 1/`reduction` of `image_hw`."""
    # Px of the image at hand of the middle of the chip's pixel 0.
    left = (rect[0] + 0.5 / factor) / reduction - 0.5
    top = (rect[1] + 0.5 / factor) / reduction - 0.5
    step_x = step_y = 1 / (factor * reduction)
    if flipped:
        left, step_x = image_hw[1] / reduction - 1 - left, -step_x
    resample(image, (left, top), (step_x, step_y), out)
