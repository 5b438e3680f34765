"""Draws the parts of one thing, and keeps track of what covers its core."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

_SHIFT_BITS = 4
_CURVE_POINTS = 36
_CIRCLE = np.stack(
    [np.cos(np.arange(_CURVE_POINTS) * 2 * math.pi / _CURVE_POINTS),
     np.sin(np.arange(_CURVE_POINTS) * 2 * math.pi / _CURVE_POINTS)], axis=1,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Sprite:
    """A drawn thing, just large enough for it.

    Attributes:
        colours: (h, w, 3) float32 BGR, 0..255.
        alpha: (h, w) float32 coverage.
        core: (h, w) bool: what its box is around; of a face the oval from hairline to chin.
        shown: (h, w) bool: the part of the core that nothing of the thing itself hides.
    """

    colours: np.ndarray
    alpha: np.ndarray
    core: np.ndarray
    shown: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x, y, w, h around the core, px from the corner of the sprite."""
        columns, rows = (np.flatnonzero(self.core.any(axis=axis)) for axis in (0, 1))
        x, y = int(columns[0]), int(rows[0])
        return x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y


def ellipse(
    centre: tuple[float, float], radii: tuple[float, float], turn_deg: float = 0.0
) -> np.ndarray:
    """Points (n, 2) of an ellipse."""
    points = _CIRCLE * radii
    return (points @ rotation(turn_deg) if turn_deg else points) + centre


def rotation(turn_deg: float) -> np.ndarray:
    """The matrix (2, 2) that turns rows x, y clockwise, as y points down."""
    c, s = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    return np.array([[c, s], [-s, c]])


def band(path: np.ndarray, width: float) -> np.ndarray:
    """Points (2n, 2) around a line (n, 2) of a width."""
    direction = np.gradient(path, axis=0)
    length = np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
    normal = direction[:, ::-1] / length * [-1, 1] * (width / 2)
    return np.concatenate([path + normal, (path - normal)[::-1]])


class Pen:
    """Fills shapes in a unit frame (x right, y down) that is turned and scaled to px."""

    def __init__(self, core: np.ndarray, turn_deg: float, size_px: float, reach: float) -> None:
        """Starts with nothing drawn.

        Args:
            core: (n, 2) outline of the core.
            turn_deg: of the whole thing, clockwise.
            size_px: square root of the area of the turned core's bounding box.
            reach: nothing is drawn farther from the origin than this.
        """
        self._matrix = rotation(turn_deg)
        turned = core @ self._matrix
        self.scale = size_px / math.sqrt(float(np.prod(np.ptp(turned, axis=0))))
        self._factor = 8 if size_px < 28 else 4 if size_px < 110 else 2
        self.side = 2 * math.ceil(reach * self.scale) + 2
        fine = self.side * self._factor
        self._image = np.zeros((fine, fine, 3), np.uint8)
        self._alpha, self._core, self._shown = np.zeros((3, fine, fine), np.uint8)
        cv2.fillPoly(self._core, [self._pixels(core)], (255,), cv2.LINE_8, _SHIFT_BITS)

    def _pixels(self, points: np.ndarray) -> np.ndarray:
        # cv2 counts from pixel centres, the points from pixel edges.
        px = ((points @ self._matrix) * self.scale + self.side / 2) * self._factor - 0.5
        return np.round(px * 2**_SHIFT_BITS).astype(np.int32)

    def fill(self, points: np.ndarray, colour: np.ndarray, *, hides: bool = True) -> None:
        """Fills a shape.

        Args:
            points: (n, 2) outline.
            colour: (3,) BGR.
            hides: whether the core is not seen where this is; else it shows the core.
        """
        pixels = [self._pixels(points)]
        bgr = tuple(float(c) for c in np.clip(colour, 0, 255))
        cv2.fillPoly(self._image, pixels, bgr, cv2.LINE_8, _SHIFT_BITS)
        cv2.fillPoly(self._alpha, pixels, (255,), cv2.LINE_8, _SHIFT_BITS)
        seen = 0 if hides else 255
        cv2.fillPoly(self._shown, pixels, (seen,), cv2.LINE_8, _SHIFT_BITS)

    def mark(self, points: np.ndarray, colour: np.ndarray) -> None:
        """Fills a shape that belongs to what is below it, as an eye to its face."""
        bgr = tuple(float(c) for c in np.clip(colour, 0, 255))
        cv2.fillPoly(self._image, [self._pixels(points)], bgr, cv2.LINE_8, _SHIFT_BITS)

    def sprite(self) -> Sprite:
        """What was drawn."""
        window, size = self._window()
        layers = (self._alpha[window], self._core[window], self._shown[window])
        alpha, core, shown = (
            cv2.resize(layer, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
            for layer in layers
        )
        # Without marks beside what they belong to.
        image = cv2.bitwise_and(self._image[window], self._image[window], mask=layers[0])
        mean = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        # Where nothing is drawn the image is black: without its share the colours are left.
        colours = np.minimum(mean / np.maximum(alpha, 1 / 255)[..., None], 255)
        is_core = core >= 0.5
        return Sprite(colours, alpha, is_core, is_core & (shown >= 0.5))

    def _window(self) -> tuple[tuple[slice, slice], tuple[int, int]]:
        """The fine pixels around all that is drawn, whole px only, and width and height in px."""
        x, y, w, h = cv2.boundingRect(cv2.bitwise_or(self._alpha, self._core))
        factor = self._factor
        left, top = x // factor, y // factor
        right, bottom = -(-(x + w) // factor), -(-(y + h) // factor)
        rows = slice(top * factor, bottom * factor)
        return (rows, slice(left * factor, right * factor)), (right - left, bottom - top)
