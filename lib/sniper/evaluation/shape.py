"""Whether detections have the shape of a data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sniper.data.dataset import Dataset
from sniper.errors import DataError

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
