"""COCO box metrics of 250 images, 25 000 detections and 80 classes: index, match, accumulate.

Sides
* faster-coco-eval: `COCOeval_faster`.
* pycocotools: `COCOeval`, which `sniper.evaluation` uses.

No code of ours is timed, so there is no goal: the ratio says what the other library would bring.
The dicts of annotations are made outside of the timing; building the index is part of it. Compared:
the twelve numbers, to 1e-12.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from bench import compare as agreement
from bench import inputs as make
from bench.case import Arrays, Case, Job, PeerMissingError, Prepared, Side

IMAGES, OBJECTS, DETECTIONS, CLASSES = 250, 8, 100, 80
TOLERANCE = 1e-12


def inputs(rng: np.random.Generator) -> Arrays:
    """Rows image, class, x, y, width, height, score; six in ten detections lie on an object."""
    truth, found = [], []
    for image in range(1, IMAGES + 1):
        boxes = make.objects(rng, 480, 640, OBJECTS)
        classes = rng.integers(1, CLASSES + 1, OBJECTS)
        truth.append(rows(image, classes, boxes))
        owner = rng.integers(0, OBJECTS, DETECTIONS)
        on_object = rng.random(DETECTIONS) < 0.6
        sides = np.tile(boxes[owner, 2:] - boxes[owner, :2], 2)
        moved = boxes[owner] + rng.normal(0, 0.08, (DETECTIONS, 4)) * sides
        elsewhere = make.objects(rng, 480, 640, DETECTIONS)
        guesses = np.where(on_object, classes[owner], rng.integers(1, CLASSES + 1, DETECTIONS))
        scores = np.clip(rng.normal(0.3 + 0.4 * on_object, 0.2), 0.001, 0.999)
        detected = rows(image, guesses, np.where(on_object[:, None], moved, elsewhere))
        found.append(np.hstack([detected, scores[:, None]]))
    return {"truth": np.concatenate(truth), "found": np.concatenate(found)}


def rows(image: int, classes: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    sizes = np.maximum(boxes[:, 2:] - boxes[:, :2], 1)
    boxes = np.hstack([boxes[:, :2], sizes]).astype(np.float64).round(1)
    return np.hstack([np.full((len(boxes), 1), image), classes[:, None], boxes])


def faster(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise PeerMissingError(
            f"faster-coco-eval is not installed ({error}): pip install -r requirements-bench.txt"
        ) from None
    return prepared(COCO, COCOeval_faster, arrays)


def pycocotools(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return prepared(COCO, COCOeval, arrays)


def prepared(coco: Any, evaluator: Any, arrays: Arrays) -> Prepared:
    truth, found = annotations(arrays["truth"]), annotations(arrays["found"])

    def index(entries: list[dict[str, Any]]) -> Any:
        made = coco()
        made.dataset = {
            "info": {},
            "images": [{"id": image} for image in range(1, IMAGES + 1)],
            "categories": [{"id": number} for number in range(1, CLASSES + 1)],
            "annotations": [{**entry, "id": i} for i, entry in enumerate(entries, start=1)],
        }
        made.createIndex()
        return made

    def run() -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = evaluator(index(truth), index(found), iouType="bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation

    return Prepared(run, lambda evaluation: {"stats": np.asarray(evaluation.stats[:12])})


def annotations(table: np.ndarray) -> list[dict[str, Any]]:
    return [
        {
            "image_id": int(row[0]),
            "category_id": int(row[1]),
            "bbox": row[2:6],
            "area": row[4] * row[5],
            "iscrowd": 0,
            **({"score": row[6]} if len(row) > 6 else {}),
        }
        for row in table.tolist()
    ]


def compare(ours: Arrays, peer: Arrays, job: Job, name: str) -> str:
    worst = float(np.abs(ours["stats"] - peer["stats"]).max())
    return agreement.require(
        worst <= TOLERANCE,
        f"AP {ours['stats'][0]:.4f}; the 12 numbers to {worst:.0e}",
        f"to {TOLERANCE:.0e}",
    )


CASE = Case(
    name="coco_eval",
    summary="COCO box metrics: faster-coco-eval against pycocotools (no code of ours)",
    jobs=[Job(f"{IMAGES} images, {IMAGES * DETECTIONS} detections", inputs)],
    sides={
        "faster-coco-eval": Side(faster, foreign=True),
        "pycocotools": Side(pycocotools, foreign=True),
    },
    compare=compare,
    threads=(1,),
)
