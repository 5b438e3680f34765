"""Quick numeric self-tests of the proposal operators: hand-computed examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import mxnet as mx

from sniper.ops.proposal_targets import multi_proposal_target
from sniper.ops.proposals import multi_proposal
from sniper.ops.selftest_expect import expect

# Two cells of 16 px in a 16 x 32 px image: the anchors are (0, 0, 15, 15) and (16, 0, 31, 15).
_ANCHORS = {"scales": (1,), "ratios": (1,), "feature_stride": 16, "post_nms_top_n": 3}
_IM_INFO = [[16, 32, 1]]
_LEFT, _RIGHT = [0, 0, 0, 15, 15], [0, 16, 0, 31, 15]


def multi_proposal_self_test() -> None:
    """Zero deltas give the anchors back, best first; the third row is empty."""
    scores = mx.nd.array([0.1, 0.2, 0.8, 0.9]).reshape((1, 2, 1, 2))  # background, then foreground
    rois, score = multi_proposal(
        scores, mx.nd.zeros((1, 4, 1, 2)), mx.nd.array(_IM_INFO), **_ANCHORS
    )
    expect("multi_proposal", "rois", rois, [_RIGHT, _LEFT, [0] * 5])
    expect("multi_proposal", "score", score, [0.9, 0.8, 0])


def multi_proposal_target_self_test() -> None:
    """The left anchor is the GT box; the GT box itself takes the last row."""
    rois, label, target, weight = multi_proposal_target(
        mx.nd.array([0.1, 0.2, 0.9, 0.8]).reshape((1, 2, 1, 2)),
        mx.nd.zeros((1, 4, 1, 2)),
        mx.nd.array(_IM_INFO),
        mx.nd.array([[[0, 0, 15, 15, 7], [-1] * 5]]),
        mx.nd.array([[0, 512]]),
        legacy_gt_centre=False,
        **_ANCHORS,
    )
    expect("multi_proposal_target", "rois", rois, [_LEFT, _RIGHT, _LEFT])
    expect("multi_proposal_target", "label", label, [[7], [0], [7]])
    expect("multi_proposal_target", "bbox_target", target, [[0] * 4, [1] * 4, [0] * 4])
    expect("multi_proposal_target", "bbox_weight", weight, [[1] * 4, [0] * 4, [1] * 4])


SELF_TESTS: Mapping[str, Callable[[], None]] = {
    "multi_proposal": multi_proposal_self_test,
    "multi_proposal_target": multi_proposal_target_self_test,
}
