"""Eyes, brows, nose and mouth, and where they are: in a face, or where they make none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from sniper.tools.toy.pen import Pen, band, ellipse, rotation

BLANK = "blank"
EYE, BROW, NOSE, MOUTH = "eye", "brow", "nose", "mouth"


@dataclass(frozen=True, eq=False)
class Part:
    """One feature: its kind, centre, and the (2, 2) matrix that turns it about the centre.

    The centre's x is a share of the half width of the head, y one of its half height.
    """

    kind: str
    x: float
    y: float
    turn: np.ndarray


Layout = tuple[Part, ...]


@dataclass(frozen=True, eq=False)
class Mimic:
    """How features look.

    Attributes:
        half_width: of the head; its half height is 1.
        yaw_deg: how far the head looks to the side.
        skin: (3,) BGR; likewise `hair` for brows, `iris` and `lips`.
        gaze: where the iris is, -1..1.
        eye_height: half height of an open eye; 0 when closed.
        smile: how far the corners of the mouth are up.
        gape: half height of the open mouth; 0 when closed.
        bold: 0 for heads of which details can be seen, up to 1 for those of a few px, which have
            larger and darker features, as a camera sees sockets and lips then.
    """

    half_width: float
    yaw_deg: float
    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    lips: np.ndarray
    gaze: float
    eye_height: float
    smile: float
    gape: float
    bold: float


def face_layout(rng: np.random.Generator) -> Layout:
    """Features as in a face, each of its own proportions."""
    across, eyes = rng.uniform(0.42, 0.5), rng.uniform(-0.2, -0.06)
    brows, mouth = eyes - rng.uniform(0.17, 0.25), rng.uniform(0.48, 0.6)
    straight = np.eye(2)
    parts = [Part(NOSE, 0, rng.uniform(0.14, 0.22), straight), Part(MOUTH, 0, mouth, straight)]
    for side in (-1, 1):
        mirror = np.diag([side, 1.0])
        parts += [Part(EYE, side * across, eyes, mirror), Part(BROW, side * across, brows, mirror)]
    return tuple(parts)


def _no_features(rng: np.random.Generator, face: Layout) -> Layout:
    return ()


def _upside_down(rng: np.random.Generator, face: Layout) -> Layout:
    flip = np.diag([1.0, -1.0])
    return tuple(replace(p, y=0.2 - 0.85 * p.y, turn=p.turn @ flip) for p in face)


def _on_the_side(rng: np.random.Generator, face: Layout) -> Layout:
    turn = rotation(90.0 if rng.random() < 0.5 else -90.0)
    moved = [(p, np.array([p.x * 0.8, p.y]) @ turn) for p in face]
    return tuple(
        replace(p, x=float(c[0]) * 1.2, y=float(c[1]), turn=p.turn @ turn) for p, c in moved
    )


def _out_of_order(rng: np.random.Generator, face: Layout) -> Layout:
    """Upright features, the mouth above the nose and the eyes below it."""
    rows = {EYE: 0.5, BROW: 0.32, NOSE: 0.12, MOUTH: rng.uniform(-0.32, -0.18)}
    return tuple(replace(p, y=rows[p.kind] + rng.uniform(-0.03, 0.03)) for p in face)


def _one_eye(rng: np.random.Generator, face: Layout) -> Layout:
    """One eye in the middle, and the mouth at one side."""
    one = [replace(p, x=0.0) for p in face if p.kind in (EYE, BROW) and p.x > 0]
    side = float(rng.choice([-0.42, 0.42]))
    return (*one, *(replace(p, x=side) for p in face if p.kind == MOUTH))


def _one_side(rng: np.random.Generator, face: Layout) -> Layout:
    """Both eyes above each other at one side, the mouth at the other."""
    side = float(rng.choice([-0.45, 0.45]))
    eyes = [replace(p, x=side, y=p.y + (0.55 if p.x > 0 else -0.1)) for p in face if p.kind == EYE]
    mouths = [replace(p, x=-side, y=rng.uniform(-0.3, 0.3)) for p in face if p.kind == MOUTH]
    return (*eyes, *mouths)


LayoutMaker = Callable[[np.random.Generator, Layout], Layout]
NO_FACE_LAYOUTS: dict[str, LayoutMaker] = {
    BLANK: _no_features,
    "upside-down": _upside_down,
    "on-the-side": _on_the_side,
    "out-of-order": _out_of_order,
    "one-eye": _one_eye,
    "one-side": _one_side,
}


def draw_features(rng: np.random.Generator, pen: Pen, layout: Layout, mimic: Mimic) -> None:
    """Draws all parts of a layout upon a head that is there."""
    drawers = {EYE: _eye, BROW: _brow, NOSE: _nose, MOUTH: _mouth}
    lift = rng.uniform(-0.06, 0.06)
    for part in sorted(layout, key=lambda p: list(drawers).index(p.kind)):
        for points, colour in drawers[part.kind](mimic, lift):
            centre = np.array([part.x * mimic.half_width, part.y])
            pen.mark(turn_head(points @ part.turn + centre, mimic), colour)


def turn_head(points: np.ndarray, mimic: Mimic) -> np.ndarray:
    """Moves points on the front of a head to where they are when it looks to the side."""
    if not mimic.yaw_deg:
        return points
    angle = np.arcsin(np.clip(points[:, 0] / mimic.half_width, -1, 1))
    turned = np.clip(angle + math.radians(mimic.yaw_deg), -math.pi / 2, math.pi / 2)
    return np.stack([mimic.half_width * np.sin(turned), points[:, 1]], axis=1)


Shapes = list[tuple[np.ndarray, np.ndarray]]


def _eye(m: Mimic, lift: float) -> Shapes:
    grown = 1 + 0.35 * m.bold
    shapes = [(ellipse((0, 0.01), (0.2 * grown, 0.13 * grown)), m.skin * (0.72 - 0.34 * m.bold))]
    if m.eye_height < 0.02:
        line = np.stack([np.linspace(-0.15, 0.15, 9), 0.03 - 2 * np.linspace(-0.15, 0.15, 9) ** 2])
        return [*shapes, (band(line.T, 0.05 * grown), m.skin * 0.3)]
    height = m.eye_height * grown
    white = m.skin * 0.25 + 175 * (1 - 0.9 * m.bold)
    shapes.append((ellipse((0, 0), (0.15 * grown, height)), white))
    radius = min(0.07, height) * (1 + 0.5 * m.bold)
    shapes.append((ellipse((0.05 * m.gaze, 0), (radius, radius)), m.iris))
    if m.bold < 0.3:
        shapes.append((ellipse((0.05 * m.gaze, 0), (radius * 0.5, radius * 0.5)), m.iris * 0.2))
    lid = np.linspace(-0.16, 0.16, 9)
    lash = np.stack([lid, -height * np.sqrt(np.maximum(1 - (lid / 0.17) ** 2, 0))], axis=1)
    return [*shapes, (band(lash, 0.03 * grown), m.skin * 0.3)]


def _brow(m: Mimic, lift: float) -> Shapes:
    x = np.linspace(-0.2, 0.2, 9)
    path = np.stack([x, 1.2 * x**2 - 0.03 + lift * x / 0.2], axis=1)
    return [(band(path, 0.06 * (1 + 0.4 * m.bold)), m.hair * 0.75)]


def _nose(m: Mimic, lift: float) -> Shapes:
    # The tip stands out of the head: it moves farther than what lies flat.
    tip = 0.22 * math.sin(math.radians(m.yaw_deg))
    shade = m.skin * 0.74
    bridge = np.array([[0.02, -0.24], [0.05 + tip / 2, -0.08], [0.1 + tip, 0.04]])
    base = np.array(
        [[-0.11 + tip, 0.03], [-0.04 + tip, 0.07], [0.04 + tip, 0.07], [0.11 + tip, 0.03]]
    )
    shapes = [(band(bridge, 0.04), shade), (band(base, 0.045), m.skin * 0.66)]
    holes = [ellipse((side * 0.055 + tip, 0.05), (0.03, 0.02)) for side in (-1, 1)]
    return [*shapes, *((hole, m.skin * 0.35) for hole in holes)]


def _mouth(m: Mimic, lift: float) -> Shapes:
    x = np.linspace(-1, 1, 13)
    half = 0.27 * (1 - 0.3 * min(m.gape / 0.2, 1)) * (1 + 0.15 * m.bold)
    corner = -m.smile * (x**2 - 0.5)
    upper = corner - (m.gape + 0.05) * (1 - x**2) - 0.01 * np.cos(3 * np.pi * x)
    lower = corner + (m.gape + 0.065 * (1 + 0.6 * m.bold)) * (1 - x**2)
    rim = np.concatenate([np.stack([x * half, upper], 1), np.stack([x * half, lower], 1)[::-1]])
    shapes = [(rim, m.lips * (1 - 0.35 * m.bold))]
    inner = 0.8 * half
    if m.gape > 0.02:
        mouth = np.concatenate([
            np.stack([x * inner, corner - m.gape * (1 - x**2)], 1),
            np.stack([x * inner, corner + m.gape * (1 - x**2)], 1)[::-1],
        ])  # fmt: skip
        shapes.append((mouth, np.array([28, 18, 40], np.float32)))
        teeth = np.concatenate([
            np.stack([x * inner * 0.8, corner - 0.9 * m.gape * (1 - x**2)], 1),
            np.stack([x * inner * 0.8, corner - 0.35 * m.gape * (1 - x**2)], 1)[::-1],
        ])  # fmt: skip
        return [*shapes, (teeth, np.array([215, 225, 230], np.float32))]
    line = np.stack([x * inner, corner], axis=1)
    return [*shapes, (band(line, 0.028), m.lips * 0.5)]
