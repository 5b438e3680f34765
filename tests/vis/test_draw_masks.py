"""Masks in drawings."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from sniper.data.detections import ImageDetections
from sniper.errors import DataError
from sniper.evaluation import encode_mask
from sniper.vis.draw import class_colour, draw_detections

NAMES = ("__background__", "cat", "dog")
HEIGHT, WIDTH = 240, 320


@pytest.fixture()
def grey() -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), 90, np.uint8)


def disc(x: int, y: int, radius: int) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return ((rows - y) ** 2 + (columns - x) ** 2 <= radius**2).astype(np.uint8)


def draw(grey: np.ndarray, cats: list, masks: list, threshold: float = 0.5) -> np.ndarray:
    return draw_detections(grey, of_cats(cats, map(encode_mask, masks)), NAMES, threshold)


def of_cats(rows: list, masks: Iterable[bytes] | None = None) -> ImageDetections:
    rows = np.float32(rows).reshape(-1, 5)
    masks = None if masks is None else list(masks)
    return ImageDetections(rows, np.ones(len(rows), np.int32), masks)


def test_a_mask_is_tinted_and_the_picture_shows_through(grey: np.ndarray) -> None:
    grey[:, 160:] = 150
    drawn = draw(grey, [[110, 70, 210, 170, 0.9]], [disc(160, 120, 40)]).astype(int)
    colour = np.array(class_colour(1))
    for x, before in ((150, 90), (170, 150)):
        inside = drawn[120, x]
        assert (np.sign(inside - before) == np.sign(colour - before)).all()
        assert (np.abs(inside - before) < np.abs(colour - before)).all()
    assert (drawn[120, 170] > drawn[120, 150]).any()
    assert tuple(drawn[120, 120]) == tuple(colour)  # the outline
    assert (drawn[120, 115] == 90).all() and (drawn[75, 205] == 150).all()


def test_masks_lie_under_boxes_and_labels(grey: np.ndarray) -> None:
    box, everything = [50, 60, 150, 160, 0.6], np.ones((HEIGHT, WIDTH), np.uint8)
    below = draw(grey, [box], [disc(0, 0, 0)])
    both = draw(grey, [box, [0, 0, 319, 239, 0.9]], [disc(0, 0, 0), everything])
    np.testing.assert_array_equal(both[65:155, 50], below[65:155, 50])
    assert (both[65:155, 100] != below[65:155, 100]).any(axis=1).all()


def test_without_masks_and_with_empty_masks_boxes_are_drawn_alone(grey: np.ndarray) -> None:
    rows = [[50, 60, 150, 160, 0.9]]
    plain = draw_detections(grey, of_cats(rows), NAMES)
    empty = draw(grey, rows, [np.zeros((HEIGHT, WIDTH), np.uint8)])
    np.testing.assert_array_equal(plain, empty)


def test_masks_below_the_threshold_and_of_impossible_boxes_are_left_out(grey: np.ndarray) -> None:
    rows = [[50, 60, 150, 160, 0.4], [np.nan, 60, 150, 160, 0.9]]
    masks = [disc(100, 100, 30), disc(200, 100, 30)]
    np.testing.assert_array_equal(draw(grey, rows, masks), grey)
    assert (draw(grey, rows, masks, threshold=0.3)[100, 100] != 90).any()


def test_each_mask_belongs_to_its_own_detection(grey: np.ndarray) -> None:
    rows = [[50, 60, 150, 160, 0.4], [180, 60, 260, 160, 0.9]]
    drawn = draw(grey, rows, [disc(100, 100, 30), disc(220, 100, 30)])
    assert (drawn[100, 220] != 90).any() and (drawn[100, 100] == 90).all()


def test_wrong_numbers_of_masks_are_refused(grey: np.ndarray) -> None:
    with pytest.raises(DataError, match="differ in number"):
        draw_detections(grey, of_cats([[50, 60, 150, 160, 0.9]], []), NAMES)
