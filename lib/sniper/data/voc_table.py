"""The annotations of a Pascal VOC set as flat arrays."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from sniper.data.progress import Progress
from sniper.data.voc_annotation import VocObject, read_annotation, read_xml_bytes


@dataclass(frozen=True, eq=False)
class VocTable:
    """All annotations of a set, image by image in the order of the list.

    Attributes:
        widths: (n,) int64, px; 0 where the annotation does not say.
        heights: (n,) int64, px; the same.
        offsets: (n + 1,) int64; image i owns boxes[offsets[i]:offsets[i + 1]].
        boxes: (N, 4) float32 corners in 0-based image px, as annotated: neither clipped nor
            truncated, difficult objects included.
        classes: (N,) int32, 1...
        difficult: (N,) bool.
    """

    widths: np.ndarray
    heights: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray


TABLE_FIELDS = tuple(field.name for field in fields(VocTable))


def empty_table(num_images: int) -> VocTable:
    """The table of a set without annotations."""
    return _table([0] * num_images, [0] * num_images, [0] * num_images, array("d"))


def read_table(paths: Sequence[str], class_index: Mapping[str, int]) -> VocTable:
    """Reads the annotation files of a set.

    Args:
        paths: one XML file per image.
        class_index: class name in lower case -> index 1...

    Raises:
        DataError: a file is broken; the message names the file and the element.
    """
    widths, heights, counts = [], [], []
    numbers = array("d")
    progress = Progress("annotation files read", len(paths))
    for done, path in enumerate(paths, start=1):
        annotation = read_annotation(path, class_index)
        widths.append(annotation.width)
        heights.append(annotation.height)
        counts.append(len(annotation.objects))
        for item in annotation.objects:
            numbers.extend(item)
        progress.tell(done)
    return _table(widths, heights, counts, numbers)


def _table(widths: list[int], heights: list[int], counts: list[int], numbers: array) -> VocTable:
    rows = np.frombuffer(numbers, np.float64).reshape(-1, len(VocObject._fields))
    return VocTable(
        widths=np.array(widths, np.int64),
        heights=np.array(heights, np.int64),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=rows[:, :4].astype(np.float32),
        classes=rows[:, 4].astype(np.int32),
        difficult=rows[:, 5] != 0,
    )


def annotations_sha256(names: Iterable[str], paths: Iterable[str]) -> str:
    """One checksum over the names of the images and the content of their annotation files."""
    digest = hashlib.sha256()
    for name, path in zip(names, paths):
        content = read_xml_bytes(path)
        digest.update(f"{name}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
        digest.update(content)
    return digest.hexdigest()
