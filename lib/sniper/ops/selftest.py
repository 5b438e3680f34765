"""Quick numeric self-tests of all operators, for `sniper doctor`: hand-computed examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypedDict

import mxnet as mx
import numpy as np

from sniper.errors import OpsError
from sniper.ops.anchor_targets import anchor_mining_target
from sniper.ops.chips import chip_generator
from sniper.ops.deformable_conv import deformable_columns, deformable_convolution
from sniper.ops.masks import mask_rcnn_target
from sniper.ops.nms import multi_scale_nms
from sniper.ops.proposal_targets import (
    multi_proposal_target,
    multi_proposal_target_fine,
    multi_proposal_target_mask,
)
from sniper.ops.proposals import multi_proposal
from sniper.ops.psroi import deformable_psroi_pooling
from sniper.ops.relu6 import relu6
from sniper.ops.roi_pooling import roi_max_mean_pooling
from sniper.ops.winograd_conv import winograd_convolution


class _Anchors(TypedDict):
    scales: tuple[float, ...]
    ratios: tuple[float, ...]
    feature_stride: int
    post_nms_top_n: int


# Two cells of 16 px in a 16 x 32 px image: the anchors are (0, 0, 15, 15) and (16, 0, 31, 15).
_ANCHORS: _Anchors = {"scales": (1,), "ratios": (1,), "feature_stride": 16, "post_nms_top_n": 3}
_IM_INFO = [[16, 32, 1]]
_LEFT, _RIGHT = [0, 0, 0, 15, 15], [0, 16, 0, 31, 15]


def expect(op: str, output: str, got: mx.nd.NDArray, wanted: object) -> None:
    """Raises OpsError unless `got` equals `wanted` (shape and, within 1e-5, values)."""
    values = got.asnumpy()
    target = np.asarray(wanted, np.float32)
    if values.shape != target.shape or not np.allclose(values, target, rtol=1e-5, atol=1e-5):
        raise OpsError(
            f"the self-test of {op} failed: wrong numbers on this machine",
            where=f"output '{output}'",
            got=values.tolist(),
            expected=target.tolist(),
            fix="rebuild the native code with `bash scripts/compile.sh --force`",
        )


def check_multi_proposal() -> None:
    """Zero deltas give the anchors back, best first; the third row is empty."""
    scores = mx.nd.array([0.1, 0.2, 0.8, 0.9]).reshape((1, 2, 1, 2))  # background, then foreground
    rois, score = multi_proposal(
        scores, mx.nd.zeros((1, 4, 1, 2)), mx.nd.array(_IM_INFO), **_ANCHORS
    )
    expect("multi_proposal", "rois", rois, [_RIGHT, _LEFT, [0] * 5])
    expect("multi_proposal", "score", score, [0.9, 0.8, 0])


def check_multi_proposal_target() -> None:
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
    op = "multi_proposal_target"
    expect(op, "rois", rois, [_LEFT, _RIGHT, _LEFT])
    expect(op, "label", label, [[7], [0], [7]])
    expect(op, "bbox_target", target, [[0] * 4, [1] * 4, [0] * 4])
    expect(op, "bbox_weight", weight, [[1] * 4, [0] * 4, [1] * 4])


def check_multi_proposal_target_mask() -> None:
    """The left anchor and the GT box itself train masks of polygon 1."""
    rois, label, target, weight, mask_rois, mask_ids = multi_proposal_target_mask(
        mx.nd.array([0.1, 0.2, 0.9, 0.8]).reshape((1, 2, 1, 2)),
        mx.nd.zeros((1, 4, 1, 2)),
        mx.nd.array(_IM_INFO),
        mx.nd.array([[[-1] * 5, [0, 0, 15, 15, 7]]]),
        mx.nd.array([[0, 512]]),
        max_masks=3,
        legacy_gt_centre=False,
        **_ANCHORS,
    )
    op = "multi_proposal_target_mask"
    expect(op, "rois", rois, [_LEFT, _RIGHT, _LEFT])
    expect(op, "label", label, [[7], [0], [7]])
    expect(op, "bbox_target", target, [[0] * 4, [1] * 4, [0] * 4])
    expect(op, "bbox_weight", weight, [[1] * 4, [0] * 4, [1] * 4])
    expect(op, "mask_rois", mask_rois, [_LEFT, _LEFT, [0, 2, 2, 102, 102]])
    expect(op, "mask_ids", mask_ids, [[1], [1], [-1]])


def check_multi_proposal_target_fine() -> None:
    """The left anchor and the GT box itself are of class 7, which is of super-class 2."""
    rois, label, _, weight, fine_rois, fine_label = multi_proposal_target_fine(
        mx.nd.array([0.1, 0.2, 0.9, 0.8]).reshape((1, 2, 1, 2)),
        mx.nd.zeros((1, 4, 1, 2)),
        mx.nd.array(_IM_INFO),
        mx.nd.array([[[0, 0, 15, 15, 7], [16, 0, 31, 15, 8]]]),
        mx.nd.array([[0, 512]]),
        super_of=(1, 1, 1, 1, 1, 1, 2),  # no class 8
        max_fine=3,
        **_ANCHORS,
    )
    op = "multi_proposal_target_fine"
    expect(op, "rois", rois, [_LEFT, _RIGHT, _LEFT])
    expect(op, "label", label, [[2], [0], [2]])
    expect(op, "bbox_weight", weight, [[1] * 4, [0] * 4, [1] * 4])
    expect(op, "fine_rois", fine_rois, [_LEFT, _LEFT, [0, 2, 2, 102, 102]])
    expect(op, "fine_label", fine_label, [[6], [6], [-1]])


def check_anchor_mining_target() -> None:
    """Of two anchors on faces the worse one is kept, of two on background the better one."""
    label, target, weight, count = anchor_mining_target(
        mx.nd.array([0.1, 0.2, 0.4, 0.3, 0.9, 0.8, 0.6, 0.7]).reshape((1, 2, 1, 4)),
        mx.nd.array([[16, 64, 1]]),
        mx.nd.array([[[*_LEFT[1:], 1], [16, 0, 31, 7, 1], [-1] * 5]]),
        scales=(1,),
        feature_stride=16,
        batch_size=2,
        fg_fraction=0.5,
    )
    op = "anchor_mining_target"
    expect(op, "label", label, [[-1, 1, -1, 0]])
    shrink = [[0, value, 0, 0] for value in (0, -0.25, 0, np.log(0.5))]
    expect(op, "bbox_target", target[0, :, 0], shrink)
    expect(op, "bbox_weight", weight[0, :, 0], [[0, 0.5, 0, 0]] * 4)
    expect(op, "count", count, [[1, 2]])


def check_mask_rcnn_target() -> None:
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


def check_chip_generator() -> None:
    """Two far boxes need two chips, and the box that fits into no chip gets none."""
    boxes = mx.nd.array([[2, 2, 9, 9], [80, 82, 90, 92], [0, 0, 99, 9], [-1, -1, -1, -1]])
    chips, count = chip_generator(
        boxes, width=100, height=100, factor=1.0, chip_size=20, stride=80, max_chips=3
    )
    expect("chip_generator", "count", count, [2])
    ordered = mx.nd.array(sorted(chips.asnumpy()[:2].tolist()))
    expect("chip_generator", "chips", ordered, [[0, 0, 19, 19], [80, 80, 99, 99]])
    expect("chip_generator", "padding", chips[2], [-1, -1, -1, -1])


def check_multi_scale_nms() -> None:
    """One image: the range drops a row, an overlap of 1/3 decays another."""
    dets = mx.nd.array(
        [[0, 0, 9, 9, 0.5], [0, 0, 29, 9, 0.6], [50, 50, 59, 54, 0.4], [50, 51, 99, 99, 0.9]]
    )
    merged, classes, images, count = multi_scale_nms(
        dets,
        mx.nd.array([0, 0, 0, 0]),
        mx.nd.array([1, 1, 2, 1]),
        mx.nd.array([3, 3, 3, 3]),
        mx.nd.array([[0, 20]]),
        sigma=0.5,
    )
    decayed = 0.5 * np.exp(-((1 / 3) ** 2) / 0.5)
    expect("multi_scale_nms", "count", count, [3])
    expect("multi_scale_nms", "scores", merged[:3, 4], [0.6, decayed, 0.4])
    expect("multi_scale_nms", "classes", classes, [1, 1, 2, -1])
    expect("multi_scale_nms", "images", images, [3, 3, 3, -1])


def check_deformable_psroi_pooling() -> None:
    """A ramp in x: bin means, their shift by an offset, and the gradients are known."""
    data = mx.nd.array(np.tile(np.arange(8, dtype=np.float32), (1, 1, 8, 1)))
    rois = mx.nd.array([[0, 2, 2, 5, 5]])  # 4 px wide: two bins that begin at 1.5 and 3.5
    trans = mx.nd.array(np.stack([np.full((2, 2), 0.6), np.zeros((2, 2))])[None])
    data.attach_grad()
    trans.attach_grad()
    with mx.autograd.record():
        pooled = deformable_psroi_pooling(
            data, rois, trans, spatial_scale=1.0, output_dim=1, pooled_size=2, trans_std=0.5
        )
    pooled.backward()
    op = "deformable_psroi_pooling"
    expect(op, "output", pooled[0, 0], [[3.45, 5.45], [3.45, 5.45]])
    expect(op, "offset gradient", trans.grad[0, :, 0], [[2, 2], [0, 0]])
    expect(op, "data gradient", data.grad.sum(), [4])


def check_deformable_convolution() -> None:
    """A ramp in x: what is read, what lies outside, and the gradients are known."""
    data = mx.nd.array(np.arange(4, dtype=np.float32).reshape(1, 1, 1, 4))
    offset = mx.nd.array([[0, 0, 0, 0], [0.25, 0.5, 0.5, 1]]).reshape((1, 2, 1, 4))
    weight, bias = mx.nd.array([2]).reshape((1, 1, 1, 1)), mx.nd.array([10])
    tensors = (data, offset, weight, bias)
    for tensor in tensors:
        tensor.attach_grad()
    with mx.autograd.record():
        output = deformable_convolution(*tensors, num_filter=1, kernel=(1, 1))
    output.backward(mx.nd.array([1, 2, 3, 4]).reshape((1, 1, 1, 4)))
    op = "deformable_convolution"
    expect(op, "output", output[0, 0, 0], [10.5, 13, 15, 10])
    expect(op, "data gradient", data.grad[0, 0, 0], [1.5, 2.5, 5, 3])
    expect(op, "offset gradient", offset.grad[0, :, 0], [[0, 0, 0, 0], [2, 4, 6, 0]])
    expect(op, "weight gradient", weight.grad.reshape(-1), [10.75])
    expect(op, "bias gradient", bias.grad, [10])


def check_deformable_columns() -> None:
    """A ramp in x, between two cells, behind the last one's centre and outside."""
    data = mx.nd.array(np.arange(4, dtype=np.float32).reshape(1, 1, 1, 4))
    offset = mx.nd.array([[0, 0, 0, 0], [0.25, 0.5, 1.5, 1]]).reshape((1, 2, 1, 4))
    columns = deformable_columns(data, offset, kernel=(1, 1))
    expect("deformable_columns", "columns", columns[0, 0, 0], [0.25, 1.5, 3, 0])


