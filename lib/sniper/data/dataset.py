"""An image set: its records and its classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sniper.data.account import Entry, Intake
from sniper.data.ids import FileId
from sniper.data.record import Record
from sniper.errors import DataError

BACKGROUND = "__background__"


# For `Dataset.truth`: the objects of the set are those of its records.
FROM_RECORDS = "records"


@dataclass(frozen=True)
class Dataset:
    """An image set as read from disk (no flipped copies, no proposals).

    Attributes:
        name: `COCO_<set>`, `PASCALVOC_<year>_<set>`, `IMAGES_<set>`; names proposal and result
            files.
        image_set: the set's name.
        class_names: index 0 is "__background__"; nothing else where the set has no classes.
        category_ids: id of each class as the annotation file writes it; index 0 is 0.
        records: one per image, in the order of the annotation file.
        annotation_path: the annotation file or folder.
        has_annotations: whether the file has ground truth, so that results can be evaluated.
        truth: what the protocol of the evaluation needs beside the records, such as the difficult
            objects of Pascal VOC. For COCO None: the objects are those of the COCO file
            `annotation_path`; other formats give `FROM_RECORDS`. See also `sniper.data.one_class`.
        protocol: who evaluates detections, a name of `sniper.evaluation.protocol`.
        num_ignored: objects that need not be found: crowd regions, difficult ones.
        intake: how many annotations there were, and why some are no objects of the records; None
            where the reader does not say.
        counts: what the format counts beside objects, such as verified labels; for reports.
        legacy_file_order: the proposal files of 2018 have the set's order (Pascal VOC), not that of
            a Python 2 dict (COCO).

    Raises:
        DataError: the class lists do not fit together.
    """

    name: str
    image_set: str
    class_names: tuple[str, ...]
    category_ids: tuple[FileId, ...]
    records: tuple[Record, ...]
    annotation_path: str
    has_annotations: bool
    truth: object = None
    protocol: str = "coco"
    num_ignored: int = 0
    intake: Intake | None = None
    counts: Mapping[Entry, int] = field(default_factory=dict)
    legacy_file_order: bool = False

    def __post_init__(self) -> None:
        if len(self.class_names) != len(self.category_ids) or self.class_names[:1] != (BACKGROUND,):
            raise DataError(
                "class_names and category_ids must be equally long and start with the background",
                where=self.annotation_path,
                got=f"{len(self.class_names)} names, {len(self.category_ids)} ids",
            )

    def categories(self) -> list[dict[str, object]]:
        """Ids and names of the classes as COCO files list them, without the background."""
        pairs = zip(self.category_ids[1:], self.class_names[1:])
        return [{"id": identity, "name": name} for identity, name in pairs]

    @property
    def num_objects(self) -> int:
        """Ground truth boxes of all records."""
        return sum(record.num_gt for record in self.records)
