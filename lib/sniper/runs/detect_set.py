"""Detections or proposals of a whole data set: in blocks, on disk, by one or several processes."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from sniper.data import Dataset, ProposalSet, Record, image_record, load_proposals
from sniper.data.detections import DetectionTable, join_blocks, load_detections
from sniper.data.proposals import join_proposals
from sniper.errors import TrainingError
from sniper.inference.block_jobs import run_in_processes
from sniper.inference.block_store import (
    KEY_CHARACTERS,
    BlockStore,
    RunKeys,
    remove_others,
    run_keys,
)
from sniper.inference.detector import Detector
from sniper.inference.level_cache import LevelFiles
from sniper.inference.run_stats import RunStats
from sniper.progress import BlockProgress, OnStep
from sniper.runs.load_model import load_model, make_detector
from sniper.runs.plan import TestPlan

logger = logging.getLogger(__name__)

# Small sets have small blocks, so that several processes have something to do, and large sets
# blocks that do not take too long to repeat.
_LEAST_BLOCKS = 16
_BLOCK_IMAGES = (16, 64)

_Block = TypeVar("_Block", DetectionTable, ProposalSet)


@dataclass(frozen=True)
class Speed:
    """How long a run took.

    Attributes:
        mode: `single`, `pyramid`, `focus`, `slice`, or `proposals`.
        jobs: processes.
        stats: of all blocks, those of earlier runs that were stopped included.
        images: that this run has worked on.
        took_s: seconds that passed in this run.
    """

    mode: str
    jobs: int
    stats: RunStats
    images: int
    took_s: float

    def as_dict(self) -> dict[str, object]:
        """All figures, ready for JSON."""
        share = self.stats.pixel_share
        return {
            "mode": self.mode,
            "jobs": self.jobs,
            "images_per_s": self.images / self.took_s if self.images else None,
            "percent_of_pixels": None if math.isnan(share) else 100 * share,
            **self.stats.as_dict(),
        }

    def table(self) -> str:
        """The figures for the eye."""
        jobs = f"{self.jobs} jobs, " if self.jobs > 1 else ""
        took = f"{self.images} images in {self.took_s:.1f} s"
        return f"{self.mode}: {jobs}{took}; {self.stats.table()}"


def detect_in_memory(
    detector: Detector, dataset: Dataset, mode: str
) -> tuple[DetectionTable, Speed]:
    """Detections of a set in this process, without anything on disk.

    Raises:
        DataError: an image cannot be read, or the weights do not fit.
    """
    started_s = time.monotonic()
    records = dataset.records
    blocks = _blocks(detector, dataset)
    tables = []
    progress = BlockProgress({number: len(block) for number, block in enumerate(blocks)})
    for number, block in enumerate(blocks):
        tables.append(
            detector.detect(
                [records[index] for index in block],
                on_step=lambda *step, number=number: progress.step(number, *step),
            )
        )
        progress.finished(number)
    took_s = time.monotonic() - started_s
    speed = Speed(mode, 1, detector.take_stats(), len(records), took_s)
    return join_blocks(tables, blocks), speed


class StoredRun:
    """Detection or proposal extraction on a set, whose finished blocks of images stay on disk.

    A run that was killed goes on with the blocks of its predecessor; what was found with other
    weights, settings or images is not used. On CPUs results do not depend on the number
    of jobs, which all have as many threads as this process.

    Args:
        plan: how to detect; blocks go to `partial_<set>` in its folder of results.
        detector: the detector of the plan.
        weights: the file that its weights come from.
        dataset: the set.
    """

    def __init__(self, plan: TestPlan, detector: Detector, weights: Path, dataset: Dataset) -> None:
        self._plan, self._detector, self._dataset = plan, detector, dataset
        self._blocks = _blocks(detector, dataset)
        per_level = plan.proposals_per_level if plan.rpn_only else None
        keys = run_keys(
            *(detector, weights, dataset, self._blocks),
            pixel_means=plan.pixel_means,
            kind=f"{per_level} proposals" if plan.rpn_only else "detections",
        )
        self._level_folders = {} if plan.rpn_only else self._cached_levels(keys)
        self._work = BlockWork(
            plan=plan,
            weights=weights,
            class_names=None if plan.class_agnostic else detector.executor.traits.class_names,
            # Without annotations, which make them slow to send.
            records=tuple(
                image_record(r.image_path, r.image_id, r.width, r.height) for r in dataset.records
            ),
            blocks=tuple(map(tuple, self._blocks)),
            store=BlockStore(
                plan.results_dir / f"partial_{'proposals_' * plan.rpn_only}{dataset.image_set}",
                keys.result,
                load_proposals if plan.rpn_only else load_detections,
            ),
            set_name=dataset.name,
            proposals_per_level=per_level,
            level_folders=self._level_folders,
        )

    def run(self) -> tuple[DetectionTable | ProposalSet, Speed]:
        """Computes the blocks that are not done yet.

        Returns:
            Detections, or with `TEST.EXTRACT_PROPOSALS` proposals, of all images in order.

        Raises:
            DataError: an image cannot be read, or the weights do not fit.
            TrainingError: a file could not be written, or a process died. What was finished before
                stays on disk.
        """
        started_s = time.monotonic()
        sizes = {number: len(block) for number, block in enumerate(self._blocks)}
        # Large images last in the list: they come first, since one of them should not be what
        # all wait for in the end, and lack of memory shows early.
        missing = sorted(set(sizes) - self._work.store.finished(sizes), reverse=True)
        images = sum(sizes[number] for number in missing)
        jobs = max(1, min(self._plan.jobs, len(missing)))
        progress = BlockProgress(
            {number: sizes[number] for number in missing}, sum(sizes.values()) - images
        )
        if progress.images_done:
            logger.info(
                "%d of %d images are done already", progress.images_done, progress.images_total
            )
        self._compute(missing, jobs, progress)
        result, stats = self._result()
        mode = "proposals" if self._plan.rpn_only else self._plan.mode
        return result, Speed(mode, jobs, stats, images, time.monotonic() - started_s)

    def clean_up(self) -> None:
        """Removes the blocks when the results are written, and what is of no use any more."""
        self._work.store.remove()
        for folder in self._level_folders.values():
            remove_others(folder.parent, keep=folder.name, what="cached detections")

    def _cached_levels(self, keys: RunKeys) -> dict[int, Path]:
        """Folder of each level that is to be cached: `<results>/cache_<set>/level_<k>/<key>`."""
        cached = [level for level in self._plan.cached_levels if level < len(keys.levels)]
        if cached and self._detector.has_masks:
            logger.info("TEST.USE_CACHE is not in force: masks need the feature maps of all levels")
            return {}
        root = self._plan.results_dir / f"cache_{self._dataset.image_set}"
        return {k: root / f"level_{k + 1}" / keys.levels[k][:KEY_CHARACTERS] for k in cached}

    def _compute(self, missing: Sequence[int], jobs: int, progress: BlockProgress) -> None:
        try:
            if jobs > 1:
                threads = os.environ.get("OMP_NUM_THREADS", "")
                logger.info(
                    "%d jobs share %d blocks of images, each with OMP_NUM_THREADS=%s",
                    *(jobs, len(missing), threads),
                )
                run_in_processes(self._work, missing, jobs, progress)
                return
            run = self._work.runner(self._detector)
            for number in missing:
                run(number, lambda *step, number=number: progress.step(number, *step))
                progress.finished(number)
        except BaseException:  # Ctrl-C as well
            logger.warning(
                "stopped: %d of %d images are done; the same command goes on from there",
                *(progress.images_done, progress.images_total),
            )
            raise

    def _result(self) -> tuple[DetectionTable | ProposalSet, RunStats]:
        if self._plan.rpn_only:
            image_ids = [record.image_id for record in self._dataset.records]
            proposals, stats = self._stored(ProposalSet)
            return join_proposals(proposals, self._dataset.name, image_ids), stats
        tables, stats = self._stored(DetectionTable)
        return join_blocks(tables, self._blocks), stats

    def _stored(self, kind: type[_Block]) -> tuple[list[_Block], RunStats]:
        """All finished blocks, and their statistics together."""
        blocks: list[_Block] = []
        total = RunStats()
        for number in range(len(self._blocks)):
            block, stats = self._work.store.load(number) or (None, RunStats())
            if not isinstance(block, kind):
                raise TrainingError(
                    "a block of results has disappeared from the disk",
                    where=self._work.store.path(number),
                    fix="let one run at a time write to a folder, then start this one again",
                )
            blocks.append(block)
            total = total + stats
        return blocks, total


def _blocks(detector: Detector, dataset: Dataset) -> list[list[int]]:
    count = len(dataset.records)
    most = int(np.clip(-(-count // _LEAST_BLOCKS), *_BLOCK_IMAGES))
    return detector.blocks(dataset.records, most)


# Computes the block of a number and puts it into the store.
RunBlock = Callable[[int, OnStep], None]

_SHOWN = 2  # images of a block in a message


@dataclass(frozen=True)
class BlockWork:
    """Detection (or proposal extraction) on blocks of images; travels to worker processes.

    Attributes:
        plan: how to detect.
        weights: the file of the weights.
        class_names: of the network, index 0 is the background; None: those of the weights.
        records: the images.
        blocks: indices of the images of each block.
        store: where finished blocks go.
        set_name: name of the data set.
        proposals_per_level: extract so many proposals; None: detect.
        level_folders: level -> folder in which its raw detections are kept.
    """

    plan: TestPlan
    weights: Path
    class_names: tuple[str, ...] | None
    records: tuple[Record, ...]
    blocks: tuple[tuple[int, ...], ...]
    store: BlockStore
    set_name: str
    proposals_per_level: int | None
    level_folders: Mapping[int, Path]

    def open(self) -> RunBlock:
        """Loads the network.

        Raises:
            DataError: the weights are broken or do not fit.
        """
        model = load_model(self.plan.detector, self.weights, self.class_names)
        return self.runner(make_detector(self.plan, model))

    def runner(self, detector: Detector) -> RunBlock:
        """The same with a network that is there already."""

        def run(number: int, on_step: OnStep) -> None:
            result = self._result(detector, number, on_step)
            self.store.save(number, result.arrays(), detector.take_stats())

        return run

    def images_of(self, number: int) -> str:
        """A block for messages: its number and some of its images."""
        paths = [self.records[index].image_path for index in self.blocks[number]]
        more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
        return f"block {number + 1} of {len(self.blocks)}: {', '.join(paths[:_SHOWN])}{more}"

    def _result(
        self, detector: Detector, number: int, on_step: OnStep
    ) -> DetectionTable | ProposalSet:
        records = [self.records[index] for index in self.blocks[number]]
        if self.proposals_per_level is not None:
            return detector.proposals(
                records, self.set_name, self.proposals_per_level, on_step=on_step
            )
        name = f"block_{number:05d}.npz"
        files = {level: folder / name for level, folder in self.level_folders.items()}
        cache = LevelFiles(files) if files else None
        return detector.detect(records, on_step=on_step, cache=cache)
