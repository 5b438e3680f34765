"""Data sets of any size on disk, for jobs of growth.py: annotations, images and a recipe."""

from __future__ import annotations

import json
import os
import tempfile
import weakref
from pathlib import Path

import numpy as np

RECIPE = """
_BASE_: sniper_mobilenetv2_toy
output_path: {root}/output
dataset: {{root_path: {root}, dataset_path: {root}/data, image_set: train, NUM_CLASSES: 4}}
TRAIN:
  CHIP_SIZE: 128
  SCALES: [1.0, 0.5, 0.2]
  VALID_RANGES: [[-1, 40], [24, 100], [80, -1]]
  MAX_GT: {max_gt}
"""
CLASSES = ("ant", "bee", "kite")


class CocoSet:
    """A set in COCO format in a folder of its own, which goes with the object.

    Attributes:
        recipe: a config for it.
        annotations: its annotation file.

    Args:
        images: how many.
        objects: of each image.
        side_px: of the images, which are square.
        max_gt: TRAIN.MAX_GT.
    """

    def __init__(self, images: int, objects: int, side_px: int, *, max_gt: int = 100) -> None:
        folder = tempfile.TemporaryDirectory(prefix="sniper-growth-")
        self._remove = weakref.finalize(self, folder.cleanup)
        root = Path(folder.name)
        self.recipe = root / "growth.yml"
        self.recipe.write_text(RECIPE.format(root=root, max_gt=max_gt), encoding="utf-8")
        self.annotations = root / "data" / "annotations" / "instances_train.json"
        self.annotations.parent.mkdir(parents=True)
        content = coco_content(images, objects, side_px)
        self.annotations.write_text(json.dumps(content), encoding="utf-8")
        self._write_images(root / "data" / "images" / "train", content["images"], side_px)

    def _write_images(self, folder: Path, entries: list, side_px: int) -> None:
        import cv2

        folder.mkdir(parents=True)
        first = folder / entries[0]["file_name"]
        cv2.imwrite(str(first), np.full((side_px, side_px, 3), 90, np.uint8))
        for entry in entries[1:]:
            os.link(first, folder / entry["file_name"])


def coco_content(images: int, objects: int, side_px: int) -> dict:
    """What an annotation file holds: boxes of 4 to 200 px with outlines of ten corners."""
    rng = np.random.default_rng(images * objects)
    count = images * objects
    sides = np.exp(rng.uniform(np.log(4), np.log(min(200, side_px / 2)), (count, 2)))
    corners = rng.uniform(0, side_px - sides)
    angles = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1) / 2 + 0.5  # (10, 2)
    outlines = corners[:, None] + sides[:, None] * circle  # (count, 10, 2)
    boxes = np.hstack([corners, sides]).round(2)
    entries = [
        {
            "id": number,
            "image_id": number // objects + 1,
            "category_id": number % len(CLASSES) + 1,
            "bbox": box,
            "area": round(box[2] * box[3] * 0.73, 2),
            "iscrowd": 0,
            "segmentation": [outline],
        }
        for number, (box, outline) in enumerate(
            zip(boxes.tolist(), outlines.reshape(count, 20).round(2).tolist())
        )
    ]
    return {
        "images": [
            {"id": i, "file_name": f"{i:012d}.jpg", "width": side_px, "height": side_px}
            for i in range(1, images + 1)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)],
        "annotations": entries,
    }
