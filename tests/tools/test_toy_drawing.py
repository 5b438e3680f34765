from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.tools.toy.canvas import Canvas
from sniper.tools.toy.scene import SceneSettings, _contrast_floor, least_visible, render_scene
from sniper.tools.toy.shapes import CLASSES, DISTRACTORS, place_outline
from sniper.tools.toy.sprite import coverage, edge_band, visible_polygons
from sniper.tools.toy.textures import background, contrast, contrasting_colour, fill, noise


def shoelace(flat: list[float]) -> float:
    x, y = np.array(flat).reshape(-1, 2).T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


@given(st.integers(0, 10**6), st.integers(0, len(CLASSES) - 1), st.floats(12, 400))
@settings(max_examples=60, deadline=None)
def test_outlines_have_the_wanted_box_size(seed: int, index: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    rings = place_outline(rng, CLASSES[index].outline(rng), size, 180)
    low, high = rings[0].min(axis=0), rings[0].max(axis=0)
    np.testing.assert_allclose(low, 0, atol=1e-9)
    assert np.prod(high) == pytest.approx(size**2)
    assert (len(rings) == 2) == (CLASSES[index].name == "ring")


def test_no_two_kinds_have_the_same_upright_shape() -> None:
    masks = []
    for maker in [c.outline for c in CLASSES] + list(DISTRACTORS):
        rings = maker(np.random.default_rng(0))
        rings = [(r - rings[0].min(axis=0)) * 64 / np.ptp(rings[0], axis=0) for r in rings]
        masks.append(coverage(rings) >= 0.5)
    for i, a in enumerate(masks):
        assert a.shape == (64, 64)
        for b in masks[:i]:
            assert (a & b).sum() / (a | b).sum() < 0.92


def test_coverage_of_a_rectangle_on_half_pixels() -> None:
    rectangle = np.array([[0.5, 0.5], [4.5, 0.5], [4.5, 2.5], [0.5, 2.5]])
    alpha = coverage([rectangle])
    assert alpha.shape == (3, 5)
    # cv2 fills the pixels on the border too: 1/8 px on each side at fourfold resolution.
    assert alpha.sum() == pytest.approx(4.25 * 2.25, abs=0.05)
    assert alpha[1, 2] == 1 and 0.4 < alpha[1, 0] < 0.8 and 0.1 < alpha[0, 0] < 0.6


@pytest.mark.parametrize("size", [20, 100, 300])
def test_coverage_has_the_area_of_the_outline(size: int) -> None:
    for toy_class in CLASSES:
        rng = np.random.default_rng(size)
        rings = place_outline(rng, toy_class.outline(rng), size, 180)
        area = shoelace(rings[0].ravel().tolist())
        area -= sum(shoelace(r.ravel().tolist()) for r in rings[1:])
        assert coverage(rings).sum() == pytest.approx(area, rel=0.09 if size == 20 else 0.04)


def test_polygons_of_a_square_with_a_hole() -> None:
    alpha = np.ones((20, 20), dtype=np.float32)
    alpha[5:15, 5:15] = 0
    (polygon,) = visible_polygons(alpha, (100, 50))
    assert shoelace(polygon) == pytest.approx(300, rel=0.05)
    points = np.array(polygon).reshape(-1, 2)
    np.testing.assert_allclose(points.min(axis=0), [100, 50], atol=0.3)
    np.testing.assert_allclose(points.max(axis=0), [120, 70], atol=0.3)


def test_polygons_of_two_pieces_and_of_nothing() -> None:
    alpha = np.zeros((30, 30), dtype=np.float32)
    assert visible_polygons(alpha, (0, 0)) == []
    alpha[:, :10] = 1
    alpha[:, 20:] = 1
    assert sorted(round(shoelace(p) / 10) for p in visible_polygons(alpha, (0, 0))) == [29, 29] or (
        sum(shoelace(p) for p in visible_polygons(alpha, (0, 0))) == pytest.approx(600, rel=0.05)
    )


def test_polygons_have_few_numbers_even_for_rough_masks() -> None:
    rough = (noise(np.random.default_rng(0), 300, 300, 9) > 0.5).astype(np.float32)
    assert sum(map(len, visible_polygons(rough, (0, 0)))) <= 360


def test_edge_band_is_a_rim() -> None:
    band = edge_band(np.ones((21, 21), dtype=np.float32), 3)
    assert band[0, 10] == 1 and band[1, 10] == 1 and band[10, 10] == 0


def test_canvas_keeps_enough_of_earlier_things_visible() -> None:
    canvas = Canvas(np.zeros((50, 50, 3), dtype=np.float32))
    square = np.ones((10, 10), dtype=np.float32)
    white = np.full((10, 10, 3), 255, dtype=np.float32)
    number = canvas.paint(white, square, 20, 20, least_visible=0.4)
    assert canvas.fits(square, 26, 20, 0.4)  # covers 40 of 100 px
    assert not canvas.fits(square, 23, 20, 0.4)  # would cover 70
    assert not canvas.fits(square, -7, 0, 0.4)  # 30 % inside the image
    assert not canvas.fits(square, 90, 90, 0.4)
    canvas.paint(white * 0.5, square, 26, 20, least_visible=0.4)
    assert not canvas.fits(square[:, :3], 20, 20, 0.4)  # 30 more would leave 30
    box, area, polygons = canvas.visible_part(number)
    assert box == (20, 20, 6, 10) and area == 60
    assert sum(map(shoelace, polygons)) == pytest.approx(60, rel=0.08)
    assert canvas.image[25, 25, 0] == 255 and canvas.image[25, 26, 0] == 127.5


def test_crumbs_do_not_enlarge_the_box() -> None:
    canvas = Canvas(np.zeros((80, 80, 3), dtype=np.float32))
    wide, bar = np.ones((20, 52), dtype=np.float32), np.ones((20, 10), dtype=np.float32)
    number = canvas.paint(np.ones((20, 52, 3), np.float32), wide, 5, 5, 0.4)
    canvas.paint(np.ones((20, 10, 3), np.float32), bar, 46, 5, 0.4)  # leaves one column, x = 56
    box, area, polygons = canvas.visible_part(number)
    assert box == (5, 5, 41, 20) and area == 820 and len(polygons) == 1


def test_things_crossing_the_border_are_cut() -> None:
    canvas = Canvas(np.zeros((40, 40, 3), dtype=np.float32))
    square = np.ones((10, 10), dtype=np.float32)
    number = canvas.paint(np.ones((10, 10, 3), np.float32), square, -4, 35, 0.1)
    box, area, polygons = canvas.visible_part(number)
    assert box == (0, 35, 6, 5) and area == 30
    assert min(polygons[0]) >= 0 and max(polygons[0]) <= 40


@given(st.integers(0, 10**6), st.tuples(*[st.integers(0, 255)] * 3), st.floats(20, 57))
@settings(max_examples=60, deadline=None)
def test_colours_stand_out_from_any_surroundings(seed: int, colour: tuple, floor: float) -> None:
    around = np.array(colour, dtype=np.float32)
    chosen = contrasting_colour(np.random.default_rng(seed), around, floor)
    assert contrast(chosen[None], around)[0] >= min(floor, 42)


def test_contrast_of_black_and_white_is_100() -> None:
    black, white = np.zeros((1, 3), np.float32), np.full(3, 255, np.float32)
    assert contrast(black, white)[0] == pytest.approx(100, abs=0.1)
    assert contrast(black, black[0])[0] == 0


@pytest.mark.parametrize("seed", range(12))
def test_textures_fill_any_size_with_finite_colours(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ground = background(rng, 67, 131)
    assert ground.shape == (67, 131, 3) and 0 <= ground.min() and ground.max() <= 255
    assert ground.std() > 0.5
    colours = np.array([[10, 20, 30], [200, 100, 50]], dtype=np.float32)
    for size in (1, 12, 90):
        texture = fill(rng, size, size, float(size), *colours)
        assert texture.shape == (size, size, 3) and np.isfinite(texture).all()


def test_small_things_must_be_more_visible_and_stronger() -> None:
    assert least_visible(12) == pytest.approx(0.85) and least_visible(300) == pytest.approx(0.42)
    assert _contrast_floor(12) == 42 and _contrast_floor(400) == 22


def test_small_objects_stand_out_in_the_finished_picture() -> None:
    """The contrast between an object's middle and its surroundings, after light, blur and grain."""
    measured = []
    for seed in range(25):
        scene = render_scene(
            np.random.default_rng(seed), SceneSettings(classes=2, min_size_px=12, max_size_px=20)
        )
        for item in scene.objects:
            x, y, w, h = item.box
            if item.kind.name != "triangle":
                continue
            patch = scene.image[max(y - 4, 0) : y + h + 4, max(x - 4, 0) : x + w + 4]
            core = scene.image[y + h // 2 - 1 : y + h // 2 + 2, x + w // 2 - 1 : x + w // 2 + 2]
            ring_colour = np.median(patch.reshape(-1, 3), axis=0).astype(np.float32)
            core_colour = core.reshape(-1, 3).mean(axis=0).astype(np.float32)
            measured.append(contrast(core_colour[None], ring_colour)[0])
    assert len(measured) > 20
    assert np.median(measured) > 25 and np.mean(np.array(measured) > 12) > 0.9


def test_scenes_are_repeatable_and_leave_threads_alone() -> None:
    threads = cv2.getNumThreads()
    a, b = (render_scene(np.random.default_rng(5), SceneSettings()) for _ in range(2))
    np.testing.assert_array_equal(a.image, b.image)
    assert a.objects == b.objects and a.image.dtype == np.uint8
    assert cv2.getNumThreads() == threads


def test_size_bound_classes_take_their_part_of_the_sizes():
    settings = SceneSettings(classes=3, min_size_px=12, max_size_px=324, size_bound=True)
    assert [settings.sizes_of(k) for k in range(3)] == [
        pytest.approx((12, 36)), pytest.approx((36, 108)), pytest.approx((108, 324)),
    ]  # fmt: skip
    sides = {0: [], 1: [], 2: []}
    for seed in range(4):
        scene = render_scene(np.random.default_rng(seed), settings, size=(400, 400))
        for item in scene.objects:
            sides[CLASSES.index(item.kind)].append(np.sqrt(item.box[2] * item.box[3]))
    # Things that stand in front or the image's border may hide a part of an object.
    assert all(0.5 * 12 * 3**k < side < 1.1 * 36 * 3**k for k in sides for side in sides[k])
    assert all(sides.values())