def check_roi_max_mean_pooling() -> None:
    """A ramp in x: the maxima are known, and the first of equal ones takes the gradient."""
    data = mx.nd.array(np.tile(np.arange(4, dtype=np.float32), (1, 1, 4, 1)))
    data.attach_grad()
    with mx.autograd.record():
        pooled = roi_max_mean_pooling(
            data, mx.nd.array([[0, 0, 0, 3, 3], [0, 2, 2, 2, 2]]), spatial_scale=1.0, pooled_size=2
        )
    pooled.backward(mx.nd.array([[4], [0]]))
    op = "roi_max_mean_pooling"
    expect(op, "output", pooled, [[2], [2]])
    expect(op, "gradient", data.grad[0, 0], [[0, 1, 0, 1], [0] * 4, [0, 1, 0, 1], [0] * 4])


def check_relu6() -> None:
    """The gradient passes at both limits."""
    data = mx.nd.array([-1, 0, 2.5, 6, 7])
    data.attach_grad()
    with mx.autograd.record():
        output = relu6(data)
    output.backward(mx.nd.array([1, 2, 3, 4, 5]))
    expect("relu6", "output", output, [0, 0, 2.5, 6, 6])
    expect("relu6", "gradient", data.grad, [0, 2, 3, 4, 0])


