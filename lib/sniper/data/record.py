"""One image with its boxes: what every later stage works on."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from sniper import boxes as box_math
from sniper.data.collector import collector_off
from sniper.data.ids import FileId
from sniper.data.orientation import AUTO, ImageFrame
from sniper.data.polygon_table import MirroredPolygons
from sniper.errors import DataError

logger = logging.getLogger(__name__)

Polygons = Sequence[Sequence[np.ndarray]]  # tuples, or of `sniper.data.polygon_table`


@dataclass(frozen=True, eq=False)
class Record:
    """An image, its ground truth and, after `with_proposals`, its proposals.

    Attributes:
        image_path: the image file.
        image_id: number of the image, the same for the flipped copy: its id in the annotation file
            where that is a whole number of 64 bits.
        width: px, from the annotations (the file is compared when it is read).
        height: px.
        flipped: boxes and polygons are those of the mirrored image.
        boxes: (N, 4) float32 x1 y1 x2 y2, image px, inclusive; ground truth first.
        classes: (N,) int32; 1... for ground truth, 0 for proposals.
        is_gt: (N,) bool.
        polygons: per ground truth box its polygons, each (2k,) float32 x y x y ..., image px;
            None if masks were not loaded.
        crowd_boxes: (M, 4) float32, regions that hold many objects; no ground truth.
        file_id: the id in the annotation file where it is something else (a text, a longer number).
        exif: what EXIF orientation does to the image: `dataset.EXIF`.

    Raises:
        DataError: the fields do not fit together.
    """

    image_path: str
    image_id: int
    width: int
    height: int
    flipped: bool
    boxes: np.ndarray
    # In 2018 every box had its overlaps with all classes: tens of GB for COCO with proposals. All
    # that was read of them is which boxes are ground truth, and of which class.
    classes: np.ndarray
    is_gt: np.ndarray
    polygons: Polygons | None = None
    crowd_boxes: np.ndarray | None = None
    file_id: FileId | None = None
    exif: str = AUTO

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem is not None:
            raise DataError(
                f"the record of image {self.original_id} is broken: {problem}",
                where=self.image_path,
            )

    @property
    def original_id(self) -> FileId:
        """The image's id as its annotation file writes it: what results and messages have."""
        return self.image_id if self.file_id is None else self.file_id

    @property
    def frame(self) -> ImageFrame:
        """What the boxes refer to, for `sniper.data.image.read_image`."""
        return ImageFrame(self.width, self.height, self.exif)

    @property
    def num_gt(self) -> int:
        """Number of ground truth boxes."""
        return int(np.count_nonzero(self.is_gt))

    @property
    def gt_boxes(self) -> np.ndarray:
        """(G, 4) float32 view of the ground truth boxes."""
        return self.boxes[: self.num_gt]

    @property
    def gt_classes(self) -> np.ndarray:
        """(G,) int32 view of the ground truth classes."""
        return self.classes[: self.num_gt]


def _problem(record: Record) -> str | None:
    if not (0 < record.width < math.inf and 0 < record.height < math.inf):
        return f"its size is {record.width}x{record.height}"
    count = len(record.boxes)
    arrays = [
        ("boxes", record.boxes, np.float32, (count, 4)),
        ("classes", record.classes, np.int32, (count,)),
        ("is_gt", record.is_gt, np.bool_, (count,)),
    ]
    if record.crowd_boxes is not None:
        arrays.append(("crowd_boxes", record.crowd_boxes, np.float32, (len(record.crowd_boxes), 4)))
    for name, array, dtype, shape in arrays:
        if array.dtype != dtype or array.shape != shape:
            return f"{name} is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}"
    num_gt = record.num_gt
    if not record.is_gt[:num_gt].all():
        return "proposals stand before ground truth boxes"
    if not np.isfinite(record.boxes).all():
        return "a box is not finite"
    gt_boxes, classes = record.boxes[:num_gt], record.classes
    if (gt_boxes[:, 2:] < gt_boxes[:, :2]).any():
        return "a ground truth box ends before it starts"
    if (classes[:num_gt] < 1).any() or classes[num_gt:].any():
        return "classes must be 1... for ground truth and 0 for proposals"
    if record.polygons is not None and len(record.polygons) != num_gt:
        return f"it has {num_gt} ground truth boxes, but {len(record.polygons)} polygon lists"
    return None


_FIELDS = tuple(field.name for field in fields(Record))


def flip_record(record: Record, *, legacy: bool = False) -> Record:
    """The horizontally mirrored record: x1' = W - x2 - 1, polygon x' = W - x.

    Corners of boxes name pixels, of which the first is 0 and the last W - 1; points of polygons lie
    between 0 and W.

    Args:
        record: the record.
        legacy: polygons as in 2018: x' = W - x - 1, one px beside their boxes.
    """
    width = record.width - 1 if legacy else record.width
    polygons = record.polygons
    if polygons is not None:
        polygons = MirroredPolygons(polygons, width)
    crowd_boxes = record.crowd_boxes
    if crowd_boxes is not None and len(crowd_boxes):
        crowd_boxes = box_math.flip(crowd_boxes, record.width)
    changes = {
        "flipped": not record.flipped,
        "boxes": box_math.flip(record.boxes, record.width),
        "polygons": polygons,
        "crowd_boxes": crowd_boxes,
    }
    # Nothing that `Record` asks can change in a mirror.
    return sound_record({**vars(record), **changes}.items())


def image_record(path: str | Path, image_id: int, width: int, height: int) -> Record:
    """A record of an image without objects."""
    return Record(
        image_path=str(path),
        image_id=image_id,
        width=width,
        height=height,
        flipped=False,
        boxes=np.zeros((0, 4), np.float32),
        classes=np.zeros(0, np.int32),
        is_gt=np.zeros(0, bool),
    )


