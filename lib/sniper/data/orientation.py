"""Which way is up: the EXIF orientation of JPEG, PNG, WebP and TIFF files, by one rule for all."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, Union

import cv2
import numpy as np

AUTO, APPLY, IGNORE = "auto", "apply", "ignore"
RULES = (AUTO, APPLY, IGNORE)

# Orientations from here on exchange width and height.
SIDES_CHANGE = 5

_TAG = 0x0112
_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
# The second of each is BigTIFF, whose offsets and counts have 64 bits.
_TIFFS = (b"II*\0", b"II+\0", b"MM\0*", b"MM\0+")
_EXIF = b"Exif\0\0"
_APP1, _SCAN = 0xE1, 0xDA

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: lambda image: cv2.transpose(image),
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.rotate(cv2.transpose(image), cv2.ROTATE_180),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


Content = Union[bytes, mmap.mmap]


class Exif(NamedTuple):
    """The orientation of a file, 1 to 8, and whether it is a TIFF."""

    orientation: int
    is_tiff: bool


@dataclass(frozen=True)
class ImageFrame:
    """The frame that boxes of an image refer to: its annotated size in px, and `dataset.EXIF`."""

    width: int
    height: int
    rule: str = AUTO

    def turn(self, exif: Exif, stored_width: int, stored_height: int) -> int:
        """The orientation to apply to the stored pixels (of that size); 1 for none.

        `auto`: the annotated size decides. Where the picture has it both as stored and as shown,
        photos are shown, as browsers, labelling tools and readers do; TIFFs are not, since no
        browser shows them and scientific tools read them as they are stored.
        """
        if exif.orientation == 1 or self.rule == IGNORE:
            return 1
        if self.rule == APPLY:
            return exif.orientation
        if self._fits_both(exif.orientation):
            return 1 if exif.is_tiff else exif.orientation
        stored = (stored_width > stored_height) == (self.width > self.height)
        return 1 if stored else exif.orientation

    def is_ambiguous(self, orientation: int) -> bool:
        """Whether the size does not tell which frame was annotated."""
        return self.rule == AUTO and orientation > 1 and self._fits_both(orientation)

    def _fits_both(self, orientation: int) -> bool:
        return orientation < SIDES_CHANGE or self.width == self.height


def orientation_of(path: str | os.PathLike[str]) -> int:
    """The orientation in a file, 1 to 8; 1 where it says none or cannot be read."""
    with contextlib.suppress(OSError, ValueError):  # reported when the image is read; empty
        with open(path, "rb") as file:
            # EXIF may stand at the end of a large file: only what is looked at is read.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return read_exif(content).orientation
    return 1


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """The stored pixels as EXIF says that they are shown."""
    return image if orientation == 1 else _TURNS[orientation](image)


def read_exif(content: Content) -> Exif:
    """What a file's content says; orientation 1 where it says none or is broken."""
    found = _find(content)
    return Exif(1 if found is None else found.value, (content[:4] in _TIFFS))


def without_orientation(content: bytes) -> bytes:
    """A TIFF whose orientation is 1: OpenCV applies that of TIFFs whatever it is told."""
    found = _find(content) if (content[:4] in _TIFFS) else None
    if found is None or found.value == 1:
        return content
    value = (1).to_bytes(2, found.order)
    return content[: found.position] + value + content[found.position + 2 :]


@dataclass(frozen=True)
class _Found:
    value: int
    position: int  # in the content
    order: Literal["little", "big"]


def _find(content: Content) -> _Found | None:
    for start in _tiff_starts(content):
        found = _in_tiff(content, start)
        if found is not None:
            return found
    return None


def _tiff_starts(content: Content) -> Iterator[int]:
    """Where the TIFF structures that hold EXIF begin."""
    if content[:4] in _TIFFS:
        yield 0
    elif content[:2] == _JPEG:
        yield from _in_jpeg(content)
    elif content[:8] == _PNG:
        yield from _in_chunks(content, len(_PNG), b"eXIf", "big", 4, 8, 12)
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        for start in _in_chunks(content, 12, b"EXIF", "little", 0, 8, 8):
            yield start + len(_EXIF) if content[start : start + 6] == _EXIF else start


def _in_jpeg(content: Content) -> Iterator[int]:
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == _SCAN:
            return
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == _APP1 and content[position + 4 : position + 10] == _EXIF:
            yield position + 10
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")


def _in_chunks(
    content: Content,
    position: int,
    name: bytes,
    order: Literal["little", "big"],
    name_at: int,
    data_at: int,
    overhead: int,
) -> Iterator[int]:
    """Chunks of PNG (length, name, data, checksum) or RIFF (name, length, data, padding)."""
    while position + 8 <= len(content):
        length_at = position + 4 - name_at
        length = int.from_bytes(content[length_at : length_at + 4], order)
        if content[position + name_at : position + name_at + 4] == name:
            yield position + data_at
        position += overhead + length + (length % 2 if order == "little" else 0)


def _in_tiff(content: Content, start: int) -> _Found | None:
    order: Literal["little", "big"] = "little" if content[start : start + 2] == b"II" else "big"
    big = b"+" in content[start + 2 : start + 4]
    # Where the first offset stands, bytes of an offset and of a count, and of an entry.
    offset_at, offset_bytes, count_bytes, entry_bytes = (8, 8, 8, 20) if big else (4, 4, 2, 12)

    def number(position: int, size: int) -> int:
        return int.from_bytes(content[position : position + size], order)

    first = start + number(start + offset_at, offset_bytes)
    for index in range(number(first, count_bytes)):
        entry = first + count_bytes + entry_bytes * index
        if entry + entry_bytes > len(content):
            return None
        if number(entry, 2) == _TAG:
            position = entry + entry_bytes - offset_bytes
            value = number(position, 2)
            return _Found(value, position, order) if 1 <= value <= 8 else None
    return None
