"""Training samples of chips in plain cv2 and NumPy, as somebody would write them for a DataLoader.

Every chip by itself: read the image, mirror it, cut, resize, subtract the means; move, round and
clip the boxes; RPN labels of all anchors with one table of lengths per axis, sampling, regression
targets; dense float32 arrays. Needs NumPy and OpenCV, and nothing of the project.
"""

from __future__ import annotations

import ctypes
import math
import signal
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

CHIP_PX, STRIDE, CELLS, MAX_GT, MIN_SIDE = 512, 16, 32, 100, 10
RATIOS, SCALES = (0.5, 1, 2), (2, 4, 7, 10, 13, 16, 24)
PIXEL_MEANS = (103.939, 116.779, 123.68)  # BGR
BATCH_ANCHORS, MAX_POSITIVES = 256, 128
POSITIVE, NEGATIVE, IGNORE, BORDER = 0.5, 0.4, 0.3, 32
PR_SET_PDEATHSIG = 1

Sample = dict[str, np.ndarray]


class PlainChips:
    """Sample i of a list of chips; the arrays are those that the case's inputs hold."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        import cv2

        self.cv2 = cv2
        self.arrays = arrays
        self.anchors = PlainRpn()
        self.chips = arrays["offsets"][arrays["samples"][:, 0]] + arrays["samples"][:, 1]

    def __len__(self) -> int:
        return len(self.chips)

    def __getitem__(self, index: int) -> Sample:
        arrays, record = self.arrays, int(self.arrays["samples"][index, 0])
        chip = int(self.chips[index])
        rect, factor = arrays["rects"][chip], float(arrays["factor"][chip])
        valid, others, gt_boxes = self.boxes(record, chip, rect, factor)
        label, target, weight = self.anchors(valid, others, np.random.default_rng(index))
        low, high = arrays["valid_ranges"][arrays["level"][chip]]
        size = (arrays["height"][chip], arrays["width"][chip], factor)
        return {
            "data": self.pixels(record, rect, factor),
            "valid_ranges": np.array(
                [max(low, 0) * factor, CHIP_PX if high < 0 else high * factor], np.float32
            ),
            "im_info": np.array(size, np.float32),
            "label": label,
            "bbox_target": target,
            "bbox_weight": weight,
            "gt_boxes": gt_boxes,
        }

    def pixels(self, record: int, rect: np.ndarray, factor: float) -> np.ndarray:
        cv2 = self.cv2
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imread(str(self.arrays["paths"][record]), flags)
        if self.arrays["flipped"][record]:
            image = cv2.flip(image, 1)
        x1, y1, x2, y2 = (max(int(value), 0) for value in rect)
        crop = cv2.resize(image[y1:y2, x1:x2], None, fx=factor, fy=factor)
        crop = crop[:CHIP_PX, :CHIP_PX, ::-1].astype(np.float32)
        crop -= np.array(PIXEL_MEANS[::-1], np.float32)
        tensor = np.zeros((3, CHIP_PX, CHIP_PX), np.float32)
        tensor[:, : crop.shape[0], : crop.shape[1]] = crop.transpose(2, 0, 1)
        return tensor

    def boxes(
        self, record: int, chip: int, rect: np.ndarray, factor: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Valid boxes, other boxes, and `gt_boxes`."""
        arrays = self.arrays
        first, last = arrays["box_offsets"][record : record + 2]
        origin = np.tile(rect[:2], 2).astype(np.float32)
        boxes = (arrays["boxes"][first:last] - origin) * np.float32(factor)
        boxes = np.clip(np.rint(boxes), 0, CHIP_PX - 1)
        rows = arrays["rows"][slice(*arrays["row_offsets"][chip : chip + 2])]
        assigned = np.isin(np.arange(len(boxes)), rows)
        large = (boxes[:, 2:] - boxes[:, :2] + 1 >= MIN_SIDE).all(axis=1)
        boxes, assigned, classes = (
            boxes[large],
            assigned[large],
            arrays["classes"][first:last][large],
        )
        valid = (boxes[:, None] == boxes[assigned][None]).all(axis=2).any(axis=1)
        packed = np.full((MAX_GT, 5), -1, np.float32)
        packed[: len(boxes)] = np.hstack([boxes, classes[:, None]])[:MAX_GT]
        return boxes[valid], boxes[~valid], packed


