"""The annotations of a COCO file as columns: a hundred bytes each instead of a thousand.

What is as the format says becomes numbers as soon as it is parsed. Odd entries (texts for numbers,
no id, run lengths, ...) are kept as they are, for those who know all forms of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sniper.data.coco_entries import (
    MIN_POLYGON_NUMBERS,
    checked_content,
    flag_of,
    open_error,
    reading,
)
from sniper.data.collector import collector_off
from sniper.data.json_stream import stream_object

CROWD, IGNORED = 1, 2
_NO_AREA, _ODD = 4, 8
_ROW = struct.Struct("=5d3qBi")
_TABLE = np.dtype(
    [(name, "=f8") for name in ("x", "y", "width", "height", "area")]
    + [(name, "=i8") for name in ("id", "image_id", "category_id")]
    + [("flags", "u1"), ("rings", "=i4")]
)
_INT = struct.Struct("=i")
_ODD_ROW = _ROW.pack(*(0,) * 8, _ODD, 0)


class _RingPackers(dict[int, Callable[..., bytes]]):
    """By the length of a polygon what makes float32 of its numbers, and refuses other things."""

    def __missing__(self, length: int) -> Callable[..., bytes]:
        if length < MIN_POLYGON_NUMBERS or length % 2:
            raise ValueError("an odd polygon")
        pack = struct.Struct(f"={length}f").pack
        if length < 4096:  # longer ones are rare
            self[length] = pack
        return pack


class Annotations:
    """The annotations of a file in its order.

    Args:
        with_masks: also keep the polygons.
        hook: what odd entries go through, e.g. to save memory.
    """

    def __init__(self, *, with_masks: bool, hook: Callable[[Any], Any] | None = None) -> None:
        self.odd: dict[int, Any] = {}
        self._with_masks = with_masks
        self._hook = hook
        self._rows = bytearray()
        self._ring_lengths = bytearray()
        self._coordinates = bytearray()
        self._packers = _RingPackers()

    @classmethod
    def of_entries(cls, entries: Sequence[Any]) -> Annotations:
        """Those that are in memory anyway: all of them are taken for odd ones."""
        annotations = cls(with_masks=True)
        annotations.odd = dict(enumerate(entries))
        annotations._rows = bytearray(_ODD_ROW * len(entries))
        return annotations

    def take(self, entry: Any) -> None:
        """Appends an entry."""
        try:
            x, y, width, height = entry["bbox"]
            number, image_id = entry["id"], entry["image_id"]
            category_id, area = entry["category_id"], entry.get("area")
            # True is a number of `struct`, 7.0 and "7" are ids that have to be looked at.
            if not type(number) is type(image_id) is type(category_id) is int:
                raise TypeError("an odd id")
            flags = 0
            if area is None:
                area, flags = 0, _NO_AREA
            if entry.get("iscrowd") or entry.get("ignore"):
                flags |= flag_of(entry)
            rings = self._packed_rings(entry, flags) if self._with_masks else ()
            row = _ROW.pack(
                *(x, y, width, height, area, number, image_id, category_id, flags, len(rings))
            )
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, struct.error):
            self.odd[len(self)] = self._hook(entry) if self._hook and _is_dict(entry) else entry
            self._rows += _ODD_ROW
            return
        self._rows += row
        for ring in rings:
            self._coordinates += ring
            self._ring_lengths += _INT.pack(len(ring))

    def _packed_rings(self, entry: Mapping[str, Any], flags: int) -> Sequence[bytes]:
        polygons = entry.get("segmentation")
        # Nobody asks for the mask of what is no object.
        if polygons is None or flags & (CROWD | IGNORED):
            return ()
        if type(polygons) is not list:
            raise TypeError("an odd mask")
        packers = self._packers
        return [packers[len(polygon)](*polygon) for polygon in polygons]

    def __len__(self) -> int:
        return len(self._rows) // _ROW.size

    def __getitem__(self, row: int) -> Any:
        """An odd entry as it is; of others what messages say of them."""
        if row in self.odd:
            return self.odd[row]
        names = ("id", "image_id", "category_id")
        return dict(zip(names, self.table[row][list(names)].tolist()))

    @property
    def table(self) -> np.ndarray:
        """(n,) of the fields x, y, width, height and area, px; id, image_id and category_id;
        flags `CROWD` or `IGNORED`; and rings, the number of polygons. Nothing where `is_odd`."""
        return np.frombuffer(self._rows, _TABLE)

    @property
    def is_odd(self) -> np.ndarray:
        """(n,) bool."""
        return self.table["flags"] & _ODD > 0

    @property
    def areas(self) -> np.ndarray:
        """(n,) float64 px^2, NaN where there is none."""
        table = self.table
        return np.where(table["flags"] & _NO_AREA, np.nan, table["area"])

    @property
    def ring_lengths(self) -> np.ndarray:
        """(P,) int64: how many numbers the polygons have, those of the first entry first."""
        return np.frombuffer(self._ring_lengths, "=i4").astype(np.int64) // 4

    @property
    def coordinates(self) -> np.ndarray:
        """(K,) float32, the numbers of all polygons."""
        return np.frombuffer(self._coordinates, "=f4")

    def are_finite(self) -> bool:
        """Whether no number is infinite or NaN."""
        table = self.table
        x, y, width, height = (table[name] for name in ("x", "y", "width", "height"))
        with np.errstate(over="ignore", invalid="ignore"):
            extents = np.where(table["flags"] & _NO_AREA, width * height, table["area"])
            sums = x + y + width + height + extents
        return bool(np.isfinite(sums).all() and np.isfinite(self.coordinates).all())

    def ids(self, rows: np.ndarray) -> list[Any]:
        """The ids of some rows."""
        numbers = self.table["id"][rows].tolist()
        for place in np.flatnonzero(self.is_odd[rows]).tolist():
            numbers[place] = self.odd[int(rows[place])].get("id")
        return numbers

    def category_ids(self) -> Iterator[Any]:
        """Every category that has an entry, some of them again and again."""
        yield from np.unique(self.table["category_id"][~self.is_odd]).tolist()
        for entry in self.odd.values():
            if _is_dict(entry):
                yield entry.get("category_id")


def _is_dict(entry: Any) -> bool:
    return isinstance(entry, dict)


def read_annotations(
    path: str | Path, *, with_masks: bool, hook: Callable[[Any], Any]
) -> tuple[dict[str, Any], Annotations]:
    """Reads an annotation file; `annotations` of its content is empty, if there is such a list.

    Args:
        path: the file.
        with_masks: also keep the polygons.
        hook: what images and odd entries go through.

    Raises:
        NotStreamableError: the file is no plain JSON object: `read_annotation_json` reads it, or
            says what is wrong.
        DataError: as `read_annotation_json`.
    """
    annotations = Annotations(with_masks=with_masks, hook=hook)
    images: list[Any] = []

    def take_image(entry: Any) -> None:
        images.append(hook(entry) if _is_dict(entry) else entry)

    takers = {"annotations": annotations.take, "images": take_image}
    with open_error(path), reading(path), collector_off():
        content = stream_object(path, takers)
    if isinstance(content.get("images"), list):
        content["images"] = images
    return checked_content(content, path), annotations
