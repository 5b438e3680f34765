"""Detections of many images in flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sniper.data.npz import read_npz, write_npz
from sniper.errors import ConfigError, DataError

_DTYPES = {
    "offsets": np.int64,
    "rows": np.float32,
    "classes": np.int32,
}
_MASK_DTYPES = {"mask_offsets": np.int64, "mask_bytes": np.uint8}
_NUM_AXES = {"rows": 2}
_NO_MASKS = {name: np.zeros(0, dtype) for name, dtype in _MASK_DTYPES.items()}


def check_threshold(threshold: float) -> float:
    """A least score as it is; ConfigError if it is none: scores are from 0 to 1."""
    if not 0 <= threshold <= 1:  # NaN is not
        raise ConfigError("a least score is from 0 to 1", where="threshold", got=threshold)
    return threshold


@dataclass(frozen=True, eq=False)
class DetectionTable(Sequence["ImageDetections"]):
    """D detections of N images, ordered by image, class and rank: `table[i]` is those of image i.

    Attributes:
        offsets: (N + 1,) int64; image i owns `rows[offsets[i]:offsets[i + 1]]`.
        rows: (D, 5) float32 x1 y1 x2 y2 score, image px.
        classes: (D,) int32, ascending within an image, never 0.
        mask_offsets: (D + 1,) int64 into `mask_bytes`; None if the network has no masks.
        mask_bytes: uint8, compressed COCO run lengths of all masks, one after the other.

    Raises:
        DataError: the arrays do not fit together.
    """

    offsets: np.ndarray
    rows: np.ndarray
    classes: np.ndarray
    mask_offsets: np.ndarray | None = None
    mask_bytes: np.ndarray | None = None

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem is not None:
            raise DataError("the detections are broken", where="a detection table", got=problem)

    @property
    def has_masks(self) -> bool:
        """Whether every detection has a mask."""
        return self.mask_offsets is not None

    @property
    def num_detections(self) -> int:
        """D."""
        return len(self.rows)

    @property
    def image_of_row(self) -> np.ndarray:
        """(D,) int64, index of the image of every detection."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> ImageDetections:  # type: ignore[override]  # no slices
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} images, not an image {index}")
        index %= len(self)
        of_image = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        masks = None
        if self.mask_offsets is not None:
            masks = [self.mask(row) for row in range(of_image.start, of_image.stop)]
        return ImageDetections(self.rows[of_image], self.classes[of_image], masks)

    def mask(self, row: int) -> bytes:
        """Compressed run lengths of the mask of one row."""
        offsets, content = self.masks()
        return content[offsets[row] : offsets[row + 1]].tobytes()

    def masks(self) -> tuple[np.ndarray, np.ndarray]:
        """`mask_offsets` and `mask_bytes`.

        Raises:
            DataError: there are no masks.
        """
        if self.mask_offsets is None or self.mask_bytes is None:
            raise DataError("these detections have no masks")
        return self.mask_offsets, self.mask_bytes

    def with_masks(self, masks: Sequence[bytes]) -> DetectionTable:
        """The same detections with compressed run lengths for each."""
        ends = np.concatenate([[0], np.cumsum([len(mask) for mask in masks])]).astype(np.int64)
        blob = np.frombuffer(b"".join(masks), np.uint8)
        return DetectionTable(self.offsets, self.rows, self.classes, ends, blob)

    def save(self, path: str | Path) -> None:
        """Writes an NPZ file; one that is there stays until the new one is complete.

        Raises:
            TrainingError: the file could not be written.
        """
        write_npz(path, self.arrays())

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name; without masks their two are empty."""
        arrays = {name: getattr(self, name) for name in _DTYPES}
        if not self.has_masks:
            return arrays | _NO_MASKS
        return arrays | {name: getattr(self, name) for name in _MASK_DTYPES}


@dataclass(frozen=True, eq=False)
class ImageDetections:
    """The detections of one image, ordered by class and rank.

    Attributes:
        rows: (n, 5) float32 x1 y1 x2 y2 score, image px.
        classes: (n,) int32, 1 ... C-1.
        masks: compressed COCO run lengths of each (`pycocotools.mask.decode({"size": [height,
            width], "counts": mask})`); None if the network has no masks.
    """

    rows: np.ndarray
    classes: np.ndarray
    masks: list[bytes] | None = None

    def __len__(self) -> int:
        return len(self.rows)


def load_detections(path: str | Path) -> DetectionTable:
    """Reads a file of `DetectionTable.save`.

    Raises:
        DataError: the file is missing or damaged.
    """
    arrays = read_npz(path, [*_DTYPES, *_MASK_DTYPES])
    names = [*_DTYPES, *(_MASK_DTYPES if len(arrays["mask_offsets"]) else ())]
    return DetectionTable(**{name: arrays[name] for name in names})


def table_of(images: Sequence[ImageDetections], *, with_masks: bool = False) -> DetectionTable:
    """The detections of several images as one table."""
    counts = [len(image) for image in images]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    rows = np.concatenate([np.zeros((0, 5), np.float32), *(image.rows for image in images)])
    classes = np.concatenate([np.zeros(0, np.int32), *(image.classes for image in images)])
    table = DetectionTable(offsets, rows, classes)
    if not with_masks:
        return table
    return table.with_masks([mask for image in images for mask in image.masks or ()])


def join_tables(tables: Sequence[DetectionTable]) -> DetectionTable:
    """The images of all tables one after the other; all have masks, or none has.

    Raises:
        DataError: some have masks and some have none.
    """
    if len({table.has_masks for table in tables}) > 1:
        raise DataError("tables with and without masks cannot be joined")
    arrays = {
        "offsets": _joined([table.offsets for table in tables]),
        "rows": np.concatenate([np.zeros((0, 5), np.float32), *(t.rows for t in tables)]),
        "classes": np.concatenate([np.zeros(0, np.int32), *(t.classes for t in tables)]),
    }
    if tables and tables[0].has_masks:
        arrays["mask_offsets"] = _joined([table.masks()[0] for table in tables])
        arrays["mask_bytes"] = np.concatenate([table.masks()[1] for table in tables])
    return DetectionTable(**arrays)


def join_blocks(
    tables: Sequence[DetectionTable], blocks: Sequence[Sequence[int]]
) -> DetectionTable:
    """The tables of blocks of images as one of all images.

    Args:
        tables: of the blocks.
        blocks: the number that each image of a block has in the result; together 0 ... N-1.
    """
    places = np.argsort([i for block in blocks for i in block])
    return reorder(join_tables(tables), places.tolist())


def reorder(table: DetectionTable, order: Sequence[int]) -> DetectionTable:
    """The images `table[order[0]], table[order[1]], ...` as one table."""
    if not len(order):
        return _images(table, 0, 0)
    return join_tables([_images(table, index, index + 1) for index in order])


def _images(table: DetectionTable, start: int, stop: int) -> DetectionTable:
    """Images start ... stop - 1; rows and masks are views."""
    offsets = table.offsets[start : stop + 1]
    kept = slice(int(offsets[0]), int(offsets[-1]))
    arrays = (offsets - offsets[0], table.rows[kept], table.classes[kept])
    if not table.has_masks:
        return DetectionTable(*arrays)
    ends, content = table.masks()
    ends = ends[kept.start : kept.stop + 1]
    return DetectionTable(*arrays, ends - ends[0], content[ends[0] : ends[-1]])


def _joined(offsets: Sequence[np.ndarray]) -> np.ndarray:
    """Offsets of arrays that follow each other."""
    lengths = np.concatenate([np.zeros(0, np.int64), *(np.diff(ends) for ends in offsets)])
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _problem(table: DetectionTable) -> str | None:
    kinds = {**_DTYPES, **(_MASK_DTYPES if table.has_masks else {})}
    if (table.mask_offsets is None) != (table.mask_bytes is None):
        return "one of mask_offsets and mask_bytes without the other"
    for name, dtype in kinds.items():
        array = getattr(table, name)
        if array.dtype != dtype or array.ndim != _NUM_AXES.get(name, 1):
            return f"{name} of type {array.dtype} and shape {array.shape}"
    count = len(table.rows)
    if table.rows.shape != (count, 5) or len(table.classes) != count:
        return f"rows {table.rows.shape}, classes {table.classes.shape}"
    if not _are_offsets(table.offsets, count):
        return f"offsets that do not rise from 0 to {count}"
    if table.has_masks:
        offsets, content = table.masks()
        if len(offsets) != count + 1 or not _are_offsets(offsets, len(content)):
            return "mask offsets that do not fit"
    return _problem_of_classes(table)


def _problem_of_classes(table: DetectionTable) -> str | None:
    if not len(table.classes):
        return None
    if table.classes.min() < 1:
        return f"class {table.classes.min()}"
    falls = np.flatnonzero(np.diff(table.classes) < 0) + 1
    # A class may be lower than the one before it where an image begins.
    begins = table.offsets[np.searchsorted(table.offsets, falls)] == falls
    return None if begins.all() else "classes that fall within an image"


def _are_offsets(offsets: np.ndarray, end: int) -> bool:
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != end:
        return False
    return bool(np.all(np.diff(offsets) >= 0))
