"""Detections and times of many settings of a test; what they have in common is computed once."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sniper.data import Dataset
from sniper.data.detections import DetectionTable, join_blocks
from sniper.errors import ConfigError
from sniper.files import atomic_write_text
from sniper.inference.block_store import KEY_CHARACTERS, run_keys
from sniper.inference.detector import Detector
from sniper.inference.level import FOCUS, Level
from sniper.inference.level_cache import LevelFiles
from sniper.process import usable_cores
from sniper.progress import Progress, silent
from sniper.runs.plan import TestPlan

logger = logging.getLogger(__name__)

# Small enough that a run that was stopped loses little, and that all settings meet the same moments
# of a machine that does other things as well.
BLOCK_IMAGES = 8

# Levels that are computed one after the other since each finds the windows of the next.
Chain = tuple[Level, ...]


@dataclass(frozen=True)
class Cost:
    """What a level, or merging, took for a block of images.

    Attributes:
        images: of the block.
        wall_s: seconds that passed.
        cpu_s: seconds of all threads together.
        pixels: network px of all windows.
    """

    images: int
    wall_s: float
    cpu_s: float
    pixels: float

    def __add__(self, other: Cost) -> Cost:
        """Of the same images: one after the other."""
        return Cost(
            self.images,
            self.wall_s + other.wall_s,
            self.cpu_s + other.cpu_s,
            self.pixels + other.pixels,
        )


@dataclass(frozen=True, eq=False)
class SettingRun:
    """A setting on a set.

    Attributes:
        table: its detections.
        blocks: costs of the blocks of images.
    """

    table: DetectionTable
    blocks: tuple[Cost, ...]

    def per_image(self, what: str) -> float:
        """Mean of `wall_s`, `cpu_s` or `pixels` over the images."""
        images = sum(block.images for block in self.blocks)
        return sum(getattr(block, what) for block in self.blocks) / images


class SettingRuns:
    """Runs settings of one network on sets.

    Every level is computed once for all settings that have it, whatever its valid range, and takes
    its part of the time of each. Its results and times stay on disk: a run that was stopped goes on
    there.

    Args:
        detector: of any of the settings: its network is used for all.
        weights: the file of its weights.
        folder: of what stays.
    """

    def __init__(self, detector: Detector, weights: Path, folder: Path) -> None:
        self._detector, self._weights, self._folder = detector, weights, folder

    def run(self, dataset: Dataset, plans: Mapping[str, TestPlan]) -> dict[str, SettingRun]:
        """Detections and costs of settings.

        Args:
            dataset: the images.
            plans: what each setting does, by its name.

        Raises:
            ConfigError: there are no images.
            DataError: an image cannot be read, or the weights do not fit.
        """
        if not dataset.records:
            raise ConfigError("settings are compared on images", got="none", where=dataset.name)
        detectors = {name: self._with_levels(plan.levels, plan) for name, plan in plans.items()}
        blocks = [
            list(range(start, min(start + BLOCK_IMAGES, len(dataset.records))))
            for start in range(0, len(dataset.records), BLOCK_IMAGES)
        ]
        chains = list(dict.fromkeys(c for d in detectors.values() for c in _chains(d.levels)))
        # Merging, in which settings may differ, is no part of what a level finds.
        plan = next(iter(plans.values()))
        keys = {chain: self._key(chain, plan, dataset, blocks) for chain in chains}
        self._compute(dataset, blocks, keys, plan)
        runs = {}
        for name, detector in detectors.items():
            results = [
                self._merged(detector, dataset, number, block, keys)
                for number, block in enumerate(blocks)
            ]
            table = join_blocks([table for table, _ in results], blocks)
            runs[name] = SettingRun(table, tuple(cost for _, cost in results))
        return runs

    def _with_levels(self, levels: Sequence[Level], plan: TestPlan) -> Detector:
        """A detector that looks at other levels with the same network."""
        return Detector(
            self._detector.executor,
            levels,
            plan.merge,
            plan.pixel_means,
            pyramid=plan.pyramid,
            num_threads=usable_cores(),
            legacy_boxes=self._detector.legacy_boxes,
        )

    def _key(
        self, chain: Chain, plan: TestPlan, dataset: Dataset, blocks: Sequence[Sequence[int]]
    ) -> str:
        keys = run_keys(
            *(self._with_levels(chain, plan), self._weights, dataset, blocks),
            pixel_means=plan.pixel_means,
            kind="settings",
        )
        return keys.levels[-1][:KEY_CHARACTERS]

    def _compute(
        self,
        dataset: Dataset,
        blocks: Sequence[Sequence[int]],
        keys: Mapping[Chain, str],
        plan: TestPlan,
    ) -> None:
        """Has every level on disk, block after block: all levels meet the same moments."""
        missing = [
            (number, chain)
            for number in range(len(blocks))
            for chain in keys
            if not self._times(keys[chain], number).exists()
        ]
        everything = len(blocks) * len(keys)
        before = everything - len(missing)
        if before:
            logger.info("%d of %d parts are done already", before, everything)
        progress = Progress("levels of blocks of images", everything, before=before)
        workers = {chain: self._with_levels(chain, plan) for _, chain in missing}
        for worker in workers.values():
            # Not timed: weights are packed, and shapes bound, in the first pass.
            worker.detect(dataset.records[:1], on_step=silent)
            worker.take_stats()
        for done, (number, chain) in enumerate(missing, before + 1):
            records = [dataset.records[index] for index in blocks[number]]
            files = self._files(chain, number, keys)
            # Half of a part, where a run was killed between its two files.
            files[len(chain) - 1].unlink(missing_ok=True)
            cpu_s = time.process_time()
            workers[chain].detect(records, on_step=silent, cache=LevelFiles(files))
            cpu_s = time.process_time() - cpu_s
            stats = workers[chain].take_stats()
            merge_s = stats.seconds["merge"]
            cost = Cost(
                len(records),
                max(0.0, stats.total_s - merge_s),
                max(0.0, cpu_s - merge_s),
                stats.pixels,
            )
            atomic_write_text(self._times(keys[chain], number), json.dumps(asdict(cost)) + "\n")
            progress.tell(done)

    def _merged(
        self,
        detector: Detector,
        dataset: Dataset,
        number: int,
        block: Sequence[int],
        keys: Mapping[Chain, str],
    ) -> tuple[DetectionTable, Cost]:
        """Detections of a setting on a block, from its levels on disk, and their cost together."""
        chains = _chains(detector.levels)
        files = {level: self._path(keys[chain], number) for level, chain in enumerate(chains)}
        records = [dataset.records[index] for index in block]
        table = detector.detect(records, on_step=silent, cache=LevelFiles(files))
        merge_s = detector.take_stats().seconds["merge"]
        cost = Cost(len(records), merge_s, merge_s, 0.0)
        for chain in chains:
            text = self._times(keys[chain], number).read_text(encoding="utf-8")
            cost = Cost(**json.loads(text)) + cost
        return table, cost

    def _files(self, chain: Chain, number: int, keys: Mapping[Chain, str]) -> dict[int, Path]:
        """Files of all levels of a chain: those before its last one are there already."""
        return {
            level: self._path(keys[part], number)
            for level in range(len(chain))
            if (part := chain[: level + 1]) in keys
        }

    def _path(self, key: str, number: int) -> Path:
        return self._folder / key / f"block_{number:05d}.npz"

    def _times(self, key: str, number: int) -> Path:
        return self._folder / key / f"block_{number:05d}.json"


def _chains(levels: Sequence[Level]) -> list[Chain]:
    """For each level, it and those before it that it depends on, without valid ranges."""
    chains: list[Chain] = []
    for level in levels:
        plain = replace(level, valid_range=(-1.0, -1.0))
        before = chains[-1] if level.windows == FOCUS else ()
        chains.append((*before, plain))
    return chains
