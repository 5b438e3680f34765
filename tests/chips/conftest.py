"""Slow, obvious references of chip generation (specification 4.3 to 4.8), one record at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sniper import boxes as box_ops
from sniper.chips import cover as cover_module
from sniper.data.record import Record


def make_record(gt, proposals=(), size=(640, 480), image_id=1, flipped=False):
    boxes = np.array([*gt, *proposals], np.float32).reshape(-1, 4)
    is_gt = np.arange(len(boxes)) < len(gt)
    return Record(
        image_path=f"{image_id}.jpg",
        image_id=image_id,
        width=size[0],
        height=size[1],
        flipped=flipped,
        boxes=boxes,
        classes=np.where(is_gt, 1 + np.arange(len(boxes)) % 80, 0).astype(np.int32),
        is_gt=is_gt,
    )


def lattice(width, height, size, stride):
    """All candidates of a level, scaled px."""
    right, bottom = width - 1, height - 1
    chips = [
        [max(width - size, 0), 0, right, min(size, bottom)],
        [0, max(height - size, 0), min(size, right), bottom],
        [max(width - size, 0), max(height - size, 0), right, bottom],
    ]
    columns, rows = range(0, max(width - size, 0), stride), range(0, max(height - size, 0), stride)
    chips += [[i, j, i + size - 1, j + size - 1] for i in columns for j in rows]
    chips += [[max(width - size - 1, 0), j, right, j + size - 1] for j in rows]
    chips += [[i, max(height - size - 1, 0), i + size - 1, bottom] for i in columns]
    return np.array(chips, np.float32)


def greedy_cover(boxes_im, factor, width_im, height_im, chip_size, stride, seed):
    """Chips in image px; the slow twin of the compiled `chip_cover` with another shuffle."""
    width, height = int(width_im * factor), int(height_im * factor)
    boxes = box_ops.clip(boxes_im * np.float32(factor), height, width)
    chips = lattice(width, height, chip_size, stride)
    chips = chips[np.random.default_rng(seed).permutation(len(chips))]
    covers = box_ops.iob(chips, boxes) == 1.0
    chosen = []
    while covers.size and covers.sum(axis=1).max() > 0:
        best = covers.sum(axis=1).argmax()
        chosen.append(chips[best].astype(np.float64) / factor)
        covers = covers & ~covers[best]
    return np.array(chosen, np.float64).reshape(-1, 4)


def reference_rows(record, rects, rows, is_last, value_range, positive):
    """Rows of the record assigned to each rectangle of one level."""
    assigned = [[] for _ in rects]
    low, high = value_range
    for row in rows:
        box = record.boxes[row].astype(np.float64)
        shares = [float(box_ops.iob(np.array([rect]), box[None])[0, 0]) for rect in rects]
        if not shares:
            continue
        best = shares.index(max(shares))
        rect = rects[best]
        dx = min(box[2], rect[2]) - max(box[0], rect[0])
        dy = min(box[3], rect[3]) - max(box[1], rect[1])
        if dx < 1 or dy < 1:
            continue
        q = math.sqrt(abs(dx * dy))
        if is_last:
            good = q >= low
        elif positive:
            good = q <= high
        else:
            good = q < high
        if good:
            assigned[best].append(row)
    return assigned


def reference_eligible(record, factor, stride, size, is_last, value_range):
    rows = []
    for row, (x1, y1, x2, y2) in enumerate(record.boxes):
        width, height = int(x2 - x1), int(y2 - y1)
        area = math.sqrt(max(width * height, 0))
        if is_last:
            good = area >= value_range[0]
        else:
            fits = max(width, height) < (size - stride - 1) / factor
            good = area < value_range[1] and fits and width >= 2 and height >= 2
        if good:
            rows.append(row)
    return rows


def reference_wanted(record, factor, stride, size, level, is_last, value_range):
    rows = []
    low, high = value_range
    for row, (x1, y1, x2, y2) in enumerate(record.boxes):
        if not record.is_gt[row]:
            continue
        width, height = int(x2 - x1), int(y2 - y1)
        area = math.sqrt(max(width * height, 0))
        fits = max(width, height) < (size - stride - 1) / factor
        if is_last:
            good = area >= low
        elif level == 0:
            good = area < high and fits and width >= 2 and height >= 2
        else:
            good = low <= area < high and fits
        if good:
            rows.append(row)
    return rows


@pytest.fixture
def ref():
    """The references of this file."""

    class Reference:
        record = staticmethod(make_record)
        lattice = staticmethod(lattice)
        cover = staticmethod(greedy_cover)
        rows = staticmethod(reference_rows)
        eligible = staticmethod(reference_eligible)
        wanted = staticmethod(reference_wanted)

    return Reference


@pytest.fixture(params=["reference", "native"])
def any_cover(request, monkeypatch):
    """Runs a test with the reference cover and with the compiled one; returns the function."""
    if request.param == "reference":
        monkeypatch.setattr(cover_module, "_native_chip_cover", lambda: greedy_cover)
    return cover_module._native_chip_cover()
