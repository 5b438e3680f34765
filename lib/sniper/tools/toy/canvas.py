"""A picture in the making that knows which thing owns each pixel."""

from __future__ import annotations

import cv2
import numpy as np

from sniper.tools.toy.sprite import visible_polygons
from sniper.tools.toy.textures import thrice

_NOBODY = -1
_SOLID = 0.5  # coverage from which a pixel belongs to a thing
_CRUMB = 0.03  # pieces below this share of the visible pixels are left out of box and outline


class Canvas:
    """An image, and the things painted on it so far, later ones over earlier ones."""

    def __init__(self, image: np.ndarray) -> None:
        """Starts from a background, (H, W, 3) float32 BGR."""
        self.image = image
        self._owner = np.full(image.shape[:2], _NOBODY, dtype=np.int32)
        self._is_core = np.zeros(image.shape[:2], dtype=np.bool_)
        self._things: list[_Thing] = []

    def fits(
        self,
        alpha: np.ndarray,
        x: int,
        y: int,
        least_visible: float,
        core: np.ndarray | None = None,
    ) -> bool:
        """Whether a thing at (x, y) is seen enough itself and leaves enough of the earlier ones.

        Args:
            alpha: (h, w) its coverage.
            x: of its corner.
            y: of its corner.
            least_visible: share of the core that must be inside the image.
            core: (h, w) bool, the part of it that must be seen; all of it when None.
        """
        solid = alpha >= _SOLID
        core = solid if core is None else core
        window, patch = self._windows(alpha, x, y)
        if core[patch].sum() < least_visible * core.sum():
            return False
        return all(
            thing.visible - loss >= thing.least_visible * thing.full
            for thing, loss in zip(self._things, self._losses(window, solid[patch]))
        )

    def paint(
        self,
        colours: np.ndarray,
        alpha: np.ndarray,
        x: int,
        y: int,
        least_visible: float,
        core: np.ndarray | None = None,
    ) -> int:
        """Paints a thing with its corner at (x, y) and gives its number; arguments as in `fits`."""
        core = alpha >= _SOLID if core is None else core
        window, patch = self._windows(alpha, x, y)
        share = thrice(np.ascontiguousarray(alpha[patch]))
        below = self.image[window]
        self.image[window] = below + share * (colours[patch] - below)
        inside = alpha[patch] >= _SOLID
        for thing, loss in zip(self._things, self._losses(window, inside)):
            thing.visible -= int(loss)
        number = len(self._things)
        self._owner[window][inside] = number
        self._is_core[window][inside] = core[patch][inside]
        visible = int((core[patch] & inside).sum())
        self._things.append(_Thing(alpha, x, y, int(core.sum()), visible, least_visible))
        return number

    def _losses(self, window: tuple, inside: np.ndarray) -> np.ndarray:
        """How many pixels of its core each thing loses to one that covers a part of a window."""
        covered = self._owner[window][inside & self._is_core[window]]
        return np.bincount(covered, minlength=len(self._things))

    def owned(self, number: int) -> np.ndarray:
        """(h, w) bool: the pixels of a thing's coverage that nothing later hides."""
        thing = self._things[number]
        window, patch = self._windows(thing.alpha, thing.x, thing.y)
        owned = np.zeros(thing.alpha.shape, dtype=np.bool_)
        owned[patch] = self._owner[window] == number
        return owned

    def shade(self, alpha: np.ndarray, x: int, y: int, blur_px: float, strength: float) -> None:
        """Darkens the image below a thing that will be painted there: its soft shadow."""
        margin = int(3 * blur_px) + 1
        padded = cv2.copyMakeBorder(
            alpha, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=(0,)
        )
        soft = cv2.GaussianBlur(padded, (0, 0), blur_px)
        window, patch = self._windows(soft, x - margin, y - margin)
        self.image[window] *= thrice(1 - strength * soft[patch])

    def surroundings(self, alpha: np.ndarray, x: int, y: int) -> tuple[np.ndarray, float]:
        """Mean colour (3,) around a thing's place and how much the lightness varies there."""
        margin = max(2, max(alpha.shape) // 6)
        h, w = alpha.shape
        area = np.empty((h + 2 * margin, w + 2 * margin), dtype=np.bool_)
        window, _ = self._windows(area, x - margin, y - margin)
        pixels = self.image[window]
        step = max(1, max(pixels.shape) // 64)
        pixels = pixels[::step, ::step]
        return pixels.mean(axis=(0, 1)), float(pixels.mean(axis=2).std())

    def visible_part(self, number: int) -> tuple[tuple[int, int, int, int], int, list]:
        """Box x, y, w, h of the visible pixels, their number, and their polygons.

        At least one pixel must be visible, which `fits` sees to.
        """
        thing = self._things[number]
        window, patch = self._windows(thing.alpha, thing.x, thing.y)
        owner = self._owner[window]
        seen = _without_slivers(owner == number)
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        inner = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        x, y = window[1].start + int(columns[0]), window[0].start + int(rows[0])
        # Soft border pixels are owned by others; they stay, unless a later thing hides them, so
        # that the traced outline keeps its sub-pixel place.
        hidden = (owner > number) | ((owner == number) & ~seen)
        alpha = np.where(hidden, np.float32(0), thing.alpha[patch])[inner]
        h, w = alpha.shape
        return (x, y, w, h), int(seen.sum()), visible_polygons(alpha, (x, y))

    def _windows(self, patch: np.ndarray, x: int, y: int) -> tuple[tuple, tuple]:
        """Slices of the image and of a patch at (x, y) where both exist."""
        height, width = self._owner.shape
        h, w = patch.shape[:2]
        x0, x1 = min(max(x, 0), width), min(max(x + w, 0), width)
        y0, y1 = min(max(y, 0), height), min(max(y + h, 0), height)
        return (slice(y0, y1), slice(x0, x1)), (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))


def _without_slivers(seen: np.ndarray) -> np.ndarray:
    """Drops crumbs that occlusion has cut off: they would blow up the box for a few pixels."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(seen.astype(np.uint8))
    if count <= 2:  # the background and one piece
        return seen
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    return (areas >= _CRUMB * areas.sum())[labels]


class _Thing:
    """Something painted: where, how large, how much of it must stay and still is visible."""

    def __init__(
        self,
        alpha: np.ndarray,
        x: int,
        y: int,
        full: int,
        visible: int,
        least_visible: float,
    ) -> None:
        self.alpha, self.x, self.y = alpha, x, y
        self.full = full
        self.visible = visible
        self.least_visible = least_visible
