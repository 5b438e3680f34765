"""From detections in px of the network's input to those in px of the image."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from sniper.boxes import LAST_PX
from sniper.loader.windows import TestBatch
from sniper.models.class_scores import Scores
from sniper.models.parts import WindowDetections


@dataclass(frozen=True, eq=False)
class ChipDetections:
    """What the network found in one window of one level.

    Attributes:
        image_index: row of the image in the list of records.
        chip_index: which window of the image.
        boxes: (R, 4) float32, px of the original image, relative to the window's origin.
        scores: (R, C) class probabilities, or the few that count; (R,) objectness of an RPN-only
            network.
        factor: px of the original image -> px of the network's input.
        roi_map: (K, h, w) what the mask head reads; None where it was not asked for.
        focus_map: (h, w) float32 probability of small objects, of the padded window; None without
            the branch of AutoFocus.
        mirrored: what was found in the mirrored window, at its place in this one; None: it was not
            looked at.
    """

    image_index: int
    chip_index: int
    boxes: np.ndarray
    scores: Scores
    factor: float = 1.0
    roi_map: np.ndarray | None = None
    focus_map: np.ndarray | None = None
    mirrored: ChipDetections | None = None


def to_image(boxes: np.ndarray, factor: np.float32, *, legacy: bool) -> np.ndarray:
    """Boxes (n, 4) in network px as float32 in image px: the inverse of `boxes_in_chip`.

    Args:
        boxes: inclusive corners.
        factor: image px -> network px.
        legacy: see `sniper.targets.gt.boxes_in_chip`.
    """
    if legacy:
        return (boxes / factor).astype(np.float32)
    return ((boxes + LAST_PX) / factor - LAST_PX).astype(np.float32)


def decode_batch(
    windows: Sequence[WindowDetections],
    batch: TestBatch,
    *,
    legacy: bool = False,
    skip_strides: Collection[int] = (),
) -> list[ChipDetections]:
    """Detections of every window of a batch in px of its image, padding left out.

    Args:
        windows: what the network found, px of its input.
        batch: the input.
        legacy: boxes as the network was trained with, see `sniper.targets.gt.boxes_in_chip`.
        skip_strides: what maps of these strides find does not count.

    Raises:
        ConfigError: strides are to be skipped, but the network has one map.
    """
    found = []
    for row in np.flatnonzero(~batch.is_padding).tolist():
        window, factor = windows[row], batch.im_info[row, 2]
        boxes, scores = window.without_strides(skip_strides)
        detections = ChipDetections(
            int(batch.image_index[row]),
            int(batch.chip_index[row]),
            to_image(boxes, factor, legacy=legacy),
            scores,
            float(factor),
            window.maps.get("roi"),
            window.maps.get("focus"),
        )
        found.append(detections)
    return found
