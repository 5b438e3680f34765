"""A COCO set of a few small pictures with objects, for runs with random weights."""

from __future__ import annotations

import json

import cv2
import numpy as np


def write_photo_set(root, count, *, name="val", size=(96, 72), classes=10):
    """`count` pictures below `root`; returns the overrides that name the set."""
    rng = np.random.default_rng(5)
    width, height = size
    content = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": k, "name": f"thing {k}"} for k in range(1, classes + 1)]
    (root / "data" / "images" / name).mkdir(parents=True, exist_ok=True)
    (root / "data" / "annotations").mkdir(exist_ok=True)
    for index in range(1, count + 1):
        pixels = rng.integers(0, 255, (height // 6, width // 6, 3)).astype(np.uint8)
        file = f"{index:012d}.jpg"
        cv2.imwrite(str(root / "data" / "images" / name / file), cv2.resize(pixels, size))
        about = {"id": index, "file_name": file, "width": width, "height": height}
        content["images"].append(about)
        for _ in range(4):
            w, h = rng.integers(8, 50, 2).tolist()
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": index,
                    "bbox": [
                        int(rng.integers(0, width - w)),
                        int(rng.integers(0, height - h)),
                        w,
                        h,
                    ],
                    "category_id": int(rng.integers(1, classes + 1)),
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
    path = root / "data" / "annotations" / f"instances_{name}.json"
    path.write_text(json.dumps(content))
    return [
        *("dataset.dataset_path", str(root / "data"), "dataset.root_path", str(root)),
        *("dataset.test_image_set", name),
    ]
