"""MultiProposal without MXNet: golden vectors, a slow reference, properties, threads."""

import ctypes
import multiprocessing
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sniper.errors import OpsError
from sniper.native import _native
from tests.native import proposal_reference as reference
from tests.native.proposal_reference import RESNET, SMALL, random_maps

MOBILENET = {"scales": (1, 2, 4, 8, 12), "ratios": (0.5, 1, 2), "feature_stride": 32}
F = np.float32


@pytest.mark.parametrize(
    ("file", "kw"),
    [("golden_multi_proposal_exact", RESNET), ("golden_multi_proposal_exact_mobilenet", MOBILENET)],
)
def test_golden_multi_proposal(golden, file, kw):
    data = np.load(golden / f"{file}.npz")
    rois, scores = _native.multi_proposal(
        data["cls_prob"], data["bbox_pred"], data["im_info"], **kw
    )
    for n, kept in enumerate(data["num_kept"]):
        rows = slice(300 * n, 300 * n + kept)
        np.testing.assert_allclose(rois[rows], data["rois"][rows], atol=1e-4)
        np.testing.assert_array_equal(scores[rows], data["score"][rows])


def test_anchor_rounding_is_half_up():
    boxes = _native.operator_anchors(32, (1,), (0.5, 1, 2))
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    np.testing.assert_array_equal(sides, [[45, 23], [32, 32], [23, 46]])
    np.testing.assert_array_equal(boxes, reference.make_anchors((1,), (0.5, 1, 2), 32))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("pre", "post", "threshold", "min_size"),
                         [(-1, 30, 0.7, 3), (25, 40, 0.3, 20), (100, 7, 0.5, 0)])  # fmt: skip
def test_multi_proposal_equals_the_slow_reference(seed, pre, post, threshold, min_size):
    maps = random_maps(np.random.default_rng(seed), 2, 4, 5, 7)
    rois, scores = _native.multi_proposal(
        *maps, pre_nms_top_n=pre, post_nms_top_n=post, nms_thresh=threshold, min_size=min_size,
        **SMALL
    )  # fmt: skip
    expected = reference.multi_proposal(*maps, pre, post, threshold, min_size, **SMALL)
    np.testing.assert_allclose(rois, expected[0], atol=1e-4)
    np.testing.assert_array_equal(scores, expected[1])


def test_more_candidates_than_one_chunk_and_equal_scores():
    """Ties go to the lower anchor index, also when thousands of scores are equal."""
    rng = np.random.default_rng(3)
    scores, deltas, sizes = random_maps(rng, 1, 4, 40, 40, spread=0.05)
    scores = np.round(scores, 1)  # eleven different values
    deltas[:, 2::4] = deltas[:, 3::4] = 0  # exp(0) is exact, so the boxes can be looked up
    sizes[:] = (640, 640, 1)
    rois, got = _native.multi_proposal(scores, deltas, sizes, nms_thresh=0.9,
                                       post_nms_top_n=3000, **SMALL)  # fmt: skip
    boxes = reference.decode(deltas[0], sizes[0], reference.make_anchors(**SMALL), 16)
    order = np.argsort(-scores[0, 4:].ravel(), kind="stable")
    rank = {tuple(boxes[i]): position for position, i in reversed(list(enumerate(order)))}
    positions = [rank[tuple(row[1:])] for row in rois[got > 0]]
    assert len(positions) > 1500
    assert positions == sorted(positions)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    hnp.arrays(F, 12, elements=st.sampled_from([np.nan, np.inf, -np.inf, 2.0**120, 200.0, -1.0])),
)
def test_non_finite_inputs_give_finite_boxes_inside_the_image(seed, poison):
    rng = np.random.default_rng(seed)
    scores, deltas, sizes = random_maps(rng, 2, 4, 3, 5)
    for target in (scores, deltas):
        flat = target.reshape(-1)
        flat[rng.integers(0, flat.size, poison.size)] = poison
    rois, got = _native.multi_proposal(scores, deltas, sizes, post_nms_top_n=40, **SMALL)
    assert np.isfinite(rois).all() and np.isfinite(got).all()
    for n in range(2):
        rows = rois[40 * n : 40 * n + 40]
        assert (rows[:, 0] == n).all()
        assert (rows[:, 1:] >= 0).all()
        assert (rows[:, 3] <= sizes[n, 1] - 1).all() and (rows[:, 4] <= sizes[n, 0] - 1).all()
        kept = rows[got[40 * n : 40 * n + 40] > 0, 1:]
        overlaps = [reference.overlap(a, b, 1) for i, a in enumerate(kept) for b in kept[:i]]
        assert max(overlaps, default=0) <= 0.7 + 1e-5


