"""Chips are cut exactly where their boxes are; by the rules of 2018 up to one px beside them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sniper.boxes import LAST_PX
from sniper.data.cut import cut_chip
from sniper.data.resample import resample
from sniper.errors import DataError
from sniper.inference.decode import to_image
from sniper.native._native import chip_lattice
from sniper.targets.gt import boxes_in_chip

WIDTH, HEIGHT = 240, 180


def ramp(width=WIDTH, height=HEIGHT):
    """Every pixel says where it is: blue its column, green its row."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(width)[None], np.arange(height)[:, None]
    return image


def place_of(rect, factor, size):
    """Columns and rows of the image that the pixels of a chip show, kept inside of it."""
    chip_px = np.arange(max(size)) + 0.5
    columns = np.clip(rect[0] + chip_px[: size[1]] / factor - 0.5, 0, WIDTH - 1)
    rows = np.clip(rect[1] + chip_px[: size[0]] / factor - 0.5, 0, HEIGHT - 1)
    return columns, rows


@st.composite
def chips(draw):
    """A candidate of a level as chip generation makes it, its factor, and the side of a chip."""
    factor = draw(st.sampled_from([3.0, 1.667, 1.0, 0.8, 2.9167, 0.37]))
    size = draw(st.sampled_from([32, 64, 100]))
    level = chip_lattice(int(WIDTH * factor), int(HEIGHT * factor), size, 7)
    chip = level[draw(st.integers(0, len(level) - 1))].astype(np.float64)
    return tuple((chip / factor).tolist()), factor, size


@given(chips(), st.booleans())
def test_every_pixel_of_a_chip_shows_its_place(chip, flipped):
    rect, factor, side = chip
    image = cv2.flip(ramp(), 1) if flipped else ramp()
    out = np.zeros((side, side, 3), np.uint8)
    size = cut_chip(image, rect, factor, out, flipped=flipped)
    expected = [min(side, round((rect[k + 2] - rect[k]) * factor) + 1) for k in (1, 0)]
    assert list(size) == expected, "no pixel of the chip is left grey"
    columns, rows = place_of(rect, factor, size)
    # Grey levels are whole numbers: what counts is their mean.
    for plane, place in ((0, columns), (1, rows[:, None])):
        difference = out[: size[0], : size[1], plane] - place
        assert np.abs(difference).max() < 1.01 and abs(difference.mean()) < 0.15
    assert not out[size[0] :].any() and not out[:, size[1] :].any()


def test_the_rules_of_2018_move_the_picture_and_leave_a_strip():
    rect = tuple((np.array([58, 59, 121, 122]) / 3).tolist())  # 64 px at a factor of 3
    out, exact = np.zeros((2, 64, 64, 3), np.uint8)
    assert cut_chip(ramp(), rect, 3.0, out, legacy=True) == (63, 63)
    assert cut_chip(ramp(), rect, 3.0, exact) == (64, 64)
    columns, rows = place_of(rect, 3.0, (63, 63))
    assert (columns - out[:63, :63, 0]).mean() == pytest.approx(1 / 3, abs=0.15)
    assert (rows[:, None] - out[:63, :63, 1]).mean() == pytest.approx(2 / 3, abs=0.15)
    assert abs((columns - exact[:63, :63, 0]).mean()) < 0.1


def test_a_whole_level_shows_what_a_test_at_its_scale_shows():
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    for factor in (0.8, 1.0, 2.0):
        size = int(HEIGHT * factor), int(WIDTH * factor)
        rect = (0.0, 0.0, (size[1] - 1) / factor, (size[0] - 1) / factor)
        out = np.zeros((400, 500, 3), np.uint8)
        assert cut_chip(image, rect, factor, out) == size
        resized = cv2.resize(image, None, None, factor, factor, cv2.INTER_LINEAR)
        np.testing.assert_array_equal(out[: size[0], : size[1]], resized[: size[0], : size[1]])


@pytest.mark.parametrize("step", [0.5, 33.0, -33.0])
def test_images_beyond_the_limit_of_a_warp(step):
    """40,000 px are more than OpenCV can count; the picture must not wrap around."""
    image = np.zeros((2, 40_000, 3), np.uint8)
    image[..., 0] = np.arange(40_000) // 200
    out = np.zeros((2, 1200, 3), np.uint8)
    start = 39_800.0 if step < 0 else 150.0
    resample(image, (start, 0), (step, 0.1), out)
    columns = np.clip(start + step * np.arange(1200), 0, 39_999)
    assert np.abs(out[..., 0] - columns / 200).max() < 1.01


@given(chips(), st.integers(0, 200), st.integers(0, 150), st.floats(6, 60), st.floats(6, 60))
def test_boxes_lie_on_what_the_chip_shows(chip, x, y, width, height):
    """A bright object in the dark: its edges in the chip are those of its box, and back again."""
    rect, factor, side = chip
    x2, y2 = min(x + int(width), WIDTH), min(y + int(height), HEIGHT)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[y:y2, x:x2] = 255
    pixels = np.zeros((side, side, 3), np.uint8)
    cut_chip(image, rect, factor, pixels)
    (box,) = boxes_in_chip(np.float32([[x, y, x2 - 1, y2 - 1]]), rect, factor, side)
    if min(box[2:] - box[:2]) < 4:
        return  # hardly in the chip
    shown = np.argwhere(pixels[..., 0] > 127)
    edges = [shown[:, 1].min(), shown[:, 0].min(), shown[:, 1].max(), shown[:, 0].max()]
    assert np.abs(np.array(edges) - box).max() <= 1


@pytest.mark.parametrize("factor", [3.0, 1.667, 0.37])
@pytest.mark.parametrize("legacy", [False, True])
def test_boxes_come_back_from_the_network_as_they_went_in(factor, legacy):
    boxes = np.float32([[10.25, 20.5, 100.75, 60.0], [0, 0, 199, 149]])
    end = np.zeros(4, np.float32) if legacy else LAST_PX
    network = (boxes + end) * np.float32(factor) - end
    np.testing.assert_allclose(to_image(network, np.float32(factor), legacy=legacy), boxes, 1e-5)
    chip = (0.0, 0.0, 999.0, 999.0)
    rounded = boxes_in_chip(boxes, chip, factor, 1000, legacy=legacy)
    np.testing.assert_array_equal(rounded, np.rint(network))
    if not legacy:
        # A box of the whole image ends where the network's input does.
        assert network[1, 2] == pytest.approx(200 * factor - 1)


def test_a_chip_without_a_pixel_is_refused():
    out = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(DataError, match="holds no pixel"):
        cut_chip(ramp(), (WIDTH + 1.0, 0, WIDTH + 9.0, 8), 1.0, out)
