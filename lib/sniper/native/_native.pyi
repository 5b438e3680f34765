"""Types of the compiled kernels; the docstrings are in the `.pxi` files."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]

def isa() -> str: ...
def operator_anchors(
    stride: float, scales: Iterable[float], ratios: Iterable[float]
) -> Float32: ...
def multi_proposal(
    cls_prob: Float32,
    bbox_pred: Float32,
    im_info: Float32,
    *,
    scales: Iterable[float],
    ratios: Iterable[float],
    feature_stride: float,
    pre_nms_top_n: int = 12000,
    post_nms_top_n: int = 300,
    nms_thresh: float = 0.7,
    min_size: float = 3,
) -> tuple[Float32, Float32]: ...
def multi_proposal_target(
    cls_prob: Float32,
    bbox_pred: Float32,
    im_info: Float32,
    gt_boxes: Float32,
    valid_ranges: Float32,
    *,
    scales: Iterable[float],
    ratios: Iterable[float],
    feature_stride: float,
    pre_nms_top_n: int = -1,
    post_nms_top_n: int = 300,
    nms_thresh: float = 0.7,
    min_size: float = 3,
    legacy_gt_centre: bool = True,
    legacy_areas: bool = True,
    legacy_min_size: bool = True,
    crowd_boxes: Float32 | None = None,
    crowd_ioa: float = 0.9,
    soft_sampling: Sequence[float] | None = None,
) -> tuple[Float32, ...]: ...
def multi_proposal_target_mask(
    cls_prob: Float32,
    bbox_pred: Float32,
    im_info: Float32,
    gt_boxes: Float32,
    valid_ranges: Float32,
    *,
    scales: Iterable[float],
    ratios: Iterable[float],
    feature_stride: float,
    pre_nms_top_n: int = 6000,
    post_nms_top_n: int = 300,
    nms_thresh: float = 0.7,
    min_size: float = 3,
    max_masks: int = 50,
    legacy_gt_centre: bool = True,
    legacy_areas: bool = True,
    legacy_min_size: bool = True,
    crowd_boxes: Float32 | None = None,
    crowd_ioa: float = 0.9,
    soft_sampling: Sequence[float] | None = None,
    super_of: Iterable[int] | None = None,
    legacy_cap: bool = True,
) -> tuple[Float32, ...]: ...
def deformable_psroi_pooling(
    data: Float32,
    rois: Float32,
    trans: Float32 | None = None,
    *,
    spatial_scale: float,
    output_dim: int,
    pooled_size: int,
    group_size: int = 1,
    part_size: int = 0,
    sample_per_part: int = 4,
    trans_std: float = 0.0,
) -> Float32: ...
def roi_max_mean_pooling(
    data: Float32, rois: Float32, *, spatial_scale: float, pooled_size: int = 7
) -> Float32: ...
def anchor_mining_target(
    cls_prob: Float32,
    im_info: Float32,
    gt_boxes: Float32,
    ignore_boxes: Float32 | None = None,
    *,
    scales: Iterable[float],
    feature_stride: float,
    ratios: Iterable[float] = (1,),
    base_size: float = 16,
    border: float = 0,
    batch_size: int = 256,
    fg_fraction: float = 0.25,
    positive_overlap: float = 0.5,
    negative_overlap: float = 0.3,
    ignore_overlap: float = 0.3,
) -> tuple[Float32, Float32, Float32, Float32]: ...
def mask_rcnn_target(
    rois: Float32,
    mask_polys: Float32,
    mask_ids: Float32,
    mask_size: int = 28,
    ignore_label: float = -1.0,
) -> tuple[Float32, Float32]: ...
def chip_lattice(width: int, height: int, chip_size: int, stride: int) -> Float32: ...
def chip_permutation(count: int, seed: int) -> Int32: ...
def chip_cover(
    boxes_im: Float32,
    factor: float,
    width_im: int,
    height_im: int,
    chip_size: int,
    stride: int,
    seed: int,
    legacy_clip: bool = False,
) -> Float64: ...
def soft_nms(dets: Float32, sigma: float, min_score: float = 0.001) -> Float32: ...
def hard_nms(dets: Float32, threshold: float, max_output: int = -1) -> Int64: ...
@overload
def multi_scale_nms(
    dets: Float32,
    levels: Int32,
    classes: Int32,
    images: Int32,
    valid_ranges: Float32,
    sigma: float,
    nms_threshold: float,
    min_score: float = 0.001,
    max_per_image: int = -1,
    with_rows: Literal[False] = False,
) -> tuple[Float32, Int32, Int32]: ...
@overload
def multi_scale_nms(
    dets: Float32,
    levels: Int32,
    classes: Int32,
    images: Int32,
    valid_ranges: Float32,
    sigma: float,
    nms_threshold: float,
    min_score: float = 0.001,
    max_per_image: int = -1,
    *,
    with_rows: Literal[True],
) -> tuple[Float32, Int32, Int32, Int64]: ...
def multi_scale_nms_parts(
    dets: Sequence[Float32],
    classes: Sequence[Int32],
    levels: Int32,
    images: Int32,
    valid_ranges: Float32,
    sigma: float,
    nms_threshold: float,
    min_score: float = 0.001,
    max_per_image: int = -1,
) -> tuple[Float32, Int32, Int32, Int32]: ...
def image_to_chw(
    pixels: UInt8,
    content_hw: Int32,
    pixel_means: Iterable[float],
    out: Float32,
    one_thread: bool = False,
) -> None: ...

class RpnMatcher:
    def __init__(
        self,
        base_anchors: Float32,
        stride: int,
        chip_size: int,
        border: float,
        positive_overlap: float,
        negative_overlap: float,
        ignore_overlap: float,
        batch_size: int,
        max_positives: int,
        crowd_ioa: float = 0.9,
    ) -> None: ...
    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def inside(self) -> NDArray[np.bool_]: ...
    def __call__(
        self, valid_gt: Float32, invalid_gt: Float32, seed: int, crowd: Float32 = ...
    ) -> tuple[Int8, Int32, Float32]: ...

def expand_rpn(
    label: Int8,
    index: Int32,
    values: Float32,
    out_label: Float32,
    out_target: Float32,
    out_weight: Float32,
) -> None: ...
def epoch_chips(
    boxes: Sequence[Float32],
    num_gt: Int64,
    width: Int64,
    height: Int64,
    image_ids: Int64,
    flipped: NDArray[np.bool_],
    factors: Float64,
    size_ranges: Float64,
    side_limits: Float64,
    *,
    first: int,
    last: int,
    chip_size: int,
    stride: int,
    seed: int,
    epoch: int,
    use_negatives: bool,
    max_negatives: int,
    min_alarms: Sequence[float],
    alarms_per_proposals: float,
    alarms_shares: Sequence[float],
    background: float,
    crops: int,
    gt_rows_only: bool,
    min_gt_side: float,
    legacy_boxes: bool,
    budget_s: float,
) -> dict[str, Any]: ...
def expand_rpn_batch(
    label: NDArray[np.int8],
    counts: Int32,
    index: Int32,
    values: Float32,
    out_label: Float32,
    out_target: Float32,
    out_weight: Float32,
) -> None: ...
def reduce_gradients(
    gradients: list[Float32],
    others: list[list[Float32]],
    divisor: float = 1.0,
    threads: int = 1,
) -> bool: ...
def sgd_update(
    gradients: list[Float32],
    weights: list[Float32],
    momenta: list[Float32],
    copies: list[list[Float32]],
    rates: list[float],
    decays: list[float],
    momentum: float,
    clip: float = -1.0,
    threads: int = 1,
) -> None: ...
