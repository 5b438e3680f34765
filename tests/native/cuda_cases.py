"""Random inputs of the CUDA launchers, by seed."""

from __future__ import annotations

import numpy as np

from tests.native.cuda_calls import F

# ---- Proposals -----------------------------------------------------------------------------------


def random_maps(seed, n, num_anchors, height, width, spread=0.3):
    rng = np.random.default_rng(seed)
    scores = rng.random((n, 2 * num_anchors, height, width)).astype(F)
    deltas = rng.normal(0, spread, (n, 4 * num_anchors, height, width)).astype(F)
    sizes = rng.integers([8 * height, 8 * width], [16 * height + 1, 16 * width + 1], (n, 2))
    return scores, deltas, np.hstack([sizes, np.ones((n, 1))]).astype(F)


def random_batch(seed, n, height, width, num_gt, max_gt, num_anchors=9):
    """Inputs of the target operators; used rows are not always a prefix."""
    rng = np.random.default_rng(seed)
    scores, deltas, sizes = random_maps(seed, n, num_anchors, height, width)
    gt = np.full((n, max_gt, 5), -1, F)
    for image in range(n):
        corner = rng.integers(0, 8 * min(height, width), (num_gt, 2))
        side = rng.integers(1, 60, (num_gt, 2))
        rows = np.sort(rng.permutation(max_gt)[:num_gt])
        classes = rng.integers(1, 9, (num_gt, 1))
        gt[image, rows] = np.hstack([corner, corner + side, classes])
    ranges = rng.choice([0, 12, 30], (n, 1)) + np.array([[0, 40]])
    return scores.reshape(n, 2, num_anchors * height, width), deltas, sizes, gt, ranges.astype(F)


def random_crowds(seed, n, rows, side):
    """Regions (n, rows, 5) in images of `side` px, some of them no numbers; some rows unused."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, side, (n, rows, 2))
    crowd = np.dstack([corner, corner + rng.integers(1, side, (n, rows, 2)),
                       rng.integers(-1, 2, (n, rows, 1))]).astype(F)  # fmt: skip
    crowd[:, 3::7, 1] = np.nan
    return crowd


def tied_maps(seed, n, num_anchors, height, width):
    """Hundreds of equal scores, and whole tiles that one box suppresses."""
    scores, deltas, sizes = random_maps(seed, n, num_anchors, height, width, spread=0.02)
    scores = np.round(scores, 1)
    scores[-1] = 0.25
    deltas[:, :, height // 4 :, :] -= 2
    sizes[:, :2] = 150
    return scores, deltas, sizes


def strange_maps(seed, n, num_anchors, height, width):
    """Scores and deltas that are no numbers; the last image has no candidate."""
    scores, deltas, sizes = random_maps(seed, n, num_anchors, height, width)
    rng = np.random.default_rng(seed)
    strange = F([np.nan, np.inf, -np.inf, -1, -1.5, -0.0, 0, 1e-40, -1e-40, -0.5, 3e38, -0.999])
    where = rng.random(scores.shape) < 0.8
    scores[where] = rng.choice(strange, where.sum())
    where = rng.random(deltas.shape) < 0.1
    deltas[where] = rng.choice(F([np.nan, np.inf, -np.inf, 90, -90, 200, 1e38]), where.sum())
    scores[-1] = np.nan
    return scores, deltas, sizes


# ---- Masks ---------------------------------------------------------------------------------------


def encode(cls, *segments, length=500):
    """A row of mask_polys: class, number of segments, their lengths, their points."""
    row = np.full(length, -1, np.float32)
    flat = [cls, len(segments), *map(len, segments), *np.concatenate(segments)]
    row[: len(flat)] = flat
    return row


def star(rng, vertices, centre, radius):
    """A ragged polygon around a point; its edges cross scan rows several times."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, vertices))
    radii = radius * rng.uniform(0.1, 1.3, vertices)
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None] + centre
    return points.reshape(-1).astype(np.float32)


