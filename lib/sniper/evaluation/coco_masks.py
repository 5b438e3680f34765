"""Ground truth masks of COCO annotations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pycocotools import mask as coco_mask

from sniper.data.dataset import Dataset
from sniper.errors import DataError

# pycocotools takes four numbers for a box.
MIN_POLYGON_NUMBERS = 6


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
            masks.append(_run_lengths(entry["segmentation"], sizes[entry["image_id"]]))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise DataError(
                f"the segmentation of annotation {entry.get('id', '(no id)')} is broken: {error}",
                where=dataset.annotation_path,
                got=repr(entry["segmentation"])[:200],
                expected="polygons [[x, y, x, y, ...], ...], or {'size': .., 'counts': ..}",
            ) from error
    return masks


def _run_lengths(segmentation: list | dict, size: list[int]) -> dict[str, Any]:
    if isinstance(segmentation, list):
        return _of_polygons(segmentation, size)
    if list(segmentation["size"]) != size:
        raise ValueError(f"its size is {segmentation['size']}, that of its image {size}")
    counts = segmentation["counts"]
    if isinstance(counts, (str, bytes)):
        return {"size": size, "counts": counts}
    if sum(counts) != size[0] * size[1]:
        raise ValueError(f"its runs cover {sum(counts)} px of {size[0] * size[1]}")
    return coco_mask.frPyObjects({"size": size, "counts": counts}, *size)


def _of_polygons(polygons: list, size: list[int]) -> dict[str, Any]:
    for polygon in polygons:
        if len(polygon) % 2:
            raise ValueError("a polygon has an odd number of coordinates")
        if not math.isfinite(sum(polygon)):
            raise ValueError("a polygon is not finite")
    kept = [list(map(float, p)) for p in polygons if len(p) >= MIN_POLYGON_NUMBERS]
    if not kept:
        return coco_mask.frPyObjects({"size": size, "counts": [size[0] * size[1]]}, *size)
    return coco_mask.merge(coco_mask.frPyObjects(kept, *size))
