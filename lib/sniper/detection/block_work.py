"""What is to be done with every block of images: the same in this process and in others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from easydict import EasyDict

from sniper.data import ProposalSet, Record
from sniper.data.detections import DetectionTable
from sniper.detection.block_store import BlockStore
from sniper.detection.detector import make_detector
from sniper.detection.models import load_model
from sniper.inference.detector import Detector
from sniper.inference.level_cache import LevelFiles
from sniper.inference.progress import OnStep
from sniper.setup.settings import contexts

# Computes the block of a number and puts it into the store.
RunBlock = Callable[[int, OnStep], None]

_SHOWN = 2  # images of a block in a message


@dataclass(frozen=True)
class BlockWork:
    """Detection (or proposal extraction) on blocks of images; travels to worker processes.

    Attributes:
        cfg: the configuration that the network was trained with.
        weights: the file of the weights.
        class_names: index 0 is the background.
        records: the images.
        blocks: indices of the images of each block.
        store: where finished blocks go.
        set_name: name of the data set.
        proposals_per_level: extract so many proposals; None: detect.
        level_folders: level -> folder in which its raw detections are kept.
    """

    cfg: EasyDict
    weights: Path
    class_names: tuple[str, ...]
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
        devices = contexts(self.cfg.gpus)
        model = load_model(self.cfg, devices, self.weights, self.class_names)
        rpn_only = self.proposals_per_level is not None
        return self.runner(make_detector(self.cfg, model, devices, rpn_only=rpn_only))

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
