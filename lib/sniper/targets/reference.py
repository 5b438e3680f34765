"""How anchors are matched with boxes and sampled: the slow reference of the compiled code.

`sniper.targets.rpn` does the same work in C++ (`native/rpn_targets`); tests and scripts/bench
compare the two. A network never runs this file. It is here to be read:

An *anchor* is a box of one of A shapes that stands at one of the H x W cells of the feature map.
The region proposal network says of each how likely it holds an object, and how to move and stretch
it onto that object. What it is to say, its *target*, is made of the ground truth in two steps.

**Matching** (Ren et al., Faster R-CNN, section 3.1.2, with the thresholds of 2018). The label of an
anchor is 1, object, if its IoU with a ground-truth box is `positive_overlap` (0.5) or more, or if
no other anchor overlaps some box more: a box that fits no anchor well still gets its best one. It
is 0, background, if its IoU with every box is below `negative_overlap` (0.4), and -1, not trained,
in between. The box target is the difference to the box with the highest IoU.

SNIPER (section 3.4) splits the boxes in a chip: *valid* ones, whose size lies in the valid range of
the chip's pyramid level, take part in all that; *invalid* ones are too small or too large here and
are learned on another level. An anchor with an IoU above `ignore_overlap` (0.3) with an invalid box
is not trained, whatever else it matches: it is neither an object of this level nor background.

**Sampling**. There are thousands of background anchors for every object. Of the positives at most
`fg_fraction` (half) of `batch_size` (256) are kept, then negatives until the batch is full; all
others get -1. The draw is by chance but repeatable: a seed for each chip and epoch.

Anchors that stick out of the chip by more than `border` (32) px are never trained.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np

from sniper import boxes as box_ops
from sniper.targets.anchors import shifted_anchors

_MASK_64 = 2**64 - 1

Dense = tuple[np.ndarray, np.ndarray, np.ndarray]


class Sampler(Protocol):
    """What draws the anchors that are kept."""

    def choose(self, label: np.ndarray, value: int, limit: int) -> np.ndarray:
        """Indices of `limit` different ones of the anchors with this label, of which are more."""


class _Targets(ABC):
    """RPN targets of one chip; matching is left to the two classes below.

    Args:
        base: (A, 4) anchors of the first feature cell, chip px.
        stride: side of a feature cell, chip px.
        chip_size: side of the chip, px.
        batch_size, fg_fraction, positive_overlap, negative_overlap, ignore_overlap, border,
            crowd_ioa: see the top of this file and `sniper.targets.rpn.RpnTargets`.
    """

    def __init__(
        self,
        base: np.ndarray,
        stride: int,
        chip_size: int,
        *,
        batch_size: int = 256,
        fg_fraction: float = 0.5,
        positive_overlap: float = 0.5,
        negative_overlap: float = 0.4,
        ignore_overlap: float = 0.3,
        border: float = 32,
        crowd_ioa: float = 0.9,
    ) -> None:
        self.base = np.asarray(base, np.float64)
        self.stride, self.chip_size, self.border = stride, chip_size, border
        self.cells = chip_size // stride
        self.batch_size, self.max_positives = batch_size, int(batch_size * fg_fraction)
        self.positive_overlap, self.negative_overlap = positive_overlap, negative_overlap
        self.ignore_overlap, self.crowd_ioa = ignore_overlap, crowd_ioa
        self.inside = self.prepare()

    @abstractmethod
    def prepare(self) -> np.ndarray:
        """Tables that all chips share; returns which anchors are trained at all, (A, H, W) bool."""

    @abstractmethod
    def match(self, valid_gt: np.ndarray, invalid_gt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels (A, H, W) int8, and the row of the best valid box of each anchor, (A, H, W)."""

    def __call__(
        self,
        valid_gt: np.ndarray,
        invalid_gt: np.ndarray,
        sampler: Sampler | None,
        out: Dense | None = None,
        crowd: np.ndarray | None = None,
    ) -> Dense:
        """Label (A*H*W,), box target and its weight (4A, H, W): the arrays of a batch, float32.

        Args:
            valid_gt: (n, 4) float32, chip px: boxes that the chip's level is responsible for.
            invalid_gt: (m, 4) float32, chip px: all other boxes in the chip.
            sampler: draws the anchors; None keeps all.
            out: arrays to be written to; None makes new ones.
            crowd: (k, 4) float32, chip px: regions of many objects. What lies there is not trained
                as background; 2018 had none.
        """
        label, target, weight = self.empty() if out is None else out
        marks, matched = self.match(valid_gt, invalid_gt)
        if crowd is not None:
            marks[(marks == 0) & self._in_crowd(crowd)] = -1
        flat = marks.reshape(-1)
        if sampler is not None:
            positives = self._keep(flat, 1, self.max_positives, sampler)
            self._keep(flat, 0, self.batch_size - positives, sampler)
        label[:] = flat
        target[:], weight[:] = 0, 0
        shape, row, column = np.nonzero(marks == 1)
        if len(shape):
            shift = np.stack([column, row, column, row], axis=1) * float(self.stride)
            gt = np.asarray(valid_gt, np.float64)[matched[shape, row, column]]
            # Channels 4a ... 4a + 3 belong to shape a: dx, dy in units of its sides, log ratios.
            view = target.reshape(len(self.base), 4, self.cells, self.cells)
            view[shape, :, row, column] = box_ops.encode(self.base[shape] + shift, gt)
            weight.reshape(view.shape)[shape, :, row, column] = 1
        return label, target, weight

    def _in_crowd(self, crowd: np.ndarray) -> np.ndarray:
        """Which anchors (A, H, W) have more than `crowd_ioa` of their area in one region."""
        within = np.zeros((len(self.base), self.cells, self.cells), bool)
        for shape, row, column in np.ndindex(within.shape):
            x1, y1, x2, y2 = self.base[shape] + np.tile([column, row], 2) * float(self.stride)
            area = (x2 - x1 + 1) * (y2 - y1 + 1)
            for left, top, right, bottom in np.asarray(crowd, np.float64):
                width = max(min(x2, right) - max(x1, left) + 1, 0)
                height = max(min(y2, bottom) - max(y1, top) + 1, 0)
                within[shape, row, column] |= width * height / area > self.crowd_ioa
        return within

    def empty(self) -> Dense:
        """Arrays for a result."""
        shape = (len(self.base), self.cells, self.cells)
        label = np.empty(np.prod(shape), np.float32)
        planes = np.empty((2, 4 * shape[0], *shape[1:]), np.float32)
        return label, planes[0], planes[1]

    @staticmethod
    def _keep(label: np.ndarray, value: int, limit: int, sampler: Sampler) -> int:
        """Sets what is too much of a label to -1; returns how many are left."""
        candidates = label == value
        count, limit = int(np.count_nonzero(candidates)), max(limit, 0)
        if count <= limit:
            return count
        kept = sampler.choose(label, value, limit)
        label[candidates] = -1
        label[kept] = value
        return limit


