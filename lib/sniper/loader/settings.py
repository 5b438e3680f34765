"""What the arrays of a training sample look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sniper.errors import ConfigError
from sniper.targets.focus_map import FocusRanges
from sniper.targets.rpn import RpnTargets

Shape = tuple[int, ...]


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
        max_gt: rows of `gt_boxes` and `gt_masks`; the operators must be told the same number.
        only_proposal: only the arrays that train the region proposal network.
        focus: sizes of the boxes that the FocusPixel labels look for; None: no `scale_label`.
        with_masks: the records have polygons, and batches have `gt_masks`.
        mask_row_length: numbers of a row of `gt_masks`.
        reduced_decoding: chips at half of the image's size or less are cut from a JPEG that is
            decoded at 1/2, 1/4 or 1/8.
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
    focus: FocusRanges | None = None
    with_masks: bool = False
    mask_row_length: int = 500
    reduced_decoding: bool = False

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
        names = ["label", "bbox_target", "bbox_weight"]
        if not self.only_proposal:
            names.append("gt_boxes")
            names += ["scale_label"] if self.focus else []
            names += ["gt_masks"] if self.with_masks else []
        return tuple(names)

    @property
    def cells(self) -> int:
        """Feature cells along a side of a chip."""
        return self.chip_size // self.feature_stride

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Shapes of the arrays of one sample, data first; all are float32."""
        anchors, cells = len(self.base_anchors), self.cells
        every = {
            "data": (3, self.chip_size, self.chip_size),
            "valid_ranges": (2,),
            "im_info": (3,),
            "label": (anchors * cells * cells,),
            "bbox_target": (4 * anchors, cells, cells),
            "bbox_weight": (4 * anchors, cells, cells),
            "gt_boxes": (self.max_gt, 5),
            "scale_label": (cells * cells,),
            "gt_masks": (self.max_gt, self.mask_row_length),
        }
        return {name: every[name] for name in (*self.data_names, *self.label_names)}
