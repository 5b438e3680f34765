"""The size that the header of a JPEG tells."""

from __future__ import annotations

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_SCAN = 0xDA
# Frame headers; C4, C8 and CC in the same range are tables.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


def jpeg_size(content: bytes) -> tuple[int, int] | None:
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
