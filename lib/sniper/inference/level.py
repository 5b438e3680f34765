"""What is looked at on one level, and how closely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sniper.chips.focus import FocusSettings
from sniper.chips.pyramid import test_factor
from sniper.chips.slices import SliceSettings
from sniper.data import Record

# Which windows a level looks at: those of the level before (the whole image at first), the
# FocusChips that the level before found, or a regular grid.
SAME, FOCUS, SLICES = "same", "focus", "slices"


@dataclass(frozen=True)
class Level:
    """One level of a test.

    Attributes:
        scale: (short side, longest long side) of the whole image in network px; or the factor image
            px -> network px itself.
        batch_images: windows per device.
        valid_range: (low, high) of sqrt(area) in image px of what it may find; <= 0 is unbounded.
        windows: SAME, FOCUS or SLICES.
        focus: how its map becomes the FocusChips of the next level; None where that has none.
        slices: the grid of SLICES.
        prune: drop what it finds at borders of windows inside the image, where objects are cut.
    """

    scale: tuple[int, int] | float
    batch_images: int = 1
    valid_range: tuple[float, float] = (-1.0, -1.0)
    windows: str = SAME
    focus: FocusSettings | None = None
    slices: SliceSettings | None = None
    prune: bool = False

    def factor(self, record: Record) -> float:
        """Image px -> network px."""
        if isinstance(self.scale, Sequence):
            return test_factor(record.width, record.height, self.scale)
        return float(self.scale)
