"""Reading images, and cutting the network's input out of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from sniper.data.record import Record
from sniper.errors import DataError

_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_JPEG_START, _JPEG_END, _JPEG_SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
_PNG_START, _PNG_END = b"\x89PNG", b"IEND"

Rect = Sequence[float]


def read_image(path: str | Path, flipped: bool = False) -> np.ndarray:
    """Reads an image file as (H, W, 3) uint8 BGR.

    EXIF orientation is ignored, since annotations count the pixels as they are stored. (The 2018
    code rotated the pixels and not the boxes.)

    Args:
        path: the file.
        flipped: mirror it horizontally.

    Raises:
        DataError: the file is missing, cut off or no image.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError("an image cannot be read", where=path, got=error) from error
    if _is_truncated(content):
        raise DataError(
            "an image file is cut off before its end",
            where=path,
            got=f"{len(content)} bytes",
            fix="copy or download it again, or remove it from the annotations",
        )
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), _FLAGS)
    except cv2.error as error:
        raise DataError("an image cannot be decoded", where=path, got=error.err) from error
    if image is None:
        raise DataError(
            "an image cannot be decoded",
            where=path,
            got=f"{len(content)} bytes that start with {content[:8]!r}",
            expected="JPEG, PNG or another format that OpenCV reads",
        )
    return cv2.flip(image, 1) if flipped else image


def check_size(image: np.ndarray, record: Record) -> None:
    """Compares an image with the size that its annotations give.

    Raises:
        DataError: they differ.
    """
    height, width = image.shape[:2]
    if (height, width) != (record.height, record.width):
        raise DataError(
            f"image {record.image_id} has another size than its annotations say",
            where=record.image_path,
            got=f"{width}x{height}",
            expected=f"{record.width}x{record.height}",
            fix="correct width and height in the annotations (of the stored pixels, not of the "
            "view that EXIF orientation turns), and the boxes with them",
        )


def _is_truncated(content: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end.

    OpenCV's word is not enough: `cv2.imread` fills what is missing with grey and reports success,
    so that a network would be trained on grey pixels. `cv2.imdecode` 4.11 refuses such a file, but
    cannot say why.
    """
    if content.startswith(_JPEG_START):
        # Before the scan a thumbnail may have an end marker of its own. In the scan 0xFF bytes
        # are escaped, so that the marker can only be the real one; junk may follow it.
        return content.rfind(_JPEG_END, _scan_position(content)) < 0
    return content.startswith(_PNG_START) and content.rfind(_PNG_END) < 0


def _scan_position(content: bytes) -> int:
    """Offset of the first scan of a JPEG; beyond the end if the header breaks off."""
    position = len(_JPEG_START)
    while position + 4 <= len(content):
        if content[position] != 0xFF or content[position + 1] == _JPEG_SCAN:
            break
        # A segment says how long it is; a second 0xFF is a fill byte.
        is_fill = content[position + 1] == 0xFF
        length = int.from_bytes(content[position + 2 : position + 4], "big")
        position += 1 if is_fill else 2 + length
    return position


def content_size(image_hw: tuple[int, int], rect: Rect, factor: float) -> tuple[int, int]:
    """Height and width in px of what `chip_image` and `level_image` place, before truncation."""
    rows, columns = _window(image_hw, rect)
    # Python rounds half to even, as cv2.resize does.
    return (
        round((rows.stop - rows.start) * factor),
        round((columns.stop - columns.start) * factor),
    )


def chip_image(
    image: np.ndarray,
    rect: Rect,
    factor: float,
    size_hw: tuple[int, int],
    pixel_means: Sequence[float],
) -> np.ndarray:
    """Cuts a training chip out of an image (2018 behaviour).

    The window is [int(x1), int(x2)) x [int(y1), int(y2)): it loses the last row and column.

    Args:
        image: (H, W, 3) uint8 BGR.
        rect: x1 y1 x2 y2, image px.
        factor: chip px per image px.
        size_hw: height and width of the result; content beyond it is cut off.
        pixel_means: three means, BGR.

    Returns:
        (3, h, w) float32 RGB minus the means; zero where there is no content.

    Raises:
        DataError: the window holds no pixel.
    """
    rows, columns = _window(image.shape[:2], rect)
    crop = image[rows, columns]
    height, width = content_size(image.shape[:2], rect, factor)
    if crop.size == 0 or height < 1 or width < 1:
        raise DataError(
            "a chip holds no pixel of its image",
            where=f"chip {tuple(rect)} at scale {factor}",
            got=f"an image of {image.shape[1]}x{image.shape[0]} px",
        )
    if factor != 1:
        # The factor, not the rounded size, must set the sampling grid.
        crop = cv2.resize(crop, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    crop = crop[: size_hw[0], : size_hw[1]]
    height, width = crop.shape[:2]
    tensor = np.zeros((3, *size_hw), np.float32)  # (3, h, w)
    tables = _mean_tables(tuple(float(mean) for mean in pixel_means))
    for channel, plane in enumerate(cv2.split(crop)):
        tensor[2 - channel, :height, :width] = cv2.LUT(plane, tables[channel])
    return tensor


def level_image(
    image: np.ndarray,
    crop: Rect,
    factor: float,
    out_hw: tuple[int, int],
    pixel_means: Sequence[float],
) -> np.ndarray:
    """Cuts a window out of an image for testing: `chip_image` with bounds clamped to the image.

    For the whole image the window is (0, 0, W, H). `content_size` tells how much of the result is
    content (`im_info`).
    """
    return chip_image(image, crop, factor, out_hw, pixel_means)


def _window(image_hw: tuple[int, int], rect: Rect) -> tuple[slice, slice]:
    height, width = image_hw
    x1, y1, x2, y2 = (int(value) for value in rect)
    rows = slice(min(max(y1, 0), height), max(min(y2, height), 0))
    columns = slice(min(max(x1, 0), width), max(min(x2, width), 0))
    return rows, columns


@lru_cache(maxsize=8)
def _mean_tables(pixel_means: tuple[float, ...]) -> np.ndarray:
    """(3, 256) float32: value minus mean per channel; exact, and twice as fast as subtracting."""
    values = np.arange(256, dtype=np.float64)
    return (values - np.array(pixel_means, np.float64)[:, None]).astype(np.float32)
