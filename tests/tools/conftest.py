"""A small data set in COCO format with a recipe, which tests spoil in many ways."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from sniper.config import load_config

RECIPE = """
_BASE_: sniper_mobilenetv2_toy
output_path: {root}/output
proposal_path: {root}/proposals
dataset: {{root_path: {root}, dataset_path: {root}/data, image_set: herbst, test_image_set: test,
  NUM_CLASSES: 4}}
TRAIN:
  CHIP_SIZE: 128
  SCALES: [1.5, 128.0]
  VALID_RANGES: [[-1, 60], [40, -1]]
"""
SIZES = {7: (200, 150), 8: (150, 200), 9: (320, 240), 12: (128, 100)}
BOXES = {
    7: [(10, 20, 30, 25, 1), (60, 70, 90, 60, 2)],
    8: [(20, 30, 25, 30, 3)],
    9: [(100, 100, 20, 20, 1), (130, 90, 20, 30, 2), (10, 10, 200, 200, 3)],
    12: [],
}
CATEGORIES = [{"id": 5, "name": "kite"}, {"id": 2, "name": "ant"}, {"id": 90, "name": "bee"}]


class TinySet:
    """Images and annotations on disk, the latter as `content`, which `write` stores."""

    def __init__(self, root):
        self.root = root
        self.recipe = root / "tiny.yml"
        self.recipe.write_text(RECIPE.format(root=root))
        self.content = {"images": [], "annotations": [], "categories": CATEGORIES.copy()}
        rng = np.random.default_rng(0)
        for image_id, (width, height) in SIZES.items():
            pixels = rng.integers(0, 255, (height // 10, width // 10, 3)).astype(np.uint8)
            path = self.image(image_id)
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), cv2.resize(pixels, (width, height)))
            self.content["images"].append(
                {"id": image_id, "file_name": path.name, "width": width, "height": height}
            )
            for x, y, w, h, category in BOXES[image_id]:
                self.add(image_id, [x, y, w, h], CATEGORIES[category - 1]["id"])
        self.write()

    def add(self, image_id, bbox, category=5, **more):
        entry = {"id": 100 + len(self.content["annotations"]), "image_id": image_id}
        entry |= {"bbox": bbox, "category_id": category} | more
        self.content["annotations"].append(entry)
        return entry

    def image(self, image_id, image_set="herbst"):
        return self.root / "data" / "images" / image_set / f"bild {image_id}.jpg"

    def annotations(self, image_set="herbst"):
        return self.root / "data" / "annotations" / f"instances_{image_set}.json"

    def write(self, image_set="herbst"):
        path = self.annotations(image_set)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.content), encoding="utf-8")

    def config(self, *overrides):
        return load_config(self.recipe, overrides)


@pytest.fixture
def tiny_set(tmp_path) -> TinySet:
    return TinySet(tmp_path)
