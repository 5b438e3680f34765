"""One training sample: the arrays of one chip."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sniper.chips.chip import Chip
from sniper.data.image import check_size, chip_image
from sniper.data.record import Record
from sniper.errors import ConfigError, SniperError, TrainingError
from sniper.loader.images import ImageCache
from sniper.targets.gt import gt_in_chip, pack_gt
from sniper.targets.rpn import RpnTargets


@dataclass(frozen=True, eq=False)
class BatchSettings:
    """What the arrays of a training sample look like.

    Attributes:
        chip_size: side of the chips in px, a multiple of the stride.
        feature_stride: side of a feature cell in px.
        base_anchors: (A, 4) float32, see `sniper.targets.anchors.base_anchors`.
        pixel_means: three means, BGR.
        valid_ranges: (low, high) of the square root of a box's area in image px per pyramid level.
        rpn_batch_size: most anchors of a chip with a label of 0 or 1.
        rpn_fg_fraction: largest share of the positives among them.
        rpn_positive_overlap: IoU from which an anchor is positive.
        rpn_negative_overlap: IoU below which an anchor is negative.
        max_gt: rows of `gt_boxes`; the operators must be told the same number.
        only_proposal: only the arrays that train the region proposal network.
    """

    chip_size: int
    feature_stride: int
    base_anchors: np.ndarray
    pixel_means: Sequence[float]
    valid_ranges: Sequence[Sequence[float]]
    rpn_batch_size: int = 256
    rpn_fg_fraction: float = 0.5
    rpn_positive_overlap: float = 0.5
    rpn_negative_overlap: float = 0.4
    max_gt: int = 100
    only_proposal: bool = False

    def __post_init__(self) -> None:
        if self.max_gt < 1:
            raise ConfigError(
                "a chip needs room for at least one box", where="TRAIN.MAX_GT", got=self.max_gt
            )
        if len(self.pixel_means) != 3:
            raise ConfigError(
                "an image has three channel means",
                where="network.PIXEL_MEANS",
                got=list(self.pixel_means),
            )
        self.rpn_targets  # noqa: B018 (raises when stride and chip size do not fit)

    @cached_property
    def rpn_targets(self) -> RpnTargets:
        """The anchor tables, made once."""
        return RpnTargets(
            self.base_anchors,
            self.feature_stride,
            self.chip_size,
            batch_size=self.rpn_batch_size,
            fg_fraction=self.rpn_fg_fraction,
            positive_overlap=self.rpn_positive_overlap,
            negative_overlap=self.rpn_negative_overlap,
        )

    @property
    def data_names(self) -> tuple[str, ...]:
        """Arrays that the network reads as data, in order."""
        return ("data",) if self.only_proposal else ("data", "valid_ranges", "im_info")

    @property
    def label_names(self) -> tuple[str, ...]:
        """Arrays that the network reads as labels, in order."""
        rpn = ("label", "bbox_target", "bbox_weight")
        return rpn if self.only_proposal else (*rpn, "gt_boxes")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the arrays of one sample, data first; all are float32."""
        anchors = len(self.base_anchors)
        cells = self.chip_size // self.feature_stride
        every = {
            "data": (3, self.chip_size, self.chip_size),
            "valid_ranges": (2,),
            "im_info": (3,),
            "label": (anchors * cells * cells,),
            "bbox_target": (4 * anchors, cells, cells),
            "bbox_weight": (4 * anchors, cells, cells),
            "gt_boxes": (self.max_gt, 5),
        }
        return {name: every[name] for name in (*self.data_names, *self.label_names)}


def make_sample(
    record: Record, chip: Chip, settings: BatchSettings, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """The arrays of one chip, named and shaped as `BatchSettings.shapes` says.

    Args:
        record: the image.
        chip: one of its chips.
        settings: sizes and thresholds.
        rng: source of the anchor sampling.

    Raises:
        DataError: the image cannot be read, or has another size than its annotations say.
    """
    return build_sample(record, chip, settings, rng, ImageCache(0))[0]


def build_sample(
    record: Record,
    chip: Chip,
    settings: BatchSettings,
    rng: np.random.Generator,
    images: ImageCache,
) -> tuple[dict[str, np.ndarray], int]:
    """`make_sample` with a cache; also returns how many boxes had no room in `gt_boxes`."""
    size = settings.chip_size
    with _stage("read image", record):
        image = images.read(record.image_path, record.flipped)
        check_size(image, record)
    with _stage("cut chip", record):
        data = chip_image(image, chip.rect, chip.factor, (size, size), settings.pixel_means)
    with _stage("make labels", record):
        gt = gt_in_chip(record, chip.rect, chip.factor, chip.rows, size)
        label, target, weight = settings.rpn_targets(gt.boxes[gt.valid], gt.boxes[~gt.valid], rng)
    sample = {"data": data, "label": label, "bbox_target": target, "bbox_weight": weight}
    if settings.only_proposal:
        return sample, 0
    sample["valid_ranges"] = _valid_range(chip, settings)
    sample["im_info"] = np.array([chip.height, chip.width, chip.factor], np.float32)
    sample["gt_boxes"], surplus = pack_gt(gt, settings.max_gt)
    return sample, surplus


def _valid_range(chip: Chip, settings: BatchSettings) -> np.ndarray:
    """Valid range of the chip's level in chip px: (2,) float32."""
    low, high = settings.valid_ranges[chip.level]
    return np.array(
        [
            0 if low < 0 else low * chip.factor,
            settings.chip_size if high < 0 else high * chip.factor,
        ],
        np.float32,
    )


@contextmanager
def _stage(name: str, record: Record) -> Iterator[None]:
    """Adds image and stage to whatever goes wrong."""
    try:
        yield
    except SniperError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise TrainingError(
            f"a training sample could not be made (stage: {name})",
            where=record.image_path,
            got=f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})",
        ) from error
