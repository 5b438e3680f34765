"""Labels and regression targets of the region proposal network for one chip.

The compiled code behind it does what `sniper.targets.reference` explains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from sniper.errors import ConfigError
from sniper.native import _native
from sniper.targets.anchors import RPN_BORDER_PX
from sniper.targets.contract import BatchArray, ChipTruth, Labels


class RpnSample(NamedTuple):
    """Targets of one chip, without the zeros.

    Attributes:
        label: (A*H*W,) int8 of -1 (not trained), 0 (background) and 1, in the order (A, H, W).
        index: (p,) int32, the anchors with a label of 1, ascending.
        values: (p, 4) float32, their regression targets dx, dy, dw, dh.
    """

    label: np.ndarray
    index: np.ndarray  # type: ignore[assignment]  # hides the method of tuples
    values: np.ndarray


class RpnTargets:
    """Matches the anchors of a chip with its ground truth (2018 behaviour, `__call__` tells it).

    Args:
        base_anchors: (A, 4) float32, anchors of the first feature cell, chip px.
        stride: side of a feature cell in chip px.
        chip_size: side of the chip in px, a multiple of the stride.
        batch_size: most anchors with a label of 0 or 1.
        fg_fraction: largest share of the positives among them.
        positive_overlap: an anchor is positive from this IoU with a valid box on; above 0.
        negative_overlap: an anchor is negative below this IoU with every valid box.
        ignore_overlap: an anchor above this IoU with an invalid box is not trained.
        border: anchors that stick out of the chip by more than this many px are not trained.
        crowd_ioa: an anchor with more than this share of its area in a crowd region is no negative.

    Attributes:
        stride: see above.
        batch_size: see above.
        max_positives: most anchors with a label of 1.

    Raises:
        ConfigError: a number is out of range.
        OpsError: the anchors are no float32 (A, 4) array of finite boxes.
    """

    def __init__(
        self,
        base_anchors: np.ndarray,
        stride: int,
        chip_size: int,
        *,
        batch_size: int = 256,
        fg_fraction: float = 0.5,
        positive_overlap: float = 0.5,
        negative_overlap: float = 0.4,
        ignore_overlap: float = 0.3,
        border: float = RPN_BORDER_PX,
        crowd_ioa: float = 0.9,
    ) -> None:
        if stride < 1 or chip_size < stride or chip_size % stride:
            raise ConfigError(
                "the chip size must be a multiple of the feature stride",
                got=f"chip size {chip_size}, stride {stride}",
            )
        if batch_size < 0 or not 0 <= fg_fraction <= 1:
            raise ConfigError(
                "the number of sampled anchors and the share of positives make no sense",
                where="TRAIN.RPN_BATCH_SIZE, TRAIN.RPN_FG_FRACTION",
                got=f"{batch_size}, {fg_fraction}",
                expected="0 or more, from 0 to 1",
            )
        overlaps = (positive_overlap, negative_overlap, ignore_overlap)
        if not all(0 <= overlap <= 1 for overlap in overlaps) or positive_overlap == 0:
            raise ConfigError(
                "an IoU lies between 0 and 1, and a positive anchor must overlap its box",
                where="TRAIN.RPN_POSITIVE_OVERLAP, TRAIN.RPN_NEGATIVE_OVERLAP",
                got=", ".join(f"{overlap:g}" for overlap in overlaps),
            )
        self.stride = stride
        self.batch_size = batch_size
        self.max_positives = int(batch_size * fg_fraction)
        self._matcher = _native.RpnMatcher(
            base_anchors,
            stride,
            chip_size,
            border,
            *overlaps,
            batch_size,
            self.max_positives,
            crowd_ioa,
        )

    @property
    def inside(self) -> np.ndarray:
        """Anchors that do not stick out of the chip too far, (A, H, W) bool."""
        return self._matcher.inside

    @property
    def shape(self) -> tuple[int, int, int]:
        """Anchors of a cell, rows and columns of the feature map: (A, H, W)."""
        return self._matcher.shape

    def __call__(
        self,
        valid_gt: np.ndarray,
        invalid_gt: np.ndarray,
        seed: int,
        crowd: np.ndarray | None = None,
    ) -> RpnSample:
        """Targets of one chip.

        Positive are, for every valid box, the anchors with the largest IoU with it (all ties), and
        all anchors with IoU >= `positive_overlap`; these overlap with no invalid box by more than
        `ignore_overlap`. At most `max_positives` of them and then negatives up to `batch_size` are
        kept by chance. Without valid boxes every other anchor is negative.

        Args:
            valid_gt: (n, 4) float32, chip px: boxes that this chip's level is responsible for.
            invalid_gt: (m, 4) float32, chip px: all other boxes in the chip.
            seed: of the sampling, 64 bit. It alone decides.
            crowd: (k, 4) float32, chip px: regions of many objects, which give no negatives.

        Raises:
            OpsError: a wrong dtype or shape, or a box that is not finite.
        """
        if crowd is None:
            return RpnSample(*self._matcher(valid_gt, invalid_gt, seed))
        return RpnSample(*self._matcher(valid_gt, invalid_gt, seed, crowd))

    def dense(self, sample: RpnSample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The arrays that the network reads, float32.

        Returns:
            label (A*H*W,); bbox_target (4A, H, W), channel 4a + k, zeros except at positives;
            bbox_weight of the same shape, 1 at positives.
        """
        anchors, height, width = self.shape
        label = np.empty(anchors * height * width, np.float32)
        target, weight = np.empty((2, 4 * anchors, height, width), np.float32)
        _native.expand_rpn(*sample, label, target, weight)
        return label, target, weight