class MatrixTargets(_Targets):
    """Literally: the matrix of the overlaps of all anchors with all boxes."""

    def prepare(self) -> np.ndarray:
        """See there."""
        self.anchors = shifted_anchors(
            self.base.astype(np.float32), self.stride, self.cells, self.cells
        )
        low, high = -self.border, self.chip_size + self.border
        inside = (self.anchors[:, :2] >= low).all(1) & (self.anchors[:, 2:] < high).all(1)
        self.kept = np.flatnonzero(inside)
        return self._by_shape(inside)

    def match(self, valid_gt: np.ndarray, invalid_gt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See there."""
        label = np.full(len(self.anchors), -1, np.int8)
        matched = np.zeros(len(self.anchors), np.int64)
        part = np.zeros(len(self.kept), np.int8)  # background, as long as nothing is in the way
        if len(valid_gt):
            overlaps = box_ops.iou(self.anchors[self.kept], valid_gt)  # (anchors, boxes)
            best_of_anchor, best_of_box = overlaps.max(axis=1), overlaps.max(axis=0)
            part[best_of_anchor >= self.negative_overlap] = -1
            # All anchors that share the highest IoU of a box; a box that none touches has none.
            part[((overlaps == best_of_box) & (best_of_box > 0)).any(axis=1)] = 1
            part[best_of_anchor >= self.positive_overlap] = 1
            matched[self.kept] = overlaps.argmax(axis=1)
        if len(invalid_gt):
            overlaps = box_ops.iou(self.anchors[self.kept], invalid_gt)
            part[overlaps.max(axis=1) > self.ignore_overlap] = -1
        label[self.kept] = part
        return self._by_shape(label), self._by_shape(matched)

    def _by_shape(self, rows: np.ndarray) -> np.ndarray:
        """(H*W*A,) -> (A, H, W)."""
        return rows.reshape(self.cells, self.cells, -1).transpose(2, 0, 1).copy()


class FactoredTargets(_Targets):
    """The same with tables: a box costs an outer product of column and row lengths per shape.

    This was the project's implementation before the C++ one, and is the peer that it is timed with.
    """

    def prepare(self) -> np.ndarray:
        """See there."""
        cells = np.arange(self.cells) * float(self.stride)
        self._lows = self.base[:, :2, None] + cells  # (A, 2, W)
        self._highs = self.base[:, 2:, None] + cells
        high = self.chip_size + self.border
        self._inside_axis = (self._lows >= -self.border) & (self._highs < high)
        self._areas = box_ops.areas(self.base)[:, None, None]
        return self._inside_axis[:, 1, :, None] & self._inside_axis[:, 0, None, :]

    def match(self, valid_gt: np.ndarray, invalid_gt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See there."""
        matched = np.zeros(self.inside.shape, np.int32)
        label = np.zeros(self.inside.shape, np.int8)
        if len(valid_gt):
            best = np.zeros(self.inside.shape)
            positive = np.zeros(self.inside.shape, bool)
            for row, box in enumerate(np.asarray(valid_gt, np.float64)):
                overlap = self._iou(box)
                highest = overlap.max()
                if highest > 0:
                    positive |= overlap == highest
                better = overlap > best
                np.copyto(best, overlap, where=better)
                np.copyto(matched, row, where=better)
            label = np.where(best < self.negative_overlap, np.int8(0), np.int8(-1))
            label[positive | (best >= self.positive_overlap)] = 1
        for box in np.asarray(invalid_gt, np.float64):
            label[self._iou(box) > self.ignore_overlap] = -1
        label[~self.inside] = -1
        return label, matched

    def _iou(self, box: np.ndarray) -> np.ndarray:
        sides = np.minimum(self._highs, box[2:, None]) - np.maximum(self._lows, box[:2, None]) + 1
        sides = np.maximum(sides, 0) * self._inside_axis  # (A, 2, W)
        inter = sides[:, 1, :, None] * sides[:, 0, None, :]
        area = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
        union = self._areas + area - inter
        with np.errstate(invalid="ignore", divide="ignore"):  # a box without an area
            return np.divide(inter, union, out=inter)


class SplitMix:
    """The draws of the C++ code (Steele et al., 2014, SplitMix64): the same seed, the same anchors.

    Args:
        seed: 64 bits.
    """

    def __init__(self, seed: int) -> None:
        self.state = seed & _MASK_64

    def next(self) -> int:
        """64 random bits."""
        self.state = (self.state + 0x9E3779B97F4A7C15) & _MASK_64
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK_64
        return z ^ (z >> 31)

    def draw(self, candidates: np.ndarray, count: int) -> np.ndarray:
        """`count` different indices of the true entries of `candidates`, ascending."""
        taken: set[int] = set()
        while len(taken) < count:
            index = ((self.next() >> 32) * len(candidates)) >> 32
            if candidates[index]:
                taken.add(index)
        return np.array(sorted(taken), np.int64)

    def choose(self, label: np.ndarray, value: int, limit: int) -> np.ndarray:
        """`limit` of the anchors with this label, ascending; the smaller share is drawn."""
        found = np.flatnonzero(label == value)
        count = min(limit, len(found) - limit)
        if value == 1:
            drawn = found[self.draw(np.ones(len(found), bool), count)]
        else:
            drawn = self.draw(label == value, count)
        return np.sort(drawn) if count == limit else np.setdiff1d(found, drawn)


class NumpyChoice:
    """NumPy's own draw without replacement: fast, but of other anchors."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def choose(self, label: np.ndarray, value: int, limit: int) -> np.ndarray:
        """`limit` of the anchors with this label."""
        found = np.flatnonzero(label == value)
        return self.rng.choice(found, limit, replace=False, shuffle=False)
