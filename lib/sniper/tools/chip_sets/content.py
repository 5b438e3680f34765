"""What an exported set of chips consists of: pictures and boxes as training would see them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sniper.boxes import clip
from sniper.chips.chip_table import Chip, ChipTable
from sniper.data.ids import FileId, id_key
from sniper.data.record import Record
from sniper.loader.images import ImageSource
from sniper.loader.sample import BatchSettings, chip_boxes, chip_pixels

SIZE, CROWD = "size", "crowd"
# Files of one folder: file systems and people get slow with more.
_PER_FOLDER = 1000


@dataclass(frozen=True)
class Place:
    """A chip of the set.

    Attributes:
        number: from 0; the id in files is one more.
        record: index of its record.
        chip: the chip.
    """

    number: int
    record: int
    chip: Chip

    @property
    def file_stem(self) -> str:
        """Where its picture is below the folder of pictures, without the ending.

        The name is the id with zeros in front: programs that take the names of pictures for their
        ids (ultralytics) write results that fit.
        """
        return f"{self.number // _PER_FOLDER:05d}/{self.number + 1:08d}"


@dataclass(frozen=True, eq=False)
class ChipBoxes:
    """The boxes of a chip.

    Attributes:
        boxes: (n, 4) float32 inclusive corners, px of the picture.
        classes: (n,) int32; 0 for crowd regions, whose class training does not know.
        trained: (n,) bool: the chip is trained on it. The others must neither be learned as objects
            nor as background: another level's (reason `SIZE`), or crowd regions (`CROWD`).
    """

    boxes: np.ndarray
    classes: np.ndarray
    trained: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def reason(self, row: int) -> str:
        """Why a box is not trained."""
        return SIZE if self.classes[row] else CROWD


@dataclass(frozen=True, eq=False)
class ChipSet:
    """The chips of one epoch, and all that their pictures and boxes depend on.

    Attributes:
        records: training images; flipped copies are records of their own.
        chips: of each record.
        times: (C,) how often each chip is trained in the epoch (`dataset.CLASS_BALANCED`).
        settings: how they are cut, and how boxes become boxes of chips.
        class_names: index 0 is the background.
        category_ids: of each class, 0 for the background.
    """

    records: Sequence[Record]
    chips: ChipTable
    times: np.ndarray
    settings: BatchSettings
    class_names: tuple[str, ...]
    category_ids: tuple[FileId, ...]

    def __len__(self) -> int:
        return self.chips.num_chips

    def places(self, record: int) -> Iterator[Place]:
        """All chips of a record."""
        first = int(self.chips.offsets[record])
        for index, chip in enumerate(self.chips[record]):
            yield Place(first + index, record, chip)

    def all_places(self) -> Iterator[Place]:
        """All chips in the order of their numbers."""
        for record in range(len(self.records)):
            yield from self.places(record)

    def place(self, number: int) -> Place:
        """The chip of a number."""
        record = int(np.searchsorted(self.chips.offsets, number, side="right")) - 1
        chip = self.chips.chip(record, number - int(self.chips.offsets[record]))
        return Place(number, record, chip)

    def pixels(self, place: Place, images: ImageSource) -> np.ndarray:
        """(h, w, 3) uint8 BGR: the content of the chip, without what pads it to a square.

        Raises:
            DataError: the image cannot be read, or has another size than its annotations say.
        """
        side = self.settings.contract.chip_size
        out = np.zeros((side, side, 3), np.uint8)
        height, width = chip_pixels(
            self.records[place.record], place.chip, self.settings, images, out
        )
        return out[:height, :width]

    def boxes(self, place: Place, height: int, width: int) -> ChipBoxes:
        """The boxes of a chip with the sides of its picture.

        They are training's but for those that end in the padding: these end where the picture does.
        """
        gt, crowd = chip_boxes(self.records[place.record], place.chip, self.settings)
        boxes = clip(np.concatenate([gt.boxes, crowd]), height, width)
        classes = np.concatenate([gt.classes, np.zeros(len(crowd), np.int32)])
        trained = np.concatenate([gt.valid, np.zeros(len(crowd), bool)])
        return ChipBoxes(boxes, classes, trained)

    def image_ids(self) -> list[FileId]:
        """The id of each record's image, the same for the flipped copy.

        Those of the annotation files; numbers from 1 on where joined sets use one id twice.
        """
        of_path = {record.image_path: record.original_id for record in self.records}
        if len(set(map(id_key, of_path.values()))) < len(of_path):
            of_path = {path: number for number, path in enumerate(of_path, start=1)}
        return [of_path[record.image_path] for record in self.records]

    def fingerprint(self, *more: object) -> str:
        """A digest of everything that decides about the files: other chips, another digest."""
        digest = hashlib.sha256()
        settings, chips = self.settings, self.chips
        head = [*more, self.class_names, self.category_ids, settings.contract.chip_size]
        head += [settings.reduced_decoding, settings.legacy_boxes, settings.min_visible]
        digest.update(repr(head).encode())
        arrays = (chips.offsets, chips.rects, chips.level, chips.factor, chips.rows, self.times)
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
        for record in self.records:
            image = (record.image_path, record.width, record.height, record.flipped, record.exif)
            digest.update(repr(image).encode())
            digest.update(record.gt_boxes.tobytes() + record.gt_classes.tobytes())
            if record.crowd_boxes is not None:
                digest.update(record.crowd_boxes.tobytes())
        return digest.hexdigest()
