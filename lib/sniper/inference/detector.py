"""Detection on images: all levels, the windows of each, and what they find merged."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from sniper.chips.focus import FocusSettings, focus_chips, inside_borders, on_whole_pixels
from sniper.chips.pyramid import test_factor
from sniper.chips.slices import slice_windows
from sniper.data import ProposalSet, Record
from sniper.data.detections import DetectionTable
from sniper.errors import ConfigError, DataError
from sniper.inference.decode import ChipDetections, decode_batch
from sniper.inference.executor import Executor
from sniper.inference.image_blocks import image_blocks
from sniper.inference.instance_masks import BlockMaps, table_with_masks
from sniper.inference.level import FOCUS, Level, Run, Window, Windows, whole_images
from sniper.inference.level_cache import LevelCache, LevelResult
from sniper.inference.merge_levels import (
    LevelDetections,
    MergeSettings,
    join_detections,
    keep_confident,
    merge_levels,
)
from sniper.inference.mirror import run_mirrored
from sniper.inference.notices import Notices
from sniper.inference.run_stats import RunStats, level_stage
from sniper.loader.images import ImageCache, ImageSource
from sniper.loader.threads import DaemonThreads
from sniper.loader.windows import TestBatch, TestLoader
from sniper.models.class_scores import MIN_SCORE, objectness_of
from sniper.models.parts import WindowDetections
from sniper.process import HomeProcess
from sniper.progress import OnStep

# RoI maps of one block of images: about 70 images of 800x600 px on the pyramid of 2018.
MAP_MEMORY_BYTES = 1 << 30
# Decoded images stay for the next level.
IMAGE_MEMORY_BYTES = 256 << 20


class Detector:
    """Detects objects in images; keeps the network for later calls. Threads may share it.

    On CPUs results do not depend on how images are spread over calls and batches, nor on their
    order; on GPUs, which see several windows at once, their last bits may.

    Args:
        executor: the network; one for proposals alone serves `proposals` instead of `detect`.
        levels: what is looked at, in this order.
        merge: how the findings become one result.
        pixel_means: three means, BGR.
        pyramid: (short side, long side) of the full pyramid that shares of pixels refer to.
        num_threads: threads that read images.
        legacy_boxes: the network was trained with boxes as in 2018 (`TRAIN.LEGACY_BOXES`).
        flip: `detect` sees every window mirrored as well, and merges what both find.

    Raises:
        ConfigError: a level needs FocusChips that the level before does not find.
    """

    def __init__(
        self,
        executor: Executor,
        levels: Sequence[Level],
        merge: MergeSettings,
        pixel_means: Sequence[float],
        *,
        pyramid: Sequence[tuple[int, int]] = (),
        num_threads: int = 2,
        legacy_boxes: bool = False,
        flip: bool = False,
    ) -> None:
        self._home = HomeProcess()
        self.executor = executor
        self.legacy_boxes = legacy_boxes
        self.flip = flip
        self.levels = tuple(levels)
        for before, level in zip(self.levels, self.levels[1:]):
            if level.windows == FOCUS and before.focus is None:
                raise ConfigError("no level finds FocusChips for this one", got=level)
        self.merge = merge
        self.has_masks = executor.traits.has_masks
        self._pyramid = tuple(pyramid)
        self._pixel_means = pixel_means
        # Fresh threads for every level would leave the heaps of the old ones behind.
        self._threads = DaemonThreads(num_threads, "sniper-images")
        weakref.finalize(self, self._threads.close)
        self._stats = RunStats()
        self._lock = threading.Lock()
        self._notices = Notices()

    def blocks(self, records: Sequence[Record], most_images: int = 64) -> list[list[int]]:
        """Indices of images that fit into memory together; those of one size stand together."""
        traits = self.executor.traits
        bytes_per_px = 4 * traits.roi_channels / traits.feature_stride**2 if self.has_masks else 0.0
        return image_blocks(
            [(record.width, record.height) for record in records],
            [[level.factor(record) for level in self.levels] for record in records],
            bytes_per_px=bytes_per_px,
            memory_bytes=MAP_MEMORY_BYTES,
            most_images=most_images,
        )

    def check_process(self) -> None:
        """Raises TrainingError in a forked copy of the process that has made the detector."""
        self._home.check()

    def check_image(self, record: Record) -> None:
        """Raises DataError for an image of which some level has nothing to look at.

        One of 1 x 10000 px is less than half a pixel high where its long side is 1000 px.
        """
        for number, level in enumerate(self.levels, 1):
            factor = level.factor(record)
            if min(round(side * factor) for side in level.most_sides(record)) < 1:
                raise DataError(
                    "an image is too thin to be looked at",
                    where=record.image_path,
                    got=f"{record.width}x{record.height} px, at level {number} scaled by "
                    f"{factor:.4g}",
                    fix="leave it out, or choose larger scales (TEST.SCALES)",
                )

    def detect(
        self,
        records: Sequence[Record],
        *,
        images: ImageSource | None = None,
        on_step: OnStep | None = None,
        cache: LevelCache | None = None,
    ) -> DetectionTable:
        """Detections of a block of images, whose decoded maps must fit into memory together.

        Args:
            records: the images; only path and size are read.
            images: where their pixels come from; None reads the files.
            on_step: called after every window and mask; None logs now and then.
            cache: keeps what the levels find in these images; not used for networks with masks,
                whose maps it does not hold.

        Returns:
            The detections of `records`, with masks if the network has them.

        Raises:
            DataError: an image cannot be read, has another size or is too thin, or weights do not
                fit.
            TrainingError: reading an image took longer than the timeout.
        """
        self.check_process()
        for record in records:
            self.check_image(record)
        started_s = time.perf_counter()
        run = Run(records, images or ImageCache(max_bytes=IMAGE_MEMORY_BYTES), on_step)
        maps = BlockMaps(legacy=self.legacy_boxes) if self.has_masks else None
        cache = None if self.has_masks else cache
        detections: list[list[LevelDetections]] = [[] for _ in records]
        windows = whole_images(records)
        focus_windows = windows
        for index, level in enumerate(self.levels):
            windows = self._windows(level, records, windows, focus_windows)
            result = cache.load(index) if cache is not None else None
            if result is None:
                result = self._detect_level(index, run, windows, maps)
                if cache is not None:
                    cache.save(index, result)
            for of_image, new in zip(detections, result.parts):
                of_image.extend(new)
            focus_windows = windows if result.next_windows is None else result.next_windows
        with run.clock("merge"):
            # Valid ranges come in here and not per level: kept levels serve other ranges as well.
            ranges = [level.valid_range for level in self.levels]
            table, origins = merge_levels(detections, ranges, self.merge)
        self._notices.tell_cut(records, table, self.merge.max_per_image)
        if maps is not None:
            with run.clock("masks"):
                step = run.steps("masks", len(records))
                table = table_with_masks(self.executor.masks, maps, records, table, origins, step)
        self._note(run, time.perf_counter() - started_s)
        return table

    def proposals(
        self,
        records: Sequence[Record],
        set_name: str,
        per_level: int = 300,
        *,
        on_step: OnStep | None = None,
    ) -> ProposalSet:
        """Best `per_level` proposals of every image and level, levels in order, in image px.

        No valid ranges and no NMS over levels (2018 behaviour).

        Args:
            records: images without flips.
            set_name: the data set's name, kept in the file.
            per_level: proposals kept of one level.
            on_step: called after every image of a level; None logs now and then.
        """
        self.check_process()
        for record in records:
            self.check_image(record)
        started_s = time.perf_counter()
        run = Run(records, ImageCache(max_bytes=IMAGE_MEMORY_BYTES), on_step)
        boxes = [[np.zeros((0, 4), np.float32) for _ in self.levels] for _ in records]
        scores = [[np.zeros(0, np.float32) for _ in self.levels] for _ in records]
        for level in range(len(self.levels)):
            for image in self.run_level(level, run, whole_images(records)):
                # An RPN's come best first, several modules' (SSH) one module after the other.
                objectness = objectness_of(image.scores)
                order = np.argsort(-objectness, kind="stable")
                # Slots that none fills have a score of 0.
                kept = order[objectness[order] > 0][:per_level]
                boxes[image.image_index][level] = image.boxes[kept]
                scores[image.image_index][level] = objectness[kept].astype(np.float32)
        self._note(run, time.perf_counter() - started_s)
        image_boxes = [np.concatenate(rows) for rows in boxes]
        counts = [len(rows) for rows in image_boxes]
        return ProposalSet(
            set_name,
            np.array([record.image_id for record in records], np.int64),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.concatenate([*image_boxes, np.zeros((0, 4), np.float32)]),
            np.concatenate([*(s for rows in scores for s in rows), np.zeros(0, np.float32)]),
        )

    def take_stats(self) -> RunStats:
        """Figures of all calls since the last time."""
        with self._lock:
            stats, self._stats = self._stats, RunStats()
        return stats

    def _windows(
        self,
        level: Level,
        records: Sequence[Record],
        windows: Windows,
        focus_windows: Windows,
    ) -> Windows:
        if level.windows == FOCUS:
            return focus_windows
        if level.slices is not None:
            return [
                [(x1, y1, x2, y2) for x1, y1, x2, y2 in slice_windows(*size, level.slices)]
                for size in ((record.width, record.height) for record in records)
            ]
        return windows

    def _detect_level(
        self, index: int, run: Run, windows: Windows, maps: BlockMaps | None
    ) -> LevelResult:
        level = self.levels[index]
        by_chip: list[dict[int, LevelDetections]] = [{} for _ in windows]
        focus: list[dict[int, list[Window]]] = [{} for _ in windows]
        for raw in self.run_level(index, run, windows):
            image, chip = raw.image_index, raw.chip_index
            window, record = windows[image][chip], run.records[image]
            detections = self._detections(index, raw, window, record)
            if raw.mirrored is not None:
                mirrored = self._detections(index, raw.mirrored, window, record)
                detections = join_detections(detections, mirrored)
            by_chip[image][chip] = detections
            # A map takes megabytes: only those are kept that a mask may be read from.
            if maps is not None and len(detections.rows):
                maps.keep(index, raw, window[:2])
            if level.focus is not None:
                found = self._focus_windows(level.focus, raw, window, record)
                focus[image][chip] = self._not_too_thin(found, index + 1, record)
        # Batches come in an order of their own.
        in_order = [
            [chips[number] for number in range(len(of_image))]
            for chips, of_image in zip(by_chip, windows)
        ]
        if level.focus is None:
            return LevelResult(in_order, None)
        # Chips of neighbouring chips can be the same one.
        return LevelResult(
            in_order,
            [
                list(dict.fromkeys(window for chip in range(len(chips)) for window in chips[chip]))
                for chips in focus
            ],
        )

    def _detections(
        self, index: int, raw: ChipDetections, window: Window, record: Record
    ) -> LevelDetections:
        """What counts of the findings in a window."""
        level = self.levels[index]
        if level.cap is not None:
            raw = level.cap.apply(raw, window[2] - window[0], window[3] - window[1])
        detections = keep_confident(raw, index, window[:2])
        if level.min_score > MIN_SCORE:
            detections = _kept(detections, detections.rows[:, 4] > level.min_score)
        return _pruned(detections, window, record) if level.prune else detections

    def _focus_windows(
        self, settings: FocusSettings, raw: ChipDetections, window: Window, record: Record
    ) -> list[Window]:
        """FocusChips of one window on whole pixels, image px."""
        if raw.focus_map is None:
            raise ConfigError(
                "this network does not find FocusPixels",
                fix="take a mode other than focus, or a network trained with TRAIN.AUTO_FOCUS true",
            )
        x1, y1, x2, y2 = window
        chips = focus_chips(
            raw.focus_map,
            settings,
            ((x2 - x1) * raw.factor, (y2 - y1) * raw.factor),
            raw.factor,
            origin=(x1, y1),
            stride=self.executor.traits.feature_stride,
        )
        return [tuple(c) for c in on_whole_pixels(chips, (record.width, record.height)).tolist()]

    def _not_too_thin(self, windows: list[Window], index: int, record: Record) -> list[Window]:
        """Without those of which a level would see less than half a pixel."""
        if index >= len(self.levels):
            return windows
        factor = self.levels[index].factor(record)
        return [w for w in windows if round(min(w[2] - w[0], w[3] - w[1]) * factor) >= 1]

    def run_level(self, index: int, run: Run, windows: Windows) -> Iterator[ChipDetections]:
        """Raw detections of every window of one level, in the order of the batches."""
        level = self.levels[index]
        self._notices.tell_bound(run.records, level, index + 1)
        factors = [level.factor(record) for record in run.records]
        total = sum(map(len, windows))
        step = run.steps(f"level {index + 1}/{len(self.levels)}", total)
        run.pixels += (1 + self.flip) * sum(
            factor**2 * sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in of_image)
            for factor, of_image in zip(factors, windows)
        )
        with TestLoader(
            run.records,
            windows,
            factors,
            batch_size=level.batch_images * self.executor.num_devices,
            batch_multiple=self.executor.num_devices,
            pixel_means=self._pixel_means,
            threads=self._threads,
            images=run.images,
            clock=run.clock,
        ) as loader:
            for batch in loader:
                place = batch, level
                with run.clock("forward"), run.clock(level_stage(index)):
                    of_batch = self._decoded(self.executor.run(batch.data, batch.im_info), *place)
                    if self.flip:
                        outputs = run_mirrored(self.executor, batch.data, batch.im_info)
                        of_batch = [
                            replace(found, mirrored=mirrored)
                            for found, mirrored in zip(of_batch, self._decoded(outputs, *place))
                        ]
                for chip_detections in of_batch:
                    step()
                    yield chip_detections

    def _decoded(
        self, outputs: Sequence[WindowDetections], batch: TestBatch, level: Level
    ) -> list[ChipDetections]:
        return decode_batch(
            outputs, batch, legacy=self.legacy_boxes, skip_strides=level.skip_strides
        )

    def _note(self, run: Run, took_s: float) -> None:
        pyramid_pixels = sum(
            test_factor(record.width, record.height, scale) ** 2 * record.width * record.height
            for record in run.records
            for scale in self._pyramid
        )
        stats = RunStats(
            len(run.records), took_s, run.clock.seconds(), run.pixels, float(pyramid_pixels)
        )
        with self._lock:
            self._stats += stats


def _pruned(detections: LevelDetections, window: Window, record: Record) -> LevelDetections:
    """Without what touches a border of the window inside the image."""
    size = (record.width, record.height)
    return _kept(detections, inside_borders(detections.rows[:, :4], window, size))


def _kept(detections: LevelDetections, kept: np.ndarray) -> LevelDetections:
    """Some of the rows, (n,) bool."""
    return replace(detections, rows=detections.rows[kept], classes=detections.classes[kept])
