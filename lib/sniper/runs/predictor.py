"""A loaded detector for images of any kind: `from sniper import Predictor`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
from easydict import EasyDict

from sniper.config import TEST_ENGINES, TEST_MODES, load_config
from sniper.data import Record, image_record
from sniper.data.detections import check_threshold
from sniper.data.ids import FileId
from sniper.data.one_class import OBJECT_CLASSES
from sniper.data.orientation import ImageFrame
from sniper.data.sources import Source, SourceImage, SourceLike, open_source
from sniper.errors import ConfigError, DataError
from sniper.inference.detector import Detector
from sniper.inference.picture_classes import PictureClasses, load_classes
from sniper.inference.prediction import Prediction, best_first
from sniper.inference.run_stats import RunStats
from sniper.loader.source_images import read_ahead
from sniper.models.model import AnyModel
from sniper.process import usable_cores
from sniper.progress import silent
from sniper.runs.category_ids import with_category_ids
from sniper.runs.find_weights import weights_path
from sniper.runs.levels import untrained_windows
from sniper.runs.load_model import (
    is_archive,
    load_archive_model,
    load_model,
    make_detector,
)
from sniper.runs.plan import TestPlan, test_plan

# Images of a block wait decoded: enough of them that batches of one size fill, within a limit.
BATCHES_IN_BLOCK = 4
BLOCK_BYTES = 256 << 20

logger = logging.getLogger(__name__)

Pair = tuple[Prediction, np.ndarray]

_NAME_WEIGHTS = (
    'train first (`sniper train` with this recipe), or name a file: Predictor(cfg, weights="FILE")'
)


class Predictor:
    """Detects objects in images, videos and arrays. Loads once; threads may share it.

    Example:
        predictor = Predictor("sniper_res18_toy")
        for prediction in predictor.stream("photos", recursive=True):
            print(prediction.name, prediction.filter(0.5).as_dict())

    Args:
        cfg: name or path of a recipe, a configuration, or an archive of `sniper export` or
            `sniper quantize` (`.zip`); with one of ONNX graphs MXNet need not be installed.
        weights: a `.params` file or an archive; None takes what the recipe's training has left. An
            archive as `cfg` brings its own.
        mode: `single`, `pyramid`, `focus` or `slice`; None takes `TEST.MODE`.
        devices: as the key `gpus`, for example "0" or "cpu"; None takes the recipe's, and for an
            archive the CPU.
        batch_images: images per device in one pass; None takes `TEST.BATCH_IMAGES`.
        threshold: objects with lower scores are left out.
        class_agnostic: all objects are of one class, `object`, with their probability of being any
            object; None takes `TEST.CLASS_AGNOSTIC`.
        classes: a file of `sniper fit-classes`, or what it holds: find these classes instead of
            the network's own.
        engine: what computes the network, see `TEST.ENGINE`, which None takes.

    Raises:
        ConfigError: the recipe, a device or an argument is wrong.
        DataError: the weights are missing or do not fit the network, or classes were learnt with
            another network.
    """

    def __init__(
        self,
        cfg: str | os.PathLike[str] | EasyDict,
        weights: str | os.PathLike[str] | None = None,
        *,
        mode: str | None = None,
        devices: str | None = None,
        batch_images: int | None = None,
        threshold: float = 0.0,
        class_agnostic: bool | None = None,
        classes: str | os.PathLike[str] | PictureClasses | None = None,
        engine: str | None = None,
    ) -> None:
        if mode is not None and mode not in TEST_MODES:
            raise ConfigError("there is no such mode", got=mode, expected=", ".join(TEST_MODES))
        if engine is not None and engine not in TEST_ENGINES:
            raise ConfigError(
                "there is no such engine", got=engine, expected=", ".join(TEST_ENGINES)
            )
        self._threshold = check_threshold(threshold)
        if classes is not None and not isinstance(classes, PictureClasses):
            classes = load_classes(os.fspath(classes))
        plan, model = plan_and_model(
            cfg, weights, mode=mode, devices=devices, batch_images=batch_images
        )
        if class_agnostic is not None:
            plan = replace(plan, class_agnostic=class_agnostic)
        if engine is not None:
            plan = replace(plan, engine=engine)
        self._detector: Detector = make_detector(plan, model, classes)
        self._plan = plan
        self._is_told = False
        # New classes are in no annotation file.
        self._category_ids = _category_ids(plan, model) if classes is None else None
        largest = max(level.batch_images for level in plan.levels) * len(plan.devices)
        self._block_images = BATCHES_IN_BLOCK * largest

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; index 0 is the background."""
        return self._detector.executor.traits.class_names

    @property
    def category_ids(self) -> tuple[FileId, ...] | None:
        """Id of each class in the annotation files of the training; None: the model is too old."""
        return self._category_ids

    @property
    def has_masks(self) -> bool:
        """Whether predictions have masks."""
        return self._detector.has_masks

    def __call__(
        self,
        source: SourceLike | Source,
        *,
        recursive: bool = False,
        every: int = 1,
        on_error: str = "raise",
    ) -> list[Prediction]:
        """All predictions of a source, in its order; see `stream`."""
        return list(self.stream(source, recursive=recursive, every=every, on_error=on_error))

    def stream(
        self,
        source: SourceLike | Source,
        *,
        recursive: bool = False,
        every: int = 1,
        on_error: str = "raise",
    ) -> Iterator[Prediction]:
        """Predictions one by one, in the order of the source; memory does not grow with its length.

        Args:
            source: image, video, folder, glob, text list, (H, W, 3) uint8 BGR array, or a list of
                these; see `open_source`.
            recursive: look into folders below folders.
            every: take each n-th frame of videos.
            on_error: "raise", or "skip" images that cannot be read. To learn which, hand over the
                `Source` of `open_source` and look at its `skipped`.

        Raises:
            ConfigError, DataError: see `open_source`.
            TrainingError: an image took too long to read, or this process was forked after the
                predictor was made.
        """
        opened = open_source(source, recursive=recursive, every=every, on_error=on_error)
        return (prediction for prediction, _ in self.stream_with_pixels(opened))

    def stream_with_pixels(self, source: Source) -> Iterator[Pair]:
        """Predictions with the images (H, W, 3) uint8 BGR that they were made of; see `stream`."""
        self._detector.check_process()
        # One image is read in place; that saves the threads.
        num_threads = 0 if len(source.parts) == 1 else usable_cores()
        images = read_ahead(
            source,
            num_threads=num_threads,
            ahead=self._block_images,
            max_bytes=BLOCK_BYTES,
        )
        with closing(images):
            fit = (item for item in images if self._is_fit(source, *item))
            for block in _blocks(fit, self._block_images):
                yield from self._detect(block)

    def take_stats(self) -> RunStats:
        """Time of each stage and pixels, of all calls since the last time."""
        return self._detector.take_stats()

    def _is_fit(self, source: Source, image: SourceImage, pixels: np.ndarray) -> bool:
        """Whether there is something to look at; else it counts as an unreadable image."""
        height, width = pixels.shape[:2]
        try:
            self._detector.check_image(image_record(image.name, 0, width, height))
        except DataError as error:
            source.refuse(image.name, error)
            return False
        return True

    def _detect(self, block: list[tuple[SourceImage, np.ndarray]]) -> list[Pair]:
        """Predictions of a block of images, in parts where the network's maps need it."""
        records = [_record(place, *item) for place, item in enumerate(block)]
        self._tell_untrained_windows(records[0])
        pixels = InMemoryImages(
            {record.image_path: item[1] for record, item in zip(records, block)}
        )
        # By place in the source: the detector puts images of one size together.
        predictions: dict[int, Prediction] = {}
        for places in self._detector.blocks(records):
            records_of_block = [records[place] for place in places]
            table = self._detector.detect(records_of_block, images=pixels, on_step=silent)
            for place, detections in zip(places, table):
                image, array = block[place]
                about = {
                    "name": image.name,
                    "width": array.shape[1],
                    "height": array.shape[0],
                    "path": None if image.path is None else str(image.path),
                    "frame": image.frame,
                    "category_ids": self._category_ids,
                }
                prediction = best_first(detections, self.class_names, self._threshold, **about)
                predictions[place] = prediction
        return [(predictions[place], array) for place, (_, array) in enumerate(block)]

    def _tell_untrained_windows(self, record: Record) -> None:
        """Once: images of a source are about as large as its first."""
        if self._is_told:
            return
        self._is_told = True
        warning = untrained_windows(
            self._plan.levels, self._plan.trained_scales, record.width, record.height
        )
        if warning is not None:
            logger.warning("%s", warning)


