"""Composes pictures with faces and look-alikes: scenes of all sizes, crowds, and still lifes.

Size, place, light, blur and, mostly, colour of a thing are drawn before it is decided whether it is
a face: only its features tell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from sniper.tools.toy.canvas import Canvas
from sniper.tools.toy.clutter import draw_clutter
from sniper.tools.toy.head import Head, draw_head
from sniper.tools.toy.lookalikes import draw_lookalike
from sniper.tools.toy.pen import Sprite
from sniper.tools.toy.scene import image_size, least_visible, log_uniform, photograph
from sniper.tools.toy.shapes import DISTRACTORS, place_outline
from sniper.tools.toy.sprite import coverage
from sniper.tools.toy.textures import background, fill, random_colours

SCENE, CROWD, STILL_LIFE = "Scene", "Crowd", "Still_Life"
_FACE_SHARE = 0.5
_PLACES_TRIED = 16
_MOST_OF_IMAGE = 0.55  # the things' boxes may sum up to this share of the image
_MOST_IN_CROWD = 140
# Limits of the attributes; those of occlusion and pose are WIDER FACE's own. Blur: deviation of the
# blur as share of the size.
_BLUR_LIMITS = (0.04, 0.09)
_SMEARED = 0.13
_OCCLUSION_LIMITS = (0.02, 0.3)
_INVALID_BELOW_SHOWN = 0.35
_POSE_LIMIT_DEG = 30.0
_EXTREME_LIGHT = 0.5


@dataclass(frozen=True)
class FaceSceneSettings:
    """What pictures with faces hold.

    Attributes:
        min_size_px: smallest square root of a face's box area that is not `invalid`.
        max_size_px: largest one; images with a shorter side below it have smaller ones only.
        long_side_px: long side of the largest images.
    """

    min_size_px: float = 8.0
    max_size_px: float = 400.0
    long_side_px: int = 640


@dataclass(frozen=True)
class Face:
    """One face: box x, y, w, h px around its oval, also where hidden, within the image.

    Attributes:
        box: x, y, w, h.
        blur: 0 clear, 1 normal, 2 heavy, for its size.
        expression: 1: the mouth is wide open.
        illumination: 1: one side is far darker than the other.
        invalid: 1: too small, smeared or hidden to be found.
        occlusion: 0 none, 1 up to 30 % of the oval, 2 more; by other things, hat, fringe, mask or
            the image's border.
        pose: 1: turned by more than 30 degrees, in the picture or to the side.
    """

    box: tuple[int, int, int, int]
    blur: int
    expression: int
    illumination: int
    invalid: int
    occlusion: int
    pose: int


@dataclass(frozen=True, eq=False)
class FaceScene:
    """A finished picture, uint8 (H, W, 3) BGR.

    Attributes:
        image: the picture.
        faces: all faces in it.
        lookalikes: kind and box x, y, w, h of all things that could be taken for one.
    """

    image: np.ndarray
    faces: tuple[Face, ...]
    lookalikes: tuple[tuple[str, tuple[int, int, int, int]], ...]


@dataclass(frozen=True)
class _Plan:
    """A thing to be placed: size, and in crowds where its middle is."""

    size_px: float
    is_face: bool
    middle: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class _Placed:
    """A painted thing: its plan, pixels, place, number, and what it was drawn as."""

    plan: _Plan
    drawn: Head | str
    sprite: Sprite
    x: int
    y: int
    number: int
    blur_px: float


@dataclass(frozen=True)
class _Light:
    """From one side: direction, and how strong the difference is, 0..1."""

    angle: float
    strength: float


def render_face_scene(
    rng: np.random.Generator,
    settings: FaceSceneSettings,
    kind: str,
    size: tuple[int, int] | None = None,
) -> FaceScene:
    """Makes one picture.

    Args:
        rng: decides everything else.
        settings: sizes.
        kind: `SCENE`, `CROWD` or `STILL_LIFE`, which has look-alikes only.
        size: width and height in px; drawn when None.
    """
    width, height = size or image_size(rng, settings.long_side_px)
    canvas = Canvas(draw_clutter(rng, background(rng, height, width), int(rng.integers(3, 12))))
    light = _Light(
        rng.uniform(0, 2 * math.pi),
        rng.uniform(0.5, 0.85) if rng.random() < 0.2 else rng.uniform(0, 0.35),
    )
    plans = _crowd(rng, settings, width, height) if kind == CROWD else None
    if plans is None:
        plans = _scene(rng, settings, width, height, has_faces=kind != STILL_LIFE)
    placed = [thing for thing in (_add(rng, canvas, plan, light) for plan in plans) if thing]
    if kind != CROWD:
        _hide_some(rng, canvas, placed)
    lens_px = rng.uniform(0.3, 0.55) if rng.random() < 0.5 else 0.0
    image = canvas.image
    if rng.random() < 0.08:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None], 3, axis=2)
    if lens_px:
        image = cv2.GaussianBlur(image, (0, 0), lens_px)
    image = photograph(rng, image, soft_share=0.0)
    faces = tuple(
        _face(canvas, thing, thing.drawn, light, lens_px, settings)
        for thing in placed
        if isinstance(thing.drawn, Head)
    )
    lookalikes = tuple(
        (thing.drawn, _box(canvas, thing)) for thing in placed if isinstance(thing.drawn, str)
    )
    return FaceScene(image, faces, lookalikes)


def _scene(
    rng: np.random.Generator,
    settings: FaceSceneSettings,
    width: int,
    height: int,
    has_faces: bool,
) -> list[_Plan]:
    """Things of log-uniform sizes at any place, large ones mostly first."""
    count = int(rng.integers(4, 17))
    high = max(settings.min_size_px, min(settings.max_size_px, 0.8 * min(width, height)))
    room = _MOST_OF_IMAGE * width * height
    sizes: list[float] = []
    for _ in range(count):
        size = log_uniform(rng, settings.min_size_px, high)
        if size**2 > room:
            limit = max(settings.min_size_px, min(high, math.sqrt(max(room, 0.0))))
            size = log_uniform(rng, settings.min_size_px, limit)
        room -= size**2
        sizes.append(size)
    # At least one of each.
    is_face = np.append([True, False], rng.random(count - 2) < _FACE_SHARE) & has_faces
    is_face = rng.permutation(is_face)
    keys = np.array([size * math.exp(rng.normal(0, 0.5)) for size in sizes])
    return [_Plan(sizes[i], bool(is_face[i])) for i in np.argsort(keys)[::-1]]


def _crowd(
    rng: np.random.Generator, settings: FaceSceneSettings, width: int, height: int
) -> list[_Plan]:
    """Rows of things, the far and small ones above and behind the near and larger ones."""
    low = settings.min_size_px
    size = log_uniform(rng, low, max(low, min(28.0, settings.max_size_px)))
    growth = rng.uniform(1.0, 1.25)
    y = height * rng.uniform(0.05, 0.4)
    apart = rng.uniform(1.4, 2.3)
    plans: list[_Plan] = []
    while y < height and len(plans) < _MOST_IN_CROWD and size <= settings.max_size_px:
        x = rng.uniform(0, size)
        while x < width:
            own = max(low, min(size * math.exp(rng.normal(0, 0.12)), settings.max_size_px))
            if rng.random() < 0.05 and own < 2 * low:
                own = low * rng.uniform(0.62, 0.95)  # too small: `invalid`
            middle = (x + rng.normal(0, 0.12) * size, y + rng.normal(0, 0.15) * size)
            if rng.random() < 0.85:
                plans.append(_Plan(own, bool(rng.random() < _FACE_SHARE), middle))
            x += apart * size * rng.uniform(0.85, 1.25)
        y += apart * size * rng.uniform(0.9, 1.2)
        size *= growth
    return plans[:_MOST_IN_CROWD]


def _add(rng: np.random.Generator, canvas: Canvas, plan: _Plan, light: _Light) -> _Placed | None:
    """Draws a thing, finds a place for it and paints it; None where there is none."""
    drawn: Head | str
    if plan.is_face:
        drawn = draw_head(rng, plan.size_px)
        sprite = drawn.sprite
    else:
        drawn, sprite = draw_lookalike(rng, plan.size_px)
    sprite = _lit(sprite, light)
    chance = rng.random()
    blur_px = 0.0
    if chance < 0.15:
        # One in eight of these is smeared beyond recognition.
        share = rng.uniform(0.15, 0.22) if chance < 0.02 else rng.uniform(0.02, 0.1)
        blur_px = share * plan.size_px
        sprite = _blurred(sprite, blur_px)
    least = least_visible(plan.size_px)
    for _ in range(_PLACES_TRIED if plan.middle is None else 3):
        x, y = _corner(rng, canvas, plan, sprite)
        if canvas.fits(sprite.alpha, x, y, least, sprite.core):
            number = canvas.paint(sprite.colours, sprite.alpha, x, y, least, sprite.core)
            return _Placed(plan, drawn, sprite, x, y, number, blur_px)
    return None


def _corner(
    rng: np.random.Generator, canvas: Canvas, plan: _Plan, sprite: Sprite
) -> tuple[int, int]:
    """Where the sprite's corner goes; one box in six may cross the image's border."""
    height, width = canvas.image.shape[:2]
    bx, by, bw, bh = sprite.box
    if plan.middle is not None:
        jitter = rng.normal(0, 0.1 * plan.size_px, 2)
        x, y = plan.middle[0] - bw / 2 + jitter[0], plan.middle[1] - bh / 2 + jitter[1]
    else:
        over = 0.4 if rng.random() < 1 / 6 else 0.0
        x = rng.uniform(-over * bw, max(width - bw + over * bw, 0))
        y = rng.uniform(-over * bh, max(height - bh + over * bh, 0))
    return round(x) - bx, round(y) - by


def _lit(sprite: Sprite, light: _Light) -> Sprite:
    h, w = sprite.alpha.shape
    x, y, bw, bh = sprite.box
    u = (np.arange(w, dtype=np.float32)[None] + 0.5 - x - bw / 2) / (bw / 2)
    v = (np.arange(h, dtype=np.float32)[:, None] + 0.5 - y - bh / 2) / (bh / 2)
    along = np.clip(u * math.cos(light.angle) + v * math.sin(light.angle), -1.2, 1.2)
    factor = 1 - np.float32(light.strength) * (0.2 + 0.6 * along)
    colours = np.clip(sprite.colours * factor[..., None].astype(np.float32), 0, 255)
    return Sprite(colours, sprite.alpha, sprite.core, sprite.shown)


def _blurred(sprite: Sprite, blur_px: float) -> Sprite:
    margin = math.ceil(2.5 * blur_px)

    def padded(layer: np.ndarray) -> np.ndarray:
        sides = [(margin, margin), (margin, margin), *[(0, 0)] * (layer.ndim - 2)]
        return np.pad(layer, sides)

    alpha = padded(sprite.alpha)
    weighted = padded(sprite.colours) * alpha[..., None]
    soft, mean = (cv2.GaussianBlur(layer, (0, 0), blur_px) for layer in (alpha, weighted))
    colours = mean / np.maximum(soft, 1 / 255)[..., None]
    return Sprite(np.clip(colours, 0, 255), soft, padded(sprite.core), padded(sprite.shown))


def _hide_some(rng: np.random.Generator, canvas: Canvas, placed: list[_Placed]) -> None:
    """Puts things of no meaning in front of some, and anywhere."""
    height, width = canvas.image.shape[:2]
    for thing in placed:
        if rng.random() < 0.3:
            x, y, w, h = thing.sprite.box
            angle, far = rng.uniform(0, 2 * math.pi), rng.uniform(0.3, 0.8)
            middle = (
                thing.x + x + w / 2 + far * w * math.cos(angle),
                thing.y + y + h / 2 + far * h * math.sin(angle),
            )
            _put(rng, canvas, thing.plan.size_px * rng.uniform(0.5, 1.0), middle)
    for _ in range(int(rng.integers(0, 4))):
        middle = (rng.uniform(0, width), rng.uniform(0, height))
        _put(rng, canvas, log_uniform(rng, 16.0, 0.2 * min(width, height)), middle)


def _put(
    rng: np.random.Generator, canvas: Canvas, size_px: float, middle: tuple[float, float]
) -> None:
    maker = DISTRACTORS[int(rng.integers(len(DISTRACTORS)))]
    alpha = coverage(place_outline(rng, maker(rng), size_px, 180))
    h, w = alpha.shape
    x, y = round(middle[0] - w / 2), round(middle[1] - h / 2)
    if canvas.fits(alpha, x, y, 0.0):
        colours = random_colours(rng, 2, muted=bool(rng.random() < 0.5))
        texture = fill(rng, h, w, size_px, colours[0], colours[1])
        canvas.paint(np.clip(texture, 0, 255), alpha, x, y, 0.0)


def _box(canvas: Canvas, thing: _Placed) -> tuple[int, int, int, int]:
    """Around the core, within the image; at least a part of it is inside."""
    height, width = canvas.image.shape[:2]
    x, y, w, h = thing.sprite.box
    left, top = thing.x + x, thing.y + y
    x0, y0 = max(left, 0), max(top, 0)
    return x0, y0, min(left + w, width) - x0, min(top + h, height) - y0


def _face(
    canvas: Canvas,
    thing: _Placed,
    head: Head,
    light: _Light,
    lens_px: float,
    settings: FaceSceneSettings,
) -> Face:
    """What the annotation says, measured on what was painted."""
    sprite = thing.sprite
    seen = (sprite.shown & canvas.owned(thing.number)).sum() / sprite.core.sum()
    blur = math.hypot(thing.blur_px, lens_px) / thing.plan.size_px
    is_small = thing.plan.size_px < settings.min_size_px
    is_turned = max(abs(head.roll_deg), abs(head.yaw_deg)) > _POSE_LIMIT_DEG
    return Face(
        _box(canvas, thing),
        blur=sum(blur >= limit for limit in _BLUR_LIMITS),
        expression=int(head.gapes),
        illumination=int(light.strength >= _EXTREME_LIGHT),
        invalid=int(is_small or blur >= _SMEARED or seen < _INVALID_BELOW_SHOWN),
        occlusion=sum(1 - seen > limit for limit in _OCCLUSION_LIMITS),
        pose=int(is_turned),
    )
