"""The `segmentation` of COCO annotations as polygons, which is what mask targets are made of."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from sniper.data.coco_columns import Annotations
from sniper.data.coco_entries import MIN_POLYGON_NUMBERS, Entry, EntryReader, entry_label
from sniper.data.outlines import outlines
from sniper.data.problems import MASK_ELSEWHERE, NO_MASK, Problem
from sniper.data.rle import checked_run_lengths, decode_run_lengths


def without_masks(entry: Entry) -> Entry:
    """Drops what takes most of the memory of a large file while it is read."""
    if "segmentation" in entry:
        del entry["segmentation"]
    return entry


def with_packed_polygons(entry: Entry) -> Entry:
    """Packs the polygons of an annotation: 4 bytes a number instead of 32; odd ones stay."""
    polygons = entry.get("segmentation")
    if isinstance(polygons, list):
        try:
            entry["segmentation"] = [array("f", polygon) for polygon in polygons]
        except (TypeError, ValueError, OverflowError):
            entry["segmentation"] = polygons  # `polygons_of` will say what is wrong, and where
    return entry


def read_polygons(
    annotations: Annotations,
    rows: np.ndarray,
    boxes: np.ndarray,
    sizes: np.ndarray,
    reader: EntryReader,
) -> tuple[dict[str, np.ndarray], int]:
    """The polygons of objects, and how many objects have none.

    Args:
        annotations: those of the file.
        rows: (N,) places of the objects among them.
        boxes: (N, 4) of the objects: inclusive corners, image px.
        sizes: (N, 2) int64 height and width of the image of each.
        reader: hears of broken masks, whose objects then have none, of missing ones, and of masks
            that lie elsewhere.

    Returns:
        `polygon_offsets`, `point_offsets` and `coordinates` of a `CocoTable`.
    """
    odd, broken = _odd_polygons(annotations, rows, sizes, reader)
    arrays = _gathered(annotations, rows, odd)
    counts = np.diff(arrays["polygon_offsets"])
    bare = rows[(counts == 0) & ~np.isin(rows, broken)].tolist()
    if bare:
        texts = (entry_label("annotation", annotations[row], row) for row in bare)
        reader.on_problem(Problem(NO_MASK, reader.where, len(bare), texts))
    elsewhere = rows[_lie_elsewhere(boxes, **arrays)].tolist()
    if elsewhere:
        texts = (entry_label("annotation", annotations[row], row) for row in elsewhere)
        reader.on_problem(Problem(MASK_ELSEWHERE, reader.where, len(elsewhere), texts))
    return arrays, len(bare)


def _odd_polygons(
    annotations: Annotations, rows: np.ndarray, sizes: np.ndarray, reader: EntryReader
) -> tuple[dict[int, list[array]], list[int]]:
    """The polygons of the odd entries among some rows, by row, and the broken ones of them."""
    chosen = annotations.is_odd[rows]
    sides = iter(sizes[chosen].tolist())
    odd_rows = iter(rows[chosen].tolist())
    polygons: dict[int, list[array]] = {}

    def read(entry: Mapping[str, Any]) -> None:
        row, (height, width) = next(odd_rows), next(sides)
        polygons[row] = []  # what a broken entry leaves behind
        polygons[row] = polygons_of(entry.get("segmentation"), height, width)

    broken = reader.each("annotation", annotations, read, rows[chosen].tolist())
    return polygons, broken


def _gathered(
    annotations: Annotations, rows: np.ndarray, odd: Mapping[int, list[array]]
) -> dict[str, np.ndarray]:
    """The arrays of `read_polygons` from the columns and the odd entries."""
    ring_counts, ring_lengths = annotations.table["rings"], annotations.ring_lengths
    ring_ends = np.concatenate([[0], np.cumsum(ring_counts)])
    point_ends = np.concatenate([[0], np.cumsum(ring_lengths)])
    numbers = annotations.coordinates
    # Per object: how many polygons, their lengths, and all of their coordinates as one array.
    counts = ring_counts[rows].astype(np.int64)
    first, last = ring_ends[rows], ring_ends[rows + 1]
    lengths = [
        ring_lengths[start:end] for start, end in zip(first.tolist(), last.tolist())
    ]  # views
    places = zip(point_ends[first].tolist(), point_ends[last].tolist())
    coordinates = [numbers[start:end] for start, end in places]
    for place in np.flatnonzero(annotations.is_odd[rows]).tolist():
        polygons = odd[int(rows[place])]
        counts[place] = len(polygons)
        lengths[place] = np.array([len(polygon) for polygon in polygons], np.int64)
        if polygons:
            coordinates[place] = np.concatenate([np.array(one, np.float32) for one in polygons])
    nothing = np.zeros(0, np.float32)
    return {
        "polygon_offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "point_offsets": np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths])),
        "coordinates": np.concatenate([nothing, *coordinates]),
    }


def _lie_elsewhere(
    boxes: np.ndarray,
    polygon_offsets: np.ndarray,
    point_offsets: np.ndarray,
    coordinates: np.ndarray,
) -> np.ndarray:
    """(N,) bool: objects with polygons, of which none has a part in the object's box."""
    if not len(coordinates):
        return np.zeros(len(boxes), bool)
    points = coordinates.reshape(-1, 2)  # x, y
    starts = point_offsets[:-1] // 2
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    counts = np.diff(polygon_offsets)
    owners = np.repeat(np.arange(len(boxes)), counts)
    near, far = boxes[owners, :2], boxes[owners, 2:] + 1
    inside = ((low < far) & (high > near) & (high > low)).all(axis=1)
    return (counts > 0) & (np.bincount(owners, inside, len(boxes)) == 0)


