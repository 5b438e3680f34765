"""The size of an image file without decoding it."""

from __future__ import annotations

from pathlib import Path

from sniper.data.image import most_pixels, read_image, too_many_pixels
from sniper.data.orientation import SIDES_CHANGE, ImageFrame, read_exif
from sniper.errors import DataError

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
_SCAN = 0xDA
# Frame headers; C4, C8 and CC in the same range are tables.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


def image_size(path: str | Path, frame: ImageFrame | None = None) -> tuple[int, int]:
    """Width and height in px of what `read_image` gives for the same arguments.

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
        height, width = read_image(path, frame=frame).shape[:2]
        return width, height
    if size[0] * size[1] > most_pixels():
        raise too_many_pixels(path, *size)
    exif = read_exif(content)
    turn = frame.turn(exif, *size) if frame else exif.orientation
    return (size[1], size[0]) if turn >= SIDES_CHANGE else size


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
