"""Inputs of the cases: random, and clustered as a trained proposal network makes them.

Random scores let an NMS stop early and random boxes hardly overlap, so random inputs flatter
everybody. In the clustered inputs a few objects pull boxes and scores towards them.
"""

from __future__ import annotations

import numpy as np

STRIDE_PX = 16
SCALES = (2.0, 4.0, 7.0, 10.0, 13.0, 16.0, 24.0)
RATIOS = (0.5, 1.0, 2.0)
NUM_ANCHORS = len(SCALES) * len(RATIOS)
OBJECTS = (8, 40)  # of a clustered image, both inclusive


def base_anchors() -> np.ndarray:
    """Anchors of the first cell, (21, 4) float32 px, ratio-major."""
    rows = []
    centre = 0.5 * (STRIDE_PX - 1)
    for ratio in RATIOS:
        width = np.floor(np.sqrt(np.floor(STRIDE_PX**2 / ratio)) + 0.5)
        height = np.floor(width * ratio + 0.5)
        for scale in SCALES:
            half = 0.5 * (np.array([width, height]) * scale - 1)
            rows.append([*(centre - half), *(centre + half)])
    return np.array(rows, np.float32)


def all_anchors(height: int, width: int) -> np.ndarray:
    """Anchors of a map, (21, height, width, 4) float32 px."""
    y, x = np.mgrid[:height, :width].astype(np.float32) * STRIDE_PX
    return base_anchors()[:, None, None, :] + np.stack([x, y, x, y], axis=-1)


def objects(rng: np.random.Generator, height_px: float, width_px: float, count: int) -> np.ndarray:
    """Boxes of objects, (count, 4) float32 px; sizes log-uniform from 24 px to 60 % of a side."""
    short = min(height_px, width_px)
    sides = np.exp(rng.uniform(np.log(24), np.log(0.6 * short), (count, 1)))
    aspect = np.exp(rng.normal(0, 0.35, (count, 1)))
    sizes = np.minimum(np.hstack([sides * aspect, sides / aspect]), [width_px - 1, height_px - 1])
    corners = rng.uniform(0, 1, (count, 2)) * ([width_px, height_px] - sizes)
    return np.hstack([corners, corners + sizes - 1]).astype(np.float32)


