"""Colours, scalar texture fields and the two things made of them: backgrounds and fills.

A field is float32 (h, w) in [0, 1]; a texture mixes two or three colours by fields. Colours are
BGR in 0..255.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

Field = Callable[[np.random.Generator, int, int, float], np.ndarray]


HUE_SPREAD_DEG = 15.0


def random_colours(
    rng: np.random.Generator, n: int, muted: bool = False, hue_deg: float | None = None
) -> np.ndarray:
    """Draws n colours, float32 (n, 3) BGR.

    Args:
        rng: decides everything.
        n: number of colours.
        muted: greyer ones, as backgrounds are.
        hue_deg: colours near this hue; None takes all hues.
    """
    if hue_deg is None:
        hue = rng.uniform(0, 360, n)
    else:
        hue = (hue_deg + rng.uniform(-HUE_SPREAD_DEG, HUE_SPREAD_DEG, n)) % 360
    saturation = rng.uniform(0.0, 0.65, n) if muted else rng.uniform(0.25, 1.0, n) ** 0.7
    # A hue can only be told where there is some light.
    darkest = 0.12 if hue_deg is None else 0.35
    value = rng.uniform(0.25, 0.9, n) if muted else rng.uniform(darkest, 1.0, n)
    hsv = np.stack([hue, saturation, value], axis=1).astype(np.float32)
    return cv2.cvtColor(hsv[None], cv2.COLOR_HSV2BGR)[0] * 255


def _lab(colours: np.ndarray) -> np.ndarray:
    return cv2.cvtColor((colours[None] / 255).astype(np.float32), cv2.COLOR_BGR2Lab)[0]


def contrast(colours: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """How well colours (n, 3) stand out against one colour (3,): float32 (n,).

    Black on white has 100. Lightness counts fully and hue by a third, since people see fine
    detail by lightness.
    """
    delta = _lab(colours) - _lab(reference[None])
    return np.abs(delta[:, 0]) + np.hypot(delta[:, 1], delta[:, 2]) / 3


def contrasting_colour(
    rng: np.random.Generator,
    reference: np.ndarray,
    floor: float,
    hue_deg: float | None = None,
    *,
    keep_hue: bool = False,
) -> np.ndarray:
    """Draws a colour (3,) with at least the given contrast, or the nearest to it that exists.

    Args:
        rng: decides everything.
        reference: (3,) the colour to stand out against.
        floor: least contrast.
        hue_deg: see `random_colours`.
        keep_hue: where no colour of this hue stands out enough, take the best of them instead of
            black or white.
    """
    candidates = random_colours(rng, 24, hue_deg=hue_deg)
    strength = contrast(candidates, reference)
    good = np.flatnonzero(strength >= floor)
    if len(good):
        return candidates[good[0]]
    if keep_hue:
        return candidates[int(np.argmax(strength))]
    extremes = np.array([[8, 8, 8], [247, 247, 247]], dtype=np.float32)
    return extremes[int(np.argmax(contrast(extremes, reference)))]


def _rotated_grid(rng: np.random.Generator, h: int, w: int) -> tuple[np.ndarray, np.ndarray]:
    angle = rng.uniform(0, math.pi)
    c, s = math.cos(angle), math.sin(angle)
    x = np.arange(w, dtype=np.float32)[None] + np.float32(rng.uniform(0, 1000))
    y = np.arange(h, dtype=np.float32)[:, None] + np.float32(rng.uniform(0, 1000))
    return c * x + s * y, c * y - s * x


def _flat(rng: np.random.Generator, h: int, w: int, scale: float) -> np.ndarray:
    return np.full((h, w), rng.uniform(0, 1), dtype=np.float32)


def gradient(rng: np.random.Generator, h: int, w: int, scale: float) -> np.ndarray:
    """A linear ramp in a random direction."""
    u, _ = _rotated_grid(rng, h, w)
    low, high = float(u.min()), float(u.max())
    return (u - low) / max(high - low, 1e-6)


def noise(rng: np.random.Generator, h: int, w: int, scale: float) -> np.ndarray:
    """Smooth noise of several octaves; `scale` is the size of the largest bumps in px."""
    cell = max(scale, 2.0)
    octaves = min(4, 1 + int(math.log2(cell / 1.5)))
    rows, columns = math.ceil(h / cell) + 2, math.ceil(w / cell) + 2
    total: np.ndarray = rng.random((rows, columns), dtype=np.float32)
    for octave in range(1, octaves):
        finer = rng.random((rows << octave, columns << octave), dtype=np.float32)
        total = cv2.resize(total, finer.shape[::-1], interpolation=cv2.INTER_CUBIC)
        total = total + np.float32(0.5**octave) * finer
    cell /= 1 << (octaves - 1)
    # From a grid larger than the image, so that its clamped border can be cut off.
    whole = (round(total.shape[1] * cell), round(total.shape[0] * cell))
    total = cv2.resize(total, whole, interpolation=cv2.INTER_CUBIC)
    top, left = (whole[1] - h) // 2, (whole[0] - w) // 2
    total = total[top : top + h, left : left + w]
    return _stretch(total)


def _stretch(field: np.ndarray) -> np.ndarray:
    mean, deviation = float(field.mean()), float(field.std())
    return np.clip(0.5 + (field - mean) * (0.22 / max(deviation, 1e-6)), 0, 1)


def _stripes(rng: np.random.Generator, h: int, w: int, scale: float) -> np.ndarray:
    u, _ = _rotated_grid(rng, h, w)
    hardness = rng.uniform(0.5, 1.5)
    return np.clip(0.5 + hardness * np.sin(u * np.float32(2 * math.pi / max(scale, 4.0))), 0, 1)


def _marble(rng: np.random.Generator, h: int, w: int, scale: float) -> np.ndarray:
    u, _ = _rotated_grid(rng, h, w)
    wobble = noise(rng, h, w, scale * 1.5)
    return 0.5 + 0.5 * np.sin(2 * np.float32(math.pi) * (u / max(scale, 4.0) + 1.6 * wobble))


def _dots(rng: np.random.Generator, h: int, w: int, scale: float) -> np.ndarray:
    period = np.float32(max(scale, 5.0))
    u, v = _rotated_grid(rng, h, w)
    # The same as `% 1`, to the bit, in a fraction of its time.
    across, along = ((x - np.floor(x)) - 0.5 for x in (u / period, v / period))
    radius = np.hypot(across, along)
    return np.clip((rng.uniform(0.22, 0.36) - radius) * period + 0.5, 0, 1)


def _checks(rng: np.random.Generator, h: int, w: int, scale: float) -> np.ndarray:
    u, v = _rotated_grid(rng, h, w)
    k = np.float32(math.pi / max(scale, 4.0))
    return np.clip(0.5 + 1.5 * np.sin(u * k) * np.sin(v * k), 0, 1)


def _blotches(rng: np.random.Generator, h: int, w: int, scale: float) -> np.ndarray:
    return np.clip((noise(rng, h, w, scale * 1.5) - 0.5) * 6 + 0.5, 0, 1)


def _bricks(rng: np.random.Generator, h: int, w: int, scale: float) -> np.ndarray:
    height = np.float32(max(scale * 0.5, 6.0))
    length = height * np.float32(rng.uniform(1.8, 4.5))
    x = np.arange(w, dtype=np.float32)[None] + np.float32(rng.uniform(0, 500))
    y = np.arange(h, dtype=np.float32)[:, None] + np.float32(rng.uniform(0, 500))
    row = np.floor(y / height)
    x = x + (row % 2) * length / 2
    column = np.floor(x / length)
    shade = rng.random((64, 64), dtype=np.float32)
    face = 0.35 + 0.65 * shade[row.astype(int) % 64, column.astype(int) % 64]
    joint = np.float32(max(1.2, float(height * 0.09)))
    inside_x = np.minimum(x - column * length, (column + 1) * length - x)
    inside_y = np.minimum(y - row * height, (row + 1) * height - y)
    return face * np.clip(np.minimum(inside_x, inside_y) / joint, 0, 1)


_FILL_FIELDS: tuple[Field, ...] = (
    _flat, gradient, gradient, noise, _stripes, _dots, _checks, _marble, _blotches,
)  # fmt: skip
_BACKGROUND_FIELDS: tuple[Field, ...] = (
    noise, gradient, _stripes, _bricks, _bricks, _blotches, _marble, _checks, _dots,
)  # fmt: skip


def thrice(field: np.ndarray) -> np.ndarray:
    """A field (h, w) as the three channels (h, w, 3) of an image.

    NumPy is several times slower where one of two operands has a single channel.
    """
    if not field.size:  # outside the image
        return np.zeros((*field.shape, 3), field.dtype)
    return cv2.merge((field, field, field))


def _mix(field: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    step = b - a
    kind = np.result_type(field, step, a)
    channels = (np.multiply(field, step[c], dtype=kind) + a[c : c + 1] for c in range(3))
    return cv2.merge(tuple(channels))


def fill(
    rng: np.random.Generator, h: int, w: int, size_px: float, colour: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Texture of one object or distractor: float32 (h, w, 3), mostly near `colour`."""
    kinds = _FILL_FIELDS if size_px >= 28 else _FILL_FIELDS[:4]
    field = kinds[int(rng.integers(len(kinds)))](rng, h, w, size_px * rng.uniform(0.12, 0.35))
    return _mix(field * np.float32(rng.uniform(0.4, 0.9)), colour, second)