def random_masks(seed, rois=12, images=2, polygons=5):
    """Polygons of one to three segments that overlap, rois that cut them or miss them."""
    rng = np.random.default_rng(seed)
    polys = np.full((images, polygons, 500), -1, np.float32)
    centres = rng.uniform(50, 400, (images, polygons, 2))
    boxes, ids = [], []
    for image in range(images):
        for k in range(polygons):
            segments = [
                star(rng, int(rng.integers(1, 80)), centres[image, k] + rng.normal(0, 20, 2), 60)
                for _ in range(int(rng.integers(1, 4)))
            ]
            polys[image, k] = encode(int(rng.integers(0, 80)), *segments)
    for _ in range(rois):
        image, k = int(rng.integers(images)), int(rng.integers(polygons))
        centre = centres[image, k] + rng.normal(0, 30, 2)
        half = rng.uniform(0, 90, 2)
        boxes.append([image, *(centre - half), *(centre + half)])
        ids.append([k])
    return np.float32(boxes), polys, np.float32(ids)


# ---- Detections and chips ------------------------------------------------------------------------


def clustered(rng, count, size=200.0):
    """Detections around a few centres, with scores down to those that soft-NMS drops at once."""
    centres = rng.uniform(0, size, (max(count // 10, 1), 2))
    corners = centres[rng.integers(0, len(centres), count)] + rng.normal(0, 8, (count, 2))
    sides = rng.uniform(5, 90, (count, 2))
    scores = rng.uniform(0, 1, (count, 1)) ** 3 + 0.0011
    return np.hstack([corners, corners + sides, scores]).astype(np.float32)


def make_rows(rng, count, levels=3, classes=4, images=3, size=200.0):
    indices = [rng.integers(0, n, count) for n in (levels, classes, images)]
    return clustered(rng, count, size), *(index.astype(np.float32) for index in indices)


def random_boxes(rng, count, width, height, side):
    """Boxes of which none is padding."""
    corners = rng.uniform(0, [width, height], (count, 2)) - 5
    sides = rng.uniform(5, side, (count, 2))
    return np.hstack([corners, corners + sides]).astype(np.float32)


# ---- Pooling -------------------------------------------------------------------------------------


def random_pooling(
    seed, *, images=2, channels=5, classes=1, group=1, pooled=3, part=0, samples=3, rois=7,
    height=9, width=11, scale=1 / 8,
):  # fmt: skip
    """Arrays and attributes; `channels` per class, `classes` 0: no offsets. RoIs of all sizes,
    partly or wholly outside the map."""
    rng = np.random.default_rng(seed)
    output_dim = max(classes, 1) * channels
    corners = rng.uniform(-40, max(height, width) / scale + 40, (rois, 2, 2))
    corners.sort(axis=1)
    image = rng.integers(0, images, (rois, 1))
    data = rng.standard_normal((images, output_dim * group**2, height, width))
    boxes = np.hstack([image, corners.reshape(rois, 4)])
    cells = part or pooled
    trans = rng.standard_normal((rois, 2 * classes, cells, cells)) if classes else None
    head = rng.standard_normal((rois, output_dim, pooled, pooled))
    attributes = {
        "spatial_scale": scale,
        "output_dim": output_dim,
        "pooled_size": pooled,
        "group_size": group,
        "part_size": part,
        "sample_per_part": samples,
        "trans_std": 0.1,
    }
    arrays = [None if a is None else a.astype(np.float32) for a in (data, boxes, trans, head)]
    return arrays, attributes


def random_roi_maxima(
    seed, *, images=2, channels=5, pooled=7, rois=7, height=9, width=11, scale=1 / 8
):
    """Arrays (data with ties, rois, head) and attributes."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-40, max(height, width) / scale + 40, (rois, 2, 2))
    corners.sort(axis=1)
    boxes = np.hstack([rng.integers(0, images, (rois, 1)), corners.reshape(rois, 4)])
    data = np.round(rng.normal(0, 3, (images, channels, height, width)))
    head = rng.standard_normal((rois, channels))
    attributes = {"pooled_size": pooled, "spatial_scale": scale}
    return [array.astype(np.float32) for array in (data, boxes, head)], attributes
