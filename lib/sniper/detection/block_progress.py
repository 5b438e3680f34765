"""Progress of a run over blocks of images, in one or several processes."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from sniper.inference.progress import EVERY_S

logger = logging.getLogger(__name__)


class BlockProgress:
    """Logs how many images are done, the remaining time, and what is being worked on.

    Args:
        images: number of images of each block that is to be done.
        before: images that are done already.
    """

    def __init__(self, images: Mapping[int, int], before: int = 0) -> None:
        self._images = images
        self._before = before
        self._done = 0
        self._working: dict[int, str] = {}
        self._start_s = self._last_s = time.monotonic()

    @property
    def images_done(self) -> int:
        """Images of finished blocks, those of earlier runs included."""
        return self._before + self._done

    @property
    def images_total(self) -> int:
        """All images."""
        return self._before + sum(self._images.values())

    def step(self, number: int, what: str, done: int, total: int) -> None:
        """A block has got so far with one of its stages."""
        self._working[number] = f"{what} {done}/{total}"
        if time.monotonic() - self._last_s >= EVERY_S:
            self._tell()

    def finished(self, number: int) -> None:
        """A block is on disk."""
        self._working.pop(number, None)
        self._done += self._images[number]
        is_last = self.images_done == self.images_total
        if is_last or time.monotonic() - self._last_s >= EVERY_S:
            self._tell()

    def _tell(self) -> None:
        self._last_s = time.monotonic()
        line = f"{self.images_done}/{self.images_total} images"
        if self._done:
            each_s = (self._last_s - self._start_s) / self._done
            left_s = each_s * (self.images_total - self.images_done)
            line += f", {each_s:.3f} s an image, {left_s:.0f} s left"
        working = [f"block {number + 1}: {text}" for number, text in sorted(self._working.items())]
        logger.info("%s", "; ".join([line, *working]))
