"""Composes one picture: background, clutter, objects of many sizes, light, blur and grain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from sniper.tools.toy.canvas import Canvas
from sniper.tools.toy.clutter import draw_clutter
from sniper.tools.toy.fine import fine_classes
from sniper.tools.toy.shapes import CLASSES, DISTRACTORS, Outline, ToyClass, place_outline
from sniper.tools.toy.sprite import coverage, edge_band
from sniper.tools.toy.textures import (
    background,
    contrast,
    contrasting_colour,
    fill,
    fine_fill,
    gradient,
    noise,
    random_colours,
    thrice,
)

# Width, height for a long side of 640 px.
_IMAGE_SIZES = (
    (640, 480), (640, 480), (480, 640), (512, 384), (400, 400), (600, 450), (640, 427), (427, 640),
    (500, 375),
)  # fmt: skip
_PLACES_TRIED = 16
_MOST_OF_IMAGE = 0.75  # the boxes' areas may sum up to this share of the image
TYPICAL_COLOUR_SHARE = 0.9  # objects that have the hue of their class
_STRIPE_CONTRAST = 35.0


@dataclass(frozen=True)
class SceneSettings:
    """What a scene holds.

    Attributes:
        classes: how many of the shapes are used.
        min_objects: fewest objects aimed at in an image.
        max_objects: most objects in an image.
        min_size_px: smallest square root of a full object's box area.
        max_size_px: largest one; images with a shorter side below it have smaller ones only.
        long_side_px: long side of the largest images.
        size_bound: the class decides the size: class k of n takes the k-th of n equal parts of the
            sizes on a logarithmic scale, the first class the smallest.
        fine: the classes are shapes of one hue and filling, instead of shapes.
        max_distractors: most things of no class; at least one if there may be any.
    """

    classes: int = len(CLASSES)
    min_objects: int = 7
    max_objects: int = 14
    min_size_px: float = 12.0
    max_size_px: float = 400.0
    long_side_px: int = 640
    size_bound: bool = False
    fine: bool = False
    max_distractors: int = 4

    @property
    def kinds(self) -> tuple[ToyClass, ...]:
        """All classes."""
        shapes = CLASSES[: self.classes]
        return fine_classes(shapes) if self.fine else shapes

    def sizes_of(self, class_index: int) -> tuple[float, float]:
        """Smallest and largest size of a class's full objects, px."""
        if not self.size_bound:
            return self.min_size_px, self.max_size_px
        step = (self.max_size_px / self.min_size_px) ** (1 / self.classes)
        low = self.min_size_px * step**class_index
        return low, low * step


@dataclass(frozen=True)
class SceneObject:
    """One object: its class, visible box x, y, w, h, visible pixels, polygons."""

    kind: ToyClass
    box: tuple[int, int, int, int]
    area: int
    polygons: list


@dataclass(frozen=True, eq=False)
class Scene:
    """A finished picture, uint8 (H, W, 3) BGR, and the objects in it."""

    image: np.ndarray
    objects: tuple[SceneObject, ...]


@dataclass(frozen=True)
class _Plan:
    """A thing to be placed: class (None for a distractor), size, and the least it may shrink to."""

    kind: ToyClass | None
    size_px: float
    least_px: float = 12.0


def render_scene(
    rng: np.random.Generator,
    settings: SceneSettings,
    size: tuple[int, int] | None = None,
    kinds: Sequence[ToyClass] | None = None,
) -> Scene:
    """Makes one scene.

    Args:
        rng: decides everything.
        settings: what the scene holds.
        size: width and height in px; drawn when None.
        kinds: classes of its objects; all when None.

    Returns:
        The scene. Boxes are those of the visible pixels; every object has at least 40 % of its
        pixels visible, small ones more.
    """
    width, height = size or image_size(rng, settings.long_side_px)
    ground = draw_clutter(rng, background(rng, height, width), int(rng.integers(3, 12)))
    canvas = Canvas(ground)
    numbers: list[tuple[ToyClass, int]] = []
    for plan in _plan(rng, settings, kinds or settings.kinds, width, height):
        number = _add(rng, canvas, plan)
        if plan.kind is not None and number is not None:
            numbers.append((plan.kind, number))
    objects = tuple(SceneObject(kind, *canvas.visible_part(number)) for kind, number in numbers)
    return Scene(photograph(rng, canvas.image), objects)


