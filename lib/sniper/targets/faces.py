"""What a network without proposals needs to know of a chip: objects, and what to leave alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sniper.errors import ConfigError
from sniper.targets.contract import BatchArray, ChipTruth, Labels

UNUSED = -1


class FaceLabels(Labels):
    """Objects of the chip that its level trains, and boxes that nothing is learned from.

    `gt_boxes` holds the former, x1 y1 x2 y2 class in chip px. `ignore_boxes` holds the objects of
    other levels, those that are cut too much, and the crowd regions, in the same form. Used rows
    come first, the others are -1; `im_info` is height, width and scale of the chip's content.

    Args:
        max_gt: rows of each of the two.

    Raises:
        ConfigError: there are no rows.
    """

    data = (BatchArray("im_info", (3,)),)

    def __init__(self, max_gt: int) -> None:
        if max_gt < 1:
            raise ConfigError(
                "a chip needs room for at least one box", where="TRAIN.MAX_GT", got=max_gt
            )
        self.label = (
            BatchArray("gt_boxes", (max_gt, 5)),
            BatchArray("ignore_boxes", (max_gt, 5)),
        )

    def write(self, truth: ChipTruth, row: Mapping[str, np.ndarray]) -> int:
        """See `Labels`; returns the boxes without room."""
        gt, chip = truth.gt, truth.chip
        row["im_info"][...] = chip.height, chip.width, chip.factor
        objects = np.column_stack([gt.boxes, gt.classes]).astype(np.float32)
        crowd = np.pad(truth.crowd_boxes, ((0, 0), (0, 1)))
        ignored = np.concatenate([objects[~gt.valid], crowd])
        return _fill(row["gt_boxes"], objects[gt.valid]) + _fill(row["ignore_boxes"], ignored)


def _fill(rows: np.ndarray, boxes: np.ndarray) -> int:
    """Writes as many boxes as there are rows; returns the others."""
    used = min(len(rows), len(boxes))
    rows[...] = UNUSED
    rows[:used] = boxes[:used]
    return len(boxes) - used
