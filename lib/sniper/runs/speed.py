"""How long each stage of detection takes, for a recipe on its test set or on generated images."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from easydict import EasyDict

from sniper.data import Record, image_record
from sniper.data.classes import Classes, numbered_class_names
from sniper.errors import ConfigError, DataError
from sniper.files import atomic_write
from sniper.inference.run_stats import STAGES, RunStats, level_stage
from sniper.models.assembly import DetectorSpec
from sniper.models.model import AnyModel, Model
from sniper.models.weights import Params, initialise
from sniper.progress import silent
from sniper.runs.compare_models import spread
from sniper.runs.datasets import DataSource, open_dataset
from sniper.runs.export import inference_networks
from sniper.runs.find_weights import weights_path
from sniper.runs.load_model import load_model, make_detector
from sniper.runs.plan import TestPlan, test_plan

logger = logging.getLogger(__name__)

BLOCK_IMAGES = 16
# Blobs of about this many px: files of generated images are as large as those of photographs.
BLOB_PX = 3
RANDOM_SEED = 0


@dataclass(frozen=True)
class DetectionSpeed:
    """What was measured.

    Attributes:
        mode: `single`, `pyramid`, `focus` or `slice`.
        levels: name of each level.
        weights: the file, or that they are random.
        threads: CPU threads of the network (`OMP_NUM_THREADS`).
        stats: of all images.
    """

    mode: str
    levels: tuple[str, ...]
    weights: str
    threads: str
    stats: RunStats

    def rows(self) -> list[tuple[str, float]]:
        """Stage and its ms per image, `total` last; levels stand below their sum."""
        rows = []
        for stage in STAGES:
            if stage == "masks" and not self.stats.seconds.get(stage):
                continue
            rows.append((stage, self._ms(stage)))
            if stage == "forward":
                names = enumerate(self.levels)
                rows += [(f"  {name}", self._ms(level_stage(k))) for k, name in names]
        return [*rows, ("total", 1000 * self.stats.total_s / self.stats.images)]

    def _ms(self, stage: str) -> float:
        return 1000 * self.stats.seconds.get(stage, 0.0) / self.stats.images

    def as_dict(self) -> dict[str, object]:
        """All figures, ready for JSON."""
        return {
            "mode": self.mode,
            "levels": list(self.levels),
            "weights": self.weights,
            "threads": self.threads,
            "ms_per_image": {name.strip(): ms for name, ms in self.rows()},
            "images_per_s": self.stats.images_per_s,
            **self.stats.as_dict(),
        }

    def table(self) -> str:
        """ms per image, images/s and share of the total."""
        rows = self.rows()
        total = rows[-1][1]
        width = max(len(name) for name, _ in rows)
        lines = [f"{'':<{width}} {'ms/image':>10} {'images/s':>10} {'share':>7}"]
        for name, ms in rows:
            rate = f"{1000 / ms:10.1f}" if ms else f"{'-':>10}"
            lines.append(f"{name:<{width}} {ms:10.2f} {rate} {100 * ms / total:6.1f}%")
        title = (
            f"{self.stats.images} images, {self.mode}, OMP_NUM_THREADS {self.threads}, "
            f"weights: {self.weights}"
        )
        share = self.stats.pixel_share
        if not math.isnan(share):
            lines.append(f"{100 * share:.1f} % of the full pyramid's pixels")
        note = "Images are read and resized while the network computes: shares may exceed 100 %."
        return "\n".join([title, *lines, note])


def measure_detection(
    cfg: EasyDict,
    records: Sequence[Record],
    *,
    weights: Path | None = None,
    save_prefix: str = "SNIPER",
    mode: str | None = None,
    threads: str,
) -> DetectionSpeed:
    """Detects on images and measures the stages; the first image warms up, untimed.

    Args:
        cfg: the configuration of the network.
        records: the images, one or more.
        weights: a file; None takes those of the recipe's training, or else random ones.
        save_prefix: stem of the checkpoint files.
        mode: see `TEST.MODE`, which None takes.
        threads: CPU threads of the network, for the report.

    Raises:
        ConfigError, DataError: configuration, weights or images are wrong.
    """
    plan = test_plan(cfg, mode=mode)
    model, name = _model(plan, weights, save_prefix)
    detector = make_detector(plan, model)
    detector.detect(records[:1], on_step=silent)
    detector.take_stats()
    for block in detector.blocks(records, most_images=BLOCK_IMAGES):
        detector.detect([records[index] for index in block], on_step=silent)
    levels = tuple(
        f"level {number}, {_scale(level.scale)}" for number, level in enumerate(detector.levels, 1)
    )
    return DetectionSpeed(plan.mode, levels, name, threads, detector.take_stats())


def test_records(source: DataSource, image_set: str, count: int) -> list[Record]:
    """`count` images of a set, evenly spread; all if it has fewer.

    Raises:
        DataError: the set is missing or broken.
    """
    if count < 1:
        raise ConfigError("a measurement needs images", got=f"--images {count}")
    return spread(open_dataset(source, image_set).records, count)


def generated_records(folder: Path, count: int, width: int, height: int) -> list[Record]:
    """Writes pictures of random blobs as JPEG files, and returns their records.

    Raises:
        ConfigError: a number is not positive.
        TrainingError: a file could not be written.
    """
    if min(count, width, height) < 1:
        raise ConfigError(
            "generated images need a number and a size", got=f"{count} of {width}x{height} px"
        )
    generator = np.random.default_rng(RANDOM_SEED)
    return [_generated(folder, index, width, height, generator) for index in range(count)]


def _generated(
    folder: Path, index: int, width: int, height: int, generator: np.random.Generator
) -> Record:
    small = generator.integers(0, 256, (-(-height // BLOB_PX), -(-width // BLOB_PX), 3), np.uint8)
    done, data = cv2.imencode(".jpg", cv2.resize(small, (width, height)))
    if not done:
        raise DataError("the picture could not be encoded", got=f"{width}x{height} px")
    path = folder / f"generated_{index}.jpg"
    atomic_write(path, lambda temporary: temporary.write_bytes(data.tobytes()))
    return image_record(path, index, width, height)


def _model(plan: TestPlan, weights: Path | None, save_prefix: str) -> tuple[AnyModel, str]:
    if weights is None:
        try:
            weights = weights_path(plan.model_dir, plan.epoch, save_prefix)
        except DataError:
            logger.warning(
                "no trained weights: random ones give many weak detections, so that merging (and "
                "masks) take longer than they should, and FocusChips are not those of a model"
            )
            return random_model(plan.detector), "random"
    return load_model(plan.detector, weights), str(weights)


def random_model(spec: DetectorSpec) -> Model:
    """A test network with starting values: right for speed, useless otherwise."""
    arg: Params = {}
    aux: Params = {}
    for symbol, shapes in inference_networks(spec.in_fp32()):
        own_arg, own_aux, _ = initialise(
            symbol, shapes, None, RANDOM_SEED, init="scratch", heads=spec.network.heads
        )
        arg, aux = {**arg, **own_arg}, {**aux, **own_aux}
    names = numbered_class_names(spec.num_classes)
    return Model(spec.for_classes(Classes(names)), arg, aux, names)


def _scale(scale: Sequence[int] | float) -> str:
    return f"{scale[0]}x{scale[1]}" if isinstance(scale, Sequence) else f"factor {scale:g}"
