"""The account of annotations, the reader's half: how many there are, and which it leaves out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Entry:
    """A line of the account.

    Attributes:
        name: its name in JSON files.
        text: what it counts; stands behind a number.
    """

    name: str
    text: str


BROKEN = Entry("broken", "broken entries")
ORPHAN = Entry("orphan", "of images that are not listed")
UNLISTED = Entry("unlisted", "of classes that are not listed")
CROWD = Entry("crowd", "crowd regions (iscrowd)")
IGNORED = Entry("ignored", "flagged `ignore` or `invalid`")
DIFFICULT = Entry("difficult", "flagged difficult")
NO_EXTENT = Entry("no_extent", "without extent")
NO_AREA = Entry("no_area", "with area 0")
OUTSIDE = Entry("outside", "outside their image")

# Why a reader leaves annotations out: the first that applies, in this order.
LEFT_OUT = (BROKEN, ORPHAN, UNLISTED, CROWD, IGNORED, DIFFICULT, NO_EXTENT, NO_AREA, OUTSIDE)

REPEATED = Entry("repeated", "are there twice")
CUT = Entry("cut", "are cut at the border of their image")
MOVED = Entry("moved", "are moved into their image")
TRUNCATED = Entry("truncated", "are truncated to whole px")
NO_MASK = Entry("no_mask", "have no mask and train the box only")

# What is to be said of annotations that are kept.
REMARKS = (REPEATED, CUT, MOVED, TRUNCATED, NO_MASK)


@dataclass(frozen=True)
class Intake:
    """The annotations that a reader found in a set.

    Attributes:
        read: how many there are.
        left_out: by names of `LEFT_OUT`; `read` minus all of them is the number of objects.
        remarks: by names of `REMARKS`: some of the objects. Zeros are not kept.
    """

    read: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    remarks: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("left_out", "remarks"):
            counts = {key: count for key, count in getattr(self, name).items() if count}
            object.__setattr__(self, name, counts)

    @property
    def kept(self) -> int:
        """Objects that the reader gave to the set."""
        return self.read - sum(self.left_out.values())

    def to_array(self) -> np.ndarray:
        """(1 + LEFT_OUT + REMARKS,) int64, for caches."""
        left_out = [self.left_out.get(entry.name, 0) for entry in LEFT_OUT]
        remarks = [self.remarks.get(entry.name, 0) for entry in REMARKS]
        return np.array([self.read, *left_out, *remarks], np.int64)


def intake_of_array(numbers: np.ndarray) -> Intake:
    """Inverse of `Intake.to_array`."""
    read, *rest = numbers.tolist()
    return Intake(
        read,
        _counts(LEFT_OUT, rest[: len(LEFT_OUT)]),
        _counts(REMARKS, rest[len(LEFT_OUT) :]),
    )


def join_intakes(intakes: Iterable[Intake]) -> Intake:
    """The sums of several sets; nothing for none."""
    total = sum((intake.to_array() for intake in intakes), Intake().to_array())
    return intake_of_array(total)


def _counts(entries: tuple[Entry, ...], numbers: Iterable[int]) -> dict[str, int]:
    return {entry.name: number for entry, number in zip(entries, numbers)}
