"""Soft, hard and multi-scale NMS against golden numbers and slow references."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sniper
from sniper import boxes as box_math
from sniper.errors import OpsError
from sniper.native import _native

# Golden rows of the 2018 code.
GOLDEN_ROWS = np.array(
    [
        [10, 10, 50, 50, 0.9],
        [12, 12, 52, 52, 0.8],
        [100, 100, 150, 150, 0.7],
        [11, 11, 49, 49, 0.02],
        [10, 10, 50, 50, 0.0015],
    ],
    np.float32,
)


def slow_soft_nms(dets, sigma, min_score=0.001):
    """The 2018 loop, row by row, with its swaps."""
    rows = dets.astype(np.float64)
    count = len(rows)
    i = 0
    while i < count:
        best = i + int(np.argmax(rows[i:count, 4]))
        rows[[i, best]] = rows[[best, i]]
        position = i + 1
        while position < count:
            overlap = box_math.iou(rows[i : i + 1, :4], rows[position : position + 1, :4])[0, 0]
            if overlap > 0:
                rows[position, 4] *= np.exp(-(overlap**2) / sigma)
                if rows[position, 4] < min_score:
                    rows[position] = rows[count - 1]
                    count -= 1
                    continue
            position += 1
        i += 1
    return rows[:count]


def slow_hard_nms(dets, threshold):
    order = list(np.argsort(-dets[:, 4], kind="stable"))
    kept = []
    while order:
        best = order.pop(0)
        kept.append(best)
        overlaps = box_math.iou(dets[best : best + 1, :4], dets[order, :4])[0]
        order = [row for row, overlap in zip(order, overlaps) if overlap <= threshold]
    return kept


def slow_multi_scale_nms(dets, levels, classes, images, ranges, sigma, threshold, limit):
    out = []
    area = (dets[:, 2] - dets[:, 0]) * (dets[:, 3] - dets[:, 1])
    low, high = ranges[levels].T
    valid = ((low <= 0) | (area > low**2)) & ((high <= 0) | (area <= high**2))
    for image in np.unique(images):
        kept = []
        for cls in np.unique(classes):
            rows = dets[valid & (images == image) & (classes == cls)]
            rows = (
                slow_soft_nms(rows, sigma)
                if threshold <= 0
                else rows[slow_hard_nms(rows, threshold)]
            )
            kept += [(*row, cls, image) for row in rows]
        scores = sorted((row[4] for row in kept), reverse=True)
        least = scores[limit - 1] if 0 < limit < len(scores) else -np.inf
        out += [row for row in kept if row[4] >= least]
    return np.array(out).reshape(-1, 7)


def clustered(rng, count, size=300.0):
    centres = rng.uniform(0, size, (max(count // 12, 1), 2))[
        rng.integers(0, max(count // 12, 1), count)
    ]
    corners = centres + rng.normal(0, 8, (count, 2))
    sides = rng.uniform(5, 90, (count, 2))
    scores = rng.uniform(0.001, 1, (count, 1))
    return np.hstack([corners, corners + sides, scores]).astype(np.float32)


@pytest.mark.parametrize(
    ("sigma", "scores"),
    [(0.55, [0.9, 0.7, 0.231265, 0.001324]), (0.6, [0.9, 0.7, 0.256463, 0.00166])],
)
def test_soft_nms_golden(sigma, scores):
    out = _native.soft_nms(GOLDEN_ROWS, sigma)
    np.testing.assert_allclose(out[:, 4], scores, atol=1e-6)
    np.testing.assert_array_equal(out[:, :4], GOLDEN_ROWS[[0, 2, 1, 3], :4])


def test_soft_nms_leaves_its_input_alone():
    rows = GOLDEN_ROWS.copy()
    _native.soft_nms(rows, 0.55)
    np.testing.assert_array_equal(rows, GOLDEN_ROWS)


def test_hard_nms_golden():
    assert _native.hard_nms(GOLDEN_ROWS, 0.45).tolist() == [0, 2]
    assert _native.hard_nms(GOLDEN_ROWS, 0.9).tolist() == [0, 1, 2]


def test_empty_input_gives_empty_output():
    empty = np.zeros((0, 5), np.float32)
    index = np.zeros(0, np.int32)
    assert _native.soft_nms(empty, 0.55).shape == (0, 5)
    assert _native.hard_nms(empty, 0.5).shape == (0,)
    ranges = np.float32([[-1, -1]])
    merged = _native.multi_scale_nms(empty, index, index, index, ranges, 0.55, -1.0)
    assert [part.shape for part in merged] == [(0, 5), (0,), (0,)]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), count=st.integers(1, 90), sigma=st.sampled_from([0.1, 0.55, 2.0])
)
def test_soft_nms_equals_the_slow_loop(seed, count, sigma):
    dets = clustered(np.random.default_rng(seed), count)
    out, expected = _native.soft_nms(dets, sigma, 0.01), slow_soft_nms(dets, sigma, 0.01)
    # A score within rounding of the floor or of another score may decide otherwise: compare sets.
    assert abs(len(out) - len(expected)) <= 1
    if len(out) == len(expected):
        order = [np.lexsort(rows[:, :4].T) for rows in (out, expected)]
        np.testing.assert_allclose(out[order[0]], expected[order[1]], rtol=2e-4, atol=1e-6)


def test_soft_nms_order_equals_the_slow_loop():
    rng = np.random.default_rng(5)
    for count in (2, 15, 16, 17, 33, 100):
        dets = clustered(rng, count)
        np.testing.assert_allclose(
            _native.soft_nms(dets, 0.55), slow_soft_nms(dets, 0.55), rtol=1e-5, atol=1e-7
        )


def test_soft_nms_ties_go_to_the_first_row_after_the_swaps():
    # Equal scores, no overlap: each swap puts the maximum where it already is.
    dets = np.zeros((40, 5), np.float32)
    dets[:, 0] = np.arange(40) * 100
    dets[:, 2] = dets[:, 0] + 10
    dets[:, 4] = 0.5
    np.testing.assert_array_equal(_native.soft_nms(dets, 0.55), dets)
    # Row 2 is the best and changes places with row 0, which then comes after row 1.
    swapped = dets[:4].copy()
    swapped[2, 4] = 0.9
    np.testing.assert_array_equal(_native.soft_nms(swapped, 0.55), swapped[[2, 1, 0, 3]])


def test_soft_nms_keeps_low_scores_that_overlap_nothing():
    dets = np.float32([[0, 0, 9, 9, 1e-5], [50, 50, 60, 60, 1e-6]])
    np.testing.assert_array_equal(_native.soft_nms(dets, 0.55), dets)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 120), threshold=st.floats(0.05, 0.95))
def test_hard_nms_equals_the_slow_loop(seed, count, threshold):
    dets = clustered(np.random.default_rng(seed), count)
    assert _native.hard_nms(dets, threshold).tolist() == slow_hard_nms(dets, threshold)


def test_hard_nms_suppresses_only_above_the_threshold():
    # IoU exactly 0.5: 10x10 px and 10x5 px with +1 sides.
    dets = np.float32([[0, 0, 9, 9, 0.9], [0, 0, 9, 4, 0.8]])
    assert _native.hard_nms(dets, 0.5).tolist() == [0, 1]
    assert _native.hard_nms(dets, 0.4999).tolist() == [0]


def test_hard_nms_ties_go_to_the_first_row():
    dets = np.float32([[5, 5, 9, 9, 0.5], [0, 0, 2, 2, 0.5], [5, 5, 9, 9, 0.5]])
    assert _native.hard_nms(dets, 0.5).tolist() == [0, 1]


@pytest.mark.parametrize("threshold", [-1.0, 0.45])
@pytest.mark.parametrize("limit", [-1, 25])
def test_multi_scale_nms_equals_the_slow_merge(threshold, limit):
    rng = np.random.default_rng(11)
    dets = clustered(rng, 700)
    levels, classes, images = (rng.integers(0, n, 700).astype(np.int32) for n in (3, 4, 3))
    ranges = np.float32([[-1, 40], [20, 60], [35, -1]])
    out, out_classes, out_images = _native.multi_scale_nms(
        dets, levels, classes, images * 7, ranges, 0.55, threshold, max_per_image=limit
    )
    expected = slow_multi_scale_nms(
        dets, levels, classes, images * 7, ranges, 0.55, threshold, limit
    )
    np.testing.assert_array_equal(out_classes, expected[:, 5])
    np.testing.assert_array_equal(out_images, expected[:, 6])
    np.testing.assert_allclose(out, expected[:, :5], rtol=1e-5, atol=1e-6)


def test_valid_range_has_open_low_and_closed_high_end_without_plus_one():
    dets = np.float32([[0, 0, 32, 32, 0.9], [100, 100, 131.9, 132, 0.8], [200, 200, 233, 232, 0.7]])
    zeros = np.zeros(3, np.int32)

    def scores(*valid_range):
        out = _native.multi_scale_nms(dets, zeros, zeros, zeros, np.float32([valid_range]), 0.5, -1)
        return np.round(out[0][:, 4], 2).tolist()

    assert scores(32, -1) == pytest.approx([0.7])
    assert scores(-1, 32) == pytest.approx([0.9, 0.8])
    assert scores(0, 0) == pytest.approx([0.9, 0.8, 0.7])


def test_limit_keeps_ties():
    dets = np.zeros((6, 5), np.float32)
    dets[:, 0] = np.arange(6) * 100
    dets[:, 2:4] = dets[:, :2] + 10
    dets[:, 4] = [0.9, 0.5, 0.5, 0.5, 0.2, 0.1]
    zeros = np.zeros(6, np.int32)
    arguments = (dets, zeros, zeros, zeros, np.float32([[-1, -1]]), 0.55, 0.5)
    for limit, expected in ((1, 1), (2, 4), (4, 4), (5, 5), (6, 6), (100, 6), (0, 6)):
        assert len(_native.multi_scale_nms(*arguments, max_per_image=limit)[0]) == expected


@pytest.mark.parametrize("threshold", [-1.0, 0.5])
def test_rows_that_are_not_finite_are_dropped(threshold):
    dets = np.vstack([GOLDEN_ROWS] * 6)
    bad = np.arange(0, 30, 3)
    for k, row in enumerate(bad):
        dets[row, k % 5] = (np.nan, np.inf, -np.inf)[k % 3]
    zeros = np.zeros(30, np.int32)
    good = np.delete(dets, bad, axis=0)
    ranges = np.float32([[-1, -1]])
    out = _native.multi_scale_nms(dets, zeros, zeros, zeros, ranges, 0.55, threshold)[0]
    few = zeros[: len(good)]
    expected = _native.multi_scale_nms(good, few, few, few, ranges, 0.55, threshold)[0]
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(_native.soft_nms(dets, 0.55), _native.soft_nms(good, 0.55))
    assert not set(_native.hard_nms(dets, 0.5)) & set(bad)


def test_extreme_boxes_end_and_stay_finite():
    rng = np.random.default_rng(2)
    dets = rng.choice(np.float32([-3e38, -1, 0, 1, 5, 3e38, 1e-38]), (200, 5)).astype(np.float32)
    for out in (_native.soft_nms(dets, 0.55), _native.soft_nms(dets, 1e-6)):
        assert len(out) <= 200
        assert np.isfinite(out).all()
    assert len(_native.hard_nms(dets, 0.5)) <= 200


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"dets": np.zeros((3, 5))}, "dets"),
        ({"dets": np.zeros((3, 4), np.float32)}, "dets"),
        ({"levels": np.zeros(3, np.int64)}, "levels"),
        ({"levels": np.array([0, 0, 2], np.int32)}, "row 2 has level 2"),
        ({"levels": np.array([0, -1, 0], np.int32)}, "row 1 has level -1"),
        ({"images": np.zeros(2, np.int32)}, "images"),
        ({"classes": [0, 0, 0]}, "classes"),
        ({"valid_ranges": np.zeros(2, np.float32)}, "valid_ranges"),
        ({"sigma": 0.0}, "sigma"),
        ({"sigma": float("nan")}, "sigma"),
        ({"nms_threshold": 1.5}, "nms_threshold"),
        ({"nms_threshold": float("nan")}, "nms_threshold"),
    ],
)
def test_wrong_arguments_are_refused(change, word):
    arguments = {
        "dets": np.zeros((3, 5), np.float32),
        "levels": np.zeros(3, np.int32),
        "classes": np.zeros(3, np.int32),
        "images": np.zeros(3, np.int32),
        "valid_ranges": np.float32([[-1, -1], [0, 80]]),
        "sigma": 0.55,
        "nms_threshold": -1.0,
    }
    with pytest.raises(OpsError, match=word):
        _native.multi_scale_nms(**{**arguments, **change})
    if word == "dets":
        with pytest.raises(OpsError, match=word):
            _native.soft_nms(change["dets"], 0.55)
        with pytest.raises(OpsError, match=word):
            _native.hard_nms(change["dets"], 0.5)


@pytest.mark.parametrize("sigma", [-1.0, 0.0, float("nan")])
def test_hard_nms_does_not_look_at_sigma(sigma):
    rows = np.float32([[0, 0, 9, 9, 0.9], [0, 0, 9, 9, 0.8], [20, 20, 29, 29, 0.7]])
    index = [np.zeros(3, np.int32)] * 3
    ranges = np.float32([[-1, -1]])
    out, *_ = _native.multi_scale_nms(rows, *index, ranges, sigma, 0.5)
    np.testing.assert_array_equal(out, rows[[0, 2]])
    with pytest.raises(OpsError, match="sigma"):
        _native.multi_scale_nms(rows, *index, ranges, sigma, 0.0)


THREADS_SCRIPT = """
import hashlib
import numpy as np
from sniper.native import _native
rng = np.random.default_rng(0)
corners = rng.uniform(0, 200, (5000, 2))
dets = np.hstack([corners, corners + rng.uniform(5, 90, (5000, 2)), rng.uniform(0, 1, (5000, 1))])
index = [rng.integers(0, n, 5000).astype(np.int32) for n in (2, 10, 5)]
ranges = np.float32([[-1, 60], [30, -1]])
out = _native.multi_scale_nms(dets.astype(np.float32), *index, ranges, 0.55, -1.0, max_per_image=99)
print(hashlib.sha256(b"".join(part.tobytes() for part in out)).hexdigest())
"""


def test_result_does_not_depend_on_the_number_of_threads():
    library = str(Path(sniper.__file__).parents[1])
    digests = set()
    for threads in ("1", "2", "5"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": library}
        done = subprocess.run(
            [sys.executable, "-c", THREADS_SCRIPT],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1
    assert len(digests.pop()) == 64
