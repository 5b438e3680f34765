"""The polygons of a set as columns. Arrays of single ones are made when somebody asks for them:
COCO has a million, and a start would make them all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class PolygonTable:
    """The polygons of N objects, those of an object side by side.

    Attributes:
        object_offsets: (N + 1,) int64; object i owns the polygons from object_offsets[i] to
            object_offsets[i + 1].
        point_offsets: (P + 1,) int64; polygon p owns
            coordinates[point_offsets[p]:point_offsets[p + 1]].
        coordinates: (K,) float32 x y x y ..., image px.
    """

    object_offsets: np.ndarray
    point_offsets: np.ndarray
    coordinates: np.ndarray

    def of_images(self, offsets: Sequence[int]) -> list[PolygonRows]:
        """The polygons of each image; image i owns the objects offsets[i]:offsets[i + 1]."""
        return [PolygonRows(self, start, end) for start, end in zip(offsets, offsets[1:])]

    def rows(self, start: int, end: int) -> tuple[tuple[np.ndarray, ...], ...]:
        """The polygons of the objects start:end, as views of `coordinates`."""
        firsts = self.object_offsets[start : end + 1].tolist()
        points = self.point_offsets[firsts[0] : firsts[-1] + 1].tolist()
        rings = [self.coordinates[a:b] for a, b in zip(points, points[1:])]
        return tuple(
            tuple(rings[a - firsts[0] : b - firsts[0]]) for a, b in zip(firsts, firsts[1:])
        )


class LazyPolygons(Sequence[tuple[np.ndarray, ...]]):
    """The polygons of some objects, (2k,) float32 each, as a tuple of tuples of them would be."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> Any:
        return tuple(self)[index] if isinstance(index, slice) else self._of_object(index)

    @abstractmethod
    def _of_object(self, index: Any) -> tuple[np.ndarray, ...]: ...

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (LazyPolygons, tuple)):
            return NotImplemented
        return len(self) == len(other) and all(
            len(ours) == len(theirs) and all(map(np.array_equal, ours, theirs))
            for ours, theirs in zip(self, other)
        )

    __hash__ = None  # type: ignore[assignment]  # as tuples of arrays

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process gets these polygons, not those of the whole set.
        return tuple, (tuple(self),)

    def __repr__(self) -> str:
        return repr(tuple(self))


class PolygonRows(LazyPolygons):
    """The polygons of some objects in a row of a table."""

    __slots__ = ("_end", "_start", "_table")

    def __init__(self, table: PolygonTable, start: int, end: int) -> None:
        self._table, self._start, self._end = table, start, end

    def __len__(self) -> int:
        return self._end - self._start

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        return iter(self._table.rows(self._start, self._end))

    def _of_object(self, index: Any) -> tuple[np.ndarray, ...]:
        row = range(self._start, self._end)[index]
        return self._table.rows(row, row + 1)[0]


class MirroredPolygons(LazyPolygons):
    """Polygons of a mirrored image: x' = `width` - x, y' = y."""

    __slots__ = ("_polygons", "_width")

    def __init__(self, polygons: Sequence[Sequence[np.ndarray]], width: int) -> None:
        self._polygons, self._width = polygons, width

    def __len__(self) -> int:
        return len(self._polygons)

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        return map(self._mirrored, self._polygons)

    def _of_object(self, index: Any) -> tuple[np.ndarray, ...]:
        return self._mirrored(self._polygons[index])

    def _mirrored(self, of_object: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        flipped = tuple(polygon.copy() for polygon in of_object)
        for polygon in flipped:
            polygon[0::2] = self._width - polygon[0::2]
        return flipped