def image_size(rng: np.random.Generator, long_side_px: int) -> tuple[int, int]:
    """Width and height of an image, px; its long side is `long_side_px` or a little less."""
    width, height = _IMAGE_SIZES[int(rng.integers(len(_IMAGE_SIZES)))]
    return round(width * long_side_px / 640), round(height * long_side_px / 640)


def _plan(
    rng: np.random.Generator,
    settings: SceneSettings,
    kinds: Sequence[ToyClass],
    width: int,
    height: int,
) -> list[_Plan]:
    """Draws classes and log-uniform sizes, large things mostly first."""
    count = int(rng.integers(settings.min_objects, settings.max_objects + 1))
    room_px = 0.85 * min(width, height)
    order = rng.permutation(len(kinds))
    room = _MOST_OF_IMAGE * width * height
    plans: list[_Plan] = []
    classes: list[int] = []
    for k in range(count):
        # A quarter of the objects repeats the class before, as things of a kind stand together.
        repeat = k > 0 and rng.random() < 0.25
        class_index = classes[-1] if repeat else int(order[k % len(kinds)])
        classes.append(class_index)
        low, high = settings.sizes_of(class_index)
        low = min(low, max(room_px, settings.min_size_px))
        high = max(low, min(high, room_px))
        size = log_uniform(rng, low, high)
        if size**2 > room:
            size = log_uniform(rng, low, max(low, min(high, math.sqrt(max(room, 0.0)))))
        room -= size**2
        plans.append(_Plan(kinds[class_index], size, low if settings.size_bound else 12.0))
    # Small discs and quads could be taken for objects, so distractors are 16 px at least.
    distractor_low = max(settings.min_size_px, 16.0)
    distractor_high = max(distractor_low, 0.25 * min(settings.max_size_px, room_px))
    most = settings.max_distractors
    for _ in range(int(rng.integers(1, most + 1)) if most else 0):
        plans.append(_Plan(None, log_uniform(rng, distractor_low, distractor_high)))
    keys = [plan.size_px * math.exp(rng.normal(0, 0.5)) for plan in plans]
    return [plans[i] for i in np.argsort(keys)[::-1]]


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def least_visible(size_px: float) -> float:
    """Share that must stay visible: 0.85 up to 20 px, falling to 0.42 from 90 px on."""
    t = math.log(min(max(size_px, 20.0), 90.0) / 20.0) / math.log(90.0 / 20.0)
    return 0.85 + t * (0.42 - 0.85)


def _outline(rng: np.random.Generator, plan: _Plan, size_px: float) -> Outline:
    if plan.kind is None:
        maker = DISTRACTORS[int(rng.integers(len(DISTRACTORS)))]
        return place_outline(rng, maker(rng), size_px, 180)
    return place_outline(rng, plan.kind.outline(rng), size_px, plan.kind.max_rotation_deg)


def _add(rng: np.random.Generator, canvas: Canvas, plan: _Plan) -> int | None:
    """Finds a place for a thing and paints it; tries smaller sizes before it gives up."""
    height, width = canvas.image.shape[:2]
    size = plan.size_px
    for _ in range(4):
        # A fraction of a pixel, so that edges do not all lie on the pixel grid.
        rings = [ring + rng.random(2) for ring in _outline(rng, plan, size)]
        rings = [ring - np.floor(rings[0].min(axis=0)) for ring in rings]
        alpha = coverage(rings)
        least = least_visible(size) if plan.kind is not None else 0.1
        for _ in range(_PLACES_TRIED):
            x, y = _place(rng, alpha.shape, width, height)
            if canvas.fits(alpha, x, y, least):
                return _paint(rng, canvas, alpha, (x, y), size, least, plan.kind)
        size = max(size * 0.6, plan.least_px)
    return None


