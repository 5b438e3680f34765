"""COCO result files and COCO box metrics, by pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sniper.data.coco_parse import read_annotation_json
from sniper.data.dataset import Dataset
from sniper.errors import DataError
from sniper.evaluation.report import CocoReport, reason_not_evaluated
from sniper.evaluation.shape import Detections, check_shape
from sniper.files import atomic_write

logger = logging.getLogger(__name__)

_STATISTICS = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
)


def coco_results(dataset: Dataset, detections: Detections) -> list[dict[str, Any]]:
    """Result dicts in the order of class, image, detection.

    Boxes are rounded to 1 decimal and scores to 8; widths are x2 - x1 + 1 (2018 behaviour).

    Args:
        dataset: the set that was detected on.
        detections: per image and class (n, 5) float32.

    Raises:
        DataError: the lists do not have the set's number of images or classes.
    """
    check_shape(dataset, detections)
    results: list[dict[str, Any]] = []
    for class_index, category_id in enumerate(dataset.category_ids):
        if class_index == 0:
            continue
        for record, per_class in zip(dataset.records, detections):
            rows = np.asarray(per_class[class_index], np.float64).reshape(-1, 5)
            boxes = np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2] + 1], axis=1)
            results.extend(
                {
                    "image_id": record.image_id,
                    "category_id": category_id,
                    "bbox": box,
                    "score": score,
                }
                for box, score in zip(boxes.round(1).tolist(), rows[:, 4].round(8).tolist())
            )
    return results


def write_coco_results(
    path: str | Path, results: Sequence[dict[str, Any]], *, compact: bool = False
) -> None:
    """Writes the results as JSON with sorted keys, as evaluation servers take it.

    Args:
        path: the file; an old one stays until the new one is complete.
        results: of `coco_results`; none gives an empty list.
        compact: one line per detection instead of an indent of 4 (2018 behaviour).

    Raises:
        TrainingError: the file could not be written.
    """

    def write(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8") as stream:
            if compact:
                stream.write("[")
                for number, result in enumerate(results):
                    stream.write(",\n" if number else "\n")
                    stream.write(json.dumps(result, sort_keys=True))
                stream.write("\n]\n")
            else:
                json.dump(results, stream, sort_keys=True, indent=4)

    atomic_write(path, write)


def evaluate_coco(dataset: Dataset, results: Sequence[dict[str, Any]]) -> CocoReport | None:
    """COCO box metrics of results against the set's own annotation file.

    No results at all give zeros. Only the images of `dataset` count, so that a part of a set can
    be evaluated.

    Args:
        dataset: the set that was detected on.
        results: of `coco_results`.

    Returns:
        The report; None, with the reason in the log, if the set has no annotations.

    Raises:
        DataError: the annotation file is broken, or a result is none of this set.
    """
    reason = reason_not_evaluated(dataset)
    if reason is not None:
        logger.info(reason)
        return None
    image_ids = sorted({record.image_id for record in dataset.records})
    category_ids = sorted(dataset.category_ids[1:])
    _check_results(results, set(image_ids), set(category_ids), dataset)
    annotations = read_annotation_json(dataset.annotation_path)["annotations"]
    known = set(image_ids)
    ground_truth = [entry for entry in annotations if entry["image_id"] in known]
    # The evaluator prints its progress; the report says the same once and in order.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(
            _index(image_ids, category_ids, map(_with_defaults, ground_truth)),
            _index(image_ids, category_ids, map(_as_annotation, results)),
            iouType="bbox",
        )
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return _report(dataset, evaluator, category_ids)


def _check_results(
    results: Sequence[dict[str, Any]], image_ids: set[int], category_ids: set[int], dataset: Dataset
) -> None:
    for result in results:
        if result["image_id"] not in image_ids or result["category_id"] not in category_ids:
            raise DataError(
                f"a result belongs to no image or category of {dataset.name}",
                where=dataset.annotation_path,
                got=f"image {result['image_id']}, category {result['category_id']}",
            )


def _with_defaults(entry: dict[str, Any]) -> dict[str, Any]:
    """A ground truth annotation with the keys that the evaluator wants."""
    area = entry.get("area")
    return {
        "image_id": entry["image_id"],
        "category_id": entry["category_id"],
        "bbox": entry["bbox"],
        "area": entry["bbox"][2] * entry["bbox"][3] if area is None else area,
        "iscrowd": int(entry.get("iscrowd") or 0),
    }


def _as_annotation(result: dict[str, Any]) -> dict[str, Any]:
    """A result as annotation; its area decides between small, medium and large."""
    area = result["bbox"][2] * result["bbox"][3]
    return {**result, "area": area, "iscrowd": 0}


def _index(
    image_ids: Sequence[int], category_ids: Sequence[int], annotations: Iterable[dict[str, Any]]
) -> COCO:
    """An evaluator's index. Ids count from 1: the evaluator takes a match with id 0 for none."""
    index = COCO()
    index.dataset = {
        "info": {},
        "images": [{"id": image_id} for image_id in image_ids],
        "categories": [{"id": category_id} for category_id in category_ids],
        "annotations": [{**entry, "id": i} for i, entry in enumerate(annotations, start=1)],
    }
    index.createIndex()
    return index


def _report(dataset: Dataset, evaluator: COCOeval, category_ids: Sequence[int]) -> CocoReport:
    # precision: (IoU, recall, category, area, detections); -1 where there is no object.
    precision = evaluator.eval["precision"][:, :, :, 0, -1]
    by_id = {
        category_id: _mean(precision[:, :, position])
        for position, category_id in enumerate(category_ids)
    }
    names = zip(dataset.class_names[1:], dataset.category_ids[1:])
    statistics = {
        name: float(value) if value >= 0 else float("nan")
        for name, value in zip(_STATISTICS, evaluator.stats)
    }
    return CocoReport(
        dataset=dataset.name,
        num_images=len(evaluator.params.imgIds),
        per_class={name: by_id[category_id] for name, category_id in names},
        **statistics,
    )


def _mean(values: np.ndarray) -> float:
    values = values[values >= 0]
    return float(values.mean()) if values.size else float("nan")
