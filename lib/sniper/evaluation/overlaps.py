"""Overlaps of boxes that stand in pairs."""

from __future__ import annotations

import numpy as np


def paired_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU (+1 sides) of corresponding rows: (n, 4), (n, 4) -> (n,)."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]) + 1
    inter = np.maximum(sides, 0).prod(axis=1)
    areas = [(box[:, 2:] - box[:, :2] + 1).prod(axis=1) for box in (a, b)]
    return inter / (areas[0] + areas[1] - inter)
