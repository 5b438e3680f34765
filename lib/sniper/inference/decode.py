"""From what a network puts out for a batch of windows to boxes and scores of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sniper import boxes as box_ops
from sniper.inference.executor import NetworkOutputs
from sniper.loader.windows import TestBatch


@dataclass(frozen=True, eq=False)
class ChipDetections:
    """What the network found in one window of one level.

    Attributes:
        image_index: row of the image in the list of records.
        chip_index: which window of the image.
        boxes: (R, 4) float32, px of the original image, relative to the window's origin.
        scores: (R, C) class probabilities, or (R,) objectness of an RPN-only network.
        factor: px of the original image -> px of the network's input.
        roi_map: (K, h, w) what the mask head reads; None where it was not asked for.
        focus_map: (h, w) float32 probability of small objects, of the padded window; None without
            the branch of AutoFocus.
    """

    image_index: int
    chip_index: int
    boxes: np.ndarray
    scores: np.ndarray
    factor: float = 1.0
    roi_map: np.ndarray | None = None
    focus_map: np.ndarray | None = None


def decode_batch(outputs: NetworkOutputs, batch: TestBatch) -> list[ChipDetections]:
    """Detections of every window of a batch, padding left out."""
    return [_decode_window(outputs, batch, int(row)) for row in np.flatnonzero(~batch.is_padding)]


def _decode_window(outputs: NetworkOutputs, batch: TestBatch, row: int) -> ChipDetections:
    height, width, factor = batch.im_info[row]
    rois = boxes = outputs.rois[row]  # (R, 4)
    if outputs.deltas is not None:
        boxes = box_ops.clip(box_ops.decode(rois, outputs.deltas[row]), height, width)
    # Slots that no proposal filled are zero boxes.
    filled = np.any(rois != 0, axis=1)
    return ChipDetections(
        int(batch.image_index[row]),
        int(batch.chip_index[row]),
        (boxes[filled] / factor).astype(np.float32),
        outputs.scores[row][filled],
        float(factor),
        None if outputs.roi_map is None else outputs.roi_map[row],
        None if outputs.focus_map is None else outputs.focus_map[row],
    )
