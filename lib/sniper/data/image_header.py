"""The size of an image file without decoding it."""

from __future__ import annotations

from pathlib import Path

from sniper.data.image import most_pixels, read_image, too_many_pixels
from sniper.data.image_file import read_content
from sniper.data.jpeg_size import jpeg_size
from sniper.data.orientation import AUTO, IGNORE, SIDES_CHANGE, ImageFrame, read_exif
from sniper.data.picture_notes import keep_quiet

_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"


def image_size(path: str | Path, frame: ImageFrame | None = None) -> tuple[int, int]:
    """Width and height in px of what `read_image` gives for the same arguments.

    JPEG and PNG are answered from their headers, after a look whether their end is there; all
    other formats, and files that look odd, are decoded.

    Raises:
        DataError: the file is missing, cut off or no image, or has too many pixels for OpenCV.
    """
    content = read_content(path)
    size = jpeg_size(content) or _png_size(content)
    if size is None:
        height, width = read_image(path, frame=frame, on_note=keep_quiet).shape[:2]
        return width, height
    if size[0] * size[1] > most_pixels():
        raise too_many_pixels(path, *size)
    exif = read_exif(content)
    turn = frame.turn(exif, *size) if frame else exif.orientation
    return (size[1], size[0]) if turn >= SIDES_CHANGE else size


def size_of_boxes(path: str | Path, exif: str = AUTO) -> tuple[int, int]:
    """Width and height in px of what boxes refer to whose annotations give no size.

    The picture as it is shown, or with `ignore` as it is stored.

    Args:
        path: the image.
        exif: `dataset.EXIF`.

    Raises:
        DataError: see `image_size`.
    """
    return image_size(path, ImageFrame(0, 0, IGNORE) if exif == IGNORE else None)


def _png_size(content: bytes) -> tuple[int, int] | None:
    if not content.startswith(_PNG_START) or content.rfind(_PNG_END) < 0:
        return None
    width = int.from_bytes(content[16:20], "big")
    height = int.from_bytes(content[20:24], "big")
    return (width, height) if width and height else None