class PlainRpn:
    """RPN labels and targets of a chip."""

    def __init__(self) -> None:
        self.base = base_anchors()
        cells = np.arange(CELLS) * float(STRIDE)
        self.lows = self.base[:, :2, None] + cells  # (A, 2, W)
        self.highs = self.base[:, 2:, None] + cells
        inside = (self.lows >= -BORDER) & (self.highs < CHIP_PX + BORDER)
        self.inside_axis = inside
        self.outside = ~(inside[:, 1, :, None] & inside[:, 0, None, :])
        self.areas = (self.base[:, 2:] - self.base[:, :2] + 1).prod(axis=1)[:, None, None]

    def __call__(
        self, valid: np.ndarray, others: np.ndarray, rng: np.random.Generator | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """label, target, weight; without a generator nothing is left out by sampling."""
        shape = self.outside.shape
        label, matched = np.zeros(shape, np.int8), np.zeros(shape, np.int32)
        if len(valid):
            best, highest = np.zeros(shape), np.zeros(shape, bool)
            for row, box in enumerate(valid.astype(np.float64)):
                overlap = self.iou(box)
                highest |= (overlap == overlap.max()) & (overlap > 0)
                better = overlap > best
                np.copyto(best, overlap, where=better)
                np.copyto(matched, row, where=better)
            label[best >= NEGATIVE] = -1
            label[highest | (best >= POSITIVE)] = 1
        for box in others.astype(np.float64):
            label[self.iou(box) > IGNORE] = -1
        label[self.outside] = -1
        flat = label.reshape(-1)
        if rng is not None:
            positives = keep(flat, 1, MAX_POSITIVES, rng)
            keep(flat, 0, BATCH_ANCHORS - positives, rng)
        return flat.astype(np.float32), *self.regression(label, matched, valid)

    def iou(self, box: np.ndarray) -> np.ndarray:
        sides = np.minimum(self.highs, box[2:, None]) - np.maximum(self.lows, box[:2, None]) + 1
        sides = np.maximum(sides, 0) * self.inside_axis
        inter = sides[:, 1, :, None] * sides[:, 0, None, :]
        return inter / (self.areas + (box[2:] - box[:2] + 1).prod() - inter)

    def regression(
        self, label: np.ndarray, matched: np.ndarray, valid: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        anchors = len(self.base)
        target = np.zeros((anchors, 4, CELLS, CELLS), np.float32)
        weight = np.zeros((anchors, 4, CELLS, CELLS), np.float32)
        a, row, column = np.nonzero(label == 1)
        if len(a):
            shift = np.stack([column, row, column, row], axis=1) * float(STRIDE)
            gt = valid[matched[a, row, column]].astype(np.float64)
            target[a, :, row, column] = encode(self.base[a] + shift, gt)
            weight[a, :, row, column] = 1
        shape = (4 * anchors, CELLS, CELLS)
        return target.reshape(shape), weight.reshape(shape)


def keep(label: np.ndarray, value: int, limit: int, rng: np.random.Generator) -> int:
    """Leaves at most `limit` of these labels; returns how many there are then."""
    found = np.flatnonzero(label == value)
    if len(found) > limit:
        label[rng.choice(found, len(found) - limit, replace=False)] = -1
    return min(len(found), limit)


def encode(anchors: np.ndarray, gt: np.ndarray) -> np.ndarray:
    sides, gt_sides = anchors[:, 2:] - anchors[:, :2] + 1, gt[:, 2:] - gt[:, :2] + 1
    centres = anchors[:, :2] + 0.5 * (sides - 1)
    gt_centres = gt[:, :2] + 0.5 * (gt_sides - 1)
    moved = (gt_centres - centres) / (sides + 1e-7)
    return np.hstack([moved, np.log(gt_sides / (sides + 1e-7))])


def base_anchors() -> np.ndarray:
    """(A, 4) anchors of the first cell; sides rounded half to even."""
    rows = []
    for ratio in RATIOS:
        width = round(math.sqrt(STRIDE * STRIDE / ratio))
        height = round(width * ratio)
        for scale in SCALES:
            half = np.array([width * scale - 1, height * scale - 1]) / 2
            centre = (STRIDE - 1) / 2
            rows.append(np.concatenate([centre - half, centre + half]))
    return np.array(rows, np.float64)


def start_worker(*_: Any) -> None:
    """For a worker process: one thread, Ctrl-C left to the parent, an end when the parent ends."""
    import cv2

    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


_dataset: list[PlainChips] = []  # of a worker of multiprocessing.Pool


def start_pool_worker(arrays: Mapping[str, np.ndarray]) -> None:
    start_worker()
    _dataset.append(PlainChips(arrays))


def pool_sample(index: int) -> Sample:
    return _dataset[0][index]
