"""Masks in the image against a slow reference, and against the targets that training makes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from sniper.data.rle import decode_mask, encode_mask, segmentation
from sniper.inference.instance_masks import MaskPaster, cells_of_pixels, interpolate, pixels_of_side
from sniper.native import _native


def paste(probability, box, height, width):
    counts = MaskPaster(height, width).encode(np.float32(probability), np.float32(box))
    return decode_mask(counts, height, width)


def slow_value(probability, x, y):
    """Bilinear value at cell coordinates, 0 being the first centre; the border goes on outside."""
    last = len(probability) - 1
    x, y = min(max(x, 0), last), min(max(y, 0), last)
    value = 0.0
    for row in range(last + 1):
        for column in range(last + 1):
            weight = max(0, 1 - abs(y - row)) * max(0, 1 - abs(x - column))
            value += weight * float(probability[row][column])
    return value


def slow_paste(probability, box, height, width):
    """Pixel by pixel; values so close to the threshold that rounding decides become 2."""
    x1, y1, x2, y2 = (float(v) for v in np.float32(box))
    cells = len(probability)
    image = np.zeros((height, width), int)
    for y in range(height):
        for x in range(width):
            in_columns = (
                math.floor(x1 + 0.5) <= x <= max(math.floor(x2 + 0.5), math.floor(x1 + 0.5))
            )
            in_rows = math.floor(y1 + 0.5) <= y <= max(math.floor(y2 + 0.5), math.floor(y1 + 0.5))
            if in_columns and in_rows:
                u = (x + 0.5 - x1) / max(x2 - x1, 1) * cells - 0.5
                v = (y + 0.5 - y1) / max(y2 - y1, 1) * cells - 0.5
                value = slow_value(probability, u, v)
                image[y, x] = 2 if abs(value - 0.5) < 1e-6 else value > 0.5
    return image


@pytest.mark.parametrize(
    "box",
    [
        (3, 2, 16, 12),
        (3.4, 2.6, 9.5, 7.49),
        (-6, -3, 11, 30),
        (15, 10, 40, 33),
        (5, 5, 5, 5),
        (5.2, 6.7, 5.4, 6.9),
        (7, 4, 6.2, 3.5),
        (0, 0, 19, 14),
    ],
)
@pytest.mark.parametrize("cells", [2, 7, 28])
def test_masks_are_those_of_the_slow_reference(box, cells):
    probability = np.random.default_rng(cells).random((cells, cells), np.float32)
    expected = slow_paste(probability, box, 15, 20)
    sure = expected < 2
    np.testing.assert_array_equal(paste(probability, box, 15, 20)[sure], expected[sure])
    assert sure.mean() > 0.9


def test_by_hand():
    # Box 2 ... 6 (5 px) in the frame 2 ... 6 (4 px wide): the left half covers 2 px, and its centre
    # line x = 4 lies between pixel 3 (0.75 of the left cell) and pixel 4.
    left = np.float32([[1, 0], [1, 0]])
    drawn = paste(left, (2, 1, 6, 2), 4, 10)
    expected = np.zeros((4, 10), int)
    expected[1:3, 2:4] = 1
    np.testing.assert_array_equal(drawn, expected)
    np.testing.assert_allclose(
        cells_of_pixels(range(2, 7), 2, 6, 2), [-0.25, 0.25, 0.75, 1.25, 1.75]
    )


def test_the_threshold_belongs_to_the_mask():
    assert paste(np.full((28, 28), 0.5), (0, 0, 9, 9), 10, 10).all()
    assert not paste(
        np.full((28, 28), np.nextafter(0.5, 0, dtype=np.float32)), (0, 0, 9, 9), 10, 10
    ).any()


@pytest.mark.parametrize("box", [(30, 2, 40, 8), (-20, 2, -3, 8), (2, 50, 8, 60), (1e9, 0, 2e9, 5)])
def test_a_box_outside_the_image_gives_an_empty_mask(box):
    assert not paste(np.ones((28, 28)), box, 20, 30).any()


def test_one_buffer_serves_all_masks_of_an_image():
    rng = np.random.default_rng(0)
    paster = MaskPaster(40, 50)
    for _ in range(20):
        corner, size = rng.uniform(-10, 40, 2), rng.uniform(0, 40, 2)
        box = np.float32([*corner, *(corner + size)])
        probability = rng.random((28, 28), np.float32)
        assert paster.encode(probability, box) == MaskPaster(40, 50).encode(probability, box)


@given(
    st.floats(-50, 150),
    st.floats(0, 120),
    st.floats(-50, 150),
    st.floats(0, 120),
    st.integers(0, 9),
)
@settings(max_examples=80, deadline=None)
def test_full_masks_fill_exactly_the_pixels_of_the_box(x, width, y, height, seed):
    box = np.float32([x, y, x + width, y + height])
    drawn = paste(np.ones((28, 28)), box, 90, 110)
    rows, columns = (pixels_of_side(box[k], box[k + 2], limit) for k, limit in ((1, 90), (0, 110)))
    assert drawn.sum() == len(rows) * len(columns)
    assert drawn[rows.start : rows.stop, columns.start : columns.stop].all()
    # A mask and its complement never share a pixel, and together they are the box.
    probability = np.random.default_rng(seed).random((28, 28), np.float32)
    one, other = paste(probability, box, 90, 110), paste(1 - probability, box, 90, 110)
    assert (one & other).sum() <= 1 and (one | other).sum() == drawn.sum()


def test_interpolation_at_centres_gives_the_values_themselves():
    values = np.random.default_rng(1).random((28, 28), np.float32)
    centres = np.arange(28.0)
    np.testing.assert_array_equal(interpolate(values, centres, centres), values)


@pytest.mark.parametrize(("size", "least"), [(12, 0.78), (30, 0.9), (120, 0.955), (400, 0.96)])
def test_perfect_predictions_give_the_polygons_back(size, least):
    """Targets as training rasterises them in the annotated box, put back into the image."""
    rng = np.random.default_rng(size)
    ious = []
    for _ in range(30):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radii = rng.uniform(0.6, 1, 9) * size / 2
        centre = rng.uniform(size, 2 * size, 2)
        points = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        polygon = points.round(2).reshape(-1)
        low, high = points.min(axis=0), points.max(axis=0)
        box = np.concatenate([np.trunc(low), np.trunc(high - 1)]).astype(np.float32)
        row = np.float32([0, 1, len(polygon), *polygon])[None, None]
        roi = np.float32([[0, *box]])
        target = _native.mask_rcnn_target(roi, row, np.zeros((1, 1), np.float32), 28)[0][0]
        truth = coco_mask.frPyObjects([polygon.tolist()], 3 * size, 3 * size)
        counts = MaskPaster(3 * size, 3 * size).encode(target, box)
        found = {"size": [3 * size, 3 * size], "counts": counts}
        ious.append(coco_mask.iou([found], truth, [0])[0, 0])
    assert np.mean(ious) > least


def test_run_lengths_there_and_back():
    mask = np.random.default_rng(3).integers(0, 2, (13, 17)).astype(np.uint8)
    counts = encode_mask(mask)
    np.testing.assert_array_equal(decode_mask(counts, 13, 17), mask)
    written = segmentation(counts, 13, 17)
    assert written["size"] == [13, 17] and isinstance(written["counts"], str)
    np.testing.assert_array_equal(coco_mask.decode(written), mask)
