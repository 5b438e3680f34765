"""Mask targets without MXNet: golden vectors, two references, properties, malformed input."""

from __future__ import annotations

import ctypes
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from sniper.errors import OpsError
from sniper.native import _native

F = np.float32


def polygon_row(segments, length=500, cls=6):
    """One row of mask_polys: `segments` are (k, 2) arrays of x, y."""
    row = [cls, len(segments), *(2 * len(points) for points in segments)]
    row += [value for points in segments for value in np.ravel(points)]
    assert len(row) <= length
    return F(row + [-1] * (length - len(row)))


def target(segments, roi, size=28):
    rois, rows = F([[0, *roi]]), polygon_row(segments)[None, None]
    return _native.mask_rcnn_target(rois, rows, np.zeros((1, 1), F), size)[0][0]


def into_mask(points, roi, size):
    """Vertices in mask pixels, (y, x): the operator exchanges them."""
    roi, points = F(roi), F(points)
    sides = np.maximum(roi[2:] - roi[:2], F(1))
    return ((points - roi[:2]) * F(size) / sides)[:, ::-1]


def coco_target(segments, roi, size=28):
    """What the COCO tools make of it, mask by mask."""
    union = np.zeros((size, size), bool)
    for points in segments:
        flat = into_mask(points, roi, size).astype(np.float64).ravel().tolist()
        union |= coco_mask.decode(coco_mask.frPyObjects([flat], size, size))[:, :, 0].T == 1
    return union


