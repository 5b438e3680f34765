"""Inputs of the operator that mines anchors for tests."""

from __future__ import annotations

import numpy as np

F = np.float32
M1 = {"scales": (1, 2), "feature_stride": 8}
M2 = {"scales": (4, 8), "feature_stride": 16}
M3 = {"scales": (16, 32), "feature_stride": 32, "border": 512}
MODULES = {"m1": M1, "m2": M2, "m3": M3}


def random_boxes(rng, images, rows, side):
    """Boxes (images, rows, 5) in and around images of `side` px; some rows are not used."""
    corner = rng.uniform(-0.1 * side, side, (images, rows, 2))
    sides = np.exp(rng.uniform(0, np.log(side), (images, rows, 1)))
    far = corner + sides * rng.uniform(0.7, 1.4, (images, rows, 2))
    boxes = np.dstack([corner, far, rng.integers(-1, 2, (images, rows, 1))])
    # Half of them on whole px, so that anchors have equal overlaps.
    boxes[:, ::2] = np.round(boxes[:, ::2])
    return boxes.astype(F)


def faces_on_anchors(rng, shape, height, width, scales, feature_stride):
    """Boxes (*shape, 5) that some anchor of 16 px times a scale fits more or less."""
    sides = 16 * rng.choice(scales, (*shape, 1))
    cells = rng.integers(0, [width, height], (*shape, 2))
    corners = 8 + feature_stride * cells - sides / 2 + sides * rng.uniform(-0.1, 0.1, (*shape, 2))
    far = corners + sides * rng.uniform(0.8, 1.2, (*shape, 2))
    return np.dstack([corners, far, np.ones((*shape, 1))]).astype(F)


def random_mining(rng, images, height, width, rows, ignored, *, scales, feature_stride, **_):
    """cls_prob, im_info, gt_boxes of a module, and ignore_boxes (None without rows)."""
    side = feature_stride * max(height, width)
    anchors = len(scales)
    scores = rng.random((images, 2, anchors * height, width))
    scores[:, :, ::3] = np.round(scores[:, :, ::3], 1)  # ties
    sizes = rng.uniform(0.6, 1, (images, 3)) * [feature_stride * height, feature_stride * width, 1]
    gt = random_boxes(rng, images, rows, side)
    gt[:, 1::2] = faces_on_anchors(
        rng, gt[:, 1::2].shape[:2], height, width, scales, feature_stride
    )
    boxes = random_boxes(rng, images, ignored, side) if ignored else None
    return [scores.astype(F), np.round(sizes).astype(F), gt], boxes
