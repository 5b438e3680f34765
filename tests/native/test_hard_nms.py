"""Greedy NMS of one class: the order of candidates, the limit, the bins by area."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.errors import OpsError
from sniper.native._native import hard_nms


def reference(dets, threshold, max_output=-1):
    """Slow and obvious, in float32 as the kernel: one box after the other against all kept ones."""
    one = np.float32(1)
    areas = (dets[:, 2] - dets[:, 0] + one) * (dets[:, 3] - dets[:, 1] + one)
    kept = []
    for row in np.argsort(-dets[:, 4], kind="stable"):
        if not np.isfinite(dets[row]).all():
            continue
        box, rivals = dets[row], dets[kept]
        width = np.minimum(rivals[:, 2], box[2]) - np.maximum(rivals[:, 0], box[0]) + one
        height = np.minimum(rivals[:, 3], box[3]) - np.maximum(rivals[:, 1], box[1]) + one
        inter = np.maximum(width, 0) * np.maximum(height, 0)
        joint = areas[kept] + areas[row] - inter
        if not ((inter > np.float32(threshold) * joint) & (joint >= 0)).any():
            kept.append(row)
        if len(kept) == max_output:
            break
    return np.array(kept, np.int64)


def make_dets(rng, count, extent=400.0, score_steps=None):
    """Boxes of many sizes; `score_steps` coarsens the scores, so that many are equal."""
    sides = np.exp(rng.uniform(np.log(2), np.log(extent / 2), (count, 2)))
    corners = rng.uniform(0, extent, (count, 2)) - sides / 2
    scores = rng.normal(0, 1, (count, 1))
    if score_steps is not None:
        scores = np.round(scores * score_steps) / score_steps
    return np.hstack([corners, corners + sides, scores]).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 700),
    threshold=st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.7, 0.95, 1.0]),
    steps=st.sampled_from([None, 1, 8]),
    limit=st.sampled_from([-1, 1, 7, 100, 600]),
)
def test_equals_the_slow_reference(seed, count, threshold, steps, limit):
    dets = make_dets(np.random.default_rng(seed), count, score_steps=steps)
    np.testing.assert_array_equal(
        hard_nms(dets, threshold, limit), reference(dets, threshold, limit)
    )


@pytest.mark.parametrize("steps", [None, 20])
@pytest.mark.parametrize("limit", [1, 40, 900, 5000])
def test_limit_gives_the_beginning_of_the_whole_result(limit, steps):
    # Far more boxes than are wanted: the candidates come in pools and chunks.
    dets = make_dets(np.random.default_rng(limit), 40_000, extent=3000.0, score_steps=steps)
    whole = hard_nms(dets, 0.4)
    np.testing.assert_array_equal(hard_nms(dets, 0.4, limit), whole[:limit])
    scores = dets[whole, 4]
    assert (np.diff(scores) <= 0).all()
    ties = np.diff(scores) == 0
    assert (np.diff(whole)[ties] > 0).all()


def test_many_kept_boxes_equal_the_reference():
    # Enough to be sorted into bins by area, sizes from 2 to 200 px.
    dets = make_dets(np.random.default_rng(3), 3000, extent=1500.0)
    kept = hard_nms(dets, 0.7)
    assert len(kept) > 1000
    np.testing.assert_array_equal(kept, reference(dets, 0.7))


def test_all_finite_scores_take_part():
    boxes = np.arange(8, dtype=np.float32)[:, None] * [100, 0, 100, 0] + [0, 0, 9, 9]
    scores = [-3e38, -1.0, -0.0, 0.0, 1e-45, 3e38, np.inf, np.nan]
    dets = np.hstack([boxes, np.array(scores)[:, None]]).astype(np.float32)
    assert hard_nms(dets, 0.5).tolist() == [5, 4, 2, 3, 1, 0]


def test_sampled_order_survives_a_periodic_map():
    # Every second score is high: a sample with an even step would see only one kind.
    count = 1 << 15
    scores = np.where(np.arange(count) % 2, 0.9, 0.1) + np.arange(count) * 1e-6
    corners = np.arange(count)[:, None] * [20.0, 0.0]
    dets = np.hstack([corners, corners + 9, scores[:, None]]).astype(np.float32)
    np.testing.assert_array_equal(
        hard_nms(dets, 0.5, 300), np.argsort(-dets[:, 4], kind="stable")[:300]
    )


@pytest.mark.parametrize("value", [0.0, -0.0, 0.5, -3.0])
def test_equal_scores_come_in_the_order_of_the_rows(value):
    # The sample's key is everybody's key; zeros of both signs are one score.
    count = 5000
    corners = np.arange(count)[:, None] * [20.0, 0.0]
    scores = np.full((count, 1), value)
    scores[::3] *= -1 if value == 0 else 1
    dets = np.hstack([corners, corners + 9, scores]).astype(np.float32)
    for limit in (-1, 300, 4999):
        wanted = np.arange(count if limit < 0 else limit)
        np.testing.assert_array_equal(hard_nms(dets, 0.5, limit), wanted)


@pytest.mark.parametrize("pivot", [0.0, 0.25])
def test_scores_on_both_sides_of_a_common_one(pivot):
    rng = np.random.default_rng(1)
    scores = np.full((20_000, 1), pivot)
    chosen = rng.choice(20_000, 2000, replace=False)
    scores[chosen, 0] += rng.normal(0, 1e-3, 2000)
    corners = np.arange(20_000)[:, None] * [20.0, 0.0]
    dets = np.hstack([corners, corners + 9, scores]).astype(np.float32)
    np.testing.assert_array_equal(
        hard_nms(dets, 0.5, 6000), np.argsort(-dets[:, 4], kind="stable")[:6000]
    )


def test_degenerate_boxes_neither_suppress_nor_vanish():
    dets = np.array(
        [[10, 10, 5, 5, 0.9], [10, 10, 5, 5, 0.8], [0, 0, 20, 20, 0.7], [3e38, 0, 3e38, 9, 0.6]],
        np.float32,
    )
    assert hard_nms(dets, 0.5).tolist() == [0, 1, 2, 3]


def test_nothing_gives_nothing():
    assert hard_nms(np.zeros((0, 5), np.float32), 0.5).shape == (0,)
    assert hard_nms(np.zeros((3, 5), np.float32), 0.5, 0).shape == (0,)


@pytest.mark.parametrize("limit", [1.5, "many", None])
def test_a_wrong_limit_is_refused(limit):
    with pytest.raises((OpsError, TypeError)):
        hard_nms(np.zeros((3, 5), np.float32), 0.5, limit)
