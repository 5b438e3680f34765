"""Thin strokes behind the objects: lines, arcs, squiggles and writing, none of them a class."""

from __future__ import annotations

import cv2
import numpy as np

from sniper.tools.toy.textures import random_colours

# No letter that looks like a class: O and 0 are rings, X a cross, A and V triangles, Z a bolt.
_LETTERS = "BEFGHKLMNPRSUW2345679"
_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
)


def _point(rng: np.random.Generator, h: int, w: int) -> tuple[int, int]:
    return int(rng.integers(w)), int(rng.integers(h))


def _lines(rng: np.random.Generator, image: np.ndarray, colour: tuple, thickness: int) -> None:
    h, w = image.shape[:2]
    start, stop = np.array(_point(rng, h, w)), np.array(_point(rng, h, w))
    gap = rng.integers(-14, 15, size=2)
    for k in range(int(rng.integers(1, 5))):
        a, b = start + k * gap, stop + k * gap
        cv2.line(image, tuple(map(int, a)), tuple(map(int, b)), colour, thickness, cv2.LINE_AA)


def _arc(rng: np.random.Generator, image: np.ndarray, colour: tuple, thickness: int) -> None:
    h, w = image.shape[:2]
    axes = (int(rng.integers(10, w // 3)), int(rng.integers(10, h // 3)))
    start, turn = rng.uniform(0, 360), rng.uniform(0, 180)
    # Below 130 degrees, so that no arc looks like a thin ring or crescent.
    stop = start + rng.uniform(40, 130)
    centre = _point(rng, h, w)
    cv2.ellipse(image, centre, axes, turn, start, stop, colour, thickness, cv2.LINE_AA)


def _squiggle(rng: np.random.Generator, image: np.ndarray, colour: tuple, thickness: int) -> None:
    h, w = image.shape[:2]
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.35, 48))
    step = rng.uniform(2, 9)
    path = np.cumsum(step * np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
    points = np.round(path + _point(rng, h, w)).astype(np.int32)
    cv2.polylines(image, [points], False, colour, thickness, cv2.LINE_AA)


def _writing(rng: np.random.Generator, image: np.ndarray, colour: tuple, thickness: int) -> None:
    h, w = image.shape[:2]
    letters = [_LETTERS[i] for i in rng.integers(len(_LETTERS), size=int(rng.integers(3, 9)))]
    font = _FONTS[int(rng.integers(len(_FONTS)))]
    x, y = _point(rng, h, w)
    scale = float(rng.uniform(0.35, 1.3))
    where = (x - w // 8, y)
    cv2.putText(image, "".join(letters), where, font, scale, colour, min(thickness, 2), cv2.LINE_AA)


_KINDS = (_lines, _arc, _squiggle, _writing)


def draw_clutter(rng: np.random.Generator, image: np.ndarray, count: int) -> np.ndarray:
    """Draws strokes into a copy of an image.

    Args:
        rng: source of kinds, places and colours.
        image: (H, W, 3) float32 BGR, 0..255.
        count: number of strokes.

    Returns:
        (H, W, 3) float32 BGR.
    """
    drawn = image.astype(np.uint8)  # cv2 smooths edges of 8-bit images only
    for colour in random_colours(rng, count):
        # Partly transparent, by mixing with the colour below the middle of the image's palette.
        mixed = 0.6 * colour + 0.4 * image[tuple(rng.integers(image.shape[:2]))]
        kind = _KINDS[int(rng.integers(len(_KINDS)))]
        kind(rng, drawn, tuple(float(c) for c in mixed), int(rng.integers(1, 5)))
    return drawn.astype(np.float32)