def iou(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """IoU (+1 sides) of (..., 4) boxes with one box."""
    width = np.minimum(boxes[..., 2], box[2]) - np.maximum(boxes[..., 0], box[0]) + 1
    height = np.minimum(boxes[..., 3], box[3]) - np.maximum(boxes[..., 1], box[1]) + 1
    inter = np.maximum(width, 0) * np.maximum(height, 0)
    areas = (boxes[..., 2] - boxes[..., 0] + 1) * (boxes[..., 3] - boxes[..., 1] + 1)
    return inter / (areas + (box[2] - box[0] + 1) * (box[3] - box[1] + 1) - inter)


def encode(anchors: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Deltas (dx, dy, dw, dh) that move anchors to boxes, both (n, 4)."""
    sizes, wanted = anchors[:, 2:] - anchors[:, :2] + 1, boxes[:, 2:] - boxes[:, :2] + 1
    shift = (boxes[:, 2:] + boxes[:, :2] - anchors[:, 2:] - anchors[:, :2]) / 2
    return np.hstack([shift / sizes, np.log(wanted / sizes)]).astype(np.float32)


def decode(anchors: np.ndarray, deltas: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """Boxes of anchors (n, 4) moved by deltas (n, 4), clipped to the image."""
    sizes = anchors[:, 2:] - anchors[:, :2] + 1
    centres = (anchors[:, 2:] + anchors[:, :2]) / 2 + deltas[:, :2] * sizes
    half = (np.exp(deltas[:, 2:]) * sizes - 1) / 2
    limits = np.array([width_px - 1, height_px - 1], np.float32)
    return np.hstack(
        [np.clip(centres - half, 0, limits), np.clip(centres + half, 0, limits)]
    ).astype(np.float32)


def distinct(scores: np.ndarray) -> np.ndarray:
    """Scores moved by a few units in the last place so that no two of them are equal.

    Peers break ties in their own ways; which of two equal boxes wins is not what we compare.
    """
    bits = np.sort(scores.ravel()).astype(np.float32).view(np.int32).astype(np.int64)
    steps = np.arange(len(bits))
    bits = np.maximum.accumulate(bits - steps) + steps
    result = np.empty(scores.size, np.float32)
    result[np.argsort(scores.ravel(), kind="stable")] = bits.astype(np.int32).view(np.float32)
    return result.reshape(scores.shape)


def rpn_image(
    rng: np.random.Generator, height: int, width: int, clustered: bool, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """RPN outputs of one image: scores (21, h, w) and deltas (21, h, w, 4), float32.

    `noise` is the standard deviation of the clustered scores' logits: the more, the more background
    is among the best boxes.
    """
    shape = (NUM_ANCHORS, height, width)
    deltas = rng.normal(0, 0.1, (*shape, 4)).astype(np.float32)
    if not clustered:
        return distinct(rng.uniform(0.001, 0.999, shape)), deltas
    anchors = all_anchors(height, width)
    found = objects(
        rng, height * STRIDE_PX, width * STRIDE_PX, int(rng.integers(*OBJECTS, endpoint=True))
    )
    overlaps = np.stack([iou(anchors, box) for box in found])
    owner, overlap = overlaps.argmax(axis=0), overlaps.max(axis=0)
    logits = 14 * (overlap - 0.5) + rng.normal(0, noise, shape)
    scores = distinct(np.clip(1 / (1 + np.exp(-logits)), 1e-4, 0.999))
    near = overlap > 0.2
    # The better an anchor fits, the more surely it is moved onto its object.
    trust = np.clip(overlap[near] * 1.6, 0, 0.97)[:, None]
    deltas[near] *= 1.2 - trust
    deltas[near] += trust * encode(anchors[near], found[owner[near]])
    return scores, deltas


def rpn_maps(
    rng: np.random.Generator, height: int, width: int, images: int, clustered: bool
) -> dict[str, np.ndarray]:
    """Inputs of the proposal operators.

    Returns:
        cls_prob (N, 42, h, w), bbox_pred (N, 84, h, w), im_info (N, 3), all float32.
    """
    foreground, deltas = zip(*(rpn_image(rng, height, width, clustered) for _ in range(images)))
    scores = np.stack(foreground)
    planes = np.stack(deltas).transpose(0, 1, 4, 2, 3)
    info = [height * STRIDE_PX, width * STRIDE_PX, 1]
    return {
        "cls_prob": np.concatenate([1 - scores, scores], axis=1),
        "bbox_pred": np.ascontiguousarray(planes.reshape(images, -1, height, width)),
        "im_info": np.tile(np.array(info, np.float32), (images, 1)),
    }


def top_boxes(
    rng: np.random.Generator, count: int, clustered: bool, noise: float = 1.0
) -> np.ndarray:
    """The best `count` boxes of one RPN map with their scores, (count, 5), in random order.

    The corners lie on a grid of 1/16 px, where x2 - x1 + 1 and (x2 + 1) - x1 are the same float32:
    so a peer without the +1 convention gets x2 + 1 and y2 + 1 and computes identical overlaps.
    """
    height, width = (50, 80) if count <= 6000 else (88, 125)
    scores, deltas = rpn_image(rng, height, width, clustered, noise)
    boxes = decode(
        all_anchors(height, width).reshape(-1, 4),
        deltas.reshape(-1, 4),
        height * STRIDE_PX,
        width * STRIDE_PX,
    )
    boxes = np.round(boxes * 16) / 16
    big = ((boxes[:, 2:] - boxes[:, :2] + 1) >= 3).all(axis=1)
    best = np.argsort(-np.where(big, scores.ravel(), -1), kind="stable")[:count]
    rows = np.hstack([boxes[best], scores.ravel()[best, None]]).astype(np.float32)
    return rows[rng.permutation(count)]
