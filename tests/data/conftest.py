"""A small data set that breaks every habit of COCO 2014: names, ids, order, missing keys."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

IMAGES = [
    {"id": 70, "file_name": "street north.png", "width": 60, "height": 40},
    {"id": 3, "file_name": "a.b-c.png", "width": 30, "height": 50},
    {"id": 11, "file_name": "bild_ü.png", "width": 64, "height": 64},
    {"id": 2, "file_name": "empty.png", "width": 20, "height": 20},
    {"id": 5, "file_name": "deep/inside.png", "width": 25, "height": 35},
]
CATEGORIES = [{"id": 900, "name": "kite"}, {"id": 4, "name": "ant"}, {"id": 33, "name": "bee"}]
ANNOTATIONS = [
    {"id": 8, "image_id": 3, "category_id": 4, "bbox": [1.9, 2.2, 10.5, 20.0]},
    {"id": 1, "image_id": 70, "category_id": 900, "bbox": [5, 6, 7, 8], "iscrowd": 0},
    {"id": 0, "image_id": 70, "category_id": 33, "bbox": [-5, 10, 20, 100]},
    {"id": 6, "image_id": 70, "category_id": 33, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    {"id": 4, "image_id": 5, "category_id": 900, "bbox": [3, 3, 4, 4], "area": 12.5},
    {"id": 5, "image_id": 11, "category_id": 4, "bbox": [10, 10, 30, 20]},
]


class SmallSet:
    """A data set on disk that tests change before they load it."""

    def __init__(self, root, image_set="herbst_24"):
        self.root = root
        self.image_set = image_set
        self.content = json.loads(
            json.dumps({"images": IMAGES, "categories": CATEGORIES, "annotations": ANNOTATIONS})
        )
        self.path = root / "annotations" / f"instances_{image_set}.json"
        self.path.parent.mkdir(parents=True)
        for image in IMAGES:
            pixels = np.full((image["height"], image["width"], 3), image["id"], np.uint8)
            path = self.image_path(image["file_name"])
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imencode(".png", pixels)[1].tofile(path)
        self.write()

    def image_path(self, file_name):
        return self.root / "images" / self.image_set / file_name

    def write(self):
        self.path.write_text(json.dumps(self.content), encoding="utf-8")


@pytest.fixture
def small_set(tmp_path) -> SmallSet:
    return SmallSet(tmp_path / "set")
