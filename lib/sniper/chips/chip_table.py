"""The chips of many records in flat arrays, read like a list of lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Union, overload

import numpy as np

from sniper.chips.chip import NEGATIVE, POSITIVE, Chip


@dataclass(frozen=True, eq=False)
class ChipTable(Sequence[list[Chip]]):
    """C chips of R records: `table[record][k]` is a `Chip`, `table[a:b]` the table of some records.

    An epoch of COCO has a million chips: as arrays they take some tens of megabytes and are shared
    with forked processes; as objects they would take gigabytes.

    Attributes:
        offsets: (R + 1,) int64; the chips of record r are `offsets[r]:offsets[r + 1]`: positive
            ones level by level, then negative ones.
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
            offsets - offsets[0],
            *(
                column[chips]
                for column in (
                    self.rects,
                    self.level,
                    self.negative,
                    self.factor,
                    self.height,
                    self.width,
                )
            ),
            row_offsets - row_offsets[0],
            self.rows[row_offsets[0] : row_offsets[-1]],
            self.num_boxes[chips],
            self.num_gt[chips],
        )
