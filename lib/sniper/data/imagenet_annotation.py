"""The annotation files of ImageNet: XML as Pascal VOC has it, with WordNet ids for names."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from sniper.data.problems import BROKEN_ENTRY, OnProblem, Problem, first_lines, stop_at_errors
from sniper.data.voc_annotation import corners_of, image_size_of, parse_annotation
from sniper.errors import DataError
from sniper.progress import Progress


@dataclass(frozen=True, eq=False)
class ImagenetTable:
    """All annotations of a set, image by image in its order; no list of classes is asked for.

    Attributes:
        widths: (n,) int64, px; 0 where the annotation does not say.
        heights: (n,) int64, px; the same.
        offsets: (n + 1,) int64; image i owns boxes[offsets[i]:offsets[i + 1]].
        boxes: (N, 4) float32 x1 y1 x2 y2, inclusive, as annotated: ImageNet counts px from 0.
        name_of: (N,) int32 into `names`.
        names: (M,) distinct names of the objects, sorted.
    """

    widths: np.ndarray
    heights: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    name_of: np.ndarray
    names: np.ndarray

    @property
    def image_of_box(self) -> np.ndarray:
        """(N,) int64."""
        return np.repeat(np.arange(len(self.widths)), np.diff(self.offsets))

    @property
    def sizes(self) -> np.ndarray:
        """(n, 2) int64 width and height."""
        return np.stack([self.widths, self.heights], axis=1)

    @property
    def least_sizes(self) -> np.ndarray:
        """(n, 2) `sizes`; where there is none, what holds all that is annotated."""
        ends = np.zeros((len(self.widths), 2), np.int64)
        np.maximum.at(ends, self.image_of_box, np.ceil(self.boxes[:, 2:]).astype(np.int64) + 1)
        return np.maximum(self.sizes, np.maximum(ends, 1))

    @property
    def inverted(self) -> np.ndarray:
        """(N,) bool: the box ends before it starts."""
        return (self.boxes[:, 2:] < self.boxes[:, :2]).any(axis=1)

    def class_of_box(self, class_index: dict[str, int]) -> np.ndarray:
        """(N,) int32 class of each object; 0 for names that are not in the index."""
        by_name = np.array([class_index.get(name, 0) for name in self.names.tolist()], np.int32)
        return by_name[self.name_of] if len(by_name) else np.zeros(0, np.int32)


TABLE_FIELDS = tuple(field.name for field in fields(ImagenetTable))


def read_imagenet_table(
    files: Iterable[tuple[str, bytes]], total: int, on_problem: OnProblem = stop_at_errors
) -> ImagenetTable:
    """Reads the annotation files of a set.

    Args:
        files: path (for messages) and content of one file per image; no content for images without
            annotations.
        total: how many there are.
        on_problem: hears of broken files; when it comes back, their images have no objects.

    Raises:
        DataError: a file is broken; the message names the file and the element.
    """
    widths, heights, counts = [], [], []
    numbers, name_of, known = array("d"), array("l"), dict[str, int]()
    progress = Progress("annotation files read", total)
    for done, (path, content) in enumerate(files, start=1):
        size, objects = (0, 0), list[tuple[str, list[float]]]()
        try:
            size, objects = _read(path, content) if content else (size, objects)
        except DataError as error:
            on_problem(Problem(BROKEN_ENTRY, path, 1, [first_lines(error)], error))
        widths.append(size[0])
        heights.append(size[1])
        counts.append(len(objects))
        for name, corners in objects:
            numbers.extend(corners)
            name_of.append(known.setdefault(name, len(known)))
        progress.tell(done)
    names = np.array(list(known) or [""], np.str_)[: len(known)]
    order = np.argsort(names)
    return ImagenetTable(
        widths=np.array(widths, np.int64),
        heights=np.array(heights, np.int64),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=np.frombuffer(numbers, np.float64).reshape(-1, 4).astype(np.float32),
        name_of=np.argsort(order).astype(np.int32)[np.array(name_of, np.int64)],
        names=names[order],
    )


def _read(path: str, content: bytes) -> tuple[tuple[int, int], list[tuple[str, list[float]]]]:
    root = parse_annotation(content, path)
    objects = []
    for number, element in enumerate(root.iterfind("object"), start=1):
        name = (element.findtext("name") or "").strip()
        label = f"object {number}" + (f" ({name})" if name else "")
        if not name:
            raise DataError(
                f"the annotation file is broken: {label} has no <name>",
                where=path,
                expected="the WordNet id of its class, or another name",
            )
        objects.append((name, corners_of(element, label, path)))
    return image_size_of(root, path), objects
