"""CUDA kernels of multi-scale NMS against the host function, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from sniper.native import _native
from tests.native import cuda_harness
from tests.native.cuda_calls import MultiScaleNmsParams, multi_scale_nms
from tests.native.cuda_cases import clustered, make_rows

NO_RANGE = np.float32([[-1, -1]])


def on_device(cuda, rows, ranges, **settings):
    merged, out_classes, out_images, kept = multi_scale_nms(cuda, *rows, ranges, **settings)
    kept = int(kept[0])
    for padded in (merged, out_classes, out_images):
        np.testing.assert_array_equal(padded[kept:], -1)
    return merged[:kept], out_classes[:kept], out_images[:kept]


def on_host(rows, ranges, sigma=0.55, threshold=-1.0, min_score=0.001, limit=-1):
    """The host function, without the rows that the graph's operator takes for padding."""
    real = rows[3] >= 0
    dets, *indices = (array[real] for array in rows)
    indices = [index.astype(np.int32) for index in indices]
    return _native.multi_scale_nms(dets, *indices, ranges, sigma, threshold, min_score, limit)


def check(cuda, rows, ranges=NO_RANGE, **settings):
    got = on_device(cuda, rows, ranges, **settings)
    expected = on_host(rows, ranges, **settings)
    for ours, theirs in zip(got, expected):
        np.testing.assert_array_equal(ours, theirs)
    return got


@pytest.mark.parametrize("threshold", [-1.0, 0.45])
@pytest.mark.parametrize("limit", [-1, 10])
def test_equals_the_host(cuda, threshold, limit):
    rng = np.random.default_rng(limit + 5)
    ranges = np.float32([[-1, 60], [20, 50], [30, -1]])
    rows = make_rows(rng, 300)
    merged, _, images = check(cuda, rows, ranges, threshold=threshold, limit=limit)
    assert 0 < len(merged) < 300
    if limit > 0:
        assert np.bincount(images.astype(int)).max() == limit


@pytest.mark.parametrize("threshold", [-1.0, 0.3])
@pytest.mark.parametrize("count", [1, 2, 32, 33, 200, 256, 257])
def test_one_class_of_any_size(cuda, count, threshold):
    rng = np.random.default_rng(count)
    check(cuda, make_rows(rng, count, 1, 1, 1), threshold=threshold)


@pytest.mark.parametrize("threshold", [-1.0, 0.6])
def test_group_that_does_not_fit_into_shared_memory(cuda, threshold):
    """Most rows fall at once, and then come as holes and survivors in many words of the masks."""
    rng = np.random.default_rng(0)
    dets = clustered(rng, 1700, 150)
    dets[:, 4] = rng.uniform(0.0011, 0.02, 1700)
    zeros = np.zeros(1700, np.float32)
    merged, _, _ = check(
        cuda, (dets, zeros, zeros, zeros), sigma=0.05, min_score=0.004, threshold=threshold
    )
    assert 0 < len(merged) < 1200


@pytest.mark.parametrize("threshold", [-1.0, 0.5])
def test_large_and_small_groups_in_turn(cuda, threshold):
    """More groups of each kind than the emulation has blocks."""
    rng = np.random.default_rng(8)
    sizes = np.tile([3, 260, 1], 30)
    dets = clustered(rng, sizes.sum(), 60)
    classes = np.repeat(np.arange(len(sizes), dtype=np.float32), sizes)
    order = rng.permutation(len(dets))
    zeros = np.zeros(len(dets), np.float32)
    rows = (dets[order], zeros, classes[order], zeros)
    check(cuda, rows, threshold=threshold, sigma=0.01, min_score=0.9, limit=50)


@pytest.mark.parametrize("sigma", [1e-6, 0.01, 0.5, 30.0, 1e6])
@pytest.mark.parametrize("min_score", [-1.0, 0.001, 0.3, 2.0])
def test_sigma_and_minimum_extremes(cuda, sigma, min_score):
    rng = np.random.default_rng(7)
    check(cuda, make_rows(rng, 60, 1, 2, 1), sigma=sigma, min_score=min_score)


def test_every_row_a_group_of_its_own(cuda):
    rng = np.random.default_rng(1)
    dets = clustered(rng, 90)
    classes, images = (np.float32(n) for n in np.divmod(rng.permutation(90), 10))
    merged, out_classes, out_images = check(cuda, (dets, np.zeros(90, np.float32), classes, images))
    assert len(merged) == 90
    order = np.lexsort((classes, images))
    np.testing.assert_array_equal(merged, dets[order])
    np.testing.assert_array_equal(out_classes, classes[order])
    np.testing.assert_array_equal(out_images, images[order])


