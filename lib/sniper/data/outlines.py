"""Masks as polygons: the outlines of their pixels, exact where they fit into a row of the batch."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

# Numbers of one object. Few masks have outlines of more, which may take gigabytes for a set.
DEFAULT_ROOM = 4000

# Largest distance between the outline and its polygon, px: the first one that is short enough.
# From 0.75 px on steps of a slanted outline become a line.
_TOLERANCES_PX = (0.0, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
# Of the longer side of a part, so that small parts keep their shape beside large ones.
_MOST_OF_SIDE = 0.1
_CORNERS = 3
# A pixel becomes 3 x 3 of them: then the outermost ones tell its sides from one another.
_STEPS = 3


def outlines(mask: np.ndarray, room: int = DEFAULT_ROOM) -> list[np.ndarray]:
    """Polygons whose union is a mask; pixel (column i, row j) covers i ... i + 1, j ... j + 1.

    A polygon with holes runs around them too, to and fro on the same line: the rasteriser of
    COCO, and ours, count crossings, so that the line does not show. Outlines with more corners
    than there is room for are simplified, step by step; then the smallest parts are left out.

    Args:
        mask: (H, W) of zeros and others.
        room: numbers that all polygons may take, with one more for each polygon.

    Returns:
        (n, 2) float32 x, y of each polygon, the largest first; nothing for an empty mask.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    crop = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    parts = [
        [_moved(ring, float(columns[0]), float(rows[0])) for ring in part]
        for part in _parts(np.ascontiguousarray(crop != 0, dtype=np.uint8))
    ]
    return _fitting(parts, room)


def shortened(polygons: Sequence[np.ndarray], room: int = DEFAULT_ROOM) -> list[np.ndarray]:
    """Polygons that fit into a row of the batch, with fewer corners and about the same area.

    Args:
        polygons: (n, 2) float32 x, y of each, px; those that fit come back as they are.
        room: see `outlines`.
    """
    if _numbers(polygons) <= room:
        return list(polygons)
    return _fitting([[polygon] for polygon in polygons], room)


def _fitting(parts: list[list[np.ndarray]], room: int) -> list[np.ndarray]:
    """Polygons of outer rings and their holes, with the smallest tolerance that makes them fit."""
    parts = sorted(parts, key=lambda part: -_area(part[0]))
    for tolerance in _TOLERANCES_PX:
        polygons = [_joined(part, tolerance) for part in parts]
        polygons = [polygon for polygon in polygons if len(polygon) >= _CORNERS]
        if _numbers(polygons) <= room:
            return polygons
    while _numbers(polygons) > room:
        polygons.pop()
    return polygons


def _numbers(polygons: Sequence[np.ndarray]) -> int:
    return sum(1 + polygon.size for polygon in polygons)


def _parts(mask: np.ndarray) -> list[list[np.ndarray]]:
    """Connected parts: the outer ring of corners of each, then those of its holes."""
    enlarged = cv2.resize(mask, None, fx=_STEPS, fy=_STEPS, interpolation=cv2.INTER_NEAREST)
    chains, tree = cv2.findContours(enlarged, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parts: dict[int, list[np.ndarray]] = {}
    for number, (chain, (_, _, _, parent)) in enumerate(zip(chains, tree[0])):
        parts.setdefault(number if parent < 0 else int(parent), []).append(_corners(chain[:, 0]))
    return list(parts.values())


def _corners(chain: np.ndarray) -> np.ndarray:
    """(n, 2) corners of pixels from the chain of the outermost of their 3 x 3 small ones.

    Of these the first lies at the start of its pixel, the last at its end, and the middle one on a
    straight side, where no corner is.
    """
    pixels, place = np.divmod(chain, _STEPS)
    corners = (pixels + (place == _STEPS - 1))[(place != 1).all(axis=1)]
    return _turns(corners).astype(np.float32)


def _turns(ring: np.ndarray) -> np.ndarray:
    """The ring without points that are there twice in a row, or on a straight line."""
    ring = ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    return ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


def _moved(ring: np.ndarray, x: float, y: float) -> np.ndarray:
    return ring + np.array([x, y], np.float32)


def _area(ring: np.ndarray) -> float:
    return float(cv2.contourArea(ring))


def _joined(part: list[np.ndarray], tolerance: float) -> np.ndarray:
    """One polygon of an outer ring and its holes; holes that the tolerance closes are left out."""
    outer, *holes = (_simplified(ring, tolerance) for ring in part)
    for hole in holes:
        if len(hole) >= _CORNERS and len(outer) >= _CORNERS:
            distances = np.abs(outer[:, None] - hole[None]).sum(axis=2)
            start, entry = np.unravel_index(int(distances.argmin()), distances.shape)
            around = np.roll(hole, -entry, axis=0)
            there, rest = outer[: start + 1], outer[start:]
            outer = np.concatenate([there, around, around[:1], rest])
    return outer


def _simplified(ring: np.ndarray, tolerance: float) -> np.ndarray:
    tolerance = min(tolerance, _MOST_OF_SIDE * float(np.ptp(ring, axis=0).max(initial=0)))
    if not tolerance:
        return ring
    return cv2.approxPolyDP(ring.reshape(-1, 1, 2), tolerance, True).reshape(-1, 2)
