"""One training sample: the arrays of one chip."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from sniper.chips.chip_table import Chip
from sniper.data.cut import cut_chip, cut_reduced, reduction_of
from sniper.data.image import check_size
from sniper.data.record import Record
from sniper.errors import SniperError, TrainingError
from sniper.loader.batch_settings import BatchSettings
from sniper.loader.compact import Expander, compact_specs, empty_arrays
from sniper.loader.images import ImageCache, ImageSource
from sniper.targets.contract import ChipTruth, GtInChip
from sniper.targets.gt import crowd_in_chip, gt_in_chip

__all__ = [
    "BatchSettings",
    "chip_boxes",
    "chip_pixels",
    "image_reduction",
    "make_sample",
    "write_sample",
]


def make_sample(
    record: Record, chip: Chip, settings: BatchSettings, seed: int = 0
) -> dict[str, np.ndarray]:
    """The arrays of one chip, named and shaped as the batch contract says: float32.

    Args:
        record: the image.
        chip: one of its chips.
        settings: sizes and thresholds.
        seed: of the anchor sampling, 64 bits.

    Raises:
        DataError: the image cannot be read, or has another size than its annotations say.
    """
    # The way of the workers' samples, so that both give the same bits.
    compact = empty_arrays(compact_specs(settings), 1)
    row = {name: array[0, ...] for name, array in compact.items()}
    write_sample(record, chip, settings, seed, ImageCache(0), row)
    return {name: array[0] for name, array in Expander(settings, 1).expand(compact).items()}


def write_sample(
    record: Record,
    chip: Chip,
    settings: BatchSettings,
    seed: int,
    images: ImageCache,
    row: Mapping[str, np.ndarray],
) -> int:
    """Writes the compact sample of one chip.

    Args:
        record: the image.
        chip: one of its chips.
        settings: sizes and thresholds.
        seed: of the anchor sampling, 64 bits.
        images: where decoded images are taken from.
        row: arrays as `compact_specs` describes them.

    Returns:
        How many boxes had no room in the arrays.

    Raises:
        DataError: as for `make_sample`.
        TrainingError: anything else went wrong; it names the image and the stage.
    """
    height, width = chip_pixels(record, chip, settings, images, row["pixels"])
    row["content_hw"][...] = height, width
    if settings.jitter:
        with _stage("change colours", record):
            settings.jitter.apply(row["pixels"][:height, :width], seed, record.image_id)
    with _stage("make labels", record):
        size = settings.contract.chip_size
        legacy = settings.legacy_boxes
        gt, crowd = chip_boxes(record, chip, settings)
        truth = ChipTruth(record, chip, gt, size, seed, legacy, crowd)
        return sum(part.write(truth, row) for part in settings.contract.parts)


def chip_pixels(
    record: Record, chip: Chip, settings: BatchSettings, images: ImageSource, out: np.ndarray
) -> tuple[int, int]:
    """What training sees of a chip, before the means are subtracted.

    Args:
        record: the image.
        chip: one of its chips.
        settings: how images are read.
        images: where decoded images are taken from.
        out: (chip size, chip size, 3) uint8; receives the content, BGR, at its top left.

    Returns:
        Height and width of the content in `out`.

    Raises:
        DataError, TrainingError: as for `write_sample`.
    """
    reduction = image_reduction(chip, settings)
    with _stage("read image", record):
        image = images.read(record.image_path, reduction, record.frame)
        check_size(image, record, reduction)
    with _stage("cut chip", record):
        return _cut(image, record, chip, reduction, settings, out)


def chip_boxes(record: Record, chip: Chip, settings: BatchSettings) -> tuple[GtInChip, np.ndarray]:
    """Ground truth of a chip as training has it, and (m, 4) float32 crowd regions, chip px."""
    size, legacy = settings.contract.chip_size, settings.legacy_boxes
    gt = gt_in_chip(
        *(record, chip.rect, chip.factor, chip.rows, size, settings.min_visible), legacy=legacy
    )
    return gt, crowd_in_chip(record, chip.rect, chip.factor, size, legacy=legacy)


def image_reduction(chip: Chip, settings: BatchSettings) -> int:
    """The scale 1/n at which the image of a chip is decoded: by the chip alone, 1, 2, 4 or 8."""
    return reduction_of(chip.factor) if settings.reduced_decoding else 1


def _cut(
    image: np.ndarray,
    record: Record,
    chip: Chip,
    reduction: int,
    settings: BatchSettings,
    out: np.ndarray,
) -> tuple[int, int]:
    rect, factor, legacy = chip.rect, chip.factor, settings.legacy_boxes
    if image.shape[:2] == (record.height, record.width):  # also: a format without small versions
        return cut_chip(image, rect, factor, out, flipped=record.flipped, legacy=legacy)
    return cut_reduced(image, reduction, record, rect, factor, out, legacy=legacy)


@contextmanager
def _stage(name: str, record: Record) -> Iterator[None]:
    """Adds image and stage to whatever goes wrong."""
    try:
        yield
    except SniperError:
        raise
    except Exception as error:
        # Tracebacks do not travel from the workers: the message names the line.
        origin = traceback.extract_tb(error.__traceback__)[-1]
        raise TrainingError(
            f"a training sample could not be made (stage: {name})",
            where=record.image_path,
            got=f"{type(error).__name__}: {error} ({origin.filename}:{origin.lineno})",
        ) from error
