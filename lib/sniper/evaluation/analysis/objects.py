"""The objects of a set in flat arrays, as its evaluation sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sniper.data.coco_parse import read_annotation_json
from sniper.data.dataset import Dataset, VocTruth
from sniper.errors import DataError
from sniper.evaluation.report import reason_not_evaluated


@dataclass(frozen=True, eq=False)
class Objects:
    """M annotated objects, ordered by image.

    Attributes:
        images: (M,) int64 index into the records, rising.
        classes: (M,) int32.
        boxes: (M, 4) float64 x y width height, image px, as annotated.
        ignored: (M,) bool: crowd regions and difficult objects, which need not be found.
        crowd: (M,) bool: regions that may hold several objects.
    """

    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    ignored: np.ndarray
    crowd: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def of_image(self, index: int) -> slice:
        """Where the objects of an image stand."""
        start, stop = np.searchsorted(self.images, [index, index + 1])
        return slice(int(start), int(stop))


def objects_of(dataset: Dataset) -> Objects:
    """The objects of the images of a COCO or Pascal VOC set.

    Raises:
        DataError: the set has no annotations, or they are broken.
    """
    reason = reason_not_evaluated(dataset)
    if reason is not None:
        raise DataError(reason, fix="choose a set with annotations")
    place = {record.image_id: index for index, record in enumerate(dataset.records)}
    objects = _of_voc(dataset.voc, place) if dataset.voc else _of_coco(dataset, place)
    order = np.argsort(objects.images, kind="stable")
    fields = ("images", "classes", "boxes", "ignored", "crowd")
    return Objects(*(getattr(objects, name)[order] for name in fields))


def _of_coco(dataset: Dataset, place: dict[int, int]) -> Objects:
    classes = {identity: index for index, identity in enumerate(dataset.category_ids) if index}
    annotations = read_annotation_json(dataset.annotation_path, _without_mask)["annotations"]
    own = [
        entry
        for entry in annotations
        if entry["image_id"] in place and entry["category_id"] in classes
    ]
    crowd = np.array([bool(entry.get("iscrowd")) for entry in own], bool)
    return Objects(
        images=np.array([place[entry["image_id"]] for entry in own], np.int64),
        classes=np.array([classes[entry["category_id"]] for entry in own], np.int32),
        boxes=np.array([entry["bbox"] for entry in own], np.float64).reshape(-1, 4),
        ignored=crowd,
        crowd=crowd,
    )


def _without_mask(entry: dict[str, Any]) -> dict[str, Any]:
    entry.pop("segmentation", None)
    return entry


def _of_voc(truth: VocTruth, place: dict[int, int]) -> Objects:
    images = np.array([place.get(i, -1) for i in truth.image_ids.tolist()], np.int64)
    own = images >= 0
    corners = truth.boxes[own].astype(np.float64)
    return Objects(
        images=images[own],
        classes=truth.classes[own].astype(np.int32),
        boxes=np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2] + 1], axis=1),
        ignored=truth.difficult[own].astype(bool),
        crowd=np.zeros(int(own.sum()), bool),
    )