# Fillings that fine classes differ in.
PLAIN, STRIPED = "plain", "striped"
FILLINGS = (PLAIN, STRIPED)
_PLAIN_FIELDS: tuple[Field, ...] = (_flat, gradient, noise)


def fine_fill(
    rng: np.random.Generator, h: int, w: int, size_px: float, colours: np.ndarray, filling: str
) -> np.ndarray:
    """Texture of an object of a fine class: float32 (h, w, 3).

    Args:
        rng: decides everything.
        h: height, px.
        w: width, px.
        size_px: of the object.
        colours: (2, 3) two of one hue that stand out against each other.
        filling: one of `FILLINGS`. Stripes grow with their object: near or far, it has as many.
    """
    first, second = colours
    if filling == STRIPED:
        return _mix(_stripes(rng, h, w, size_px * rng.uniform(0.2, 0.32)), first, second)
    field = _PLAIN_FIELDS[int(rng.integers(len(_PLAIN_FIELDS)))](rng, h, w, size_px)
    return _mix(field * np.float32(rng.uniform(0, 0.5)), first, second)


def _surface(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    base, other = random_colours(rng, 2, muted=True)
    other = base + (other - base) * rng.uniform(0.3, 0.75)
    kind = _BACKGROUND_FIELDS[int(rng.integers(len(_BACKGROUND_FIELDS)))]
    long_side = max(h, w)
    field = kind(rng, h, w, math.exp(rng.uniform(math.log(14), math.log(long_side / 4))))
    surface = _mix(field, base, other)
    grain = noise(rng, h, w, rng.uniform(6, 60)) - 0.5
    slow = noise(rng, h, w, long_side / 2) - 0.5
    relief = grain * np.float32(rng.uniform(8, 36)) + slow * np.float32(rng.uniform(10, 50))
    return surface + thrice(relief)


def background(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """A textured background, float32 (h, w, 3): one surface, or two with a border between them."""
    surface = _surface(rng, h, w)
    if rng.random() < 0.4:
        border = gradient(rng, h, w, 0) + np.float32(0.25) * (noise(rng, h, w, 160) - 0.5)
        softness = np.float32(math.exp(rng.uniform(math.log(6), math.log(300))))
        share = np.clip((border - np.float32(rng.uniform(0.35, 0.65))) * softness + 0.5, 0, 1)
        surface += thrice(share) * (_surface(rng, h, w) - surface)
    return np.clip(surface, 0, 255)