def traced_target(segments, roi, size=28):
    """A slow reference: walks every step of the boundary on the lattice of fifths of pixels."""
    union = np.zeros((size, size), bool)
    for points in segments:
        vertices = [[int(5 * value + 0.5) for value in vertex.astype(np.float64)]
                    for vertex in into_mask(points, roi, size)]  # fmt: skip
        steps = []
        for start, end in zip(vertices, [*vertices[1:], vertices[0]]):
            steps += edge_steps(start, end)
        inside = np.zeros((size, size), bool)
        for (row, column), (next_row, next_column) in zip(steps, steps[1:]):
            low = min(row, next_row)
            if row == next_row or low % 5 != 2 or not 0 <= low // 5 < size:
                continue
            pixel = int(np.ceil(max(0, (min(column, next_column) - 2) / 5)))
            inside[low // 5, pixel:] ^= True
        union |= inside
    return union


def edge_steps(start, end):
    """Lattice points of an edge: whole steps along its longer axis, rounding on the other."""
    (row, column), (end_row, end_column) = start, end
    along_rows = abs(end_row - row) >= abs(end_column - column)
    first, last = (row, end_row) if along_rows else (column, end_column)
    other, other_last = (column, end_column) if along_rows else (row, end_row)
    if first == last:
        return [(row, column)]
    if first > last:  # rounding starts at the smaller end
        return edge_steps(end, start)[::-1]
    slope = (other_last - other) / (last - first)
    points = [(first + t, int(other + slope * t + 0.5)) for t in range(last - first + 1)]
    return points if along_rows else [(b, a) for a, b in points]


def random_case(rng):
    """Segments and a roi: tiny to huge, inside to far outside, with repeated vertices."""
    size = int(rng.choice([1, 2, 7, 14, 28, 28, 33, 64, 70]))
    spread = float(rng.choice([0.05, 0.4, 4, 40, 400, 4000]))
    centre = rng.normal(0, rng.choice([0, 1, 100]), 2)
    segments = []
    for _ in range(rng.integers(1, 4)):
        points = centre + rng.normal(0, spread, (rng.integers(3, 40), 2))
        points = points.round() if rng.random() < 0.4 else points
        if rng.random() < 0.3:
            points[1:3] = points[0]
        segments.append(F(points))
    half = np.abs(rng.normal(0, spread, 2)) * rng.choice([1, 1, 1e-3])
    corner = centre + rng.normal(0, spread, 2)
    return segments, F([*(corner - half), *(corner + half)]), size


def test_golden(golden):
    data = np.load(golden / "golden_mask_rcnn_target.npz")
    targets, classes = _native.mask_rcnn_target(data["rois"], data["mask_polys"], data["mask_ids"])
    np.testing.assert_array_equal(targets, data["mask_targets"])
    np.testing.assert_array_equal(classes, data["mask_cls"])
    assert 1000 < (targets == 1).sum() and (targets == -1).any()


@pytest.mark.parametrize("first_seed", range(0, 400, 40))
def test_equals_the_coco_tools(first_seed):
    for seed in range(first_seed, first_seed + 40):
        segments, roi, size = random_case(np.random.default_rng(seed))
        expected = coco_target(segments, roi, size)
        np.testing.assert_array_equal(target(segments, roi, size), expected, f"seed {seed}")


@pytest.mark.parametrize("seed", range(10))
def test_long_flat_edges_equal_the_coco_tools(seed):
    """One rounding of such an edge's row is many steps along it."""
    rng = np.random.default_rng(seed)
    points = np.stack([rng.uniform(-1e5, 1e5, 5), rng.uniform(-3, 31, 5)], 1)
    for segment in (F(points), F(points[:, ::-1]), F(points).round()):
        roi = F([0, 0, 28, 28])
        np.testing.assert_array_equal(target([segment], roi), coco_target([segment], roi))


@pytest.mark.parametrize("seed", range(20))
def test_equals_a_traced_boundary(seed):
    rng = np.random.default_rng(seed)
    roi = F([0, 0, *rng.uniform(5, 60, 2)])
    segments = [F(rng.uniform(-20, 80, (rng.integers(3, 9), 2))) for _ in range(2)]
    np.testing.assert_array_equal(target(segments, roi), traced_target(segments, roi))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_start_and_direction_of_a_segment_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    segments, roi, size = random_case(rng)
    expected = target(segments, roi, size)
    turned = [np.roll(points, rng.integers(len(points)), 0) for points in segments]
    np.testing.assert_array_equal(target(turned, roi, size), expected)
    np.testing.assert_array_equal(target([p[::-1] for p in segments], roi, size), expected)
    np.testing.assert_array_equal(target(segments[::-1], roi, size), expected)


def test_segments_are_united_not_toggled():
    square = F([[2, 2], [9, 2], [9, 9], [2, 9]])
    roi = (0, 0, 14, 14)
    once = target([square], roi, 14)
    assert once.sum() == 49
    np.testing.assert_array_equal(target([square, square], roi, 14), once)


def test_rois_smaller_than_a_pixel_are_one_pixel_wide():
    square = F([[2, 2], [2.5, 2], [2.5, 2.5], [2, 2.5]])
    for roi in ((2, 2, 2, 2), (2, 2, 1, 0), (2, 2, 2.9, 2.2)):
        assert target([square], roi, 8).sum() == 16


def test_degenerate_segments_cover_nothing():
    for points in ([[3, 3]], [[3, 3], [9, 9]], [[3, 3]] * 5, [[2, 2], [9, 9], [2, 2]]):
        assert not target([F(points)], (0, 0, 14, 14), 14).any()


@pytest.mark.parametrize("far", [1e5, 1e9, 1e20, 1e36])
def test_far_vertices_cost_no_time(far):
    """The triangle's right side lies in the roi; a walk along its edges would take hours."""
    triangle = F([[-far, 0], [5, -far], [5, far]])
    start = time.monotonic()
    for _ in range(200):
        mask = target([triangle], (0, 0, 10, 10), 10)
    assert time.monotonic() - start < 20
    assert mask[:, :4].all() and not mask[:, 6:].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_coordinates_that_are_not_finite_make_the_target_ignored(bad):
    segments = [F([[1, 1], [9, 1], [9, 9]]), F([[1, 1], [9, bad], [9, 9]])]
    targets, classes = _native.mask_rcnn_target(
        F([[0, 0, 0, 9, 9]] * 2), polygon_row(segments)[None, None], F([[0], [0]])
    )
    assert (targets == -1).all() and not classes.any()
    for column in range(1, 5):
        roi = F([[0, 0, 0, 9, 9]])
        roi[0, column] = bad
        targets, classes = _native.mask_rcnn_target(
            roi, polygon_row(segments[:1])[None, None], F([[0]])
        )
        assert np.isin(targets, [-1, 0, 1]).all()
        assert (targets == -1).all() or bad == 3e38


@pytest.mark.parametrize(
    "head",
    [
        [6, 0],
        [6, -1],
        [6, np.nan],
        [6, np.inf],
        [6, 1.5, 6],
        [6, 1e9],
        [6, 499],
        [6, 1, 0],
        [6, 1, -6],
        [6, 1, 5],
        [6, 1, 6.5],
        [6, 1, np.nan],
        [6, 1, 38],
        [6, 1, 1e30],
        [6, 2, 6, 34],
        [6, 3, 6, 6, 2**24],
        [-1, 1, 6],
        [np.nan, 1, 6],
        [np.inf, 1, 6],
    ],
)
def test_malformed_rows_are_ignored(head):
    """Rows of 40 numbers; the right row behind them shows that nothing is read from there."""
    rows = np.arange(80, dtype=F).reshape(1, 2, 40) % 9
    rows[0, 0, : len(head)] = head
    rows[0, 1, :3] = (2, 1, 36)
    targets, classes = _native.mask_rcnn_target(
        F([[0, 0, 0, 9, 9]] * 2), rows, F([[0], [1]]), ignore_label=-7
    )
    assert (targets[0] == -7).all() and not classes[0].any()
    assert np.isin(targets[1], [0, 1]).all() and (classes[1] == 2).all()


def test_a_row_may_be_full():
    row = F([3, 1, 6, 0, 0, 9, 0, 9, 9])
    targets, classes = _native.mask_rcnn_target(F([[0, 0, 0, 9, 9]]), row[None, None], F([[0]]), 9)
    assert targets.any() and (classes == 3).all()


@pytest.mark.parametrize(
    ("image", "polygon"),
    [(-1, 0), (2, 0), (0.5, 0), (np.nan, 0), (np.inf, 0), (1e30, 0),
     (0, -1), (0, 3), (0, 0.5), (0, np.nan), (0, np.inf), (0, -1e30), (0, 2**31), (0, 2.0**63)],
)  # fmt: skip
def test_images_and_polygons_that_do_not_exist_are_ignored(image, polygon):
    rows = np.tile(polygon_row([F([[1, 1], [9, 1], [9, 9]])]), (2, 3, 1))
    rois = F([[image, 0, 0, 9, 9], [1, 0, 0, 9, 9]])
    targets, classes = _native.mask_rcnn_target(rois, rows, F([[polygon], [2]]))
    assert (targets[0] == -1).all() and not classes[0].any()
    assert targets[1].any() and (classes[1] == 6).all()


@pytest.mark.parametrize("shape", [(0, 3, 500), (2, 0, 500), (2, 3, 0), (2, 3, 1), (2, 3, 2)])
def test_without_polygons_everything_is_ignored(shape):
    targets, classes = _native.mask_rcnn_target(
        np.zeros((4, 5), F), np.ones(shape, F), np.zeros((4, 1), F), 5
    )
    assert (targets == -1).all() and not classes.any()


def test_without_rois_there_are_no_masks():
    empty = _native.mask_rcnn_target(
        np.zeros((0, 5), F), np.ones((1, 1, 9), F), np.zeros((0, 1), F)
    )
    assert [output.shape for output in empty] == [(0, 28, 28)] * 2


def test_result_does_not_depend_on_the_number_of_threads():
    cases = [random_case(np.random.default_rng(seed)) for seed in range(64)]
    rows = np.stack([polygon_row(segments) for segments, _, _ in cases])[None]
    rois = np.tile(np.stack([F([0, *roi]) for _, roi, _ in cases]), (16, 1))
    ids = np.tile(np.arange(64, dtype=F)[:, None], (16, 1))  # enough rois for several threads
    omp = ctypes.CDLL("libgomp.so.1")
    before = omp.omp_get_max_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            omp.omp_set_num_threads(threads)
            results.append(_native.mask_rcnn_target(rois, rows, ids))
    finally:
        omp.omp_set_num_threads(before)
    for targets, classes in results[1:]:
        np.testing.assert_array_equal(targets, results[0][0])
        np.testing.assert_array_equal(classes, results[0][1])
    np.testing.assert_array_equal(results[0][0][5], coco_target(*cases[5][:2]))


@pytest.mark.parametrize(
    "change",
    [
        {"rois": np.zeros((4, 4), F)},
        {"rois": np.zeros((4, 5))},
        {"mask_polys": np.zeros((3, 9), F)},
        {"mask_ids": np.zeros(4, F)},
        {"mask_ids": np.zeros((3, 1), F)},
        {"mask_ids": None},
        {"mask_size": 0},
        {"mask_size": 28.0},
        {"mask_size": 10**6},
        {"ignore_label": float("nan")},
    ],
)
def test_wrong_arguments_are_refused(change):
    arguments = {
        "rois": np.zeros((4, 5), F),
        "mask_polys": np.zeros((1, 3, 9), F),
        "mask_ids": np.zeros((4, 1), F),
    }
    _native.mask_rcnn_target(**arguments)
    with pytest.raises(OpsError, match=next(iter(change))):
        _native.mask_rcnn_target(**{**arguments, **change})