def check_winograd_convolution() -> None:
    """Sums of ones: four cells at a corner, six at an edge, nine inside."""
    ones = mx.nd.ones((1, 1, 4, 4)), mx.nd.ones((1, 1, 3, 3)), mx.nd.array([-5])
    output = winograd_convolution(*ones, num_filter=1, pad=(1, 1), relu=True)
    rows = [[0, 1, 1, 0], [1, 4, 4, 1], [1, 4, 4, 1], [0, 1, 1, 0]]
    expect("winograd_convolution", "output", output[0, 0], rows)


SELF_TESTS: Mapping[str, Callable[[], None]] = {
    "multi_proposal": check_multi_proposal,
    "multi_proposal_target": check_multi_proposal_target,
    "multi_proposal_target_mask": check_multi_proposal_target_mask,
    "multi_proposal_target_fine": check_multi_proposal_target_fine,
    "anchor_mining_target": check_anchor_mining_target,
    "mask_rcnn_target": check_mask_rcnn_target,
    "chip_generator": check_chip_generator,
    "multi_scale_nms": check_multi_scale_nms,
    "deformable_psroi_pooling": check_deformable_psroi_pooling,
    "deformable_columns": check_deformable_columns,
    "deformable_convolution": check_deformable_convolution,
    "roi_max_mean_pooling": check_roi_max_mean_pooling,
    "relu6": check_relu6,
    "winograd_convolution": check_winograd_convolution,
}
