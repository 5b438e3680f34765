"""One call of a detector: its images, and what it has cost so far."""

from __future__ import annotations

from collections.abc import Sequence

from sniper.data import Record
from sniper.inference.progress import OnStep, ProgressLog
from sniper.loader.clock import StageClock
from sniper.loader.images import ImageSource

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
        self._on_step = on_step or ProgressLog()

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
