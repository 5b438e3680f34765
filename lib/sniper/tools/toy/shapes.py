"""Outlines of the object classes, and of the distractors that belong to no class.

An outline is a list of rings in a unit frame (x right, y down, about [-1, 1]); the first ring is
the outside, further rings are holes. Every call draws its own proportions from the generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Outline = list  # of float64 (n, 2) rings
OutlineMaker = Callable[[np.random.Generator], Outline]

_CURVE_POINTS = 48


@dataclass(frozen=True)
class ToyClass:
    """One object class.

    Attributes:
        name: of the class.
        category_id: its COCO category id.
        outline: makes its outlines.
        max_rotation_deg: how far it may be turned to either side.
        hue_deg: the hue that most of its objects have, or all of a fine class.
        filling: of all its objects, one of `FILLINGS`; None: any.
        group: its COCO supercategory.
    """

    name: str
    category_id: int
    outline: OutlineMaker
    max_rotation_deg: float
    hue_deg: float
    filling: str | None = None
    group: str = "shape"


def _arc(radius: float, start: float, stop: float, n: int, closed: bool = False) -> np.ndarray:
    t = np.linspace(start, stop, n, endpoint=not closed)
    return radius * np.stack([np.cos(t), np.sin(t)], axis=1)


def _regular(n: int, phase: float = -math.pi / 2) -> np.ndarray:
    return _arc(1.0, phase, phase + 2 * math.pi, n, closed=True)


def _ring(rng: np.random.Generator) -> Outline:
    outer = _arc(1.0, 0, 2 * math.pi, _CURVE_POINTS, closed=True)
    return [outer, outer * rng.uniform(0.5, 0.66)]


def _triangle(rng: np.random.Generator) -> Outline:
    points = _regular(3)
    points[0, 0] += rng.uniform(-0.25, 0.25)
    return [points]


def _star(rng: np.random.Generator) -> Outline:
    points = _regular(10)
    points[1::2] *= rng.uniform(0.4, 0.5)
    return [points]


def _cross(rng: np.random.Generator) -> Outline:
    a = rng.uniform(0.26, 0.38)
    corner = np.array([[-a, -a], [-a, -1], [a, -1]])
    turns = []
    for k in range(4):
        c, s = math.cos(k * math.pi / 2), math.sin(k * math.pi / 2)
        turns.append(corner @ np.array([[c, s], [-s, c]]))
    return [np.concatenate(turns)]


def _crescent(rng: np.random.Generator) -> Outline:
    radius, shift = rng.uniform(0.8, 0.9), rng.uniform(0.4, 0.5)
    # The two circles meet at x = (1 + shift^2 - radius^2) / (2 shift).
    x = (1 + shift**2 - radius**2) / (2 * shift)
    outer_angle = math.acos(x)
    inner_angle = math.acos((x - shift) / radius)
    outer = _arc(1.0, outer_angle, 2 * math.pi - outer_angle, _CURVE_POINTS)
    inner = _arc(radius, 2 * math.pi - inner_angle, inner_angle, _CURVE_POINTS // 2)
    return [np.concatenate([outer, inner[1:-1] + np.array([shift, 0])])]


def _heart(rng: np.random.Generator) -> Outline:
    t = np.linspace(0, 2 * math.pi, _CURVE_POINTS, endpoint=False)
    x = np.sin(t) ** 3
    dip = rng.uniform(4.8, 6.0)
    y = -(13 * np.cos(t) - dip * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    return [np.stack([x, y], axis=1)]


def _arrow(rng: np.random.Generator) -> Outline:
    shaft, neck = rng.uniform(0.2, 0.32), rng.uniform(-0.1, 0.15)
    barb = rng.uniform(0.72, 0.9)
    half = np.array([[-1, -shaft], [neck, -shaft], [neck, -barb], [1, 0]])
    return [np.concatenate([half, half[2::-1] * [1, -1]])]


def _hexagon(rng: np.random.Generator) -> Outline:
    return [_regular(6) * rng.uniform(0.95, 1.05, size=(6, 1))]


def _bolt(rng: np.random.Generator) -> Outline:
    w = rng.uniform(-0.06, 0.06)
    points = [
        (0.1 + w, -1),
        (-0.62, 0.14),
        (-0.1, 0.14),
        (-0.36 - w, 1),
        (0.62, -0.3),
        (0.08, -0.3),
        (0.5 + w, -1),
    ]
    return [np.array(points)]


def _drop(rng: np.random.Generator) -> Outline:
    t = np.linspace(0, 2 * math.pi, _CURVE_POINTS, endpoint=False)
    power = rng.uniform(1.3, 1.8)
    x = 0.78 * np.sin(t) * np.abs(np.sin(t / 2)) ** power
    return [np.stack([x, -np.cos(t)], axis=1)]


# Ids are not contiguous on purpose: a data set with ids 1..N hides mistakes in the id mapping.
CLASSES: tuple[ToyClass, ...] = (
    ToyClass("ring", 3, _ring, 180, 200),
    ToyClass("triangle", 7, _triangle, 40, 120),
    ToyClass("star", 8, _star, 40, 50),
    ToyClass("cross", 12, _cross, 30, 0),
    ToyClass("crescent", 15, _crescent, 40, 265),
    ToyClass("heart", 21, _heart, 40, 330),
    ToyClass("arrow", 22, _arrow, 40, 30),
    ToyClass("hexagon", 34, _hexagon, 180, 160),
    ToyClass("bolt", 40, _bolt, 40, 235),
    ToyClass("drop", 57, _drop, 40, 90),
)


def _quad(rng: np.random.Generator) -> Outline:
    points = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=float)
    points[:, 1] *= rng.uniform(0.35, 0.95)
    return [points + rng.uniform(-0.15, 0.15, size=(4, 2))]


def _ellipse(rng: np.random.Generator) -> Outline:
    # Clearly long: a round disc of a few pixels could not be told from a hexagon.
    circle = _arc(1.0, 0, 2 * math.pi, _CURVE_POINTS, closed=True)
    return [circle * [1, rng.uniform(0.3, 0.55)]]


def _blob(rng: np.random.Generator) -> Outline:
    t = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    radius = np.ones_like(t)
    # Long, with little of the third harmonic: three, four and five even lobes look like a heart,
    # a cross and a star.
    for k, least, most in ((1, 0.05, 0.2), (2, 0.22, 0.35), (3, 0.08, 0.18)):
        radius += rng.uniform(least, most) * np.cos(k * t + rng.uniform(0, 2 * math.pi))
    return [radius[:, None] * np.stack([np.cos(t), np.sin(t)], axis=1)]


def _corner(rng: np.random.Generator) -> Outline:
    a, b = rng.uniform(-0.6, -0.2, size=2)
    return [np.array([[-1, -1], [a, -1], [a, -b], [1, -b], [1, 1], [-1, 1]], dtype=float)]


def _jagged(rng: np.random.Generator) -> Outline:
    n = int(rng.integers(7, 10))
    t = (np.arange(n) + rng.uniform(-0.3, 0.3, n)) * 2 * math.pi / n
    # Two deep notches, never evenly spaced: neither a hexagon nor a star.
    radius = rng.uniform(0.75, 1.0, n)
    radius[[0, int(rng.integers(2, 4))]] = rng.uniform(0.25, 0.45, 2)
    return [radius[:, None] * np.stack([np.cos(t), np.sin(t)], axis=1)]


def _bar(rng: np.random.Generator) -> Outline:
    h = rng.uniform(0.08, 0.2)
    return [np.array([[-1, -h], [1, -h], [1, h], [-1, h]])]


DISTRACTORS: tuple[OutlineMaker, ...] = (_quad, _ellipse, _blob, _corner, _jagged, _bar)


def place_outline(
    rng: np.random.Generator, outline: Outline, size_px: float, max_rotation_deg: float
) -> Outline:
    """Turns, shears, stretches and tilts an outline, and scales it to a box size.

    Args:
        rng: source of the jitter.
        outline: rings in the unit frame.
        size_px: wanted square root of the area of the bounding box.
        max_rotation_deg: the rotation is uniform in +- this.

    Returns:
        Rings in px; the bounding box of the outside begins at (0, 0).
    """
    angle = math.radians(rng.uniform(-max_rotation_deg, max_rotation_deg))
    stretch = math.exp(float(np.clip(rng.normal(0, 0.15), -0.3, 0.3)))
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    shear = np.array([[1, 0], [rng.uniform(-0.18, 0.18), 1]])
    matrix = np.diag([stretch, 1 / stretch]) @ shear @ turn
    tilt = rng.uniform(-0.12, 0.12, size=2)
    rings = [(ring @ matrix) / (1 + ring @ tilt)[:, None] for ring in outline]
    low, high = rings[0].min(axis=0), rings[0].max(axis=0)
    scale = size_px / math.sqrt(float(np.prod(high - low)))
    return [(ring - low) * scale for ring in rings]
