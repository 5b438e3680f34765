"""The account of annotations: how many were read, how many are trained, and what of the rest.

Training prints it when it starts and `sniper check-data` before that; both get it from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sniper.chips.box_levels import BoxLevels, box_levels
from sniper.chips.chip_settings import ChipSettings
from sniper.chips.measures import TRAINED, Fate, assignments, fates
from sniper.chips.sampler import Epoch
from sniper.data.account import LEFT_OUT, REMARKS, Entry, Intake
from sniper.data.record import Record

OTHER_CLASS = Entry("other_class", "of classes that are not trained")
CUT_MASK = Entry(
    "cut_mask", "have a mask with more corners than TRAIN.MAX_POLYGON_LEN, which is not all trained"
)
SIMPLIFIED_MASK = Entry(
    "simplified_mask", "have a mask that is simplified to fit into TRAIN.MAX_POLYGON_LEN"
)


@dataclass(frozen=True, eq=False)
class Account:
    """Annotations of the training sets; mirrored copies count with their originals.

    Attributes:
        intake: the readers' half.
        levels: the objects of the records that are not mirrored.
        fates: what the chips make of these: `trained` first.
        long_masks: objects whose polygons are too long for their row of the batch.
        legacy: these are cut, as in 2018, instead of simplified.
    """

    intake: Intake
    levels: BoxLevels
    fates: tuple[Fate, ...]
    long_masks: int = 0
    legacy: bool = False

    @property
    def read(self) -> int:
        """Annotations of the files."""
        return self.intake.read

    @property
    def objects(self) -> int:
        """Annotations that became objects of the training images."""
        return len(self.levels.boxes)

    @property
    def trained(self) -> int:
        """Objects that chips train."""
        return len(next(fate for fate in self.fates if fate.name == TRAINED).boxes)

    @property
    def left_out(self) -> dict[Entry, int]:
        """All that are not trained, by reason: `read - trained` together; none is zero."""
        counts = {entry: self.intake.left_out.get(entry.name, 0) for entry in LEFT_OUT}
        counts[OTHER_CLASS] = self.intake.kept - self.objects
        for fate in self.fates:
            if fate.name != TRAINED:
                counts[Entry(fate.name, fate.text)] = len(fate.boxes)
        return {entry: count for entry, count in counts.items() if count}

    @property
    def remarks(self) -> dict[Entry, int]:
        """What is to be said of some of the objects; none is zero."""
        counts = {entry: self.intake.remarks.get(entry.name, 0) for entry in REMARKS}
        counts[CUT_MASK if self.legacy else SIMPLIFIED_MASK] = self.long_masks
        return {entry: count for entry, count in counts.items() if count}

    def lines(self) -> Iterator[str]:
        """The account in one line, and the remarks in another where there are any."""
        head = f"annotations: {self.read} read, {self.trained} trained"
        head += f" ({self.trained / self.read:.1%})" if self.read else ""
        reasons = _listed(self.left_out)
        yield f"{head}; {self.read - self.trained} left out: {reasons}" if reasons else head
        if self.remarks:
            yield f"of the {self.objects} objects {_listed(self.remarks)}"

    def to_json(self) -> dict[str, Any]:
        """The account as plain types."""
        return {
            "read": self.read,
            "objects": self.objects,
            "trained": self.trained,
            "left_out": {entry.name: count for entry, count in self.left_out.items()},
            "remarks": {entry.name: count for entry, count in self.remarks.items()},
        }


def _listed(counts: dict[Entry, int]) -> str:
    return ", ".join(f"{count} {entry.text}" for entry, count in counts.items())


def account_of(
    intake: Intake,
    records: Sequence[Record],
    epoch: Epoch,
    settings: ChipSettings,
    *,
    long_masks: int = 0,
) -> Account:
    """The account of training sets.

    Args:
        intake: the sum of what their readers say.
        records: of all sets, with or without mirrored copies, in the order of the originals.
        epoch: the chips of these records.
        settings: how they were made.
        long_masks: see `Account`.
    """
    levels = box_levels(records, settings)
    every = fates(epoch, assignments(epoch, levels, settings.chip_size))
    code = np.zeros(len(levels.boxes), np.int64)
    for number, fate in enumerate(every):
        code[fate.boxes] = number
    originals = [record for record in records if not record.flipped]
    if len(originals) < len(records):
        mirrored = np.array([record.flipped for record in records])[levels.record]
        # The fate `trained` is number 0: whatever is trained in one of the two is trained.
        code = np.where(code[mirrored] == 0, 0, code[~mirrored])
        levels = box_levels(originals, settings)
    merged = (
        Fate(fate.name, fate.text, np.flatnonzero(code == number))
        for number, fate in enumerate(every)
    )
    return Account(intake, levels, tuple(merged), long_masks, settings.legacy_boxes)
