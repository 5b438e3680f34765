"""Which input row each merged detection was, against the 2018 loop with its swaps."""

from __future__ import annotations

import numpy as np
import pytest

from sniper import boxes as box_math
from sniper.native import _native

RANGES = np.float32([[-1, 60], [20, -1]])


def slow_soft_rows(boxes, scores, sigma, min_score=0.001):
    """Indices in the order of selection; scores decay in float64, so they must not be close."""
    rows = list(range(len(boxes)))
    scores = scores.astype(np.float64).copy()
    start = 0
    while start < len(rows):
        best = start + int(np.argmax(scores[rows[start:]]))
        rows[start], rows[best] = rows[best], rows[start]
        overlaps = box_math.iou(boxes[rows[start]][None], boxes)[0]
        position = start + 1
        while position < len(rows):
            row = rows[position]
            if overlaps[row] > 0:
                scores[row] *= np.exp(-(overlaps[row] ** 2) / sigma)
                if scores[row] < min_score:
                    rows[position] = rows[-1]
                    rows.pop()
                    continue
            position += 1
        start += 1
    return rows


def slow_hard_rows(boxes, scores, threshold):
    order = sorted(range(len(boxes)), key=lambda row: -scores[row])
    kept = []
    for row in order:
        if all(box_math.iou(boxes[[k]], boxes[[row]])[0, 0] <= threshold for k in kept):
            kept.append(row)
    return kept


def in_range(boxes, levels):
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    low, high = RANGES[levels].T
    return ((low <= 0) | (areas > low**2)) & ((high <= 0) | (areas <= high**2))


def make_rows(seed, count):
    """Few different boxes: the same one stands at several levels and in several rows."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 60, (6, 2))
    different = np.concatenate([corners, corners + rng.integers(5, 90, (6, 2))], axis=1)
    boxes = different[rng.integers(0, 6, count)].astype(np.float32)
    scores = rng.permutation(np.linspace(0.002, 0.99, max(count, 1)))[:count]
    dets = np.concatenate([boxes, scores[:, None]], axis=1).astype(np.float32)
    return dets, *(rng.integers(0, n, count).astype(np.int32) for n in (2, 2, 3))


@pytest.mark.parametrize("threshold", [-1.0, 0.4])
@pytest.mark.parametrize("seed", range(60))
def test_rows_are_those_of_the_slow_loops(threshold, seed):
    dets, levels, classes, images = make_rows(seed, count=seed + 1)
    arguments = (dets, levels, classes, images, RANGES, 0.55, threshold)
    *plain, rows = _native.multi_scale_nms(*arguments, with_rows=True)
    for with_rows, without in zip(plain, _native.multi_scale_nms(*arguments)):
        np.testing.assert_array_equal(with_rows, without)
    expected = []
    usable = in_range(dets[:, :4], levels)
    for image in range(3):
        for cls in range(2):
            group = np.flatnonzero(usable & (images == image) & (classes == cls))
            boxes, scores = dets[group, :4], dets[group, 4]
            if threshold > 0:
                kept = slow_hard_rows(boxes, scores, threshold)
            else:
                kept = slow_soft_rows(boxes, scores, 0.55)
            expected.extend(group[kept].tolist())
    assert rows.dtype == np.int64
    assert rows.tolist() == expected


def test_rows_under_a_limit_and_with_rows_that_are_not_finite():
    dets, levels, classes, images = make_rows(5, 80)
    dets[::7, 2] = np.nan
    out, out_classes, out_images, rows = _native.multi_scale_nms(
        *(dets, levels, classes, images, RANGES, 0.55, -1.0), max_per_image=6, with_rows=True
    )
    assert 0 < len(rows) <= 18 and len(set(rows.tolist())) == len(rows)
    assert np.isfinite(dets[rows]).all()
    np.testing.assert_array_equal(dets[rows, :4], out[:, :4])
    assert (dets[rows, 4] >= out[:, 4]).all()
    np.testing.assert_array_equal(classes[rows], out_classes)
    np.testing.assert_array_equal(images[rows], out_images)


def test_no_rows():
    nothing = _native.multi_scale_nms(
        *(np.zeros((0, 5), np.float32), *[np.zeros(0, np.int32)] * 3, RANGES, 0.5, -1.0),
        with_rows=True,
    )
    assert [output.shape for output in nothing] == [(0, 5), (0,), (0,), (0,)]
