"""A set in COCO format with detections and a log, whose names try to break a page."""

from __future__ import annotations

import json

import cv2
import numpy as np

HOSTILE_CLASS = "</script><script>window.hit=1</script>\"'&\u202egnp"
HOSTILE_FILE = "bild <img src=x onerror=window.hit=1> \"q\" 'ü' 日本"
CLASSES = {4: HOSTILE_CLASS, 2: "dog", 9: "größe & <b>höhe</b>"}
SIZE = (120, 90)


def write_case(root, images=12):
    """Writes data, results and a log; the items of --set that find them."""
    rng = np.random.default_rng(3)
    folder = root / "data" / "images" / "val"
    folder.mkdir(parents=True)
    (root / "data" / "annotations").mkdir()
    entries, objects, found = [], [], []
    for image_id in range(1, images + 1):
        file_name = f"{HOSTILE_FILE} {image_id}.jpg"
        pixels = rng.integers(0, 255, (9, 12, 3)).astype(np.uint8)
        _, content = cv2.imencode(".jpg", cv2.resize(pixels, SIZE))
        (folder / file_name).write_bytes(content.tobytes())
        entries.append({"id": image_id, "file_name": file_name, "width": 120, "height": 90})
        for place, category in enumerate(CLASSES):
            side = 12 + 22 * place
            box = [2 + 36 * place, 5 + place, side, side]
            objects.append(annotation(len(objects) + 1, image_id, category, box))
        found += detections(image_id, objects[-3:])
    content = {
        "images": entries,
        "annotations": objects,
        "categories": [{"id": key, "name": text} for key, text in CLASSES.items()],
    }
    (root / "data" / "annotations" / "instances_val.json").write_text(json.dumps(content))
    results = root / "out" / "results"
    results.mkdir(parents=True)
    (results / "detections_val_results.json").write_text(json.dumps(found))
    return overrides(root)


def annotation(number, image_id, category, box):
    return {"id": number, "image_id": image_id, "category_id": category, "bbox": box,
            "area": box[2] * box[3], "iscrowd": 0}  # fmt: skip


def detections(image_id, objects):
    """One right, one with the wrong class, one missed; alarms in every other image."""
    right, wrong, _ = objects
    rows = [(right["category_id"], right["bbox"], 0.9), (9, wrong["bbox"], 0.6)]
    if image_id % 2:
        rows.append((2, [100, 70, 15, 15], 0.45))
    if image_id % 3 == 0:
        rows.append((4, [right["bbox"][0] + 6, *right["bbox"][1:]], 0.5))
    return [
        {"image_id": image_id, "category_id": category, "bbox": box, "score": round(score, 3)}
        for category, box, score in rows
    ]


def overrides(root):
    values = {
        "dataset.dataset_path": root / "data",
        "dataset.root_path": root / "cache",
        "dataset.image_set": "val",
        "dataset.test_image_set": "val",
        "dataset.NUM_CLASSES": 4,
        "output_path": root / "out",
        "gpus": "cpu",
    }
    return ["--set", *(str(word) for pair in values.items() for word in pair)]


def write_log(root, lines=40):
    """The log of a run of the recipe of the quickstart."""
    folder = root / "out" / "sniper_mobilenetv2_toy" / "val"
    folder.mkdir(parents=True)
    rows = [
        {"kind": "train", "epoch": n // 20, "batch": n, "update": 10 * n, "lr": 0.1,
         "chips_per_s": 5.0, "RPNLogLoss": 1 / n, "RPNAcc": 0.5 + n / 100}
        for n in range(1, lines)
    ]  # fmt: skip
    rows.append(
        {"kind": "validation", "epoch": 0, "update": 200, "set": "v", "ap": 0.1, "ap50": 0.3}
    )
    path = folder / "sniper_mobilenetv2_toy.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
