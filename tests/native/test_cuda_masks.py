"""CUDA kernel of the mask targets against the host function, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from sniper.native import _native
from tests.native import cuda_harness
from tests.native.cuda_calls import MaskRcnnTargetParams
from tests.native.cuda_calls import mask_rcnn_target as on_device
from tests.native.cuda_cases import encode
from tests.native.cuda_cases import random_masks as random_case


def check(cuda, rois, polys, ids, size=28, ignore=-1.0):
    targets, classes = on_device(cuda, rois, polys, ids, size, ignore)
    expected = _native.mask_rcnn_target(rois, polys, ids, size, ignore)
    np.testing.assert_array_equal(targets, expected[0])
    np.testing.assert_array_equal(classes, expected[1])
    return targets, classes


def test_golden_vectors_of_2018(cuda, golden):
    with np.load(golden / "golden_mask_rcnn_target.npz") as arrays:
        targets, classes = on_device(cuda, arrays["rois"], arrays["mask_polys"], arrays["mask_ids"])
        np.testing.assert_array_equal(targets, arrays["mask_targets"])
        np.testing.assert_array_equal(classes, arrays["mask_cls"])


@pytest.mark.parametrize("size", [1, 14, 28, 31, 32, 33, 70])
def test_equals_the_host(cuda, size):
    targets, _ = check(cuda, *random_case(size), size=size)
    assert 0 < targets.mean() < 1


def test_mask_of_several_bands(cuda):
    """A band holds 2048 words: 204 rows of ten words."""
    targets, _ = check(cuda, *random_case(3, rois=2), size=300)
    assert targets[:, :204].any()
    assert targets[:, 204:].any()


def test_segments_are_joined_not_cancelled(cuda):
    square = np.float32([10, 10, 30, 10, 30, 30, 10, 30])
    polys = np.stack([encode(3, square, square + 5), encode(3, square)])[None]
    rois = np.float32([[0, 0, 0, 40, 40]] * 2)
    targets, classes = check(cuda, rois, polys, np.float32([[0], [1]]))
    assert (targets[0] >= targets[1]).all()
    assert targets[0].sum() > targets[1].sum() > 0
    assert (classes == 3).all()


def test_edges_of_every_direction(cuda):
    """Flat, steep, horizontal, vertical and degenerate edges, far outside the roi too."""
    rng = np.random.default_rng(4)
    shapes = [
        [0, 0, 100, 1, 0, 2],
        [0, 0, 1, 100, 2, 0],
        [-1e6, 20, 1e6, 21, 0, 5e6],
        [5, 5, 5, 5, 5, 5],
        [7, 3],
        [0, 10, 40, 10],
        [20, 0, 20, 40],
        rng.integers(0, 41, 100),
        1e30 * rng.standard_normal(20),
    ]
    polys = np.stack([encode(k, np.float32(points)) for k, points in enumerate(shapes)])[None]
    rois = np.float32([[0, 0, 0, 40, 40]] * len(shapes))
    check(cuda, rois, polys, np.arange(len(shapes), dtype=np.float32)[:, None])


@pytest.mark.parametrize("ignore", [-1.0, 255.0])
def test_rois_without_a_usable_polygon_are_ignored(cuda, ignore):
    triangle = np.float32([5, 5, 30, 5, 15, 30])
    rows = [encode(1, triangle) for _ in range(9)]
    rows[1][1] = 0  # no segment
    rows[2][1] = -1
    rows[3][2] = 5  # odd
    rows[4][2] = 498  # longer than the row
    rows[5][1] = 1e9
    rows[6][0] = -1
    rows[7][4] = np.nan
    rows[8][5] = np.inf
    image = [0] * 9 + [-1, 1, 0.5, np.nan] + [0] * 5
    ids = [*range(9), 0, 0, 0, 0, -1, 9, 0.5, np.nan, 3e38]
    rois = np.float32([[k, 0, 0, 40, 40] for k in image])
    targets, classes = check(
        cuda, rois, np.stack(rows)[None], np.float32(ids)[:, None], ignore=ignore
    )
    assert targets[0].any()
    np.testing.assert_array_equal(targets[1:], ignore)
    np.testing.assert_array_equal(classes[1:], 0)


def test_a_later_segment_that_is_not_finite_spoils_the_whole_target(cuda):
    triangle = np.float32([5, 5, 30, 5, 15, 30])
    bad = triangle.copy()
    bad[3] = np.nan
    polys = np.stack([encode(1, triangle, bad, triangle), encode(2, triangle)])[None]
    rois = np.float32([[0, 0, 0, 40, 40]] * 2)
    targets, classes = check(cuda, rois, polys, np.float32([[0], [1]]))
    np.testing.assert_array_equal(targets[0], -1)
    np.testing.assert_array_equal(classes[0], 0)
    assert targets[1].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_rois_that_are_not_finite(cuda, bad):
    rois, polys, ids = random_case(6, rois=5)
    for k in range(4):
        rois[k, 1 + k] = bad
    check(cuda, rois, polys, ids)


def test_no_rois(cuda):
    _, polys, _ = random_case(7)
    targets, _ = on_device(cuda, np.zeros((0, 5), np.float32), polys, np.zeros((0, 1), np.float32))
    assert targets.shape == (0, 28, 28)


@pytest.mark.parametrize("size", [0, -1, 65537])
def test_mask_sizes_out_of_range_are_refused(cuda, size):
    params = MaskRcnnTargetParams(0, 1, 1, 4, size, -1.0)
    empty, out = np.zeros(0, np.float32), cuda.out(0)
    with pytest.raises(cuda_harness.LaunchError, match="status 1"):
        cuda.run("mask_rcnn_target", params, empty, empty, empty, out, out)
