"""Windows that are seen mirrored as well (test-time flipping)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sniper.boxes import flip
from sniper.inference.executor import Executor
from sniper.models.parts import WindowDetections


def run_mirrored(
    executor: Executor, data: np.ndarray, im_info: np.ndarray
) -> list[WindowDetections]:
    """What a network finds in mirrored windows, at its place in the windows as they are.

    Maps are left out: FocusChips and masks come from the windows as they are.

    Args:
        executor: the network.
        data: (B, 3, h, w) float32; the content of a window is at its top left.
        im_info: (B, 3) float32: height and width of the content, px, and its scale.
    """
    mirrored = np.zeros_like(data)
    widths = [round(float(width)) for width in im_info[:, 1]]
    for window, target, width in zip(data, mirrored, widths):
        target[:, :, :width] = window[:, :, :width][:, :, ::-1]
    return [
        replace(found, boxes=flip(found.boxes, width), maps={})
        for found, width in zip(executor.run(mirrored, im_info), widths)
    ]
