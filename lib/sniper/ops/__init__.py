"""Operators that stock MXNet lacks, or has only slow: typed fronts for NDArrays and Symbols.

The first call loads the compiled library (`load_library`). Every front decides by its first
tensor whether it computes or builds a graph.
"""

from sniper.ops.anchor_targets import anchor_mining_target
from sniper.ops.chips import chip_generator
from sniper.ops.deformable_conv import deformable_columns, deformable_convolution
from sniper.ops.library import load_library
from sniper.ops.masks import mask_rcnn_target
from sniper.ops.nms import multi_scale_nms
from sniper.ops.proposal_targets import (
    multi_proposal_target,
    multi_proposal_target_fine,
    multi_proposal_target_mask,
)
from sniper.ops.proposals import multi_proposal
from sniper.ops.psroi import deformable_psroi_pooling
from sniper.ops.relu6 import relu6
from sniper.ops.roi_pooling import roi_max_mean_pooling
from sniper.ops.winograd_conv import winograd_convolution

__all__ = [
    "anchor_mining_target",
    "chip_generator",
    "deformable_columns",
    "deformable_convolution",
    "deformable_psroi_pooling",
    "load_library",
    "mask_rcnn_target",
    "multi_proposal",
    "multi_proposal_target",
    "multi_proposal_target_fine",
    "multi_proposal_target_mask",
    "multi_scale_nms",
    "relu6",
    "roi_max_mean_pooling",
    "winograd_convolution",
]
