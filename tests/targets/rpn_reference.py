"""RPN targets in NumPy, twice: one step of the 2018 rule after the other, and faster.

Slow and obvious beside `sniper.targets.rpn`; the tests and scripts/bench load this file with runpy.
Both make the dense float32 arrays of the batch: label (A*H*W,), target and weight (4A, H, W).
"""

from __future__ import annotations

import numpy as np

from sniper import boxes as box_ops
from sniper.targets.anchors import shifted_anchors

MASK = 2**64 - 1


class SplitMix:
    """The generator of the C++ code and its draws."""

    def __init__(self, seed):
        self.state = seed & MASK

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def draw(self, candidates, count):
        """`count` different indices of the true entries of `candidates`."""
        taken = set()
        while len(taken) < count:
            index = ((self.next() >> 32) * len(candidates)) >> 32
            if candidates[index]:
                taken.add(index)
        return np.array(sorted(taken), np.int64)

    def choose(self, label, value, limit):
        """`limit` of the anchors with this label, ascending."""
        found = np.flatnonzero(label == value)
        count = min(limit, len(found) - limit)
        if value == 1:
            drawn = found[self.draw(np.ones(len(found), bool), count)]
        else:
            drawn = self.draw(label == value, count)
        return np.sort(drawn) if count == limit else np.setdiff1d(found, drawn)


class NumpyChoice:
    """NumPy's own draw without replacement: fast, but of other subsets."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def choose(self, label, value, limit):
        found = np.flatnonzero(label == value)
        return self.rng.choice(found, limit, replace=False, shuffle=False)


class _Targets:
    def __init__(
        self, base, stride, chip_size, *, batch_size=256, fg_fraction=0.5, positive_overlap=0.5,
        negative_overlap=0.4, ignore_overlap=0.3, border=32,
    ):  # fmt: skip
        self.base = np.asarray(base, np.float64)
        self.stride, self.chip_size, self.border = stride, chip_size, border
        self.cells = chip_size // stride
        self.batch_size, self.max_positives = batch_size, int(batch_size * fg_fraction)
        self.positive_overlap, self.negative_overlap = positive_overlap, negative_overlap
        self.ignore_overlap = ignore_overlap
        self.prepare()

    def empty(self):
        shape = (len(self.base), self.cells, self.cells)
        label = np.empty(np.prod(shape), np.float32)
        planes = np.empty((2, 4 * shape[0], *shape[1:]), np.float32)
        return label, planes[0], planes[1]

    def __call__(self, valid_gt, invalid_gt, sampler, out=None):
        """label, target, weight; `sampler` is a SplitMix or a NumpyChoice, None keeps all."""
        label, target, weight = self.empty() if out is None else out
        marks, matched = self.match(valid_gt, invalid_gt)  # (A, H, W) int8, int
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
            view = target.reshape(len(self.base), 4, self.cells, self.cells)
            view[shape, :, row, column] = box_ops.encode(self.base[shape] + shift, gt)
            weight.reshape(view.shape)[shape, :, row, column] = 1
        return label, target, weight

    @staticmethod
    def _keep(label, value, limit, sampler):
        candidates = label == value
        count, limit = np.count_nonzero(candidates), max(limit, 0)
        if count <= limit:
            return count
        kept = sampler.choose(label, value, limit)
        label[candidates] = -1
        label[kept] = value
        return limit


class MatrixTargets(_Targets):
    """The rule of 2018, literally: the matrix of all overlaps."""

    def prepare(self):
        self.anchors = shifted_anchors(
            self.base.astype(np.float32), self.stride, self.cells, self.cells
        )
        low, high = -self.border, self.chip_size + self.border
        inside = (self.anchors[:, :2] >= low).all(1) & (self.anchors[:, 2:] < high).all(1)
        self.kept = np.flatnonzero(inside)
        self.inside = self._by_shape(inside)

    def _by_shape(self, rows):
        """(H*W*A,) -> (A, H, W)"""
        return rows.reshape(self.cells, self.cells, -1).transpose(2, 0, 1).copy()

    def match(self, valid_gt, invalid_gt):
        label = np.full(len(self.anchors), -1, np.int8)
        matched = np.zeros(len(self.anchors), np.int64)
        part = np.zeros(len(self.kept), np.int8)
        if len(valid_gt):
            overlaps = box_ops.iou(self.anchors[self.kept], valid_gt)
            best, highest = overlaps.max(axis=1), overlaps.max(axis=0)
            part[best >= self.negative_overlap] = -1
            part[((overlaps == highest) & (highest > 0)).any(axis=1)] = 1
            part[best >= self.positive_overlap] = 1
            matched[self.kept] = overlaps.argmax(axis=1)
        if len(invalid_gt):
            overlaps = box_ops.iou(self.anchors[self.kept], invalid_gt)
            part[overlaps.max(axis=1) > self.ignore_overlap] = -1
        label[self.kept] = part
        return self._by_shape(label), self._by_shape(matched)


class FactoredTargets(_Targets):
    """The same with tables: a box costs an outer product of column and row lengths per shape.

    This was the project's implementation before the C++ one.
    """

    def prepare(self):
        cells = np.arange(self.cells) * float(self.stride)
        self._lows = self.base[:, :2, None] + cells  # (A, 2, W)
        self._highs = self.base[:, 2:, None] + cells
        high = self.chip_size + self.border
        self._inside_axis = (self._lows >= -self.border) & (self._highs < high)
        self.inside = self._inside_axis[:, 1, :, None] & self._inside_axis[:, 0, None, :]
        self._areas = box_ops.areas(self.base)[:, None, None]

    def match(self, valid_gt, invalid_gt):
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

    def _iou(self, box):
        sides = np.minimum(self._highs, box[2:, None]) - np.maximum(self._lows, box[:2, None]) + 1
        sides = np.maximum(sides, 0) * self._inside_axis  # (A, 2, W)
        inter = sides[:, 1, :, None] * sides[:, 0, None, :]
        area = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
        union = self._areas + area - inter
        with np.errstate(invalid="ignore", divide="ignore"):  # a box without an area
            return np.divide(inter, union, out=inter)
