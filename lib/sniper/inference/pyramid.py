"""Whole-image detection on every level of the test pyramid."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mxnet as mx
import numpy as np

from sniper.data import Record
from sniper.inference.blocks import image_blocks
from sniper.inference.forward import ChipDetections, LevelForward
from sniper.inference.instances import BlockMaps, block_masks
from sniper.inference.mask_forward import MaskForward
from sniper.inference.merge import (
    LevelDetections,
    MergeSettings,
    keep_confident,
    merge_images,
    merge_with_origins,
)
from sniper.inference.weights import Model
from sniper.loader.test import TestLoader

logger = logging.getLogger(__name__)

# A progress line at least this often, so that slow and dead can be told apart.
PROGRESS_EVERY_S = 5.0

# RoI maps of one block of images: about 70 images of 800x600 px on the pyramid of 2018.
MAP_MEMORY_BYTES = 1 << 30


@dataclass(frozen=True)
class Level:
    """One level of the test pyramid: (short side, long side) in px, images per device."""

    scale: tuple[int, int]
    batch_images: int


class PyramidDetector:
    """Runs a model on all levels; keeps the bound networks for later calls.

    Attributes:
        model: the network and its weights.
        levels: the pyramid.
        has_masks: whether the network can tell the masks of its detections.
    """

    def __init__(
        self,
        model: Model,
        levels: Sequence[Level],
        devices: list[mx.Context],
        pixel_means: np.ndarray,
        *,
        num_threads: int = 2,
        rpn_only: bool = False,
        map_memory_bytes: int = MAP_MEMORY_BYTES,
    ) -> None:
        self.model = model
        self.levels = tuple(levels)
        self.has_masks = model.spec.with_masks and not rpn_only
        self._masks = MaskForward(model, devices) if self.has_masks else None
        self._map_memory_bytes = map_memory_bytes
        self._pixel_means = pixel_means
        self._num_threads = num_threads
        self._forwards = [
            LevelForward(
                model, devices, level.batch_images, rpn_only=rpn_only, roi_map=self.has_masks
            )
            for level in self.levels
        ]

    def detect(self, records: Sequence[Record], merge: MergeSettings) -> list[list[np.ndarray]]:
        """Final detections: per image, per class (n, 5) float32 in image px."""
        parts: list[list[LevelDetections]] = [[] for _ in records]
        for index in range(len(self.levels)):
            for found in self.run_level(records, index):
                parts[found.image_index].append(keep_confident(found, index))
        return merge_images(parts, len(self.model.class_names), merge)

    def detect_with_masks(
        self, records: Sequence[Record], merge: MergeSettings
    ) -> tuple[list[list[np.ndarray]], list[list[list[bytes]]] | None]:
        """Final detections and the mask of each; None in place of masks if the network has none.

        The masks need the RoI maps of all levels, so the images pass in blocks: memory does not
        grow with their number, and the result does not depend on the size of the blocks.

        Returns:
            Detections as `detect` gives them, and per image and class a list with the compressed
            run lengths of each detection's mask.
        """
        if self._masks is None:
            return self.detect(records, merge), None
        detections: list[list[np.ndarray]] = [[] for _ in records]
        masks: list[list[list[bytes]]] = [[] for _ in records]
        blocks = self._blocks(records)
        for number, block in enumerate(blocks):
            label = f"block {number + 1}/{len(blocks)}, " if len(blocks) > 1 else ""
            found = self._detect_block([records[i] for i in block], merge, label)
            for index, boxes, own_masks in zip(block, *found):
                detections[index], masks[index] = boxes, own_masks
        return detections, masks

    def _blocks(self, records: Sequence[Record]) -> list[list[int]]:
        return image_blocks(
            [(record.width, record.height) for record in records],
            [level.scale for level in self.levels],
            bytes_per_px=4 * self.model.spec.roi_channels / self.model.spec.feature_stride**2,
            memory_bytes=self._map_memory_bytes,
        )

    def _detect_block(
        self, records: Sequence[Record], merge: MergeSettings, label: str
    ) -> tuple[list[list[np.ndarray]], list[list[list[bytes]]]]:
        parts: list[list[LevelDetections]] = [[] for _ in records]
        maps = BlockMaps()
        for level in range(len(self.levels)):
            for found in self.run_level(records, level, label):
                part = keep_confident(found, level)
                parts[found.image_index].append(part)
                if len(part.rows):
                    maps.keep(level, found)
        detections, origins = merge_with_origins(parts, len(self.model.class_names), merge)
        step = _Progress(len(records), f"{label}masks").step
        return detections, block_masks(self._masks, maps, records, detections, origins, step)

    def run_level(
        self, records: Sequence[Record], index: int, label: str = ""
    ) -> Iterator[ChipDetections]:
        """Raw detections of every image at one level, in the order of the batches.

        Args:
            records: the images.
            index: of the level.
            label: what progress lines begin with.
        """
        level, forward = self.levels[index], self._forwards[index]
        crops = [[(0.0, 0.0, float(r.width), float(r.height))] for r in records]
        what = f"{label}level {index + 1}/{len(self.levels)} {level.scale}"
        progress = _Progress(len(records), what)
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
    """Logs images done, speed and remaining time of one level, or of the masks."""

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
