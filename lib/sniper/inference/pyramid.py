"""Whole-image detection on every level of the test pyramid."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mxnet as mx
import numpy as np

from sniper.data import Record
from sniper.inference.forward import ChipDetections, LevelForward, Model
from sniper.inference.merge import LevelDetections, MergeSettings, keep_confident, merge_images
from sniper.loader.test import TestLoader

logger = logging.getLogger(__name__)

# A progress line at least this often, so that slow and dead can be told apart.
PROGRESS_EVERY_S = 5.0


@dataclass(frozen=True)
class Level:
    """One level of the test pyramid: (short side, long side) in px, images per device."""

    scale: tuple[int, int]
    batch_images: int


class PyramidDetector:
    """Runs a model on all levels; keeps the bound networks for later calls."""

    def __init__(
        self,
        model: Model,
        levels: Sequence[Level],
        devices: list[mx.Context],
        pixel_means: np.ndarray,
        *,
        num_threads: int = 2,
        rpn_only: bool = False,
    ) -> None:
        self.model = model
        self.levels = tuple(levels)
        self._pixel_means = pixel_means
        self._num_threads = num_threads
        self._forwards = [
            LevelForward(model, devices, level.batch_images, rpn_only=rpn_only)
            for level in self.levels
        ]

    def detect(self, records: Sequence[Record], merge: MergeSettings) -> list[list[np.ndarray]]:
        """Final detections: per image, per class (n, 5) float32 in image px."""
        parts: list[list[LevelDetections]] = [[] for _ in records]
        for index in range(len(self.levels)):
            for found in self.run_level(records, index):
                parts[found.image_index].append(keep_confident(found, index))
        return merge_images(parts, len(self.model.class_names), merge)

    def run_level(self, records: Sequence[Record], index: int) -> Iterator[ChipDetections]:
        """Raw detections of every image at one level, in the order of the batches."""
        level, forward = self.levels[index], self._forwards[index]
        crops = [[(0.0, 0.0, float(r.width), float(r.height))] for r in records]
        progress = _Progress(len(records), f"level {index + 1}/{len(self.levels)} {level.scale}")
        with TestLoader(
            records,
            crops,
            level.scale,
            batch_size=forward.batch_size,
            batch_multiple=len(forward.devices),
            pixel_means=self._pixel_means,
            num_threads=self._num_threads,
        ) as loader:
            for batch in loader:
                for found in forward(batch):
                    progress.step()
                    yield found


class _Progress:
    """Logs images done, speed and remaining time of one level."""

    def __init__(self, total: int, what: str) -> None:
        self._total, self._what, self._done = total, what, 0
        self._start = self._last = time.monotonic()

    def step(self) -> None:
        self._done += 1
        now = time.monotonic()
        finished = self._done == self._total and self._total > 1
        if not finished and now - self._last < PROGRESS_EVERY_S:
            return
        self._last = now
        each = (now - self._start) / self._done
        logger.info(
            "%s: %d/%d images, %.3f s an image, %.0f s left",
            self._what,
            self._done,
            self._total,
            each,
            each * (self._total - self._done),
        )
