"""Reading image files."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from sniper.data.image_file import read_content
from sniper.data.jpeg_damage import jpeg_damage
from sniper.data.jpeg_size import jpeg_size
from sniper.data.orientation import (
    ImageFrame,
    read_exif,
    turned,
    without_orientation,
)
from sniper.data.picture_notes import DAMAGE, OnNote, tell_each
from sniper.data.pixel_depth import JPEG_2000_STARTS, needs_care, to_bgr8
from sniper.data.record import Record
from sniper.errors import DataError

_FLAGS = {
    1: cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
    2: cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION,
    4: cv2.IMREAD_REDUCED_COLOR_4 | cv2.IMREAD_IGNORE_ORIENTATION,
    8: cv2.IMREAD_REDUCED_COLOR_8 | cv2.IMREAD_IGNORE_ORIENTATION,
}
_JPEG_START, _JPEG_END, _JPEG_SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
_PNG_START, _PNG_END = b"\x89PNG", b"IEND"
# Where the stream of a JPEG 2000 begins, and its end, which does not occur in its data.
_JPEG_2000_STREAM, _JPEG_2000_END = b"\xff\x4f\xff\x51", b"\xff\xd9"

_PIXEL_LIMIT, _MOST_PIXELS = "IO_MAX_IMAGE_PIXELS", 1 << 30


def read_image(
    path: str | Path,
    flipped: bool = False,
    reduction: int = 1,
    frame: ImageFrame | None = None,
    on_note: OnNote = tell_each,
) -> np.ndarray:
    """Reads an image file as (H, W, 3) uint8 BGR.

    It is upright, as EXIF orientation says, unless annotations refer to the stored pixels. (The
    2018 code always rotated the pixels, and never the boxes.)

    Args:
        path: the file.
        flipped: mirror it horizontally.
        reduction: 1, 2, 4 or 8: the scale 1/n at which a JPEG is decoded, sides rounded up, which
            takes less time; other formats are always decoded in full.
        frame: what the boxes of the image refer to; None: the picture as it is shown.
        on_note: hears of what is odd: damage in the middle of a JPEG, more than 8 bits, alpha.

    Raises:
        DataError: the file is missing, cut off or no image.
    """
    content = read_content(path)
    if _is_truncated(content):
        raise DataError(
            "an image file is cut off before its end",
            where=path,
            got=f"{len(content)} bytes",
            fix="copy or download it again, or remove it from the annotations",
        )
    damage = jpeg_damage(content)
    if damage is not None:
        # The JPEG library writes of it to standard error, without a name.
        on_note(DAMAGE, str(path), f"is shown with junk or grey: {damage} (replace it)")
    flags = _FLAGS[reduction if content.startswith(_JPEG_START) else 1]
    careful = needs_care(content)
    if careful:
        flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = _decode(content, path, flags)
    except cv2.error as error:
        if _PIXEL_LIMIT in error.err:
            raise too_many_pixels(path) from error
        raise DataError("an image cannot be decoded", where=path, got=error.err) from error
    if image is None:
        raise DataError(
            "an image cannot be decoded",
            where=path,
            got=f"{len(content)} bytes that start with {content[:8]!r}",
            expected="JPEG, PNG or another format that OpenCV reads",
        )
    if careful:
        image = to_bgr8(image, path, on_note)
    exif = read_exif(content)
    if exif.orientation > 1:
        # At 1/8 the sides of a photo may be equal that are not.
        size = jpeg_size(content) if reduction > 1 else None
        width, height = size or image.shape[1::-1]
        image = turned(image, frame.turn(exif, width, height) if frame else exif.orientation)
    return cv2.flip(image, 1) if flipped else image


def _decode(content: bytes, path: str | Path, flags: int) -> np.ndarray | None:
    """The pixels as they are stored; None where OpenCV cannot tell them."""
    if content.startswith(JPEG_2000_STARTS):
        # `cv2.imdecode` 4.11 ends the process where the header of a JPEG 2000 is damaged, as it
        # then frees what it never had; `cv2.imread` hardly ever does.
        return cv2.imread(str(path), flags)
    return cv2.imdecode(np.frombuffer(without_orientation(content), np.uint8), flags)


def too_many_pixels(path: str | Path, width: int = 0, height: int = 0) -> DataError:
    """The error of an image that OpenCV refuses for its size, which may be unknown."""
    size = f"{width}x{height} px, which are {width * height}" if width else "more px than that"
    return DataError(
        "an image has more pixels than OpenCV reads",
        where=path,
        got=size,
        expected=f"at most {most_pixels()} (environment variable OPENCV_IO_MAX_IMAGE_PIXELS)",
        fix="set OPENCV_IO_MAX_IMAGE_PIXELS to a larger number before the program starts, "
        "or cut the image into tiles",
    )


def most_pixels() -> int:
    """Most pixels of an image that OpenCV decodes."""
    given = os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS", "")
    return int(given) if given.isdecimal() and int(given) else _MOST_PIXELS


def check_size(image: np.ndarray, record: Record, reduction: int = 1) -> None:
    """Compares an image with the size that its annotations give.

    Args:
        image: as `read_image` gives it.
        record: its annotations.
        reduction: what `read_image` was told.

    Raises:
        DataError: they differ.
    """
    height, width = image.shape[:2]
    reduced = -(-record.height // reduction), -(-record.width // reduction)
    if (height, width) not in ((record.height, record.width), reduced):
        raise DataError(
            f"image {record.original_id} has another size than its annotations say",
            where=record.image_path,
            got=f"{width}x{height}",
            expected=f"{record.width}x{record.height}",
            fix="correct width and height in the annotations (of the stored pixels or of the view "
            "that EXIF orientation turns; see dataset.EXIF), and the boxes with them",
        )


def _is_truncated(content: bytes) -> bool:
    """Whether a JPEG, JPEG 2000 or PNG lacks its end.

    OpenCV's word is not enough: `cv2.imread` fills what is missing with grey and reports success,
    so that a network would be trained on grey pixels. `cv2.imdecode` 4.11 refuses such a file, but
    cannot say why; and the header of a JPEG 2000 that is cut off may end the process.
    """
    if content.startswith(JPEG_2000_STARTS):
        stream = content.find(_JPEG_2000_STREAM)
        return stream < 0 or content.rfind(_JPEG_2000_END, stream) < 0
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
