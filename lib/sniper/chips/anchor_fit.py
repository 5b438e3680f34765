"""How well anchors fit the boxes that chips are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sniper import boxes as box_ops
from sniper.chips.checks import check_positive
from sniper.chips.measures import evenly
from sniper.targets.anchors import AnchorGrid

# Boxes compared at a time: 21,504 anchors of a 2018 chip x 64 IoUs take 11 MB.
_BLOCK = 64


@dataclass(frozen=True, eq=False)
class AnchorFit:
    """How well anchors fit the boxes that chips are trained on: n boxes.

    Attributes:
        side: (n,) float64, square root of the box's area, chip px.
        best_iou: (n,) float64, largest IoU of an anchor with the box.
        num_positive: (n,) int64, anchors with an IoU of at least `threshold`.
        by_grid: (G, n) int64, the same for each of several maps.
        threshold: the IoU.
    """

    side: np.ndarray
    best_iou: np.ndarray
    num_positive: np.ndarray
    by_grid: np.ndarray
    threshold: float

    @property
    def share(self) -> float:
        """Share of the boxes whose best anchor reaches the threshold; 1 without boxes."""
        return float((self.best_iou >= self.threshold).mean()) if len(self.best_iou) else 1.0


def anchor_fit(
    boxes_chip: np.ndarray,
    grids: Sequence[AnchorGrid],
    chip_size: int,
    *,
    threshold: float = 0.5,
    limit: int = 1000,
) -> AnchorFit:
    """Matches trained boxes with the anchors of a chip.

    Args:
        boxes_chip: (n, 4) float32, chip px; evenly spread rows are taken when there are more than
            `limit`.
        grids: the anchors of each map.
        chip_size: side of a chip in px.
        threshold: IoU from which an anchor counts.
        limit: most boxes to look at.
    """
    check_positive("anchor_fit", chip_size=chip_size, limit=limit)
    boxes = evenly(boxes_chip, limit).astype(np.float64)
    for grid in grids:
        check_positive("anchor_fit", stride=grid.stride)
    anchors = [grid.trained(chip_size) for grid in grids]
    ends = np.cumsum([0, *map(len, anchors)])
    joined = np.concatenate([np.zeros((0, 4), np.float32), *anchors])
    best, positive = [np.zeros(0)], [np.zeros((len(grids), 0), np.int64)]
    for start in range(0, len(boxes), _BLOCK):
        overlaps = box_ops.iou(joined, boxes[start : start + _BLOCK])  # (anchors, block)
        best.append(overlaps.max(axis=0, initial=0))
        reached = overlaps >= threshold
        positive.append(np.stack([reached[a:b].sum(axis=0) for a, b in zip(ends, ends[1:])]))
    sides = boxes[:, 2:] - boxes[:, :2]
    by_grid = np.concatenate(positive, axis=1)
    return AnchorFit(
        side=np.sqrt(sides[:, 0] * sides[:, 1]),
        best_iou=np.concatenate(best),
        num_positive=by_grid.sum(axis=0),
        by_grid=by_grid,
        threshold=threshold,
    )