def polygons_of(segmentation: object, height: int, width: int) -> list[array]:
    """The polygons of a `segmentation`, each x y x y ... in image px.

    Args:
        segmentation: lists of x, y, x, y, ...; lists of [x, y] points; run lengths, compressed or
            not, whose outlines are taken; or nothing.
        height: of the image, px.
        width: px.

    Raises:
        TypeError, ValueError, KeyError: it is broken.
    """
    if isinstance(segmentation, dict):
        checked = checked_run_lengths(segmentation, [height, width])
        return [array("f", ring.reshape(-1)) for ring in outlines(decode_run_lengths(checked))]
    if not isinstance(segmentation, list):
        return []
    return [
        _packed(polygon)
        for polygon in flat_polygons(segmentation)
        if len(polygon) >= MIN_POLYGON_NUMBERS
    ]


def flat_polygons(polygons: list) -> list[list | array]:
    """Each polygon as x y x y ...; they may be lists of [x, y] points, or one without its list.

    Raises:
        ValueError: something else is among them.
    """
    if polygons and all(isinstance(number, (int, float)) for number in polygons):
        polygons = [polygons]
    elif len(polygons) * 2 >= MIN_POLYGON_NUMBERS and all(map(_is_point, polygons)):
        polygons = [[number for point in polygons for number in point]]
    return [_flat(polygon) for polygon in polygons]


def _is_point(point: object) -> bool:
    return (
        isinstance(point, (list, array))
        and len(point) == 2
        and all(isinstance(number, (int, float)) for number in point)
    )


def _is_list(number: object) -> bool:
    return isinstance(number, (list, array))


def _flat(polygon: object) -> list | array:
    """A polygon without its points' own lists.

    Raises:
        ValueError: it is no polygon.
    """
    if isinstance(polygon, list) and polygon and all(map(_is_point, polygon)):
        polygon = [number for point in polygon for number in point]
    is_nested = isinstance(polygon, list) and any(map(_is_list, polygon))
    if not isinstance(polygon, (list, array)) or is_nested:
        raise ValueError("a polygon is no list of x, y pairs")
    if len(polygon) % 2:
        raise ValueError("a polygon has an odd number of coordinates, not x, y pairs")
    return polygon


def _packed(polygon: list | array) -> array:
    is_array = isinstance(polygon, array)
    if not (is_array or all(isinstance(number, (int, float)) for number in polygon)):
        raise ValueError("a polygon holds something else than numbers")
    if not math.isfinite(sum(polygon)):
        raise ValueError("a polygon is not finite, or no list of x, y pairs")
    return polygon if isinstance(polygon, array) else array("f", polygon)
