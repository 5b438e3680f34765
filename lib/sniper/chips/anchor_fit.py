"""How well anchors fit the boxes that chips are trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sniper import boxes as box_ops
from sniper.chips.checks import check_positive
from sniper.chips.measures import evenly
from sniper.targets.anchors import shifted_anchors

# Anchors may stick out of the chip by this much and still be trained.
_BORDER_PX = 32
# Boxes compared at a time: 21,504 anchors of a 2018 chip x 64 IoUs take 11 MB.
_BLOCK = 64


@dataclass(frozen=True, eq=False)
class AnchorFit:
    """How well anchors fit the boxes that chips are trained on: n boxes.

    Attributes:
        side: (n,) float64, square root of the box's area, chip px.
        best_iou: (n,) float64, largest IoU of an anchor with the box.
        num_positive: (n,) int64, anchors with an IoU of at least `threshold`.
        threshold: the IoU.
    """

    side: np.ndarray
    best_iou: np.ndarray
    num_positive: np.ndarray
    threshold: float

    @property
    def share(self) -> float:
        """Share of the boxes whose best anchor reaches the threshold; 1 without boxes."""
        return float((self.best_iou >= self.threshold).mean()) if len(self.best_iou) else 1.0


def anchor_fit(
    boxes_chip: np.ndarray,
    base_anchors: np.ndarray,
    stride: int,
    chip_size: int,
    *,
    threshold: float = 0.5,
    limit: int = 1000,
) -> AnchorFit:
    """Matches trained boxes with the anchors of a chip.

    Args:
        boxes_chip: (n, 4) float32, chip px; evenly spread rows are taken when there are more than
            `limit`.
        base_anchors: (A, 4) float32, see `sniper.targets.anchors.base_anchors`.
        stride: px per feature cell.
        chip_size: side of a chip in px.
        threshold: IoU from which an anchor counts.
        limit: most boxes to look at.
    """
    check_positive("anchor_fit", stride=stride, chip_size=chip_size, limit=limit)
    boxes = evenly(boxes_chip, limit).astype(np.float64)
    cells = chip_size // stride
    anchors = shifted_anchors(base_anchors, stride, cells, cells)
    inside = (anchors[:, :2] >= -_BORDER_PX).all(axis=1)
    inside &= (anchors[:, 2:] < chip_size + _BORDER_PX).all(axis=1)
    anchors = anchors[inside]
    best, positive = [np.zeros(0)], [np.zeros(0, np.int64)]
    for start in range(0, len(boxes), _BLOCK):
        overlaps = box_ops.iou(anchors, boxes[start : start + _BLOCK])  # (anchors, block)
        best.append(overlaps.max(axis=0, initial=0))
        positive.append((overlaps >= threshold).sum(axis=0))
    sides = boxes[:, 2:] - boxes[:, :2]
    return AnchorFit(
        side=np.sqrt(sides[:, 0] * sides[:, 1]),
        best_iou=np.concatenate(best),
        num_positive=np.concatenate(positive),
        threshold=threshold,
    )
