import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sniper.chips import focus
from sniper.chips.focus import (
    FocusSettings,
    focus_chips,
    inside_borders,
    on_whole_pixels,
    unique_chips,
)
from sniper.errors import ConfigError

EVERYWHERE = np.s_[:, :]
RING = [(r, c) for r in range(6, 18) for c in range(6, 18) if {r, c} & {6, 17}]
SMALL = (512, 384)


def chips_of(cells, min_side, size=SMALL, factor=1.0, value=0.5, shape=(24, 32), **options):
    focus_map = np.zeros(shape, np.float32)
    for cell in cells:
        focus_map[cell] = value
    settings_ = FocusSettings(3, 0.02, min_side)
    return focus_chips(focus_map, settings_, size, factor, **options)


def assert_rows(chips, expected):
    """The same rectangles, in any order: the order of contours is OpenCV's."""
    assert chips.dtype == np.float64 and chips.shape == (len(expected), 4)
    assert sorted(chips.tolist()) == sorted(expected)


@pytest.mark.parametrize("mask_padding", [True, False])
@pytest.mark.parametrize(
    "cells, min_side, options, expected",
    [
        ([(5, 5)], 16, {"factor": 0.8}, [[0, 0, 320, 320]]),
        ([(5, 5)], 4, {"factor": 0.8}, [[60, 60, 140, 140]]),
        ([(23, 31)], 4, {"factor": 0.8}, [[560, 400, 640, 480]]),
        ([(3, 3), (20, 28)], 8, {"factor": 0.8}, [[480, 320, 640, 480], [0, 0, 160, 160]]),
        ([(8, 8), (8, 14)], 8, {"factor": 0.8}, [[80, 80, 360, 240]]),
        ([(8, 8)], 8, {"factor": 0.8, "value": 0.01}, []),
        ([(23, 31)], 4, {"size": (505, 379)}, [[441, 315, 505, 379]]),
        (RING, 4, {}, [[80, 80, 304, 304]]),
        (
            [(4, 4), (4, 11), (4, 18)],
            6,
            {},
            [[240, 16, 336, 112], [128, 16, 224, 112], [16, 16, 112, 112]],
        ),
        ([(10, 9), (10, 10)], 5, {}, [[128, 128, 208, 208]]),
        ([(2, 2)], 16, {"size": (128, 120), "shape": (8, 8)}, [[0, 0, 128, 120]]),
        ([EVERYWHERE], 16, {"factor": 0.8}, [[0, 0, 640, 480]]),
    ],
)
def test_golden_chips(cells, min_side, options, expected, mask_padding):
    assert_rows(chips_of(cells, min_side, **options, mask_padding=mask_padding), expected)


def test_golden_focus_in_the_padding():
    found = chips_of([(23, 31)], 4, (300, 200), mask_padding=False)
    assert_rows(found, [[236, 136, 300, 200]])  # 2018 had it twice
    assert_rows(chips_of([(23, 31)], 4, (300, 200)), [])


def test_a_value_at_the_threshold_is_focus():
    assert_rows(chips_of([(8, 8)], 8, value=0.02), [[64, 64, 192, 192]])


def test_chips_begin_at_the_origin_of_their_own_chip():
    found = chips_of([(5, 5)], 4, factor=0.8, origin=(30.5, -7.0, 999.0, 999.0))
    assert_rows(found, [[90.5, 53, 170.5, 133]])


def test_no_focus_no_chips():
    assert_rows(chips_of([], 4), [])


def test_padding_of_the_batch_does_not_change_the_chips():
    rng = np.random.default_rng(0)
    for _ in range(50):
        content = rng.random((12, 17), dtype=np.float32)
        padded = np.pad(content, ((0, 9), (0, 3)), constant_values=1.0)
        settings_ = FocusSettings(3, 0.97, 5)
        size = (17 * 16 - rng.integers(0, 16), 12 * 16 - rng.integers(0, 16))
        alone = focus_chips(content, settings_, size, 1.25)
        assert np.array_equal(focus_chips(padded, settings_, size, 1.25), alone)


def test_a_side_that_rounding_made_longer_has_a_cell_more_but_no_focus_in_it():
    """As in 2018: where a chip is moved to depends on the number of cells."""
    width = 333 * (800 / 333) * (1 + 1e-15)
    assert width > 800
    focus_map = np.zeros((50, 60), np.float32)
    focus_map[10, [42, 48]] = 1
    settings_ = FocusSettings(1, 0.5, 5)
    # Among 50 cells the 5 around cell 48 begin at 45, and touch those around cell 42.
    assert_rows(focus_chips(focus_map, settings_, (800, 800), 1.0), [[640, 128, 800, 208]])
    found = focus_chips(focus_map, settings_, (width, 800), 1.0)
    np.testing.assert_allclose(sorted(found.tolist()), [[640, 128, 720, 208], [720, 128, 800, 208]])
    assert_rows(chips_of([(0, 50)], 4, (width, 800), shape=(50, 60)), [])
    assert_rows(chips_of([(0, 49)], 4, (width, 800), shape=(50, 60)), [[736, 0, 800, 64]])


def test_contours_of_opencv_3(monkeypatch):
    expected = chips_of([(3, 3), (20, 28)], 8)
    find = cv2.findContours
    monkeypatch.setattr(focus.cv2, "findContours", lambda *a: (a[0], *find(*a)))
    assert np.array_equal(chips_of([(3, 3), (20, 28)], 8), expected)


SIDES = st.integers(1, 24)


@st.composite
def maps(draw):
    """A map, its settings and the size of its chip in px."""
    height, width = draw(SIDES), draw(SIDES)
    values = arrays(np.float32, (height, width), elements=st.sampled_from([0.0] * 9 + [1.0]))
    size = (16 * width - draw(st.integers(0, 15)), 16 * height - draw(st.integers(0, 15)))
    dilation, min_side = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    return draw(values), FocusSettings(dilation, 0.5, min_side), size


