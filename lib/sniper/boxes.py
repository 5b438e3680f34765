"""Box arithmetic on float32 (N, 4) arrays `x1 y1 x2 y2` with inclusive corners (NumPy only).

Widths are `x2 - x1 + 1` here, as in 2018. The places that use `x2 - x1` instead (valid ranges,
chip generation) say so themselves; the two conventions must not be unified.
"""

from __future__ import annotations

import numpy as np

# Keeps the logarithm and the division of `encode` finite for empty boxes (2018 behaviour).
ENCODE_EPSILON = 1e-7


def areas(boxes: np.ndarray) -> np.ndarray:
    """Areas with +1 widths: (N, 4) -> (N,), in the dtype of `boxes`."""
    return (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)


def _intersections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection areas (+1 widths) of every pair, float64: (N, 4), (M, 4) -> (N, M)."""
    a = np.asarray(a, np.float64)[:, None]
    b = np.asarray(b, np.float64)[None]
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0]) + 1
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1]) + 1
    return np.maximum(width, 0) * np.maximum(height, 0)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair, float64: (N, 4), (M, 4) -> (N, M)."""
    inter = _intersections(a, b)
    union = areas(np.asarray(a, np.float64))[:, None] + areas(np.asarray(b, np.float64)) - inter
    return inter / union


def clip(boxes: np.ndarray, height: float, width: float) -> np.ndarray:
    """Copy of `boxes` (N, 4k) clipped to `[0, width - 1] x [0, height - 1]`."""
    if height == width:  # a chip, of which there are many: all columns at once
        return np.maximum(np.minimum(boxes, width - 1), 0)
    clipped = boxes.copy()
    clipped[:, 0::2] = np.maximum(np.minimum(boxes[:, 0::2], width - 1), 0)
    clipped[:, 1::2] = np.maximum(np.minimum(boxes[:, 1::2], height - 1), 0)
    return clipped


# What corners that name the last pixel are short of where it ends.
LAST_PX = np.array([0, 0, 1, 1], np.float32)


def encode(boxes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Regression deltas (dx, dy, dw, dh) that move `boxes` onto `targets`; both (N, 4)."""
    width = boxes[:, 2] - boxes[:, 0] + 1
    height = boxes[:, 3] - boxes[:, 1] + 1
    centre_x = boxes[:, 0] + 0.5 * (width - 1)
    centre_y = boxes[:, 1] + 0.5 * (height - 1)
    target_width = targets[:, 2] - targets[:, 0] + 1
    target_height = targets[:, 3] - targets[:, 1] + 1
    target_x = targets[:, 0] + 0.5 * (target_width - 1)
    target_y = targets[:, 1] + 0.5 * (target_height - 1)
    return np.stack(
        [
            (target_x - centre_x) / (width + ENCODE_EPSILON),
            (target_y - centre_y) / (height + ENCODE_EPSILON),
            np.log(target_width / (width + ENCODE_EPSILON)),
            np.log(target_height / (height + ENCODE_EPSILON)),
        ],
        axis=1,
    )


def decode(boxes: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """Inverse of `encode`: moves `boxes` (N, 4) by `deltas` (N, 4). dw and dh are not capped."""
    width = boxes[:, 2] - boxes[:, 0] + 1
    height = boxes[:, 3] - boxes[:, 1] + 1
    centre_x = deltas[:, 0] * width + boxes[:, 0] + 0.5 * (width - 1)
    centre_y = deltas[:, 1] * height + boxes[:, 1] + 0.5 * (height - 1)
    half_width = 0.5 * (np.exp(deltas[:, 2]) * width - 1)
    half_height = 0.5 * (np.exp(deltas[:, 3]) * height - 1)
    return np.stack(
        [
            centre_x - half_width,
            centre_y - half_height,
            centre_x + half_width,
            centre_y + half_height,
        ],
        axis=1,
    )


def flip(boxes: np.ndarray, width: float) -> np.ndarray:
    """Copy of `boxes` (N, 4) mirrored horizontally in an image `width` px wide."""
    flipped = boxes.copy()
    flipped[:, 0] = width - boxes[:, 2] - 1
    flipped[:, 2] = width - boxes[:, 0] - 1
    return flipped
