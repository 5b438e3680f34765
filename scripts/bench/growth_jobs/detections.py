"""Merging and evaluation of detections, and reading of annotations."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.growth_fit import GrowthJob
from bench.growth_sets import CocoSet

# Boxes of one object: RoIs of slices overlap in groups.
GROUP = 10


def weak_rows(count: int) -> np.ndarray:
    """(count, 5) boxes around places at constant density, with weak scores."""
    rng = np.random.default_rng(count)
    places = rng.uniform(0, 60 * count**0.5 / GROUP**0.5, (-(-count // GROUP), 2))
    corners = np.repeat(places, GROUP, axis=0)[:count] + rng.normal(0, 4, (count, 2))
    sides = rng.uniform(20, 40, (count, 2))
    scores = rng.uniform(0.002, 0.3, (count, 1))
    return np.hstack([corners, corners + sides, scores]).astype(np.float32)


def one_class(count: int) -> Callable[[], object]:
    from sniper.native._native import soft_nms

    rows = weak_rows(count)
    return lambda: soft_nms(rows, 0.55, 0.001)


def slices(count: int) -> Callable[[], object]:
    """Rows of ten classes from slices at one level."""
    from sniper.inference.merge_levels import LevelDetections, MergeSettings, merge_levels

    rows = weak_rows(count)
    classes = np.random.default_rng(1).integers(1, 11, count).astype(np.int32)
    parts = [[LevelDetections(0, 0, rows, classes)]]
    settings = MergeSettings(sigma=0.55, max_per_image=0)
    return lambda: merge_levels(parts, [(-1.0, -1.0)], settings)


def blocks(images: int) -> Callable[[], object]:
    """Ten detections an image, in blocks of ten images, as a test leaves them on disk."""
    from sniper.data.detections import DetectionTable, join_blocks

    rows = weak_rows(100)
    offsets, classes = np.arange(0, 101, 10), np.ones(100, np.int32)
    order = np.random.default_rng(0).permutation(images)
    numbers = [order[start : start + 10].tolist() for start in range(0, images, 10)]
    tables = [DetectionTable(offsets, rows, classes) for _ in numbers]
    return lambda: join_blocks(tables, numbers)


def evaluated_images(images: int) -> Callable[[], object]:
    return evaluation(images, 50, 10)


def evaluated_classes(classes: int) -> Callable[[], object]:
    """As many images as classes, of which each image has few: blocks of classes times images."""
    return evaluation(classes, 20, classes)


def evaluation(images: int, per_image: int, classes: int) -> Callable[[], object]:
    from sniper.data.detections import DetectionTable
    from sniper.evaluation import evaluate_coco

    rng = np.random.default_rng(images)
    count = images * per_image
    of_image = np.repeat(np.arange(1, images + 1), per_image)
    of_class = rng.integers(1, classes + 1, count)
    corners, sides = rng.uniform(0, 400, (count, 2)), rng.uniform(10, 80, (count, 2))
    truth = np.column_stack([of_image, of_class, corners, sides])[::4]
    order = np.lexsort((of_class, of_image))
    found = np.hstack([corners, corners + sides - 1, rng.random((count, 1))]).astype(np.float32)
    table = DetectionTable(
        np.arange(images + 1, dtype=np.int64) * per_image,
        found[order],
        of_class[order].astype(np.int32),
    )
    dataset, folder = annotated(truth, images, classes)
    return lambda: (evaluate_coco(dataset, table), folder)


def annotated(truth: np.ndarray, images: int, classes: int) -> tuple[Any, Any]:
    """A set with objects (image, class, x, y, width, height), and the folder of its annotations."""
    from sniper.data.dataset import Dataset
    from sniper.data.record import Record

    entries = [
        {"id": n, "image_id": int(image), "category_id": int(klass), "bbox": box, "area": 100.0}
        for n, (image, klass, *box) in enumerate(truth.tolist(), start=1)
    ]
    content = {
        "images": [{"id": i, "width": 500, "height": 500} for i in range(1, images + 1)],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, classes + 1)],
        "annotations": entries,
    }
    folder = tempfile.TemporaryDirectory(prefix="sniper-growth-")
    path = Path(folder.name) / "instances.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
    records = tuple(Record(f"{i}.jpg", i, 500, 500, False, *nothing) for i in range(1, images + 1))
    names = ("__background__", *(entry["name"] for entry in content["categories"]))
    ids = tuple(range(classes + 1))
    return Dataset("COCO_growth", "growth", names, ids, records, str(path), True), folder


def read_coco(images: int) -> Callable[[], object]:
    """The first time, that is, without a cache."""
    from sniper.data import load_dataset

    data = CocoSet(images, 8, 64)

    def run() -> object:
        root = data.annotations.parents[1]
        return load_dataset("coco", str(root), "train", with_masks=True), data

    return run


def read_again(images: int) -> Callable[[], object]:
    """From the cache of a first time."""
    from sniper.data import load_dataset

    data = CocoSet(images, 8, 64)
    cache = tempfile.TemporaryDirectory(prefix="sniper-growth-")

    def run() -> object:
        root = data.annotations.parents[1]
        return load_dataset("coco", str(root), "train", with_masks=True, cache_dir=cache.name), data

    return run


JOBS = [
    GrowthJob("soft-NMS of one class", "boxes", 2_500, one_class),
    GrowthJob("slice merge, dense weak scores", "rows", 5_000, slices),
    GrowthJob("joining blocks of images", "images", 2_000, blocks),
    GrowthJob("evaluation, images", "images", 250, evaluated_images),
    GrowthJob("evaluation, classes and images", "classes", 250, evaluated_classes),
    GrowthJob("reading COCO, first time", "images", 1_000, read_coco),
    GrowthJob("reading COCO, from the cache", "images", 2_000, read_again),
]