@pytest.mark.parametrize("pre", [1, 2, 300])
def test_many_boxes_that_are_too_small_end_in_time(pre):
    """Only boxes that take part count towards pre_nms_top_n, and here none does."""
    scores, deltas, sizes = random_maps(np.random.default_rng(0), 1, 4, 150, 150)
    start = time.monotonic()
    _, got = _native.multi_proposal(scores, deltas, sizes, pre_nms_top_n=pre, min_size=1e6, **SMALL)
    assert not got.any() and time.monotonic() - start < 20


def test_nothing_usable_gives_fill_rows():
    scores, deltas, sizes = random_maps(np.random.default_rng(0), 2, 4, 3, 3)
    scores[:] = np.nan
    rois, got = _native.multi_proposal(scores, deltas, sizes, post_nms_top_n=5, **SMALL)
    np.testing.assert_array_equal(rois, [[n, 0, 0, 0, 0] for n in (0, 1) for _ in range(5)])
    assert not got.any()


@pytest.mark.parametrize("images", [1, 3])
def test_result_does_not_depend_on_the_number_of_threads(images):
    maps = random_maps(np.random.default_rng(1), images, 21, 24, 24, spread=0.1)
    omp = ctypes.CDLL("libgomp.so.1")
    before = omp.omp_get_max_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            omp.omp_set_num_threads(threads)
            results.append(_native.multi_proposal(*maps, **RESNET))
    finally:
        omp.omp_set_num_threads(before)
    for rois, scores in results[1:]:
        np.testing.assert_array_equal(rois, results[0][0])
        np.testing.assert_array_equal(scores, results[0][1])


def _child(queue, maps):
    queue.put(_native.multi_proposal(*maps, **RESNET))


def test_a_forked_child_does_not_wait_for_the_threads_of_its_parent():
    maps = random_maps(np.random.default_rng(1), 3, 21, 8, 8)
    omp = ctypes.CDLL("libgomp.so.1")
    before = omp.omp_get_max_threads()
    omp.omp_set_num_threads(3)
    try:
        expected = _native.multi_proposal(*maps, **RESNET)  # starts the parent's threads
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=_child, args=(queue, maps), daemon=True)
        child.start()
        try:
            rois, _ = queue.get(timeout=20)
        finally:
            child.kill()
            child.join(10)
    finally:
        omp.omp_set_num_threads(before)
    np.testing.assert_array_equal(rois, expected[0])


@pytest.mark.parametrize(
    "change",
    [
        {"cls_prob": np.zeros((1, 8, 3, 4), F)},
        {"bbox_pred": np.zeros((1, 12, 3, 3), F)},
        {"im_info": np.zeros((1, 2), F)},
        {"cls_prob": np.zeros((1, 8, 3, 3), np.float64)},
        {"scales": ()},
        {"ratios": (0,)},
        {"post_nms_top_n": 0},
        {"post_nms_top_n": 10**9},
        {"nms_thresh": float("nan")},
        {"min_size": "3"},
        {"bbox_pred": None},
    ],
)
def test_wrong_arguments_are_refused(change):
    arguments = {
        "cls_prob": np.zeros((1, 8, 3, 3), F),
        "bbox_pred": np.zeros((1, 16, 3, 3), F),
        "im_info": np.zeros((1, 3), F),
        **SMALL,
    }
    _native.multi_proposal(**arguments)
    with pytest.raises(OpsError):
        _native.multi_proposal(**{**arguments, **change})