def _place(rng: np.random.Generator, shape: tuple, width: int, height: int) -> tuple[int, int]:
    """A corner that keeps the thing inside, or one time in six lets it cross the image's border."""
    h, w = shape
    over = 0.4 if rng.random() < 1 / 6 else 0.0
    x0, x1 = -over * w, max(width - w + over * w, 0)
    y0, y1 = -over * h, max(height - h + over * h, 0)
    return round(rng.uniform(x0, x1)), round(rng.uniform(y0, y1))


def _contrast_floor(size_px: float) -> float:
    """Least contrast to the surroundings: 42 for the smallest things, 22 from 100 px on."""
    t = math.log(min(max(size_px, 12.0), 100.0) / 12.0) / math.log(100.0 / 12.0)
    return 42 - 20 * t


def _hue(rng: np.random.Generator, kind: ToyClass | None) -> float | None:
    """The class's own hue for most objects, as things of a kind have in nature; else any."""
    typical = rng.random() < TYPICAL_COLOUR_SHARE
    return kind.hue_deg if typical and kind is not None else None


def _paint(
    rng: np.random.Generator,
    canvas: Canvas,
    alpha: np.ndarray,
    place: tuple[int, int],
    size_px: float,
    least_visible: float,
    kind: ToyClass | None,
) -> int:
    x, y = place
    h, w = alpha.shape
    around, unrest = canvas.surroundings(alpha, x, y)
    floor = _contrast_floor(size_px) + min(0.4 * unrest, 15.0)
    colour, colours = _colours(rng, kind, (h, w), size_px, around, floor)
    if size_px >= 24 and rng.random() < 0.5:
        stroke = contrasting_colour(rng, colour, 30)
        width_px = max(1.0, size_px * rng.uniform(0.02, 0.06))
        colours += thrice(edge_band(alpha, width_px)) * (stroke - colours)
    if rng.random() < 0.5:
        shading = 1 + np.float32(rng.uniform(0.1, 0.35)) * (gradient(rng, h, w, 0) - 0.5)
        colours *= thrice(shading)
    if rng.random() < 0.35:
        distance = max(1, round(size_px * rng.uniform(0.03, 0.08)))
        canvas.shade(alpha, x + distance, y + distance, 0.5 + distance / 2, rng.uniform(0.2, 0.5))
    return canvas.paint(np.clip(colours, 0, 255), alpha, x, y, least_visible)


def _colours(
    rng: np.random.Generator,
    kind: ToyClass | None,
    shape: tuple[int, int],
    size_px: float,
    around: np.ndarray,
    floor: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The main colour (3,) of a thing, and that of each of its pixels (h, w, 3)."""
    if kind is not None and kind.filling is not None:
        hue = kind.hue_deg
        colour = contrasting_colour(rng, around, floor, hue, keep_hue=True)
        second = contrasting_colour(rng, colour, _STRIPE_CONTRAST, hue, keep_hue=True)
        pair = np.stack([colour, second])
        return colour, fine_fill(rng, *shape, size_px, pair, kind.filling)
    hue_deg = _hue(rng, kind)
    colour = contrasting_colour(rng, around, floor, hue_deg)
    second = random_colours(rng, 1, hue_deg=hue_deg)[0]
    if contrast(second[None], around)[0] < floor / 2 or size_px < 28:
        second = colour + (second - colour) * np.float32(0.25)
    return colour, fill(rng, *shape, size_px, colour, second)


def photograph(rng: np.random.Generator, image: np.ndarray, soft_share: float = 0.5) -> np.ndarray:
    """Light from one side, mostly a slightly soft lens, and sensor noise: uint8 (H, W, 3)."""
    h, w = image.shape[:2]
    field = gradient(rng, h, w, 0) if rng.random() < 0.6 else noise(rng, h, w, max(h, w))
    light = rng.uniform(0.9, 1.1) + rng.uniform(0, 0.45) * (field - 0.5)
    lit: np.ndarray = image * thrice(light.astype(np.float32))
    if rng.random() < soft_share:
        lit = cv2.GaussianBlur(lit, (0, 0), rng.uniform(0.35, 0.75))
    grain = rng.standard_normal((h, w), dtype=np.float32) * np.float32(rng.uniform(0.5, 5))
    return np.clip(np.rint(lit + thrice(grain)), 0, 255).astype(np.uint8)
