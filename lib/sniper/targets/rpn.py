"""Labels and regression targets of the region proposal network for one chip."""

from __future__ import annotations

import numpy as np

from sniper import boxes as box_ops
from sniper.errors import ConfigError


class RpnTargets:
    """Matches the anchors of a chip with its ground truth (2018 behaviour, `__call__` tells it).

    Anchors lie on a grid, so that the overlap of an anchor with a box is the product of one
    factor that depends on its column and one that depends on its row. The tables of both are made
    once; a box then costs one outer product instead of the full intersection arithmetic.

    Args:
        base_anchors: (A, 4) float32, anchors of the first feature cell, chip px.
        stride: side of a feature cell in chip px.
        chip_size: side of the chip in px, a multiple of the stride.
        batch_size: most anchors with a label of 0 or 1.
        fg_fraction: largest share of the positives among them.
        positive_overlap: an anchor is positive from this IoU with a valid box on.
        negative_overlap: an anchor is negative below this IoU with every valid box.
        ignore_overlap: an anchor above this IoU with an invalid box is not trained.
        border: anchors that stick out of the chip by more than this many px are not trained.
    """

    def __init__(
        self,
        base_anchors: np.ndarray,
        stride: int,
        chip_size: int,
        *,
        batch_size: int = 256,
        fg_fraction: float = 0.5,
        positive_overlap: float = 0.5,
        negative_overlap: float = 0.4,
        ignore_overlap: float = 0.3,
        border: float = 32,
    ) -> None:
        if stride < 1 or chip_size < stride or chip_size % stride:
            raise ConfigError(
                "the chip size must be a multiple of the feature stride",
                got=f"chip size {chip_size}, stride {stride}",
            )
        self.batch_size = batch_size
        self.max_positives = int(batch_size * fg_fraction)
        self.positive_overlap = positive_overlap
        self.negative_overlap = negative_overlap
        self.ignore_overlap = ignore_overlap
        self.stride = stride
        self.base = np.asarray(base_anchors, np.float64)
        cells = np.arange(chip_size // stride) * float(stride)
        lows = self.base[:, :2, None] + cells  # (A, 2, W)
        highs = self.base[:, 2:, None] + cells
        self._lows = lows
        self._highs = highs
        self._inside_axis = (lows >= -border) & (highs < chip_size + border)
        self.inside = self._inside_axis[:, 1, :, None] & self._inside_axis[:, 0, None, :]
        self._areas = box_ops.areas(self.base)[:, None, None]

    def __call__(
        self, valid_gt: np.ndarray, invalid_gt: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Targets of one chip.

        Positive are, for every valid box, the anchors with the largest IoU with it (all ties), and
        all anchors with IoU >= `positive_overlap`; these overlap with no invalid box by more than
        `ignore_overlap`. At most `max_positives` of them and then negatives up to `batch_size` are
        kept by chance. Without valid boxes every other anchor is negative.

        Args:
            valid_gt: (n, 4) float32, chip px: boxes that this chip's level is responsible for.
            invalid_gt: (m, 4) float32, chip px: all other boxes in the chip.
            rng: source of the sampling.

        Returns:
            label (A*H*W,) float32 of -1 / 0 / 1 in the order (A, H, W); bbox_target (4A, H, W)
            float32, channel 4a + k; bbox_weight of the same shape, 1 at positives.
        """
        label, matched = self._match(valid_gt)
        for box in np.asarray(invalid_gt, np.float64):
            label[self._iou(box) > self.ignore_overlap] = -1
        label[~self.inside] = -1
        flat = label.reshape(-1)
        positives = _keep_at_most(flat, 1, self.max_positives, rng)
        _keep_at_most(flat, 0, self.batch_size - positives, rng)
        target, weight = self._regression(label, matched, valid_gt)
        return flat.astype(np.float32), target, weight

    def _match(self, valid_gt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels before sampling, int8 (A, H, W), and the row of the best valid box of each."""
        best = np.zeros(self.inside.shape)
        matched = np.zeros(self.inside.shape, np.int32)
        if not len(valid_gt):
            return np.zeros(self.inside.shape, np.int8), matched
        positive = np.zeros(self.inside.shape, bool)
        for row, box in enumerate(np.asarray(valid_gt, np.float64)):
            overlap = self._iou(box)
            highest = overlap.max()
            # A box that no anchor touches must not make every anchor positive (H-22).
            if highest > 0:
                positive |= overlap == highest
            better = overlap > best
            np.copyto(best, overlap, where=better)
            np.copyto(matched, row, where=better)
        label = np.where(best < self.negative_overlap, np.int8(0), np.int8(-1))
        label[positive | (best >= self.positive_overlap)] = 1
        return label, matched

    def _iou(self, box: np.ndarray) -> np.ndarray:
        """IoU of every anchor with one box, float64 (A, H, W); 0 for anchors that are not inside.

        The +1 widths and double precision are those of `sniper.boxes.iou`, to the last bit.
        """
        sides = np.minimum(self._highs, box[2:, None]) - np.maximum(self._lows, box[:2, None]) + 1
        sides = np.maximum(sides, 0) * self._inside_axis  # (A, 2, W)
        inter = sides[:, 1, :, None] * sides[:, 0, None, :]
        area = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
        union = self._areas + area - inter
        return np.divide(inter, union, out=inter)

    def _regression(
        self, label: np.ndarray, matched: np.ndarray, valid_gt: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        anchors, height, width = label.shape
        target = np.zeros((anchors, 4, height, width), np.float32)
        weight = np.zeros((anchors, 4, height, width), np.float32)
        a, row, column = np.nonzero(label == 1)
        if len(a):
            shift = np.stack([column, row, column, row], axis=1) * float(self.stride)
            gt = np.asarray(valid_gt, np.float64)[matched[a, row, column]]
            target[a, :, row, column] = box_ops.encode(self.base[a] + shift, gt)
            weight[a, :, row, column] = 1
        shape = (4 * anchors, height, width)
        return target.reshape(shape), weight.reshape(shape)


def _keep_at_most(label: np.ndarray, value: int, limit: int, rng: np.random.Generator) -> int:
    """Sets a random surplus of the entries equal to `value` to -1; returns how many remain."""
    found = np.flatnonzero(label == value)
    if len(found) <= limit:
        return len(found)
    kept = rng.choice(found, max(limit, 0), replace=False, shuffle=False)
    label[found] = -1
    label[kept] = value
    return len(kept)
