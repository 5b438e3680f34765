"""Records, and slow references of chip generation (2018 behaviour)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sniper.data.record import Record
from tests.chips import slow_epoch


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


def random_records(count, *, proposals=0, seed=0, most_gt=12):
    generator = np.random.default_rng(seed)
    records = []
    for image_id in range(count):
        width, height = generator.integers(200, 900, 2).tolist()

        def boxes(number, width=width, height=height):
            sides = np.exp(generator.uniform(0, np.log(min(width, height) - 1), (number, 2)))
            corner = generator.uniform(0, 1, (number, 2)) * ([width, height] - sides - 1)
            return np.floor(np.concatenate([corner, corner + sides], axis=1)).clip(0)

        gt = boxes(int(generator.integers(1, most_gt)))
        records.append(make_record(gt, boxes(proposals), (width, height), image_id))
    return records


def reference_rows(record, rects, rows, is_last, value_range, positive):
    """Rows of the record assigned to each rectangle of one level."""
    assigned = [[] for _ in rects]
    low, high = value_range
    for row in rows:
        box = record.boxes[row].astype(np.float64)
        shares = [float(slow_epoch.iob(np.array([rect]), box[None])[0, 0]) for rect in rects]
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


def describe(chips):
    """Everything about some chips, comparable with ==."""
    return [(c.rect, c.factor, c.height, c.width, c.level, c.rows.tolist(), c.kind) for c in chips]


@pytest.fixture(scope="session")
def ref():
    """The references of this file."""

    class Reference:
        record = staticmethod(make_record)
        random_records = staticmethod(random_records)
        describe = staticmethod(describe)
        lattice = staticmethod(slow_epoch.lattice)
        rows = staticmethod(reference_rows)
        eligible = staticmethod(reference_eligible)
        wanted = staticmethod(reference_wanted)

    return Reference