@pytest.mark.parametrize("threshold", [-1.0, 0.5])
def test_ties_go_to_the_first_row(cuda, threshold):
    """Few score values, among them both zeros and negative ones, and boxes that repeat."""
    rng = np.random.default_rng(2)
    rows = make_rows(rng, 150, 1, 2, 2)
    rows[0][:, 4] = rng.choice(np.float32([0.9, 0.5, 0.5, 0.002, 0.0, -0.0, -0.5]), 150)
    rows[0][1::5, :4] = rows[0][::5, :4]
    check(cuda, rows, threshold=threshold)
    check(cuda, rows, threshold=threshold, min_score=-1.0, limit=20)


@pytest.mark.parametrize("threshold", [-1.0, 0.9])
def test_limit_with_ties_may_be_exceeded(cuda, threshold):
    count = 12
    corners = np.arange(count, dtype=np.float32)[:, None] * 100
    scores = np.float32([0.9, 0.5, 0.5, 0.5, 0.4, 0.3, -0.0, 0.0, 0.8, 0.7, 0.7, 0.1])[:, None]
    dets = np.hstack([corners, corners, corners + 9, corners + 9, scores])
    images = np.float32([0] * 8 + [5] * 4)
    rows = (dets, np.zeros(count, np.float32), np.float32([0, 1] * 6), images)
    for limit, kept in ((1, 2), (2, 4 + 3), (4, 4 + 4), (7, 8 + 4), (8, 12), (100, 12)):
        merged, _, _ = check(cuda, rows, threshold=threshold, limit=limit)
        assert len(merged) == kept


@pytest.mark.parametrize("threshold", [-1.0, 0.5])
def test_rows_that_are_not_finite_are_dropped(cuda, threshold):
    rng = np.random.default_rng(3)
    rows = make_rows(rng, 80, 1, 2, 2)
    for k, bad in enumerate([np.nan, np.inf, -np.inf]):
        for column in range(5):
            rows[0][5 * k + column, column] = bad
    rows[0][20] = [-3e38, -3e38, 3e38, 3e38, 0.99]  # its area is infinite
    rows[0][21] = [50, 50, 40, 40, 0.98]  # negative sides
    rows[0][22] = [50, 50, 49, 49, 0.97]  # an empty union
    rows[0][23] = rows[0][22]
    check(cuda, rows, threshold=threshold)


@pytest.mark.parametrize("threshold", [-1.0, 0.5])
def test_padding(cuda, threshold):
    rng = np.random.default_rng(4)
    rows = make_rows(rng, 60, 1, 2, 2)
    rows[3][::3] = -1
    rows[0][::6] = np.nan
    check(cuda, rows, threshold=threshold, limit=8)
    rows[3][:] = -1
    merged, classes, images = check(cuda, rows, threshold=threshold, limit=8)
    assert len(merged) == len(classes) == len(images) == 0


@pytest.mark.parametrize("bad", [0.5, -1.0, np.nan, np.inf, 16777218.0, 3e38])
@pytest.mark.parametrize("column", [1, 2, 3])
def test_indices_that_do_not_exist_drop_the_row(cuda, column, bad):
    """The host refuses them; a kernel cannot."""
    rng = np.random.default_rng(5)
    rows = make_rows(rng, 30, 2, 2, 2)
    good = np.arange(30) % 4 != 0
    rows[column][~good] = bad
    ranges = np.float32([[-1, -1], [-1, -1]])
    got = on_device(cuda, rows, ranges)
    for ours, theirs in zip(got, on_host(tuple(array[good] for array in rows), ranges)):
        np.testing.assert_array_equal(ours, theirs)


def test_level_without_a_range_and_the_largest_indices(cuda):
    rng = np.random.default_rng(6)
    dets, levels, classes, images = make_rows(rng, 40, 3, 2, 2)
    classes[classes == 1] = 16777216
    images[images == 1] = 16777216
    ranges = np.float32([[-1, -1], [0, 40]])
    got = on_device(cuda, (dets, levels, classes, images), ranges, limit=6)
    real = levels < 2
    rows = tuple(array[real] for array in (dets, levels, classes, images))
    for ours, theirs in zip(got, on_host(rows, ranges, limit=6)):
        np.testing.assert_array_equal(ours, theirs)


def test_no_rows(cuda):
    rows = (np.zeros((0, 5), np.float32), *(np.zeros(0, np.float32),) * 3)
    merged, _, _ = on_device(cuda, rows, NO_RANGE, limit=3)
    assert len(merged) == 0


def test_more_rows_than_an_int_counts_are_refused(cuda):
    params = MultiScaleNmsParams(2**31, 1, 0.55, -1.0, 0.001, -1)
    with pytest.raises(cuda_harness.LaunchError, match="status 1"):
        cuda.workspace_bytes("multi_scale_nms", params)
