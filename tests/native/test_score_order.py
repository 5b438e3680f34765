"""The order of candidates when only the best of many take part, seen through MultiProposal."""

from __future__ import annotations

import numpy as np
import pytest

from sniper.native._native import multi_proposal

SCALES, RATIOS = (2, 4, 7, 10, 13, 16, 24), (0.5, 1, 2)
ANCHORS, SIDE = 21, 40
COUNT = ANCHORS * SIDE * SIDE
SMALL = -6.0  # dw and dh of a box that is too small to take part


def propose(scores, sizes, **limits):
    """(rois, scores) of one image; `scores` and `sizes` per anchor, in linear order."""
    cls_prob = np.zeros((1, 2 * ANCHORS, SIDE, SIDE), np.float32)
    cls_prob[0, ANCHORS:] = scores.reshape(ANCHORS, SIDE, SIDE)
    bbox_pred = np.zeros((1, ANCHORS, 4, SIDE, SIDE), np.float32)
    bbox_pred[0, :, 2:] = sizes.reshape(ANCHORS, 1, SIDE, SIDE)
    info = np.array([[SIDE * 16, SIDE * 16, 1]], np.float32)
    return multi_proposal(
        cls_prob,
        bbox_pred.reshape(1, 4 * ANCHORS, SIDE, SIDE),
        info,
        scales=SCALES,
        ratios=RATIOS,
        feature_stride=16,
        nms_thresh=0.7,
        **limits,
    )


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_discarded_boxes_do_not_use_up_the_limit(zero, share):
    # Most scores are zero (of both signs) and belong to boxes that are discarded, so that what
    # takes part lies behind the candidates that the limit alone would fetch.
    rng = np.random.default_rng(0)
    scores = rng.uniform(-0.9, 0.9, COUNT).astype(np.float32)
    sizes = np.zeros(COUNT, np.float32)
    dropped = rng.random(COUNT) < share
    scores[dropped] = zero
    scores[np.flatnonzero(dropped)[::2]] = 0.0
    sizes[dropped | (scores > 0)] = SMALL
    few = propose(scores, sizes, pre_nms_top_n=400, post_nms_top_n=60)
    everything = propose(scores, sizes, pre_nms_top_n=-1, post_nms_top_n=60)
    np.testing.assert_array_equal(few[1], everything[1])
    np.testing.assert_array_equal(few[0], everything[0])
    assert (few[1] < 0).all()


@pytest.mark.parametrize("top_n", [1, 50, 3000])
def test_the_limit_keeps_the_best(top_n):
    rng = np.random.default_rng(top_n)
    scores = rng.permutation(COUNT).astype(np.float32) / COUNT
    sizes = rng.normal(0, 0.2, COUNT).astype(np.float32)
    kept = propose(scores, sizes, pre_nms_top_n=top_n, post_nms_top_n=3000)[1]
    kept = kept[kept > 0]
    assert kept[0] == scores.max()
    assert (kept >= np.sort(scores)[-top_n]).all()
    assert (np.diff(kept) < 0).all()


def test_equal_scores_come_in_the_order_of_the_anchors():
    sizes = np.zeros(COUNT, np.float32)
    scores = np.full(COUNT, 0.5, np.float32)
    first = propose(scores, sizes, pre_nms_top_n=200, post_nms_top_n=40)[0]
    ranked = np.linspace(1, 0.5, COUNT).astype(np.float32)
    np.testing.assert_array_equal(
        first, propose(ranked, sizes, pre_nms_top_n=200, post_nms_top_n=40)[0]
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1.0, -5.0])
def test_bad_scores_are_left_out_wherever_they_lie(bad):
    rng = np.random.default_rng(7)
    scores = rng.uniform(0.1, 0.9, COUNT).astype(np.float32)
    sizes = np.zeros(COUNT, np.float32)
    broken = scores.copy()
    broken[rng.random(COUNT) < 0.9] = bad
    kept = propose(broken, sizes, pre_nms_top_n=300, post_nms_top_n=300)[1]
    kept = kept[kept != 0]
    assert len(kept)
    assert np.isin(kept, scores).all()
    assert kept[0] == broken[np.isfinite(broken)].max()