class InMemoryImages:
    """An `ImageSource` of decoded images."""

    def __init__(self, images: dict[str, np.ndarray]) -> None:
        self._images = images

    def read(self, path: str, reduction: int = 1, frame: ImageFrame | None = None) -> np.ndarray:
        """The image of a name, always in full size, which `check_size` allows."""
        return self._images[path]


def plan_and_model(
    cfg: str | os.PathLike[str] | EasyDict,
    weights: str | os.PathLike[str] | None = None,
    *,
    mode: str | None = None,
    devices: str | None = None,
    batch_images: int | None = None,
) -> tuple[TestPlan, AnyModel]:
    """A network with its weights, and how it detects; for the arguments see `Predictor`."""
    if not isinstance(cfg, dict):
        name = os.fspath(cfg)
        if is_archive(name):
            if weights is not None:
                raise ConfigError(
                    "an archive has weights of its own", got=weights, fix="leave the weights out"
                )
            return load_archive_model(name, mode=mode, devices=devices, batch_images=batch_images)
        cfg = load_config(name)
    plan = test_plan(cfg, mode=mode, devices=devices, batch_images=batch_images)
    if weights:
        return plan, load_model(plan.detector, os.fspath(weights))
    file = weights_path(plan.model_dir, plan.epoch, "SNIPER", fix=_NAME_WEIGHTS)
    return plan, load_model(plan.detector, file)


def _category_ids(plan: TestPlan, model: AnyModel) -> tuple[FileId, ...] | None:
    if plan.class_agnostic:
        return OBJECT_CLASSES.ids
    return with_category_ids(model.classes, plan.source, plan.recipe_sets).ids


def _blocks(
    images: Iterator[tuple[SourceImage, np.ndarray]], most_images: int
) -> Iterator[list[tuple[SourceImage, np.ndarray]]]:
    block: list[tuple[SourceImage, np.ndarray]] = []
    num_bytes = 0
    for item in images:
        block.append(item)
        num_bytes += item[1].nbytes
        if len(block) == most_images or num_bytes >= BLOCK_BYTES:
            yield block
            block, num_bytes = [], 0
    if block:
        yield block


def _record(place: int, image: SourceImage, pixels: np.ndarray) -> Record:
    """The image as the detector knows it: its place makes the name unique."""
    height, width = pixels.shape[:2]
    return image_record(f"{place}: {image.name}", place, width, height)
