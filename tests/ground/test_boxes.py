"""Box arithmetic against slow pixel counting and its own inverses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sniper import boxes as box_ops

corner = st.integers(0, 30)


@st.composite
def integer_boxes(draw):
    count = draw(st.integers(1, 5))
    rows = []
    for _ in range(count):
        x1, y1 = draw(corner), draw(corner)
        rows.append([x1, y1, x1 + draw(corner), y1 + draw(corner)])
    return np.float32(rows)


def _mask(box):
    grid = np.zeros((64, 64), bool)
    x1, y1, x2, y2 = box.astype(int)
    grid[y1 : y2 + 1, x1 : x2 + 1] = True
    return grid


@given(integer_boxes(), integer_boxes())
def test_iou_counts_pixels(a, b):
    for i, j in np.ndindex(len(a), len(b)):
        first, second = _mask(a[i]), _mask(b[j])
        inter = (first & second).sum()
        assert box_ops.iou(a, b)[i, j] == pytest.approx(inter / (first | second).sum())


@given(integer_boxes(), integer_boxes())
def test_decode_inverts_encode(boxes, targets):
    count = min(len(boxes), len(targets))
    boxes, targets = boxes[:count].astype(np.float64), targets[:count].astype(np.float64)
    decoded = box_ops.decode(boxes, box_ops.encode(boxes, targets))
    np.testing.assert_allclose(decoded, targets, atol=1e-4)


@given(integer_boxes())
def test_flip_twice_is_identity_and_mirrors_pixels(boxes):
    flipped = box_ops.flip(boxes, 64)
    np.testing.assert_array_equal(box_ops.flip(flipped, 64), boxes)
    for before, after in zip(boxes, flipped):
        np.testing.assert_array_equal(_mask(before)[:, ::-1], _mask(after))


def test_clip_uses_the_last_pixel():
    clipped = box_ops.clip(np.float32([[-5, -5, 700, 500]]), height=480, width=640)
    np.testing.assert_array_equal(clipped, [[0, 0, 639, 479]])


def test_empty_inputs():
    none = np.zeros((0, 4), np.float32)
    some = np.float32([[0, 0, 1, 1]])
    assert box_ops.iou(none, some).shape == (0, 1)
    assert box_ops.encode(none, none).shape == (0, 4)
    assert box_ops.decode(none, none).shape == (0, 4)
