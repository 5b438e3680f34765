"""An image set: its records and its classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sniper.data.record import Record
from sniper.errors import DataError

BACKGROUND = "__background__"


# The area under the curve replaced the mean of 11 points in 2010.
_FIRST_YEAR_OF_AREA = 2010


@dataclass(frozen=True, eq=False)
class VocTruth:
    """What the evaluation of a Pascal VOC set needs beside the records.

    Attributes:
        year: `2007`, `2012`, ... or the word that an own set has in its place.
        subset: `test`, `val`, ...
        image_names: image id -> name of the image in lists and result files.
        image_ids: (N,) int64, the image of each object.
        boxes: (N, 4) float32 as annotated, counted from 0, difficult objects included.
        classes: (N,) int32.
        difficult: (N,) bool.
    """

    year: str
    subset: str
    image_names: Mapping[int, str]
    image_ids: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray

    @property
    def eleven_points(self) -> bool:
        """Whether average precision is the mean of 11 points (years before 2010)."""
        return self.year == "SDS" or (
            self.year.isdecimal() and int(self.year) < _FIRST_YEAR_OF_AREA
        )


@dataclass(frozen=True)
class Dataset:
    """An image set as read from disk (no flipped copies, no proposals).

    Attributes:
        name: `COCO_<set>`, `PASCALVOC_<year>_<set>`, `IMAGES_<set>`; names proposal and result
            files.
        image_set: the set's name.
        class_names: index 0 is "__background__"; nothing else where the set has no classes.
        category_ids: id of each class in the annotation file; index 0 is 0.
        records: one per image, in the order of the annotation file.
        annotation_path: the annotation file or folder.
        has_annotations: whether the file has ground truth, so that results can be evaluated.
        voc: for Pascal VOC only, its own evaluation applies.

    Raises:
        DataError: the class lists do not fit together.
    """

    name: str
    image_set: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    records: tuple[Record, ...]
    annotation_path: str
    has_annotations: bool
    voc: VocTruth | None = None

    def __post_init__(self) -> None:
        if len(self.class_names) != len(self.category_ids) or self.class_names[:1] != (BACKGROUND,):
            raise DataError(
                "class_names and category_ids must be equally long and start with the background",
                where=self.annotation_path,
                got=f"{len(self.class_names)} names, {len(self.category_ids)} ids",
            )
