"""An image set: its records and its classes."""

from __future__ import annotations

from dataclasses import dataclass

from sniper.data.record import Record
from sniper.errors import DataError

BACKGROUND = "__background__"


@dataclass(frozen=True)
class Dataset:
    """An image set as read from disk (no flipped copies, no proposals).

    Attributes:
        name: `COCO_<set>`; names proposal and result files.
        image_set: the set's name.
        class_names: index 0 is "__background__".
        category_ids: id of each class in the annotation file; index 0 is 0.
        records: one per image, in the order of the annotation file.
        annotation_path: the annotation file.
        has_annotations: whether the file has ground truth, so that results can be evaluated.

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

    def __post_init__(self) -> None:
        if len(self.class_names) != len(self.category_ids) or self.class_names[:1] != (BACKGROUND,):
            raise DataError(
                "class_names and category_ids must be equally long and start with the background",
                where=self.annotation_path,
                got=f"{len(self.class_names)} names, {len(self.category_ids)} ids",
            )
