"""FocusPixel labels: the golden chip, a slow reference, edges."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.targets.focus_map import FocusRanges, focus_labels
from sniper.targets.gt import boxes_in_chip

RANGES = FocusRanges(5, 64, 90)
GOLDEN_BOXES = np.array(
    [
        [120, 80, 150, 100],
        [140, 90, 200, 170],
        [110, 70, 114, 74],
        [300, 200, 400, 300],
        [90, 55, 130, 95],
    ],
    np.float32,
)


def labels_of(*boxes, ranges=RANGES, stride=16, cells=32):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return focus_labels(boxes, ranges, stride, cells).reshape(cells, cells)


def test_golden_chip():
    boxes = boxes_in_chip(GOLDEN_BOXES, (100, 60, 270.3, 230.3), 3.0, 512, legacy=True)
    flat = focus_labels(boxes, RANGES, 16, 32)
    assert flat.shape == (1024,) and flat.dtype == np.int8
    labels = flat.reshape(32, 32)
    expected = np.zeros((32, 32), int)
    expected[3:9, 3:11] = -1
    expected[1:4, 1:4] = 1  # a later box, over the don't-care cell (3, 3)
    expected[26:32, 31] = -1  # the box outside the chip
    np.testing.assert_array_equal(labels, expected)
    assert [(labels == 1).sum(), (labels == -1).sum()] == [9, 53]


def slow_labels(boxes, ranges, stride, cells):
    """Section 6.1, cell by cell."""
    labels = [[0] * cells for _ in range(cells)]
    for x1, y1, x2, y2 in boxes.tolist():
        size = math.sqrt((x2 - x1) * (y2 - y1))
        if ranges.low < size < ranges.small:
            value = 1
        elif ranges.small <= size < ranges.high or size <= ranges.low:
            value = -1
        else:
            continue
        for row in range(cells):
            for column in range(cells):
                if int(x1 / stride) <= column <= math.ceil(x2 / stride):
                    if int(y1 / stride) <= row <= math.ceil(y2 / stride):
                        labels[row][column] = value
    return np.array(labels).reshape(-1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 12),
    grid=st.sampled_from([(16, 32), (32, 16), (16, 5), (12, 7)]),
    ranges=st.sampled_from([RANGES, FocusRanges(0, 20.5, 20.5), FocusRanges(-1, 1, 1000)]),
)
def test_equals_the_cell_by_cell_reference(seed, count, grid, ranges):
    stride, cells = grid
    generator = np.random.default_rng(seed)
    first = generator.integers(0, stride * cells, (count, 2))
    sides = generator.integers(0, generator.choice([2, 30, 150, 600]), (count, 2))
    boxes = np.hstack([first, np.minimum(first + sides, stride * cells - 1)]).astype(np.float32)
    np.testing.assert_array_equal(
        focus_labels(boxes, ranges, stride, cells), slow_labels(boxes, ranges, stride, cells)
    )


@pytest.mark.parametrize(
    "side, value", [(5, -1), (6, 1), (63, 1), (64, -1), (89, -1), (90, 0), (200, 0)]
)
def test_the_limits_of_the_ranges(side, value):
    assert labels_of([32, 32, 32 + side, 32 + side])[2, 2] == value


def test_the_size_is_the_root_of_the_area_without_the_added_pixel():
    assert labels_of([0, 0, 2, 12])[0, 0] == -1  # sqrt(24) < 5 < sqrt(3 * 13)
    assert labels_of([0, 0, 2, 13])[0, 0] == 1  # sqrt(26)


def test_the_cell_after_the_end_is_stamped_too_unless_the_end_is_on_its_border():
    labels = labels_of([16, 16, 32, 33])
    assert labels[1:4, 1:3].all() and labels.astype(bool).sum() == 6


def test_the_later_box_wins():
    focus, large = [0, 0, 20, 20], [0, 0, 70, 70]
    assert labels_of(focus, large)[0, 0] == -1
    assert labels_of(large, focus)[0, 0] == 1


def test_boxes_at_the_far_corner_stay_in_the_grid():
    labels = labels_of([511, 511, 511, 511])
    assert labels[31, 31] == -1 and np.count_nonzero(labels) == 1


def test_without_boxes_everything_is_background():
    assert not labels_of().any()