@given(maps())
@settings(max_examples=300, deadline=None)
def test_chips_lie_inside_cover_every_focus_cell_and_are_large(case):
    focus_map, settings_, (width, height) = case
    chips = focus_chips(focus_map, settings_, (width, height), 1.0)
    assert len(unique_chips(chips)) == len(chips)
    assert bool(len(chips)) == bool(focus_map.any())
    assert (chips[:, :2] >= 0).all() and (chips[:, 2:] <= [width, height]).all()
    shortest = settings_.min_side * 16
    sides = chips[:, 2:] - chips[:, :2]
    assert (sides >= np.minimum(shortest, [width, height])).all()
    inside = np.zeros((-(-height // 16), -(-width // 16)), bool)
    for x1, y1, x2, y2 in chips:
        # Cells that are inside but for the part of them that is beyond the content.
        rows = slice(int(-(-y1 // 16)), int(-(-y2 // 16)) if y2 == height else int(y2 // 16))
        columns = slice(int(-(-x1 // 16)), int(-(-x2 // 16)) if x2 == width else int(x2 // 16))
        inside[rows, columns] = True
    assert inside[focus_map >= 0.5].all()


def groups(mask):
    """Cells of each 8-connected group, by flood fill."""
    left, found = set(map(tuple, np.argwhere(mask).tolist())), []
    while left:
        group, border = [], [left.pop()]
        while border:
            row, column = border.pop()
            group.append((row, column))
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            border.extend(near)
        found.append(np.array(group))
    return found


@given(maps())
@settings(max_examples=300, deadline=None)
def test_without_a_shortest_side_chips_are_the_boxes_around_connected_groups(case):
    """The slow, obvious way: boxes around 8-connected groups, painted until none is joined."""
    focus_map, settings_, (width, height) = case
    mask = cv2.dilate(focus_map, np.ones((settings_.dilation,) * 2)) > 0
    while True:
        boxes = [(*group.min(0), *(group.max(0) + 1)) for group in groups(mask)]
        painted = mask.copy()
        for y1, x1, y2, x2 in boxes:
            painted[y1:y2, x1:x2] = True
        if (painted == mask).all():
            break
        mask = painted
    expected = [
        [
            x1 * 16.0 if x2 * 16 <= width else min(x1 * 16.0, width - 16.0),
            y1 * 16.0 if y2 * 16 <= height else min(y1 * 16.0, height - 16.0),
            min(x2 * 16.0, width),
            min(y2 * 16.0, height),
        ]
        for y1, x1, y2, x2 in boxes
    ]
    settings_ = FocusSettings(settings_.dilation, 0.5, 1)
    found = focus_chips(focus_map, settings_, (width, height), 1.0)
    assert sorted(found.tolist()) == sorted(np.maximum(expected, 0).tolist() if boxes else [])


@pytest.mark.parametrize("dilation, min_side", [(0, 4), (3, 0), (-1, -1)])
def test_impossible_settings_are_config_errors(dilation, min_side):
    with pytest.raises(ConfigError, match="CHIP_HYPERPARAMS"):
        FocusSettings(dilation, 0.1, min_side)


def test_unique_chips_keep_their_order():
    rows = np.array([[5, 5, 9, 9], [1, 1, 2, 2], [5, 5, 9, 9], [0, 0, 9, 9]], np.float64)
    assert unique_chips(rows).tolist() == rows[[0, 1, 3]].tolist()
    assert unique_chips(np.zeros((0, 4))).shape == (0, 4)


def test_whole_pixels_never_cut_a_chip():
    chips = np.array([[1.2, 3.0, 9.1, 8.0], [0.0, 0.9, 19.4, 14.2]])
    expected = [[1, 3, 10, 8], [0, 0, 19, 14]]  # not beyond the image
    assert on_whole_pixels(chips, (19, 14)).tolist() == expected


CHIP = (100.0, 100.0, 300.0, 300.0)
BOXES = np.array(
    [
        [150, 150, 200, 200],
        [109.9, 150, 200, 200],  # left
        [110, 150, 200, 200],
        [150, 109.9, 200, 200],  # top
        [150, 150, 290.1, 200],  # right
        [150, 150, 290, 200],
        [150, 150, 200, 290.1],  # bottom
        [90.1, 150, 200, 200],  # beyond the side
    ],
    np.float32,
)


def test_boxes_cut_by_a_chip_in_the_middle_of_the_image():
    keep = inside_borders(BOXES, CHIP, (400, 400))
    assert keep.tolist() == [True, False, True, False, False, True, False, False]


@pytest.mark.parametrize("side, row", [(0, 1), (1, 3), (2, 4), (3, 6)])
def test_the_sides_of_the_image_cut_nothing(side, row):
    """A chip side within half a px of the image's side is no border."""
    image = (400.0, 400.0)
    chip, box = np.array(CHIP), BOXES[row : row + 1].astype(np.float64)
    for edge, kept in ((0.4, True), (0.5, side >= 2), (0.6, False)):
        moved, near = chip.copy(), box.copy()
        at = edge if side < 2 else 400 - edge
        near[0, side] += at - chip[side]
        moved[side] = at
        # At exactly half a px the left and top sides are borders, the right and lower are not.
        assert inside_borders(near, moved, image).tolist() == [kept], edge


def test_a_whole_image_keeps_all_boxes_and_none_are_none():
    assert inside_borders(BOXES, (0, 0, 300, 300), (300, 300)).all()
    assert inside_borders(np.zeros((0, 4), np.float32), CHIP, (400, 400)).shape == (0,)
