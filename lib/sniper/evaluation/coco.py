"""COCO result files and COCO metrics of boxes and masks, by pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sniper.data.coco_parse import read_annotation_json
from sniper.data.dataset import Dataset
from sniper.errors import DataError
from sniper.evaluation.coco_masks import ground_truth_masks, reason_without_masks
from sniper.evaluation.report import STATISTICS, CocoReport, reason_not_evaluated
from sniper.evaluation.rle import Masks, segmentation
from sniper.evaluation.shape import Detections, check_masks, check_shape
from sniper.files import atomic_write

logger = logging.getLogger(__name__)


def coco_results(
    dataset: Dataset, detections: Detections, masks: Masks | None = None
) -> list[dict[str, Any]]:
    """Result dicts in the order of class, image, detection.

    Boxes are rounded to 1 decimal and scores to 8; widths are x2 - x1 + 1 (2018 behaviour).

    Args:
        dataset: the set that was detected on.
        detections: per image and class (n, 5) float32.
        masks: per image, class and detection compressed run lengths, which become `segmentation`.

    Raises:
        DataError: the lists do not have the set's number of images or classes, or masks and
            detections differ in number.
    """
    check_shape(dataset, detections)
    if masks is not None:
        check_masks(detections, masks)
    results: list[dict[str, Any]] = []
    for class_index, category_id in enumerate(dataset.category_ids):
        if class_index == 0:
            continue
        for image, (record, per_class) in enumerate(zip(dataset.records, detections)):
            rows = np.asarray(per_class[class_index], np.float64).reshape(-1, 5)
            boxes = np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2] + 1], axis=1)
            own = [
                {
                    "image_id": record.image_id,
                    "category_id": category_id,
                    "bbox": box,
                    "score": score,
                }
                for box, score in zip(boxes.round(1).tolist(), rows[:, 4].round(8).tolist())
            ]
            if masks is not None:
                for result, counts in zip(own, masks[image][class_index]):
                    result["segmentation"] = segmentation(counts, record.height, record.width)
            results.extend(own)
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


def evaluate_coco(
    dataset: Dataset, results: Sequence[dict[str, Any]], *, with_masks: bool = False
) -> CocoReport | None:
    """COCO metrics of results against the set's own annotation file.

    No results at all give zeros. Only the images of `dataset` count, so that a part of a set can
    be evaluated. Where an object of these images has no segmentation the masks are left out, and
    the report and the log say so.

    Args:
        dataset: the set that was detected on.
        results: of `coco_results`.
        with_masks: evaluate the masks, which every result has, beside the boxes.

    Returns:
        The report; None, with the reason in the log, if the set has no annotations.

    Raises:
        DataError: the annotation file is broken, or a result is none of this set.
    """
    reason = reason_not_evaluated(dataset)
    if reason is not None:
        logger.info(reason)
        return None
    known = {record.image_id for record in dataset.records}
    _check_results(results, known, set(dataset.category_ids[1:]), dataset)
    annotations = read_annotation_json(dataset.annotation_path)["annotations"]
    truth = [entry for entry in annotations if entry["image_id"] in known]
    boxes = _evaluate(dataset, map(_with_defaults, truth), map(_as_annotation, results), "bbox")
    if not with_masks:
        return boxes
    reason = reason_without_masks(dataset, truth)
    if reason is not None:
        logger.info(reason)
        return replace(boxes, masks_not_evaluated=reason)
    return replace(boxes, masks=_evaluate_masks(dataset, truth, results))


def _evaluate_masks(
    dataset: Dataset, truth: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]]
) -> CocoReport:
    if not all("segmentation" in result for result in results):
        raise DataError("a result has no mask, but masks are to be evaluated", where=dataset.name)
    masks = ground_truth_masks(dataset, truth)
    truth = [
        {**_with_defaults(entry, mask), "segmentation": mask} for entry, mask in zip(truth, masks)
    ]
    found = [
        {**result, "area": float(coco_mask.area(result["segmentation"])), "iscrowd": 0}
        for result in results
    ]
    return _evaluate(dataset, truth, found, "segm")


def _evaluate(
    dataset: Dataset,
    truth: Iterable[dict[str, Any]],
    found: Iterable[dict[str, Any]],
    kind: str,
) -> CocoReport:
    """The metrics of pycocotools for `kind` bbox or segm."""
    category_ids = sorted(dataset.category_ids[1:])
    # The evaluator prints its progress; the report says the same once and in order.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(
            _index(dataset, category_ids, truth), _index(dataset, category_ids, found), iouType=kind
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


def _with_defaults(entry: dict[str, Any], mask: dict[str, Any] | None = None) -> dict[str, Any]:
    """A ground truth annotation with the keys that the evaluator wants."""
    area = entry.get("area")
    if area is None:
        box_area = entry["bbox"][2] * entry["bbox"][3]
        area = box_area if mask is None else float(coco_mask.area(mask))
    return {
        "image_id": entry["image_id"],
        "category_id": entry["category_id"],
        "bbox": entry["bbox"],
        "area": area,
        "iscrowd": int(entry.get("iscrowd") or 0),
    }


def _as_annotation(result: dict[str, Any]) -> dict[str, Any]:
    """A result as annotation; its area decides between small, medium and large."""
    area = result["bbox"][2] * result["bbox"][3]
    return {**result, "area": area, "iscrowd": 0}


def _index(
    dataset: Dataset, category_ids: Sequence[int], annotations: Iterable[dict[str, Any]]
) -> COCO:
    """An evaluator's index. Ids count from 1: the evaluator takes a match with id 0 for none."""
    images = {
        record.image_id: {"id": record.image_id, "height": record.height, "width": record.width}
        for record in dataset.records
    }
    index = COCO()
    index.dataset = {
        "info": {},
        "images": [images[image_id] for image_id in sorted(images)],
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
        for name, value in zip(STATISTICS, evaluator.stats)
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