@dataclass(frozen=True, eq=False)
class Rows:
    """N rows of n images: image i owns `values[offsets[i]:offsets[i + 1]]`."""

    values: np.ndarray
    offsets: np.ndarray

    def of_images(self) -> list[np.ndarray]:
        """A view for each image."""
        values, ends = self.values, self.offsets.tolist()
        return [values[start:end] for start, end in zip(ends, ends[1:])]


def records_of_arrays(
    paths: Sequence[str],
    numbers: Sequence[int],
    file_ids: Sequence[FileId],
    sizes: np.ndarray,
    boxes: Rows,
    classes: np.ndarray,
    crowd_boxes: Rows,
    polygons: Sequence[Polygons | None] | None = None,
) -> tuple[Record, ...]:
    """Records of ground truth alone, as views: looked at together, millions take seconds.

    Args:
        paths: of the n images.
        numbers: `Record.image_id` of each.
        file_ids: its id in the annotation file.
        sizes: (n, 2) width and height, px.
        boxes: (N, 4) float32 ground truth of all images.
        classes: (N,) int32.
        crowd_boxes: (M, 4) float32.
        polygons: of each image; None without masks.

    Raises:
        DataError: an image is broken, see `Record`.
    """
    flags, counts = _Flags(), np.diff(boxes.offsets).tolist()
    widths, heights = sizes.T.tolist()
    are_sound = _are_sound(sizes, boxes, classes, crowd_boxes)
    # What `Record` asks of each one is then asked of all.
    make = _unchecked if are_sound else Record
    with collector_off():
        return tuple(
            map(
                make,
                *(paths, numbers, widths, heights),
                itertools.repeat(False),
                boxes.of_images(),
                Rows(classes, boxes.offsets).of_images(),
                map(flags.__getitem__, counts),
                polygons or itertools.repeat(None),
                _of_few_images(crowd_boxes),
                [None if own == number else own for own, number in zip(file_ids, numbers)],
                itertools.repeat(AUTO),
            )
        )


def _of_few_images(rows: Rows) -> list[np.ndarray]:
    """As `Rows.of_images`, but most images have none, and share one array that says so."""
    of_images = [rows.values[:0]] * (len(rows.offsets) - 1)
    for index in np.flatnonzero(np.diff(rows.offsets)).tolist():
        of_images[index] = rows.values[rows.offsets[index] : rows.offsets[index + 1]]
    return of_images


class _Flags(dict[int, np.ndarray]):
    """`is_gt` of n ground truth boxes: one array for all images that have as many."""

    def __missing__(self, count: int) -> np.ndarray:
        flags = self[count] = np.ones(count, np.bool_)
        flags.flags.writeable = False  # many records share it
        return flags


def _unchecked(*values: object) -> Record:
    return sound_record(zip(_FIELDS, values))


def sound_record(values: Iterable[tuple[str, object]]) -> Record:
    """A record that is not looked at: what `Record` asks takes a minute for millions of them.

    Args:
        values: name and value of all fields, in their order, known to be good.
    """
    record = object.__new__(Record)
    # From pairs, not from a dict: so all records share one table of the names.
    record.__dict__.update(values)
    return record


def _are_sound(sizes: np.ndarray, boxes: Rows, classes: np.ndarray, crowd_boxes: Rows) -> bool:
    corners = boxes.values
    types = (corners.dtype, crowd_boxes.values.dtype, classes.dtype)
    return bool(
        types == (np.float32, np.float32, np.int32)
        and corners.shape == (len(classes), 4)
        and crowd_boxes.values.shape[1:] == (4,)
        and np.isfinite(corners).all()
        and (corners[:, 2:] >= corners[:, :2]).all()
        and (classes >= 1).all()
        and (sizes > 0).all()
    )


def append_flipped(records: Sequence[Record], *, legacy: bool = False) -> list[Record]:
    """All records, then their mirrored copies in the same order (2018 behaviour).

    Args:
        records: the records.
        legacy: see `flip_record`.
    """
    with collector_off():
        return [*records, *(flip_record(record, legacy=legacy) for record in records)]


def with_proposals(record: Record, boxes: np.ndarray) -> Record:
    """The record with `boxes` as its proposals; proposals that it already has are replaced.

    Args:
        record: the record.
        boxes: (M, 4) float32, image px, mirrored if the record is.
    """
    count = len(boxes)
    return replace(
        record,
        boxes=np.concatenate([record.gt_boxes, boxes.astype(np.float32, copy=False)]),
        classes=np.concatenate([record.gt_classes, np.zeros(count, np.int32)]),
        is_gt=np.arange(record.num_gt + count) < record.num_gt,
    )


def filter_trainable(
    records: Sequence[Record], *, keep_without_objects: bool = False, need_proposals: bool = True
) -> list[Record]:
    """Records with at least one ground truth box, in order (2018 behaviour).

    Args:
        records: of one or several sets.
        keep_without_objects: also keep those that have proposals only: false alarms in images
            without objects make negative chips.
        need_proposals: keep none that has neither; chips at random places need no proposals.
    """
    kept = [
        record
        for record in records
        if record.num_gt > 0
        or (keep_without_objects and (len(record.boxes) > 0 or not need_proposals))
    ]
    logger.log(
        logging.DEBUG if len(kept) == len(records) else logging.INFO,
        "%d of %d images (flips included) can be trained on; %d have no object and are left out",
        *(len(kept), len(records), len(records) - len(kept)),
    )
    return kept
