"""The endings of image files: one list for data sets, folders, lists and detection."""

from __future__ import annotations

import os

# The first ones are tried first where a name comes without an ending (Pascal VOC).
IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jfif", ".jpe", ".dib"),
    *(".ppm", ".pgm", ".pnm", ".pbm", ".jp2"),
)
# Pictures of phones, cameras and the web that OpenCV does not read.
UNREAD_ENDINGS = (
    *(".heic", ".heif", ".avif", ".gif", ".jxl", ".svg", ".psd", ".tga", ".exr", ".hdr"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)


def has_image_ending(name: str | os.PathLike[str]) -> bool:
    """Whether a file's name says that it is an image, in any case; hidden files are none."""
    base = os.path.basename(name)
    return not base.startswith(".") and os.path.splitext(base)[1].lower() in IMAGE_ENDINGS
