"""Whether detections fit a data set."""

from __future__ import annotations

from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable
from sniper.errors import DataError


def check_shape(dataset: Dataset, table: DetectionTable) -> None:
    """Compares the number of images and the classes.

    Raises:
        DataError: they are not those of the data set.
    """
    classes = len(dataset.class_names)
    problem = None
    if len(table) != len(dataset.records):
        problem = f"detections for {len(table)} images"
    elif table.classes.max(initial=0) >= classes:
        problem = f"a class {table.classes.max()}"
    if problem is not None:
        raise DataError(
            "the detections do not fit the data set",
            where=dataset.name,
            got=problem,
            expected=f"{len(dataset.records)} images, classes 1 to {classes - 1}",
        )
