"""One drawn thing: its anti-aliased coverage, and the polygons of what stays visible of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from sniper.tools.toy.shapes import Outline

_SHIFT_BITS = 4
_CONTOUR_SIDE = 320  # masks are enlarged to about this side before their contour is traced
_MOST_NUMBERS = 360  # x and y of all polygons of a thing; mask training reads rows of 500 numbers


def coverage(rings: Outline) -> np.ndarray:
    """Share of each pixel that an outline covers.

    Args:
        rings: rings in px whose bounding box begins in [0, 1) px.

    Returns:
        (h, w) float32 in [0, 1], just large enough for the outline.
    """
    high = rings[0].max(axis=0)
    w, h = (max(1, math.ceil(v)) for v in high)
    factor = 4 if max(w, h) < 160 else 2
    fine = np.zeros((h * factor, w * factor), dtype=np.uint8)
    # cv2 counts from pixel centres, the rings from pixel edges.
    points = [np.round((r * factor - 0.5) * 2**_SHIFT_BITS).astype(np.int32) for r in rings]
    cv2.fillPoly(fine, points, (255,), cv2.LINE_8, _SHIFT_BITS)
    return cv2.resize(fine, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def edge_band(alpha: np.ndarray, width_px: float) -> np.ndarray:
    """The inner rim of a coverage map, float32 (h, w): where an outline stroke is painted."""
    padded = cv2.copyMakeBorder(alpha, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(0,))
    distance = cv2.distanceTransform((padded >= 0.5).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    return np.clip(width_px - distance + 1, 0, 1)


def _join_hole(outer: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Cuts a slit from the outer ring to a hole, since COCO polygons have no holes."""
    distance = np.linalg.norm(outer[:, None] - hole[None], axis=2)
    i, j = np.unravel_index(int(np.argmin(distance)), distance.shape)
    turned = np.concatenate([hole[j:], hole[: j + 1]])
    return np.concatenate([outer[: i + 1], turned, outer[i:]])


def _simplified(
    contours: Sequence[np.ndarray], tree: np.ndarray, tolerance: float
) -> list[np.ndarray]:
    """Outer rings with few corners, holes joined in; a hole always follows its outer ring."""
    outers: dict[int, np.ndarray] = {}
    for index, contour in enumerate(contours):
        ring = cv2.approxPolyDP(contour, tolerance, True)[:, 0].astype(np.float64)
        parent = int(tree[0, index, 3])
        if len(ring) < 3:
            continue
        if parent < 0:
            outers[index] = ring
        elif parent in outers:
            outers[parent] = _join_hole(outers[parent], ring)
    return list(outers.values())


def visible_polygons(alpha: np.ndarray, origin: tuple[int, int]) -> list[list[float]]:
    """Traces the visible part of a thing as COCO polygons.

    Args:
        alpha: (h, w) float32 coverage, 0 where hidden.
        origin: image x and y of the map's first pixel.

    Returns:
        Flat lists x, y, x, y, ... in image px; empty when nothing covers half a pixel.
    """
    h, w = alpha.shape
    factor = max(1, min(8, round(_CONTOUR_SIDE / max(h, w))))
    padded = cv2.copyMakeBorder(alpha, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(0,))
    size = ((w + 2) * factor, (h + 2) * factor)
    fine = cv2.resize(padded, size, interpolation=cv2.INTER_LINEAR) >= 0.5
    contours, tree = cv2.findContours(fine.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    tolerance = factor * (0.2 + 0.002 * max(h, w))
    rings = _simplified(contours, tree, tolerance)
    while sum(ring.size for ring in rings) > _MOST_NUMBERS:
        tolerance *= 1.4
        rings = _simplified(contours, tree, tolerance)
    shift = np.array(origin) - 1
    low = np.array(origin)
    high = low + np.array([w, h])
    rings = [np.clip((ring + 0.5) / factor + shift, low, high) for ring in rings]
    return [np.round(ring, 2).ravel().tolist() for ring in rings]
