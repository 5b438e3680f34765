"""Draws heads: skin, hair, hats, glasses, beards, masks; with the features of a face or without."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sniper.tools.toy.features import (
    BLANK,
    EYE,
    MOUTH,
    NO_FACE_LAYOUTS,
    Layout,
    Mimic,
    draw_features,
    face_layout,
    turn_head,
)
from sniper.tools.toy.pen import Pen, Sprite, band, ellipse
from sniper.tools.toy.textures import noise, random_colours

# BGR, from very light to very dark.
_SKINS = np.array([
    [200, 218, 245], [175, 198, 235], [150, 182, 228], [125, 165, 215], [100, 140, 198],
    [80, 115, 172], [64, 92, 145], [52, 72, 116], [44, 58, 92],
], np.float32)  # fmt: skip
_HAIRS = np.array([
    [22, 20, 24], [28, 34, 48], [38, 55, 82], [58, 88, 128], [92, 140, 185], [130, 190, 222],
    [48, 72, 150], [150, 150, 152], [215, 216, 220],
], np.float32)  # fmt: skip
_IRISES = np.array([[25, 35, 55], [20, 25, 32], [110, 85, 55], [75, 105, 70]], np.float32)
# As often things have a skin tone; the others have any colour: paint, coloured light, statues.
SKIN_SHARE = 0.88
_SMALL_PX, _SMALLEST_PX = 40.0, 10.0
_MASK_SHARE = 0.05
_PLAIN_FROM_PX = 150.0  # larger heads have no shoulders: these would fill the picture


@dataclass(frozen=True, eq=False)
class Head:
    """A drawn head.

    Attributes:
        sprite: its pixels; the core is the oval from hairline to chin.
        roll_deg: how far it is turned in the picture.
        yaw_deg: how far it looks to the side.
        gapes: whether the mouth is wide open.
    """

    sprite: Sprite
    roll_deg: float
    yaw_deg: float
    gapes: bool


def skin_colour(rng: np.random.Generator) -> np.ndarray:
    """A skin tone of any kind, or sometimes any colour: float32 (3,) BGR."""
    if rng.random() >= SKIN_SHARE:
        return random_colours(rng, 1, muted=bool(rng.random() < 0.5))[0] * 0.8 + 30
    return _between(rng, _SKINS) * rng.uniform(0.92, 1.08, 3).astype(np.float32)


def _between(rng: np.random.Generator, palette: np.ndarray) -> np.ndarray:
    place = rng.uniform(0, len(palette) - 1)
    low = min(int(place), len(palette) - 2)
    return palette[low] + np.float32(place - low) * (palette[low + 1] - palette[low])


def draw_head(rng: np.random.Generator, size_px: float, layout: str | None = None) -> Head:
    """Draws a head.

    Args:
        rng: decides everything else.
        size_px: square root of the area of the box around the face.
        layout: None for a face; else a key of `NO_FACE_LAYOUTS`.
    """
    half_width, jaw = rng.uniform(0.7, 0.86), rng.uniform(0.0, 0.28)
    oval = ellipse((0, 0), (half_width, 1))
    oval[:, 0] *= 1 - jaw * np.maximum(oval[:, 1], 0) ** 2
    roll_deg = float(np.clip(rng.normal(0, 14), -45, 45))
    yaw_deg = float(np.clip(rng.normal(0, 17), -50, 50))
    features = face_layout(rng)
    if layout is not None:
        features = NO_FACE_LAYOUTS[layout](rng, features)
    skin, hair = skin_colour(rng), _between(rng, _HAIRS)
    gapes = rng.random() < 0.15
    bold = float(np.clip((_SMALL_PX - size_px) / (_SMALL_PX - _SMALLEST_PX), 0, 1))
    mimic = Mimic(
        half_width=half_width,
        yaw_deg=yaw_deg,
        skin=skin,
        hair=hair,
        iris=_between(rng, _IRISES),
        lips=skin * np.array([0.55, 0.5, rng.uniform(0.75, 1.0)], np.float32),
        gaze=rng.uniform(-1, 1),
        eye_height=0.0 if rng.random() < 0.08 else rng.uniform(0.05, 0.095),
        smile=rng.uniform(-0.05, 0.14),
        gape=rng.uniform(0.13, 0.2) if gapes else max(0.0, rng.uniform(-0.06, 0.06)),
        bold=bold,
    )
    has_shoulders = size_px < _PLAIN_FROM_PX and rng.random() < 0.6
    pen = Pen(oval, roll_deg, size_px, 2.4 if has_shoulders else 1.75)
    cloth = random_colours(rng, 2, muted=bool(rng.random() < 0.6))
    wears = _Wardrobe(rng, mimic, cloth, _mask_share(layout))
    if has_shoulders:
        _shoulders(pen, skin, cloth[0])
    wears.draw_back(pen)
    pen.fill(oval, skin, hides=False)
    # As on cheeks and forehead, a little darker to the rim.
    for share, tone in ((0.93, 1.03), (0.7, 1.06)):
        pen.mark(oval * share, skin * tone)
    wears.draw_beard(pen, features)
    draw_features(rng, pen, features, mimic)
    wears.draw_front(pen, features)
    return Head(_with_texture(rng, pen.sprite(), size_px), roll_deg, yaw_deg, gapes)


def _mask_share(layout: str | None) -> float:
    if layout is None:
        return _MASK_SHARE
    return _MASK_SHARE * len(NO_FACE_LAYOUTS) if layout == BLANK else 0.0


def _with_texture(rng: np.random.Generator, sprite: Sprite, size_px: float) -> Sprite:
    h, w = sprite.alpha.shape
    grain = noise(rng, h, w, size_px * rng.uniform(0.1, 0.5)) - 0.5
    strength = np.float32(rng.uniform(0.04, 0.2))
    colours = np.clip(sprite.colours * (1 + strength * grain[..., None]), 0, 255)
    return Sprite(colours, sprite.alpha, sprite.core, sprite.shown)


def _shoulders(pen: Pen, skin: np.ndarray, cloth: np.ndarray) -> None:
    neck = np.array([[-0.38, 0.5], [0.38, 0.5], [0.42, 1.3], [-0.42, 1.3]])
    body = [[-0.4, 1.12], [-1.1, 1.32], [-1.45, 1.65], [-1.5, 2.2], [1.5, 2.2], [1.45, 1.65],
            [1.1, 1.32], [0.4, 1.12], [0.0, 1.3]]  # fmt: skip
    pen.fill(neck, skin * 0.8)
    pen.fill(np.array(body), cloth)


class _Wardrobe:
    """Hair and what a head wears; everything but the features."""

    def __init__(
        self, rng: np.random.Generator, mimic: Mimic, cloth: np.ndarray, mask_share: float
    ) -> None:
        self._mimic, self._a = mimic, mimic.half_width
        self._hair = mimic.hair * rng.uniform(0.85, 1.15)
        self._cloth = cloth[1]
        styles = ("bald", "short", "short", "fringe", "long", "long", "afro", "scarf")
        self._style = styles[int(rng.integers(len(styles)))]
        hats = ("", "", "", "cap", "beanie", "brim")
        self._hat = hats[int(rng.integers(len(hats)))] if self._style != "scarf" else ""
        glasses = ("", "", "", "", "glasses", "glasses", "sunglasses")
        self._glasses = glasses[int(rng.integers(len(glasses)))]
        self._frame = np.array([30, 28, 30], np.float32) * rng.uniform(0.5, 2.5)
        self._beard = rng.random() < 0.15
        self._moustache = self._beard or rng.random() < 0.08
        # Behind a mask odd features could be those of a face: only blank heads have one, and so
        # many of them that masks say nothing.
        self._mask = rng.random() < mask_share
        self._ears = rng.random() < 0.8
        self._parting = rng.uniform(-0.5, 0.5)
        self._line = rng.uniform(-0.78, -0.62)

    def draw_back(self, pen: Pen) -> None:
        """What is behind the face."""
        a, shift = self._a, -0.12 * np.sin(np.radians(self._mimic.yaw_deg))
        if self._style == "long":
            pen.fill(ellipse((shift, 0.0), (a * 1.25, 1.2)), self._hair)
            sides = np.array([[-1.25 * a, 0], [1.25 * a, 0], [1.35 * a, 1.25], [-1.35 * a, 1.25]])
            pen.fill(sides, self._hair * 0.9)
        elif self._style == "afro":
            pen.fill(ellipse((shift, -0.35), (a * 1.55, 1.2)), self._hair)
        elif self._style == "scarf":
            pen.fill(ellipse((0, 0.05), (a * 1.25, 1.3)), self._cloth)
        elif self._style != "bald":
            pen.fill(ellipse((shift, -0.25), (a * 1.12, 0.95)), self._hair)
        if self._ears and self._style not in ("long", "scarf"):
            for side in (-1, 1):
                ear = ellipse((side * a * 1.0, 0.02), (0.11, 0.22))
                pen.fill(ear, self._mimic.skin * 0.88)

    def draw_beard(self, pen: Pen, layout: Layout) -> None:
        """Hair of the lower face, around the mouth wherever it is."""
        mouths = [part for part in layout if part.kind == MOUTH]
        tone = 0.55 * self._hair + 0.45 * 0.6 * self._mimic.skin
        for part in mouths:
            centre = np.array([part.x * self._a, part.y])
            if self._beard:
                around = ellipse((0, 0.07), (0.5 * self._a, 0.36)) @ part.turn + centre
                pen.mark(turn_head(around, self._mimic), tone)
            if self._moustache:
                lip = np.array([[-0.3, -0.03], [0, -0.17], [0.3, -0.03]]) @ part.turn + centre
                pen.mark(turn_head(band(lip, 0.12), self._mimic), self._hair)

    def draw_front(self, pen: Pen, layout: Layout) -> None:
        """What is in front of the face."""
        self._draw_glasses(pen, layout)
        if self._mask:
            bottom = ellipse((0, 0.45), (self._a * 0.8, 0.45))
            pen.fill(bottom, self._cloth * 0.3 + 160)
        self._draw_hair(pen)
        self._draw_hat(pen)

    def _draw_glasses(self, pen: Pen, layout: Layout) -> None:
        eyes = [part for part in layout if part.kind == EYE]
        if not self._glasses or not eyes:
            return
        centres = [np.array([part.x * self._a, part.y]) for part in eyes]
        for centre in centres:
            lens = turn_head(ellipse(tuple(centre), (0.23, 0.19)), self._mimic)
            if self._glasses == "sunglasses":
                pen.mark(lens, self._frame * 0.8)
                continue
            rim = np.concatenate([lens, lens[:1]])
            pen.mark(band(rim, 0.05), self._frame)
        if len(centres) == 2:
            bridge = turn_head(np.linspace(centres[0], centres[1], 9)[3:6], self._mimic)
            pen.mark(band(bridge, 0.05), self._frame)

    def _draw_hair(self, pen: Pen) -> None:
        if self._style == "bald":
            return
        a = self._a
        colour = self._cloth if self._style == "scarf" else self._hair
        low = -0.42 if self._style == "fringe" else self._line
        shift = -0.12 * np.sin(np.radians(self._mimic.yaw_deg))
        t = np.linspace(np.pi, 2 * np.pi, 25)
        outer = np.stack([a * 1.13 * np.cos(t) + shift, -0.12 + 1.06 * np.sin(t)], axis=1)
        inner = np.array([
            [1.0, -0.15], [0.86, -0.45], [0.6, low - 0.02], [self._parting * 0.6, low - 0.06],
            [-0.6, low - 0.02], [-0.86, -0.45], [-1.0, -0.15],
        ])  # fmt: skip
        inner[:, 0] *= a
        # Hair that is combed back only frames the face; a fringe covers a part of it.
        pen.fill(np.concatenate([outer, inner]), colour, hides=self._style == "fringe")

    def _draw_hat(self, pen: Pen) -> None:
        if not self._hat:
            return
        a = self._a
        t = np.linspace(np.pi, 2 * np.pi, 25)
        dome = np.stack([a * 1.18 * np.cos(t), -0.55 + 0.72 * np.sin(t)], axis=1)
        pen.fill(dome, self._cloth)
        if self._hat == "brim":
            pen.fill(ellipse((0, -0.58), (a * 1.8, 0.17)), self._cloth * 0.8)
        elif self._hat == "cap":
            tip = 0.3 * np.sin(np.radians(self._mimic.yaw_deg))
            pen.fill(ellipse((tip, -0.53), (a * 1.15, 0.14)), self._cloth * 0.7)
        else:
            pen.fill(dome * [1, 0.2] + [0, -0.5], self._cloth * 0.75)
