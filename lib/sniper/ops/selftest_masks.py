"""Quick numeric self-tests of the operators that train the mask head: hand-computed examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import mxnet as mx

from sniper.ops.masks import mask_rcnn_target
from sniper.ops.proposal_targets import multi_proposal_target_mask
from sniper.ops.selftest_expect import expect


def multi_proposal_target_mask_self_test() -> None:
    """Two cells of 16 px; the left anchor and the GT box itself train masks of polygon 1."""
    left, right = [0, 0, 0, 15, 15], [0, 16, 0, 31, 15]
    rois, label, target, weight, mask_rois, mask_ids = multi_proposal_target_mask(
        mx.nd.array([0.1, 0.2, 0.9, 0.8]).reshape((1, 2, 1, 2)),
        mx.nd.zeros((1, 4, 1, 2)),
        mx.nd.array([[16, 32, 1]]),
        mx.nd.array([[[-1] * 5, [0, 0, 15, 15, 7]]]),
        mx.nd.array([[0, 512]]),
        scales=(1,),
        ratios=(1,),
        feature_stride=16,
        post_nms_top_n=3,
        max_masks=3,
        legacy_gt_centre=False,
    )
    op = "multi_proposal_target_mask"
    expect(op, "rois", rois, [left, right, left])
    expect(op, "label", label, [[7], [0], [7]])
    expect(op, "bbox_target", target, [[0] * 4, [1] * 4, [0] * 4])
    expect(op, "bbox_weight", weight, [[1] * 4, [0] * 4, [1] * 4])
    expect(op, "mask_rois", mask_rois, [left, left, [0, 2, 2, 102, 102]])
    expect(op, "mask_ids", mask_ids, [[1], [1], [-1]])


def mask_rcnn_target_self_test() -> None:
    """A square of 2 x 2 px in a roi of 4 x 4 px, and a roi without a polygon."""
    square = [6, 1, 8, 11, 21, 13, 21, 13, 23, 11, 23]
    targets, classes = mask_rcnn_target(
        mx.nd.array([[0, 10, 20, 14, 24], [0, 10, 20, 14, 24]]),
        mx.nd.array([[square]]),
        mx.nd.array([[0], [-1]]),
        mask_size=4,
    )
    mask = [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    expect("mask_rcnn_target", "mask_targets", targets, [mask, [[-1] * 4] * 4])
    expect("mask_rcnn_target", "mask_cls", classes, [[[6] * 4] * 4, [[0] * 4] * 4])


SELF_TESTS: Mapping[str, Callable[[], None]] = {
    "multi_proposal_target_mask": multi_proposal_target_mask_self_test,
    "mask_rcnn_target": mask_rcnn_target_self_test,
}
