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


class VocSet:
    """A small set in the layout of Pascal VOC, written anew whenever a test changes it."""

    def __init__(self, root, year="2007"):
        self.root = root
        self.folder = root / f"VOC{year}"
        for name in ("ImageSets/Main", "JPEGImages", "Annotations"):
            (self.folder / name).mkdir(parents=True)
        self.add("000012", (50, 40), [("dog", (5, 6, 20, 30)), ("person", (1, 1, 50, 40))])
        self.add("000007", (60, 30), [("cat", (10, 10, 19, 19), "1"), ("dog", (2, 3, 4, 5), "0")])
        self.add("000100", (20, 20), [])
        self.list("trainval", "000012\n000007\n000100\n")

    def list(self, name, text):
        (self.folder / "ImageSets" / "Main" / f"{name}.txt").write_text(text, encoding="utf-8")

    def add(self, name, size, objects):
        """objects: (class, (xmin, ymin, xmax, ymax)[, difficult]); no flag leaves the tag out"""
        pixels = np.full((size[1], size[0], 3), len(name), np.uint8)
        cv2.imencode(".jpg", pixels)[1].tofile(self.folder / "JPEGImages" / f"{name}.jpg")
        self.annotate(name, voc_xml(size, objects))

    def annotate(self, name, text):
        self.xml(name).write_bytes(text if isinstance(text, bytes) else text.encode())

    def xml(self, name):
        return self.folder / "Annotations" / f"{name}.xml"


def voc_xml(size, objects):
    text = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    for name, box, *difficult in objects:
        corners = "".join(
            f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box)
        )
        flag = f"<difficult>{difficult[0]}</difficult>" if difficult else ""
        text += (
            f"<object><name>{name}</name><pose>Left</pose>{flag}<bndbox>{corners}</bndbox></object>"
        )
    return f"<annotation><filename>x.jpg</filename>{text}</annotation>"


@pytest.fixture
def voc_set(tmp_path) -> VocSet:
    return VocSet(tmp_path / "VOCdevkit")
