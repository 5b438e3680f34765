"""The ground truth of a COCO evaluation: annotations of a set, and their masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from sniper.data.coco_columns import CROWD, read_annotations
from sniper.data.coco_entries import MIN_POLYGON_NUMBERS, is_set, read_annotation_json
from sniper.data.coco_masks import flat_polygons, without_masks
from sniper.data.dataset import FROM_RECORDS, Dataset
from sniper.data.ids import FileId, id_key
from sniper.data.json_stream import NotStreamableError
from sniper.data.one_class import OneClassTruth
from sniper.data.record import Record
from sniper.data.rle import checked_run_lengths
from sniper.errors import DataError


@dataclass(frozen=True, eq=False)
class Truth:
    """The objects of a set, in the order of its file.

    Attributes:
        images: (n,) int64, the place of the record of each.
        classes: (n,) int64, 1 ... C-1.
        boxes: (n, 4) float64 x y width height, image px.
        areas: (n,) float64 px^2, as annotated or else those of the masks or boxes.
        crowd: (n,) bool.
        masks: compressed run lengths of each; None for boxes.
    """

    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    masks: Sequence[dict[str, Any]] | None = None


def truth_of(
    dataset: Dataset,
    annotations: Sequence[Mapping[str, Any]],
    masks: Sequence[dict[str, Any]] | None = None,
) -> Truth:
    """Annotations of `annotations_of` as columns.

    Args:
        dataset: the set.
        annotations: its objects.
        masks: `ground_truth_masks`; None for boxes.
    """
    place = {record.image_id: index for index, record in enumerate(dataset.records)}
    classes = {identity: index for index, identity in enumerate(dataset.category_ids) if index}
    # Some tools make texts of numbers, which training takes, too; NumPy reads them.
    boxes = np.array([entry["bbox"] for entry in annotations], np.float64).reshape(-1, 4)
    areas = [entry.get("area") for entry in annotations]
    if any(area is None for area in areas):
        own = boxes[:, 2] * boxes[:, 3] if masks is None else coco_mask.area(masks)
        areas = [other if area is None else area for area, other in zip(areas, own.tolist())]
    return Truth(
        images=np.array([place[entry["image_id"]] for entry in annotations], np.int64),
        classes=np.array([classes[entry["category_id"]] for entry in annotations], np.int64),
        boxes=boxes,
        areas=np.array(areas, np.float64),
        crowd=np.array([bool(entry.get("iscrowd")) for entry in annotations], bool),
        masks=masks,
    )


def plain_truth(dataset: Dataset) -> Truth | None:
    """The boxes of a set whose annotation file holds plain numbers alone; masks are stepped over.

    None for other sets: `annotations_of` knows all forms.
    """
    if dataset.truth == FROM_RECORDS:
        return None
    try:
        _, annotations = read_annotations(
            dataset.annotation_path, with_masks=False, hook=without_masks
        )
    except NotStreamableError:
        return None
    if annotations.odd or not annotations.are_finite():
        return None
    table = annotations.table
    places = {id_key(record.original_id): i for i, record in enumerate(dataset.records)}
    images = _looked_up(table["image_id"], places)
    classes = _looked_up(table["category_id"], _class_of_id(dataset))
    kept = (images >= 0) & (classes >= 0)
    boxes = np.column_stack([table[name][kept] for name in ("x", "y", "width", "height")])
    areas = annotations.areas[kept]
    return Truth(
        images=images[kept],
        classes=classes[kept],
        boxes=boxes,
        areas=np.where(np.isnan(areas), boxes[:, 2] * boxes[:, 3], areas),
        crowd=table["flags"][kept] & CROWD > 0,
    )


def _class_of_id(dataset: Dataset) -> dict[FileId, int]:
    """The class by the key of a category's id in the annotation file."""
    if isinstance(dataset.truth, OneClassTruth):
        return {id_key(identity): 1 for identity in dataset.truth.category_ids[1:]}
    return {id_key(identity): index for index, identity in enumerate(dataset.category_ids) if index}


def _looked_up(ids: np.ndarray, places: Mapping[FileId, int]) -> np.ndarray:
    """(n,) int64 the place of each id, -1 without one."""
    distinct, of_row = np.unique(ids, return_inverse=True)
    return np.array([places.get(number, -1) for number in distinct.tolist()], np.int64)[of_row]