class RpnLabels(Labels):
    """Labels and box targets of all anchors; only the positive ones' targets travel.

    * rpn_label: -1 / 0 / 1 in the order (A, H, W).
    * positives: how many rows of the next two arrays are used.
    * positive_index: (p,) flat (A, H, W) indices of the positive anchors, ascending.
    * positive_target: (p, 4) their regression targets.

    Args:
        targets: matches anchors with boxes.
        suffix: of all names.
        ignore_crowd: what lies in crowd regions is not trained as background (2018: it was).
    """

    def __init__(
        self, targets: RpnTargets, suffix: str = "", *, ignore_crowd: bool = False
    ) -> None:
        self.targets = targets
        self._suffix = suffix
        self._ignore_crowd = ignore_crowd
        anchors, height, width = targets.shape
        boxes = (4 * anchors, height, width)
        self.label = (
            BatchArray(f"label{suffix}", (anchors * height * width,)),
            BatchArray(f"bbox_target{suffix}", boxes),
            BatchArray(f"bbox_weight{suffix}", boxes),
        )

    @property
    def compact(self) -> tuple[BatchArray, ...]:
        """See above."""
        suffix, (anchors,) = self._suffix, self.label[0].shape
        positives = max(1, min(self.targets.max_positives, anchors))
        return (
            BatchArray(f"rpn_label{suffix}", (anchors,), np.int8),
            BatchArray(f"positives{suffix}", (), np.int32),
            BatchArray(f"positive_index{suffix}", (positives,), np.int32),
            BatchArray(f"positive_target{suffix}", (positives, 4)),
        )

    def write(self, truth: ChipTruth, row: Mapping[str, np.ndarray]) -> int:
        """Matches and samples the anchors of a chip."""
        gt = truth.gt
        crowd = truth.crowd_boxes if self._ignore_crowd else None
        targets = self.targets(gt.boxes[gt.valid], gt.boxes[~gt.valid], truth.seed, crowd)
        count = len(targets.index)
        label, positives, index, values = (row[array.name] for array in self.compact)
        label[...] = targets.label
        positives[...] = count
        index[:count] = targets.index
        values[:count] = targets.values
        return 0

    def expand(self, compact: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray]) -> None:
        """Spreads the positive anchors over zeros."""
        _native.expand_rpn_batch(
            *(compact[array.name] for array in self.compact),
            *(arrays[array.name] for array in self.label),
        )
