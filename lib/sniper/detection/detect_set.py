"""Detections or proposals of a whole data set: in blocks, on disk, by one or several processes."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from easydict import EasyDict

from sniper.data import Dataset, ProposalSet, image_record, load_proposals
from sniper.data.detections import DetectionTable, join_blocks, load_detections
from sniper.data.proposals import join_proposals
from sniper.detection.block_jobs import run_in_processes
from sniper.detection.block_keys import RunKeys, run_keys
from sniper.detection.block_progress import BlockProgress
from sniper.detection.block_store import KEY_CHARACTERS, BlockStore, remove_others
from sniper.detection.block_work import BlockWork
from sniper.detection.detector import mode_in_force
from sniper.errors import TrainingError
from sniper.inference.detector import Detector
from sniper.inference.stats import RunStats
from sniper.setup.settings import contexts

logger = logging.getLogger(__name__)

# Small sets have small blocks, so that several processes have something to do, and large sets
# blocks that do not take too long to repeat.
_LEAST_BLOCKS = 16
_BLOCK_IMAGES = (16, 64)


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
        cfg: the configuration that the network was trained with; `TEST.CONCURRENT_JOBS` processes.
        detector: the detector of the configuration.
        weights: the file that its weights come from.
        dataset: the set.
        folder: of the results; blocks go to `partial_<set>` in it.
    """

    def __init__(
        self, cfg: EasyDict, detector: Detector, weights: Path, dataset: Dataset, folder: Path
    ) -> None:
        self._cfg, self._detector, self._dataset, self._folder = cfg, detector, dataset, folder
        self._extracts = bool(cfg.TEST.EXTRACT_PROPOSALS)
        self._blocks = _blocks(detector, dataset)
        per_level = cfg.TEST.N_PROPOSAL_PER_SCALE if self._extracts else None
        keys = run_keys(
            *(detector, weights, dataset, self._blocks),
            pixel_means=cfg.network.PIXEL_MEANS,
            devices=contexts(cfg.gpus),
            kind=f"{per_level} proposals" if self._extracts else "detections",
        )
        self._level_folders = {} if self._extracts else self._cached_levels(keys)
        self._work = BlockWork(
            cfg=cfg,
            weights=weights,
            class_names=detector.model.class_names,
            # Without annotations, which make them slow to send.
            records=tuple(
                image_record(r.image_path, r.image_id, r.width, r.height) for r in dataset.records
            ),
            blocks=tuple(map(tuple, self._blocks)),
            store=BlockStore(
                folder / f"partial_{'proposals_' * self._extracts}{dataset.image_set}",
                keys.result,
                load_proposals if self._extracts else load_detections,
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
        jobs = max(1, min(self._cfg.TEST.CONCURRENT_JOBS, len(missing)))
        progress = BlockProgress(
            {number: sizes[number] for number in missing}, sum(sizes.values()) - images
        )
        if progress.images_done:
            logger.info(
                "%d of %d images are done already", progress.images_done, progress.images_total
            )
        self._compute(missing, jobs, progress)
        result, stats = self._result()
        mode = "proposals" if self._extracts else mode_in_force(self._cfg)
        return result, Speed(mode, jobs, stats, images, time.monotonic() - started_s)

    def clean_up(self) -> None:
        """Removes the blocks when the results are written, and what is of no use any more."""
        self._work.store.remove()
        for folder in self._level_folders.values():
            remove_others(folder.parent, keep=folder.name, what="cached detections")

    def _cached_levels(self, keys: RunKeys) -> dict[int, Path]:
        """Folder of each level that is to be cached: `<results>/cache_<set>/level_<k>/<key>`."""
        wanted = [k for k, use in enumerate(self._cfg.TEST.USE_CACHE) if use]
        wanted = [level for level in wanted if level < len(keys.levels)]
        if wanted and self._detector.has_masks:
            logger.info("TEST.USE_CACHE is not in force: masks need the feature maps of all levels")
            return {}
        root = self._folder / f"cache_{self._dataset.image_set}"
        return {k: root / f"level_{k + 1}" / keys.levels[k][:KEY_CHARACTERS] for k in wanted}

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
        except BaseException:
            logger.warning(
                "stopped: %d of %d images are done; the same command goes on from there",
                *(progress.images_done, progress.images_total),
            )
            raise

    def _result(self) -> tuple[DetectionTable | ProposalSet, RunStats]:
        loaded = [self._work.store.load(number) for number in range(len(self._blocks))]
        if None in loaded:
            raise TrainingError(
                "a block of results has disappeared from the disk",
                where=self._work.store.path(loaded.index(None)),
                fix="let one run at a time write to a folder, then start this one again",
            )
        results = [result for result, _ in loaded]
        stats = sum((stats for _, stats in loaded), RunStats())
        if self._extracts:
            image_ids = [record.image_id for record in self._dataset.records]
            return join_proposals(results, self._dataset.name, image_ids), stats
        return join_blocks(results, self._blocks), stats


def _blocks(detector: Detector, dataset: Dataset) -> list[list[int]]:
    count = len(dataset.records)
    most = int(np.clip(-(-count // _LEAST_BLOCKS), *_BLOCK_IMAGES))
    return detector.blocks(dataset.records, most)
