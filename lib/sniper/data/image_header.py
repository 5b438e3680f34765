"""The size of an image file without decoding it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sniper.data.image import most_pixels, read_image, too_many_pixels
from sniper.errors import DataError

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
_SCAN = 0xDA
# Frame headers; C4, C8 and CC in the same range are tables.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# EXIF orientations from here on exchange width and height.
SIDES_CHANGE = 5
_EXIF, _EXIF_WITHIN, _ORIENTATION = b"Exif\0\0", 1 << 17, 0x0112
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height in px of the pixels as they are stored: EXIF orientation is ignored.

    JPEG and PNG are answered from their headers, after a look whether their end is there; all
    other formats, and files that look odd, are decoded.

    Raises:
        DataError: the file is missing, cut off or no image, or has too many pixels for OpenCV.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError("an image cannot be read", where=path, got=error) from error
    size = _jpeg_size(content) or _png_size(content)
    if size is None:
        height, width = read_image(path).shape[:2]
        return width, height
    if size[0] * size[1] > most_pixels():
        raise too_many_pixels(path, *size)
    return size


def jpeg_orientation(path: str | Path) -> int:
    """The EXIF orientation of a JPEG, 1 to 8; 1 where it says none, and for other files.

    From `SIDES_CHANGE` on width and height change places when the picture is shown.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_EXIF_WITHIN)
    except OSError:
        return 1  # reported when the image is read
    start = content.find(_EXIF) + len(_EXIF)
    if not content.startswith(_JPEG_START) or start < len(_EXIF):
        return 1
    tiff = content[start:]
    order: Literal["little", "big"] = "little" if tiff.startswith(b"II") else "big"
    first = int.from_bytes(tiff[4:8], order)
    for number in range(int.from_bytes(tiff[first : first + 2], order)):
        entry = tiff[first + 2 + 12 * number :][:12]
        if int.from_bytes(entry[:2], order) == _ORIENTATION:
            value = int.from_bytes(entry[8:10], order)
            return value if 1 <= value <= 8 else 1
    return 1


def _png_size(content: bytes) -> tuple[int, int] | None:
    if not content.startswith(_PNG_START) or content.rfind(_PNG_END) < 0:
        return None
    width = int.from_bytes(content[16:20], "big")
    height = int.from_bytes(content[20:24], "big")
    return (width, height) if width and height else None


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Size of a JPEG with a frame header, a scan and an end behind it; None for anything else."""
    if not content.startswith(_JPEG_START):
        return None
    size = None
    position = len(_JPEG_START)
    while position + 9 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == _SCAN:
            return size if content.rfind(_JPEG_END, position) > 0 else None
        if marker in _FRAMES:
            height = int.from_bytes(content[position + 5 : position + 7], "big")
            width = int.from_bytes(content[position + 7 : position + 9], "big")
            # A height of 0 is told behind the scan: rare enough to decode the image.
            size = (width, height) if width and height else None
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in _ALONE:
            position += 2
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return None
