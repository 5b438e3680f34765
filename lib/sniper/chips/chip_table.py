"""The chips of many records in flat arrays, read like a list of lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Union, overload

import numpy as np

from sniper.chips.box_table import BoxTable


@dataclass(frozen=True, eq=False)
class Chip:
    """One window of one pyramid level.

    Attributes:
        rect: x1 y1 x2 y2 in image px (the rectangle in scaled px divided by `factor`).
        factor: image px -> chip px.
        height: height of the chip in px, as `im_info` tells it to the network.
        width: width of the chip in px.
        level: row of `SCALES` and `VALID_RANGES`; 0 is the finest.
        rows: (n,) int32, rows of the record's boxes that this chip is trained on.
        kind: `positive` (covers ground truth) or `negative` (covers false alarms, or lies at a
            random place; `rows` of the latter is empty).
    """

    rect: tuple[float, float, float, float]
    factor: float
    height: int
    width: int
    level: int
    rows: np.ndarray
    kind: str


@dataclass(frozen=True, eq=False)
class ChipTable(Sequence[list[Chip]]):
    """C chips of R records: `table[record][k]` is a `Chip`, `table[a:b]` the table of some records.

    An epoch of COCO has a million chips: as arrays they take some tens of megabytes and are shared
    with forked processes; as objects they would take gigabytes.

    Attributes:
        offsets: (R + 1,) int64; the chips of record r are `offsets[r]:offsets[r + 1]`: positive
            ones level by level, then negative ones, those at random places last.
        rects: (C, 4) float64 x1 y1 x2 y2, image px.
        level: (C,) uint8, 0 is the finest.
        negative: (C,) bool.
        factor: (C,) float64, image px -> chip px.
        height: (C,) int32, px, as `im_info` tells it to the network.
        width: (C,) int32, px.
        row_offsets: (C + 1,) int64; the rows of chip c are `rows[row_offsets[c]:row_offsets[c+1]]`.
        rows: int32, rows of the records' boxes, ascending in each chip.
        num_boxes: (C,) int32, boxes assigned to each chip, also those that `rows` leaves out.
        num_gt: (C,) int32, ground truth boxes that are large enough inside the chip to be part of
            its sample, assigned to it or not.
    """

    offsets: np.ndarray
    rects: np.ndarray
    level: np.ndarray
    negative: np.ndarray
    factor: np.ndarray
    height: np.ndarray
    width: np.ndarray
    row_offsets: np.ndarray
    rows: np.ndarray
    num_boxes: np.ndarray
    num_gt: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_chips(self) -> int:
        """C."""
        return len(self.rects)

    @property
    def record_of_chip(self) -> np.ndarray:
        """(C,) int64."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @overload
    def __getitem__(self, index: int) -> list[Chip]: ...

    @overload
    def __getitem__(self, index: slice) -> ChipTable: ...

    def __getitem__(self, index: Union[int, slice]) -> Union[list[Chip], ChipTable]:
        if isinstance(index, slice):
            return self._slice(index)
        first, last = self._range(index)
        return [self._chip(position) for position in range(first, last)]

    def __iter__(self) -> Iterator[list[Chip]]:
        return (self[record] for record in range(len(self)))

    def chip(self, record: int, index: int) -> Chip:
        """`table[record][index]` without making the other chips of the record.

        Raises:
            IndexError: there is no such chip.
        """
        first, last = self._range(record)
        position = first + index if index >= 0 else last + index
        if not first <= position < last:
            raise IndexError(f"record {record} has {last - first} chips, not a chip {index}")
        return self._chip(position)

    def _range(self, record: int) -> tuple[int, int]:
        count = len(self)
        if not -count <= record < count:
            raise IndexError(f"there are {count} records, not a record {record}")
        first = record % count
        return int(self.offsets[first]), int(self.offsets[first + 1])

    def _chip(self, position: int) -> Chip:
        return Chip(
            rect=tuple(self.rects[position].tolist()),
            factor=float(self.factor[position]),
            height=int(self.height[position]),
            width=int(self.width[position]),
            level=int(self.level[position]),
            rows=self.rows[self.row_offsets[position] : self.row_offsets[position + 1]],
            kind=NEGATIVE if self.negative[position] else POSITIVE,
        )

    def _slice(self, index: slice) -> ChipTable:
        start, stop, step = index.indices(len(self))
        if step != 1:
            raise ValueError("only consecutive records can be sliced")
        offsets = self.offsets[start : max(start, stop) + 1]
        chips = slice(offsets[0], offsets[-1])
        row_offsets = self.row_offsets[chips.start : chips.stop + 1]
        return ChipTable(
            offsets=offsets - offsets[0],
            rects=self.rects[chips],
            level=self.level[chips],
            negative=self.negative[chips],
            factor=self.factor[chips],
            height=self.height[chips],
            width=self.width[chips],
            row_offsets=row_offsets - row_offsets[0],
            rows=self.rows[row_offsets[0] : row_offsets[-1]],
            num_boxes=self.num_boxes[chips],
            num_gt=self.num_gt[chips],
        )


# Columns of the compiled code's blocks; the types serve where there is no block at all.
_DTYPES = {
    "chip_counts": np.int32,
    "rects": np.float64,
    "levels": np.uint8,
    "negative": np.bool_,
    "row_counts": np.int32,
    "rows": np.int32,
    "box_counts": np.int32,
    "gt_counts": np.int32,
}


def join_chips(
    blocks: Sequence[dict[str, Any]],
    table: BoxTable,
    factors: np.ndarray,
    chip_size: int,
    *,
    random_crops: bool = False,
) -> ChipTable:
    """One table of the chips of all records; takes the arrays out of the blocks.

    Args:
        blocks: results of `epoch_chips`, in the order of the records.
        table: the records.
        factors: (R, L) float64, image px -> scaled px.
        chip_size: side of a chip, px.
        random_crops: the coarsest level is cut like the others, and no chip is larger than its
            level.
    """
    joined = {name: _join(blocks, name) for name in _DTYPES}
    offsets = _offsets(joined["chip_counts"])
    level = joined["levels"]
    record = np.repeat(np.arange(len(table)), joined["chip_counts"])
    factor = factors[record, level]
    # Truncated, as `sniper.chips.pyramid.level_size` does.
    height, width = (
        (sides[record] * factor).astype(np.int32) for sides in (table.height, table.width)
    )
    if random_crops:
        height, width = np.minimum(height, chip_size), np.minimum(width, chip_size)
    else:
        finer = level < factors.shape[1] - 1
        height[finer] = width[finer] = chip_size
    return ChipTable(
        offsets=offsets,
        rects=joined["rects"].reshape(-1, 4),
        level=level,
        negative=joined["negative"],
        factor=factor,
        height=height,
        width=width,
        row_offsets=_offsets(joined["row_counts"]),
        rows=joined["rows"],
        num_boxes=joined["box_counts"],
        num_gt=joined["gt_counts"],
    )


def _join(blocks: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    """One column of all blocks, which lose it: not everything is in memory twice."""
    columns = [block.pop(name) for block in blocks]
    return np.concatenate(columns) if columns else np.zeros(0, _DTYPES[name])


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


POSITIVE = "positive"
NEGATIVE = "negative"
