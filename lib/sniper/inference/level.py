"""What is looked at on one level, and how closely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sniper.chips.focus import FocusSettings
from sniper.chips.pyramid import test_factor
from sniper.chips.slices import SliceSettings
from sniper.data import Record
from sniper.errors import ConfigError
from sniper.inference.proposal_cap import ProposalCap
from sniper.loader.images import ImageSource
from sniper.loader.threads import StageClock
from sniper.models.class_scores import MIN_SCORE
from sniper.progress import OnStep, StageProgress

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
        cap: how many proposals of a window count; None: all.
        skip_strides: what maps of these strides find does not count (SSH).
        min_score: detections must have a higher score.
        max_pixels: most network px of a window; where the scale asks for more, the factor is
            smaller. 0: no limit. Tensors are a little larger: their sides are multiples of 32 px.

    Raises:
        ConfigError: windows and slices do not fit together.
    """

    scale: tuple[int, int] | float
    batch_images: int = 1
    valid_range: tuple[float, float] = (-1.0, -1.0)
    windows: str = SAME
    focus: FocusSettings | None = None
    slices: SliceSettings | None = None
    prune: bool = False
    cap: ProposalCap | None = None
    skip_strides: tuple[int, ...] = ()
    min_score: float = MIN_SCORE
    max_pixels: int = 0

    def __post_init__(self) -> None:
        if (self.slices is not None) != (self.windows == SLICES):
            raise ConfigError(
                "a level of slices, and no other, has a grid", got=f"{self.windows}, {self.slices}"
            )

    def factor(self, record: Record) -> float:
        """Image px -> network px."""
        asked = self.asked_factor(record)
        if not self.max_pixels:
            return asked
        width, height = self.most_sides(record)
        return min(asked, math.sqrt(self.max_pixels / (width * height)))

    def is_bound(self, record: Record) -> bool:
        """Whether `max_pixels` makes the factor smaller."""
        return self.factor(record) < self.asked_factor(record)

    def most_sides(self, record: Record) -> tuple[int, int]:
        """Width and height of the largest window that the level can have, image px."""
        if self.slices is None:
            return record.width, record.height  # a FocusChip can be the whole image
        return min(record.width, self.slices.size_px), min(record.height, self.slices.size_px)

    def asked_factor(self, record: Record) -> float:
        """Image px -> network px as the scale says it."""
        if isinstance(self.scale, Sequence):
            return test_factor(record.width, record.height, self.scale)
        return float(self.scale)


Window = tuple[float, float, float, float]  # x1 y1 x2 y2, image px
Windows = list[list[Window]]  # per image


class Run:
    """A block of images on its way through the levels.

    Attributes:
        records: the images.
        images: where their pixels come from.
        clock: seconds of each stage.
        pixels: network px of the windows so far.
    """

    def __init__(
        self, records: Sequence[Record], images: ImageSource, on_step: OnStep | None
    ) -> None:
        self.records, self.images = records, images
        self.clock = StageClock()
        self.pixels = 0.0
        self._on_step = on_step or StageProgress()

    def steps(self, what: str, total: int) -> Steps:
        """A counter of the steps of one thing, which tells whoever asked for progress."""
        return Steps(self._on_step, what, total)


class Steps:
    """Counts the steps of one thing."""

    def __init__(self, on_step: OnStep, what: str, total: int) -> None:
        self._on_step, self._what, self._total, self._done = on_step, what, total, 0

    def __call__(self) -> None:
        """One more step is done."""
        self._done += 1
        self._on_step(self._what, self._done, self._total)


def whole_images(records: Sequence[Record]) -> Windows:
    """Every image as one window."""
    return [[(0.0, 0.0, float(record.width), float(record.height))] for record in records]
