"""Pictures with more than 8 bits a channel, and with alpha, as the network's 8 bits."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from sniper.data.picture_notes import OnNote, tell_each

_PNG, _TIFFS = b"\x89PNG\r\n\x1a\n", (b"II", b"MM")
_PNG_DEPTH_AT, _PNG_COLOUR_AT, _ALPHA_COLOURS = 24, 25, (b"\x04", b"\x06")
# As a file, and as a bare stream.
JPEG_2000_STARTS = (b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51")
# Netpbm and JPEG 2000 hold up to 16 bits, too, and PFM (`PF`, `Pf`) and Radiance (`#?`) floats.
_DEEP_STARTS = (b"P2", b"P3", b"P5", b"P6", b"PF", b"Pf", b"#?", *JPEG_2000_STARTS)
# Floats from 0 to 1 that were compressed or resized overshoot a little.
_OVERSHOOT = 1.5
# Sensors with 12 bits write them into 16, and programs 16 into 32: read as what they are in, they
# would be nearly black.
_MOST_OF_BITS = ((1 << 12) - 1, (1 << 16) - 1, (1 << 32) - 1)


def needs_care(content: bytes) -> bool:
    """Whether a file may hold more than 8 bits a channel, or alpha."""
    if content.startswith(_PNG):
        deep = content[_PNG_DEPTH_AT : _PNG_DEPTH_AT + 1] == b"\x10"
        return deep or content[_PNG_COLOUR_AT : _PNG_COLOUR_AT + 1] in _ALPHA_COLOURS
    return content.startswith((*_TIFFS, *_DEEP_STARTS))


def to_bgr8(image: np.ndarray, path: str | Path, on_note: OnNote = tell_each) -> np.ndarray:
    """(H, W, 3) uint8 BGR of an image as `cv2.IMREAD_UNCHANGED` gives it.

    Whole numbers: values up to 4095 are 12 bits, up to 65535 16, larger ones 32. Floats: 0 to 1, or
    else up to the largest value. Alpha is dropped, the colours below it stay. `on_note` hears of
    both.
    """
    if image.dtype != np.uint8:
        image = _scaled(image, path, on_note)
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if image.shape[2] == 2:  # grey and alpha
        return cv2.cvtColor(np.ascontiguousarray(image[:, :, 0]), cv2.COLOR_GRAY2BGR)
    if image.shape[2] == 4 and image[:, :, 3].min() < np.iinfo(np.uint8).max:
        on_note("alpha", str(path), "is transparent in parts: the network sees the colours below")
    return np.ascontiguousarray(image[:, :, :3])


def _scaled(image: np.ndarray, path: str | Path, on_note: OnNote) -> np.ndarray:
    floats = image.dtype.kind == "f"
    values = np.nan_to_num(image.astype(np.float32), posinf=0, neginf=0)
    high = float(values.max(initial=0))
    if floats:
        full = 1.0 if high <= _OVERSHOOT else max(high, 255.0)
        kind = f"floats up to {high:g}"
    else:
        most = np.iinfo(image.dtype).max
        full = float(next(min(values, most) for values in _MOST_OF_BITS if high <= values))
        kind = f"{8 * image.dtype.itemsize} bit values up to {high:g}"
    on_note(
        f"{image.dtype} {full:g}",
        str(path),
        f"holds {kind}: 0 to {full:g} become the 256 grey levels of the network's input (set the "
        "range before training where that is not right)",
    )
    return np.clip(values * (255 / full) + 0.5, 0, 255).astype(np.uint8)
