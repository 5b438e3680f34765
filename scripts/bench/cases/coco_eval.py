"""COCO box metrics of 1000 and of 20,000 images and 80 classes: our whole evaluation.

Sides
* ours: `sniper.evaluation.evaluate_coco`, from a table of detections to the report, with hotcoco.
* pycocotools: `COCO(file)`, `loadRes`, `COCOeval`, as everybody calls it.
* hotcoco, faster-coco-eval: the same calls of these packages, without a goal.
* ours-faster, ours-pycocotools: ours, told to use another evaluator, without a goal.

All read the annotation file; detections are in memory, as a table for us and as a list of dicts for
the others. Compared: the twelve numbers, to 1e-12.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench import compare as agreement
from bench import inputs as make
from bench.case import Arrays, Case, Job, PeerMissingError, Prepared, Side

OBJECTS, CLASSES = 8, 80
WIDTH, HEIGHT = 640, 480
TOLERANCE = 1e-12
MISSING = "{} is not installed: pip install -r requirements.txt"


def inputs(rng: np.random.Generator, images: int, detections: int) -> Arrays:
    """Rows image, class, x, y, width, height, score; six in ten detections lie on an object."""
    truth, found = [], []
    for image in range(1, images + 1):
        boxes = make.objects(rng, HEIGHT, WIDTH, OBJECTS)
        classes = rng.integers(1, CLASSES + 1, OBJECTS)
        truth.append(rows(image, classes, boxes))
        owner = rng.integers(0, OBJECTS, detections)
        on_object = rng.random(detections) < 0.6
        sides = np.tile(boxes[owner, 2:] - boxes[owner, :2], 2)
        moved = boxes[owner] + rng.normal(0, 0.08, (detections, 4)) * sides
        elsewhere = make.objects(rng, HEIGHT, WIDTH, detections)
        guesses = np.where(on_object, classes[owner], rng.integers(1, CLASSES + 1, detections))
        scores = np.clip(rng.normal(0.3 + 0.4 * on_object, 0.2), 0.001, 0.999).round(3)
        detected = rows(image, guesses, np.where(on_object[:, None], moved, elsewhere))
        found.append(np.hstack([detected, scores[:, None]]))
    # As a table has them: by image and class.
    table = np.concatenate(found)
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    return {"truth": np.concatenate(truth), "found": table}


def rows(image: int, classes: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    sizes = np.maximum(boxes[:, 2:] - boxes[:, :2], 1)
    boxes = np.hstack([boxes[:, :2], sizes]).astype(np.float64).round(1)
    return np.hstack([np.full((len(boxes), 1), image), classes[:, None], boxes])


def num_images(arrays: Arrays) -> int:
    return int(arrays["truth"][-1, 0])


def annotation_file(arrays: Arrays) -> str:
    """A file with the objects, which lives as long as the process."""
    entries = [
        {
            "id": number,
            "image_id": int(image),
            "category_id": int(klass),
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for number, (image, klass, *box) in enumerate(arrays["truth"].tolist(), start=1)
    ]
    content = {
        "images": [
            {"id": i, "width": WIDTH, "height": HEIGHT} for i in range(1, num_images(arrays) + 1)
        ],
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)],
        "annotations": entries,
    }
    path = Path(tempfile.mkdtemp(prefix="sniper-bench-")) / "instances_bench.json"
    path.write_text(json.dumps(content))
    return str(path)


def ours(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    # The pool of hotcoco starts with its first call and has as many threads as this says.
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    return evaluated_by("hotcoco", arrays)


def ours_by_faster(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    return evaluated_by("faster-coco-eval", arrays)


def ours_by_pycocotools(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    return evaluated_by("pycocotools", arrays)


def evaluated_by(evaluator: str, arrays: Arrays) -> Prepared:
    from sniper.data.detections import DetectionTable
    from sniper.errors import ConfigError
    from sniper.evaluation import evaluate_coco
    from sniper.evaluation.evaluators import choose_evaluator
    from sniper.evaluation.report import STATISTICS

    try:
        choose_evaluator(evaluator)
    except ConfigError:
        raise PeerMissingError(MISSING.format(evaluator)) from None
    images = num_images(arrays)
    dataset = records(annotation_file(arrays), images)
    found = arrays["found"]
    counts = np.bincount(found[:, 0].astype(int) - 1, minlength=images)
    corners = [found[:, 2:4], found[:, 2:4] + found[:, 4:6] - 1, found[:, 6:]]
    table = DetectionTable(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.hstack(corners).astype(np.float32),
        found[:, 1].astype(np.int32),
    )
    return Prepared(
        lambda: evaluate_coco(dataset, table, evaluator=evaluator),
        lambda report: {"stats": np.array([getattr(report, name) for name in STATISTICS])},
    )


def records(annotation_path: str, count: int) -> Any:
    """The data set, without objects: evaluation reads these from the file."""
    from sniper.data.dataset import Dataset
    from sniper.data.record import Record

    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
    images = tuple(
        Record(f"{i}.jpg", i, WIDTH, HEIGHT, False, *nothing) for i in range(1, count + 1)
    )
    names = ("__background__", *(f"class {i}" for i in range(1, CLASSES + 1)))
    ids = tuple(range(CLASSES + 1))
    return Dataset("COCO_bench", "bench", names, ids, images, annotation_path, True)


def faster(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise PeerMissingError(MISSING.format("faster-coco-eval")) from None
    return prepared(COCO, COCOeval_faster, arrays)


def hotcoco(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    try:
        from hotcoco import COCO, COCOeval
    except ImportError:
        raise PeerMissingError(MISSING.format("hotcoco")) from None
    return prepared(COCO, COCOeval, arrays)


def pycocotools(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return prepared(COCO, COCOeval, arrays)


def prepared(coco: Any, evaluator: Any, arrays: Arrays) -> Prepared:
    path = annotation_file(arrays)
    results = [
        {"image_id": int(image), "category_id": int(klass), "bbox": box, "score": score}
        for image, klass, *box, score in arrays["found"].tolist()
    ]

    def run() -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = coco(path)
            # loadRes writes into the dicts.
            found = truth.loadRes(list(map(copy.copy, results)))
            evaluation = evaluator(truth, found, iouType="bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation

    return Prepared(run, lambda evaluation: {"stats": np.asarray(evaluation.stats[:12])})


def compare(ours: Arrays, peer: Arrays, job: Job, name: str) -> str:
    worst = float(np.abs(ours["stats"] - peer["stats"]).max())
    return agreement.require(
        worst <= TOLERANCE,
        f"AP {ours['stats'][0]:.4f}; the 12 numbers to {worst:.0e}",
        f"to {TOLERANCE:.0e}",
    )


def job(images: int, detections: int, **options: Any) -> Job:
    name = f"{images} images, {images * detections} detections"
    return Job(name, partial(inputs, images=images, detections=detections), **options)


CASE = Case(
    name="coco_eval",
    summary="COCO box metrics, from detections to the report",
    jobs=[
        job(1000, 100, goal={"pycocotools": 8.0}),
        # A minute and more of pycocotools a round: with `--rounds 1`.
        job(20_000, 20, peers=["pycocotools", "hotcoco"], goal={"pycocotools": 50.0}),
    ],
    sides={
        "ours": Side(ours),
        "pycocotools": Side(pycocotools, foreign=True),
        "hotcoco": Side(hotcoco, foreign=True),
        "faster-coco-eval": Side(faster, foreign=True),
        "ours-faster": Side(ours_by_faster),
        "ours-pycocotools": Side(ours_by_pycocotools),
    },
    compare=compare,
    threads=(1,),
)
