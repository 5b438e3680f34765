"""Quick numeric self-tests of chip generation, merging and pooling: hand-computed examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import mxnet as mx
import numpy as np

from sniper.ops.chips import chip_generator
from sniper.ops.nms import multi_scale_nms
from sniper.ops.psroi import deformable_psroi_pooling
from sniper.ops.selftest_expect import expect


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


SELF_TESTS: Mapping[str, Callable[[], None]] = {
    "chip_generator": check_chip_generator,
    "multi_scale_nms": check_multi_scale_nms,
    "deformable_psroi_pooling": check_deformable_psroi_pooling,
}
