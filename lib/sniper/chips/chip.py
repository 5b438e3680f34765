"""A chip: one training window of one pyramid level of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

POSITIVE = "positive"
NEGATIVE = "negative"


@dataclass(frozen=True, eq=False)
class Chip:
    """One window of one pyramid level.

    Attributes:
        rect: x1 y1 x2 y2 in image px (the rectangle in scaled px divided by `factor`).
        factor: image px -> chip px.
        height: height of the chip in px, as `im_info` tells it to the network.
        width: width of the chip in px.
        level: row of `SCALES` and `VALID_RANGES`; 0 is the finest.
        rows: (n,) int32, rows of the record's boxes that this chip is trained on.
        kind: `positive` (covers ground truth) or `negative` (covers false alarms).
    """

    rect: tuple[float, float, float, float]
    factor: float
    height: int
    width: int
    level: int
    rows: np.ndarray
    kind: str
