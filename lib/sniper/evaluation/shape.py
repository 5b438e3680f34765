"""Whether detections have the shape of a data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sniper.data.dataset import Dataset
from sniper.errors import DataError
from sniper.evaluation.rle import Masks

# Per image in data set order, per class with the empty background at index 0:
# (n, 5) float32 x1 y1 x2 y2 score, image px.
Detections = Sequence[Sequence[np.ndarray]]


def check_shape(dataset: Dataset, detections: Detections) -> None:
    """Compares the numbers of images and classes.

    Raises:
        DataError: they differ from those of the data set.
    """
    classes = len(dataset.class_names)
    problem = None
    if len(detections) != len(dataset.records):
        problem = f"detections for {len(detections)} images"
    elif any(len(per_class) != classes for per_class in detections):
        counts = sorted({len(per_class) for per_class in detections})
        problem = f"lists of {' or '.join(map(str, counts))} classes"
    if problem is not None:
        raise DataError(
            "the detections do not fit the data set",
            where=dataset.name,
            got=problem,
            expected=f"{len(dataset.records)} images, each with {classes} classes",
        )


def check_masks(detections: Detections, masks: Masks) -> None:
    """Compares the numbers of detections and masks of each image and class.

    Raises:
        DataError: they differ.
    """
    counts = [[len(own) for own in image] for image in detections]
    if counts != [[len(own) for own in image] for image in masks]:
        raise DataError(
            "the masks do not fit the detections",
            got=f"{sum(len(own) for image in masks for own in image)} masks",
            expected=f"{sum(map(sum, counts))}, one for each detection of an image and class",
        )