def annotations_of(dataset: Dataset, *, with_masks: bool) -> list[dict[str, Any]]:
    """The annotations of the images and categories of a set, as COCO files have them.

    Images have the numbers of the records, categories the ids of the set.

    They come from the set's annotation file, or from its records where the set has none in COCO
    format (`FROM_RECORDS`; their crowd regions, which have no class, are left out).

    Raises:
        DataError: the annotation file is missing or broken.
    """
    if dataset.truth == FROM_RECORDS:
        return [entry for record in dataset.records for entry in _of_record(dataset, record)]
    hook = None if with_masks else without_masks
    annotations = read_annotation_json(dataset.annotation_path, hook)["annotations"]
    images = {id_key(record.original_id): record.image_id for record in dataset.records}
    categories = {id_key(identity): identity for identity in dataset.category_ids[1:]}
    if isinstance(dataset.truth, OneClassTruth):
        (one,) = categories.values()
        categories = {id_key(identity): one for identity in dataset.truth.category_ids[1:]}
    kept = []
    for entry in annotations:
        image_id, category_id = entry["image_id"], entry["category_id"]
        # Most ids are keys already.
        image_id = images.get(image_id if type(image_id) is int else id_key(image_id))
        category_id = categories.get(
            category_id if type(category_id) is int else id_key(category_id)
        )
        if image_id is not None and category_id is not None:
            entry["image_id"], entry["category_id"] = image_id, category_id
            # As training reads it: tools write texts of truth values, too.
            crowd = entry.get("iscrowd")
            entry["iscrowd"] = int(is_set(crowd, "iscrowd")) if crowd else 0
            kept.append(entry)
    return kept


def _of_record(dataset: Dataset, record: Record) -> list[dict[str, Any]]:
    corners = record.gt_boxes.astype(np.float64)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2] + 1], axis=1)
    polygons = record.polygons or ((),) * len(boxes)
    return [
        {
            "image_id": record.image_id,
            "category_id": dataset.category_ids[index],
            "bbox": box,
            "segmentation": [polygon.tolist() for polygon in of_object],
        }
        for box, index, of_object in zip(boxes.tolist(), record.gt_classes.tolist(), polygons)
    ]


def reason_without_masks(dataset: Dataset, annotations: Sequence[Mapping[str, Any]]) -> str | None:
    """Why masks on these annotations cannot be evaluated; None if they can."""
    missing = sum(not entry.get("segmentation") for entry in annotations)
    if not missing:
        return None
    everything = missing == len(annotations)
    what = "no object has a" if everything else f"{missing} of {len(annotations)} objects have no"
    return f"masks on {dataset.name} are not evaluated: {what} segmentation"


def ground_truth_masks(
    dataset: Dataset, annotations: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Run lengths of each annotation's `segmentation`, be it polygons or run lengths.

    Polygons with fewer than three points are left out, as in training.

    Raises:
        DataError: a segmentation is broken or has another size than its image.
    """
    sizes = {record.image_id: [record.height, record.width] for record in dataset.records}
    masks = []
    for entry in annotations:
        try:
            masks.append(run_lengths(entry["segmentation"], sizes[entry["image_id"]]))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise DataError(
                f"the segmentation of annotation {entry.get('id', '(no id)')} is broken: {error}",
                where=dataset.annotation_path,
                got=repr(entry["segmentation"])[:200],
                expected="polygons [[x, y, x, y, ...], ...], or {'size': .., 'counts': ..}",
            ) from error
    return masks


def run_lengths(segmentation: list | dict, size: list[int]) -> dict[str, Any]:
    """Compressed run lengths of polygons or run lengths.

    Args:
        segmentation: as annotations and results have it.
        size: height and width of the image, px.

    Raises:
        TypeError, ValueError, KeyError: it is broken or of another size.
    """
    if isinstance(segmentation, list):
        return _of_polygons(segmentation, size)
    return checked_run_lengths(segmentation, size)


def _of_polygons(segmentation: list, size: list[int]) -> dict[str, Any]:
    polygons = [list(map(float, polygon)) for polygon in flat_polygons(segmentation)]
    if not all(math.isfinite(sum(polygon)) for polygon in polygons):
        raise ValueError("a polygon is not finite")
    kept = [polygon for polygon in polygons if len(polygon) >= MIN_POLYGON_NUMBERS]
    if not kept:
        # One run of zeros: pycocotools cannot merge nothing.
        return coco_mask.frPyObjects({"size": size, "counts": [size[0] * size[1]]}, *size)
    return coco_mask.merge(coco_mask.frPyObjects(kept, *size))
