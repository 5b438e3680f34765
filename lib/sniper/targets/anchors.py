"""Anchor boxes of the region proposal network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sniper import boxes
from sniper.errors import ConfigError

ROUNDINGS = ("legacy", "half_up")
# Of anchors with boxes that nothing is learned from (`AnchorMiningTarget`).
IGNORE_OVERLAP = 0.3


# So far anchors that an RPN trains may stick out of a chip (2018).
RPN_BORDER_PX = 32


@dataclass(frozen=True, eq=False)
class AnchorGrid:
    """The anchors of one feature map.

    Attributes:
        base: (A, 4) float32 those of the cell in row 0, column 0, chip px.
        stride: px per cell.
        border_px: so far a trained anchor may stick out.
        all_if_none_inside: where all stick out further, all are trained.
    """

    base: np.ndarray
    stride: int
    border_px: float
    all_if_none_inside: bool = False

    def positives(
        self,
        gt: np.ndarray,
        ignored: np.ndarray,
        content_hw: tuple[float, float],
        chip_size: int,
        overlap: float,
    ) -> np.ndarray:
        """Which anchors can be positive in `AnchorMiningTarget`: (A, H, W) float32, 1, else -1.

        Args:
            gt: (n, 4) trained boxes, chip px.
            ignored: (m, 4) boxes that nothing is learned from, chip px.
            content_hw: height and width of the part of the chip that holds the image, px.
            chip_size: side of the chip, px.
            overlap: least IoU with a box.
        """
        cells = -(-chip_size // self.stride)
        anchors = shifted_anchors(self.base, self.stride, cells, cells)
        positive = self._inside(anchors, *content_hw)
        positive &= boxes.iou(anchors, gt).max(axis=1, initial=0) >= overlap
        positive &= boxes.iou(anchors, ignored).max(axis=1, initial=0) <= IGNORE_OVERLAP
        label = np.where(positive, 1, -1).astype(np.float32)
        return label.reshape(cells, cells, len(self.base)).transpose(2, 0, 1)

    def trained(self, chip_size: int) -> np.ndarray:
        """(n, 4) float32 anchors of a full chip that may be trained."""
        cells = -(-chip_size // self.stride)
        anchors = shifted_anchors(self.base, self.stride, cells, cells)
        return anchors[self._inside(anchors, chip_size, chip_size)]

    def _inside(self, anchors: np.ndarray, height: float, width: float) -> np.ndarray:
        inside = (anchors[:, :2] >= -self.border_px).all(axis=1)
        inside &= (anchors[:, 2:] < np.add([width, height], self.border_px)).all(axis=1)
        return inside | (self.all_if_none_inside and not inside.any())


def base_anchors(
    stride: int, ratios: Sequence[float], scales: Sequence[float], rounding: str = "legacy"
) -> np.ndarray:
    """Anchors of the feature cell in row 0, column 0.

    Args:
        stride: side of a feature cell in chip px.
        ratios: height / width of the anchors.
        scales: side of the anchors in multiples of the stride.
        rounding: how the sides of the windows of scale 1 are rounded. `legacy` rounds halves to
            even, as the RPN targets of 2018 did; `half_up` rounds as the operators do. The two
            differ at stride 32 only.

    Returns:
        (A, 4) float32, chip px, ratio-major and scale-minor.

    Raises:
        ConfigError: an argument is not positive, or the rounding is unknown.
    """
    if rounding not in ROUNDINGS:
        raise ConfigError(
            "unknown rounding of anchors", got=rounding, expected=" or ".join(ROUNDINGS)
        )
    if stride < 1 or not ratios or not scales or min(*ratios, *scales) <= 0:
        raise ConfigError(
            "anchors need a positive stride, and at least one positive ratio and scale",
            got=f"stride {stride}, ratios {list(ratios)}, scales {list(scales)}",
        )
    sides = [_window(stride, ratio, rounding) for ratio in ratios]
    sizes = np.array([(w * s, h * s) for w, h in sides for s in scales], np.float64)  # (A, 2)
    # A side of n px reaches from pixel 0 to pixel n - 1: corners are centres of pixels.
    centre = (stride - 1) / 2
    half = (sizes - 1) / 2
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def shifted_anchors(base: np.ndarray, stride: int, height: int, width: int) -> np.ndarray:
    """All anchors of a feature map: (A, 4) -> (height * width * A, 4) float32, chip px.

    Anchor `a` of the cell (row, column) is at index `(row * width + column) * A + a`.
    """
    rows, columns = np.mgrid[:height, :width].astype(np.float32) * stride
    shifts = np.stack([columns, rows, columns, rows], axis=-1)  # (H, W, 4)
    return (shifts[:, :, None] + base).reshape(-1, 4).astype(np.float32)


def _window(stride: int, ratio: float, rounding: str) -> tuple[int, int]:
    """Width and height of the window of scale 1."""
    area = stride * stride
    if rounding == "legacy":
        width = round(math.sqrt(area / ratio))
        return width, round(width * ratio)
    width = math.floor(math.sqrt(math.floor(area / ratio)) + 0.5)
    return width, math.floor(width * ratio + 0.5)
