"""No more detections of a window than the network was trained to judge."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from sniper.inference.decode import ChipDetections


@dataclass(frozen=True)
class ProposalCap:
    """How many proposals of a window count: as many for an area as a chip of training had.

    The RoI head has only seen the best proposals of each chip that lie in the valid range of its
    level. With more of them, which no training has shown it, it finds objects where nothing is.

    Attributes:
        per_chip: proposals of a chip in training.
        chip_size: side of a chip in training, px of the network's input.
        valid_range: (low, high) of sqrt(area) in image px: boxes of other sizes do not count, and
            are left out, since they are no result of this level; <= 0 is unbounded.
    """

    per_chip: int
    chip_size: int
    valid_range: tuple[float, float]

    def most(self, width: float, height: float) -> int:
        """Proposals of a window of this size, px of the network's input; at least one chip's."""
        return math.ceil(self.per_chip * max(1.0, width * height / self.chip_size**2))

    def apply(self, found: ChipDetections, width: float, height: float) -> ChipDetections:
        """`found` without the detections that are too many.

        Args:
            found: of one window, in the order of the proposals: the best first.
            width: of the window, image px.
            height: of the window, image px.
        """
        most = self.most(width * found.factor, height * found.factor)
        if len(found.boxes) <= most:
            return found
        kept = self._in_range(found.boxes)
        kept &= np.cumsum(kept) <= most
        return replace(found, boxes=found.boxes[kept], scores=found.scores[kept])

    def _in_range(self, boxes: np.ndarray) -> np.ndarray:
        low, high = self.valid_range
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        inside = areas > max(low, 0.0) ** 2
        return inside & (areas <= high**2) if high > 0 else inside
