"""Inputs of the proposal operators for tests."""

from __future__ import annotations

import numpy as np

F = np.float32
RESNET = {"scales": (2, 4, 7, 10, 13, 16, 24), "ratios": (0.5, 1, 2), "feature_stride": 16}
SMALL = {"scales": (1, 2), "ratios": (0.5, 1.5), "feature_stride": 16}


def random_maps(rng, n, anchors, height, width, spread=0.3):
    """Foreground plane, deltas and image sizes with cells outside some images."""
    scores = rng.random((n, 2 * anchors, height, width)).astype(F)
    deltas = rng.normal(0, spread, (n, 4 * anchors, height, width)).astype(F)
    image_heights = rng.integers(8 * height, 16 * height + 1, n)
    image_widths = rng.integers(8 * width, 16 * width + 1, n)
    return scores, deltas, np.stack([image_heights, image_widths, np.ones(n)], 1).astype(F)


def random_targets(rng, n=2, gt_rows=6):
    """Inputs of the target operators for SMALL on a 5 x 7 map."""
    scores, deltas, sizes = random_maps(rng, n, 4, 5, 7)
    gt = np.full((n, gt_rows, 5), -1, F)
    for image in range(n):
        count = int(rng.integers(0, gt_rows + 1))
        corner = rng.integers(0, 50, (count, 2))
        far = corner + rng.integers(0, 50, (count, 2))
        gt[image, :count] = np.hstack([corner, far, rng.integers(1, 9, (count, 1))])
    ranges = np.array([[0, 30], [12, 512]], F)[rng.integers(0, 2, n)]
    return scores.reshape(n, 2, 20, 7), deltas, sizes, gt, ranges
