"""Small pictures inside of the page, as many and as large as its size allows."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import cv2

from sniper.data.image import read_image
from sniper.data.picture_notes import keep_quiet
from sniper.data.record import Record

# JPEG is read at these fractions of its size, which is much faster.
_REDUCTIONS = (8, 4, 2)
_QUALITY = 78


@dataclass(frozen=True)
class Thumbnail:
    """A picture as text: `data:image/jpeg;base64,...`, and its size in px."""

    uri: str
    width: int
    height: int


def thumbnail(record: Record, long_side: int) -> Thumbnail:
    """A picture of an image, upright, no larger than the image itself.

    Args:
        record: the image, not a mirrored copy.
        long_side: of the picture, px.

    Raises:
        DataError: the file is missing or broken.
    """
    longest = max(record.width, record.height)
    reduction = next((n for n in _REDUCTIONS if longest >= n * long_side), 1)
    pixels = read_image(
        record.image_path, reduction=reduction, frame=record.frame, on_note=keep_quiet
    )
    factor = min(1.0, long_side / longest)
    size = max(1, round(record.width * factor)), max(1, round(record.height * factor))
    if pixels.shape[1::-1] != size:
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    text = base64.b64encode(content.tobytes()).decode("ascii")
    return Thumbnail(f"data:image/jpeg;base64,{text}", *size)


def size_text(size: float) -> str:
    """`18.4 MB`, `640 kB`."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
