"""What could be taken for a face and is none: odd heads, clocks, buttons, ovals, hands, skin."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sniper.tools.toy.features import NO_FACE_LAYOUTS
from sniper.tools.toy.head import draw_head, skin_colour
from sniper.tools.toy.pen import Pen, Sprite, band, ellipse, rotation
from sniper.tools.toy.textures import contrasting_colour, fill, random_colours

# Things that are no heads are turned as heads are, and a little more.
_TURN_DEG = 20.0
# Those of heads, and little more.
_HALF_WIDTHS = (0.66, 0.9)


def _clock(rng: np.random.Generator, size_px: float) -> Sprite:
    a = rng.uniform(*_HALF_WIDTHS)  # seen from the side
    pen = Pen(ellipse((0, 0), (a, 1)), rng.normal(0, _TURN_DEG), size_px, 1.2)
    rim, dial = random_colours(rng, 1, muted=True)[0], skin_colour(rng)
    dark = contrasting_colour(rng, dial, 40)
    pen.fill(ellipse((0, 0), (a, 1)), rim, hides=False)
    pen.mark(ellipse((0, 0), (0.86 * a, 0.86)), dial)
    for k in range(12):
        ends = np.array([[0, -0.8], [0, -0.64 if k % 3 else -0.52]]) @ rotation(30.0 * k) * [a, 1]
        pen.mark(band(ends, 0.06 if k % 3 else 0.11), dark)
    for length, width in ((0.45, 0.13), (0.68, 0.08)):
        hand = np.array([[0, 0.12], [0, -length]]) @ rotation(rng.uniform(0, 360)) * [a, 1]
        pen.mark(band(hand, width), dark)
    return pen.sprite()


def _button(rng: np.random.Generator, size_px: float) -> Sprite:
    """Holes in a square, or two above each other."""
    a = rng.uniform(*_HALF_WIDTHS)
    pen = Pen(ellipse((0, 0), (a, 1)), rng.normal(0, _TURN_DEG / 2), size_px, 1.2)
    colour = skin_colour(rng)
    pen.fill(ellipse((0, 0), (a, 1)), colour * 0.8, hides=False)
    pen.mark(ellipse((0, 0), (0.85 * a, 0.85)), colour)
    far, radius = rng.uniform(0.26, 0.38), rng.uniform(0.1, 0.16)
    places = [(x * a, y) for x in (-far, far) for y in (-far, far)]
    if rng.random() < 0.4:
        places = [(0.0, -far), (0.0, far)]
    for place in places:
        pen.mark(ellipse(place, (radius, radius)), colour * 0.25)
    return pen.sprite()


def _dots(rng: np.random.Generator, size_px: float) -> Sprite:
    """A disc with two dots and a bar, the wrong way round."""
    a = rng.uniform(*_HALF_WIDTHS)
    pen = Pen(ellipse((0, 0), (a, 1)), rng.normal(0, _TURN_DEG / 2), size_px, 1.2)
    colour = skin_colour(rng)
    pen.fill(ellipse((0, 0), (a, 1)), colour, hides=False)
    across, radius = rng.uniform(0.3, 0.42), rng.uniform(0.1, 0.17)
    for side in (-1, 1):
        place = (side * across * a, rng.uniform(0.2, 0.36))
        pen.mark(ellipse(place, (radius, radius)), colour * 0.3)
    y = rng.uniform(-0.5, -0.3)
    bar = np.array([[-0.3, y], [0, y + rng.uniform(-0.12, 0.05)], [0.3, y]])
    pen.mark(band(bar, 0.13), colour * np.array([0.45, 0.4, 0.7], np.float32))
    return pen.sprite()


def _oval(rng: np.random.Generator, size_px: float) -> Sprite:
    """An oval with a texture, as a stone, a ball or a lampshade."""
    a = rng.uniform(*_HALF_WIDTHS)
    pen = Pen(ellipse((0, 0), (a, 1)), rng.normal(0, _TURN_DEG), size_px, 1.2)
    pen.fill(ellipse((0, 0), (a, 1)), np.array([128, 128, 128], np.float32), hides=False)
    sprite = pen.sprite()
    colour = skin_colour(rng)
    second = colour * rng.uniform(0.3, 0.7)
    h, w = sprite.alpha.shape
    texture = fill(rng, h, w, max(size_px, 28.0), colour, second)
    return Sprite(np.clip(texture, 0, 255), sprite.alpha, sprite.core, sprite.shown)


def _hand(rng: np.random.Generator, size_px: float) -> Sprite:
    palm = ellipse((0, 0.35), (0.5, 0.55))
    fingers = []
    spread = rng.uniform(4, 11)
    for k, length in enumerate((0.85, 1.0, 0.95, 0.75)):
        finger = np.array([[0, -0.1], [0, -length]]) @ rotation((k - 1.5) * spread)
        base = np.array([(k - 1.5) * 0.2, 0.15])
        fingers.append(band(finger + base, 0.2))
    thumb = band(np.array([[0.3, 0.5], [0.68, 0.0]]), 0.22)
    shapes = [*fingers, thumb, palm]
    box = np.array([[-0.65, -0.95], [0.72, -0.95], [0.72, 0.9], [-0.65, 0.9]])
    pen = Pen(box, rng.normal(0, _TURN_DEG), size_px, 1.5)
    skin = skin_colour(rng)
    for k, shape in enumerate(shapes):
        pen.fill(shape, skin * (0.9 if k % 2 else 0.97), hides=False)
    for side in (-0.12, 0.1):
        crease = np.array([[-0.3, 0.3], [0.0, 0.35], [0.3, 0.25]]) + np.array([0, side])
        pen.mark(band(crease, 0.04), skin * 0.72)
    drawn = pen.sprite()
    solid = drawn.alpha >= 0.5
    return Sprite(drawn.colours, drawn.alpha, solid, solid)


def _patch(rng: np.random.Generator, size_px: float) -> Sprite:
    """Bare skin, with spots anywhere."""
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = 1 + 0.2 * np.cos(2 * t + rng.uniform(0, 6)) + 0.1 * np.cos(3 * t + rng.uniform(0, 6))
    outline = np.stack([0.8 * radius * np.cos(t), radius * np.sin(t)], axis=1)
    pen = Pen(outline, 0.0, size_px, 1.5)
    skin = skin_colour(rng)
    pen.fill(outline, skin, hides=False)
    for _ in range(int(rng.integers(0, 7))):
        spot = ellipse(tuple(rng.uniform(-0.6, 0.6, 2)), tuple(rng.uniform(0.05, 0.16, 2)))
        pen.mark(spot, skin * rng.uniform(0.35, 0.85))
    return pen.sprite()


_THINGS: dict[str, Callable[[np.random.Generator, float], Sprite]] = {
    "clock": _clock,
    "button": _button,
    "dots": _dots,
    "oval": _oval,
    "hand": _hand,
    "patch": _patch,
}
LOOKALIKES = (*NO_FACE_LAYOUTS, *_THINGS)
# Heads are what tells whether features are looked at.
_HEAD_SHARE = 0.55


def draw_lookalike(
    rng: np.random.Generator, size_px: float, kind: str | None = None
) -> tuple[str, Sprite]:
    """Draws something that is no face.

    Args:
        rng: decides everything else.
        size_px: square root of the area of the box around its core.
        kind: one of `LOOKALIKES`; drawn when None.

    Returns:
        The kind and its pixels.
    """
    if kind is None:
        kinds = tuple(NO_FACE_LAYOUTS if rng.random() < _HEAD_SHARE else _THINGS)
        kind = kinds[int(rng.integers(len(kinds)))]
    if kind in NO_FACE_LAYOUTS:
        return kind, draw_head(rng, size_px, kind).sprite
    return kind, _THINGS[kind](rng, size_px)
