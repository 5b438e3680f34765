"""What several heads use: layers, pixel-wise softmax losses, pooling of RoIs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sniper.models.lazy import mx, ops

# Numbers of 2018 and of the paper (Dai et al., 2017): offsets are shares of the RoI's sides, damped
# by `OFFSET_STD`, and learn at a hundredth of the rate.
SAMPLES_PER_BIN = 4
# Of position-sensitive pooling, and of the pooling of class maps (R-FCN-3K, 2018).
BINS_PER_SIDE = 7
OFFSET_STD = 0.1
OFFSET_LR_MULT = "0.01"
IGNORE = {"use_ignore": True, "ignore_label": -1}


@dataclass(frozen=True)
class RoiMap:
    """The map that RoIs are pooled from.

    Args:
        features: (N, channels, h, w).
        channels: its channels.
        stride: px of the image per cell.
    """

    features: mx.sym.Symbol
    channels: int
    stride: int


def conv(
    data: mx.sym.Symbol,
    name: str,
    channels: int,
    *,
    kernel: int = 1,
    bias: Mapping[str, str] | None = None,
) -> mx.sym.Symbol:
    """Convolution with bias that keeps the size of the map.

    Args:
        data: (N, C, h, w).
        name: of the layer.
        channels: of the result.
        kernel: side, odd.
        bias: `lr_mult` and `wd_mult` of the bias; None: 1, and 0 as MXNet has it for biases.
    """
    pad = kernel // 2
    variables = {} if bias is None else {"bias": mx.sym.Variable(f"{name}_bias", **bias)}
    return mx.sym.Convolution(
        data, num_filter=channels, kernel=(kernel, kernel), pad=(pad, pad), name=name, **variables
    )


def fc(data: mx.sym.Symbol, name: str, outputs: int) -> mx.sym.Symbol:
    """Fully connected layer with bias."""
    return mx.sym.FullyConnected(data, num_hidden=outputs, name=name)


def relu(data: mx.sym.Symbol, name: str) -> mx.sym.Symbol:
    """ReLU."""
    return mx.sym.Activation(data, act_type="relu", name=name)


def map_softmax_loss(
    scores: mx.sym.Symbol, label: mx.sym.Symbol, loss_scale: float, name: str
) -> mx.sym.Symbol:
    """Softmax over axis 1 with the mean cross entropy of all positions whose label is not -1.

    Args:
        scores: (n, classes, ...).
        label: (n, product of the other sides) or (n, ...).
        loss_scale: factor on the gradient.
        name: of the output.
    """
    return mx.sym.SoftmaxOutput(
        scores,
        label=label,
        multi_output=True,
        # The others divide by the size of the map as well, whatever part of it has labels.
        normalization="valid",
        grad_scale=loss_scale,
        name=name,
        **IGNORE,
    )


def weigh_gradient(data: mx.sym.Symbol, weight: mx.sym.Symbol | None) -> mx.sym.Symbol:
    """`data` (R, K) itself; its gradient is multiplied by `weight` (R, 1), row by row.

    A weight in front of a softmax with its loss; on its output it would change nothing, for
    `SoftmaxOutput` takes no gradient from there (2018: Soft Sampling had no effect).

    Args:
        data: scores.
        weight: None: they count alike.
    """
    if weight is None:
        return data
    # The difference is 0, but only its first term lets a gradient through.
    weighted = mx.sym.broadcast_mul(data, mx.sym.BlockGrad(weight))
    return mx.sym.BlockGrad(data) + (weighted - mx.sym.BlockGrad(weighted))


def pool_rois(roi_map: RoiMap, rois: mx.sym.Symbol, size: int, prefix: str = "") -> mx.sym.Symbol:
    """Deformable RoI pooling (R, channels, size, size) with learned offsets of its bins.

    Args:
        roi_map: the map.
        rois: (R, 5) image index and box in image px.
        size: bins per side.
        prefix: in front of the layers' names.
    """
    pooling: dict[str, Any] = {
        "spatial_scale": 1.0 / roi_map.stride,
        "output_dim": roi_map.channels,
        "pooled_size": size,
        "group_size": 1,
        "part_size": size,
        "sample_per_part": SAMPLES_PER_BIN,
    }
    plain = ops.deformable_psroi_pooling(
        roi_map.features, rois, name=f"{prefix}offset_t", **pooling
    )
    # The automatic weight and bias inherit the multiplier.
    with mx.AttrScope(__lr_mult__=OFFSET_LR_MULT):
        offset = fc(plain, f"{prefix}offset", 2 * size * size)
    offset = mx.sym.Reshape(offset, shape=(-1, 2, size, size), name=f"{prefix}offset_reshape")
    return ops.deformable_psroi_pooling(
        roi_map.features,
        rois,
        offset,
        trans_std=OFFSET_STD,
        name=f"{prefix}deformable_roi_pool",
        **pooling,
    )


def pool_position_sensitive(
    data: mx.sym.Symbol, rois: mx.sym.Symbol, outputs: int, stride: int, name: str
) -> mx.sym.Symbol:
    """Position-sensitive RoI pooling and voting: (R, outputs) (Dai et al., 2016, section 3).

    Bin (i, j) of output c reads channel (c * 7 + i) * 7 + j; the bins of an output are averaged.

    Args:
        data: (N, 49 * outputs, h, w).
        rois: (R, 5) image index and box in image px.
        outputs: numbers per RoI.
        stride: px of the image per cell.
        name: of the bins.
    """
    bins = ops.deformable_psroi_pooling(
        data,
        rois,
        spatial_scale=1.0 / stride,
        output_dim=outputs,
        pooled_size=BINS_PER_SIDE,
        group_size=BINS_PER_SIDE,
        sample_per_part=SAMPLES_PER_BIN,
        name=name,
    )
    return mx.sym.mean(bins, axis=(2, 3), name=f"{name}_vote")


def pool_class_map(
    data: mx.sym.Symbol, rois: mx.sym.Symbol, stride: int, name: str
) -> mx.sym.Symbol:
    """Max pooling of 7x7 bins of each RoI and the mean over them: (R, channels).

    Args:
        data: (N, channels, h, w).
        rois: (R, 5) image index and box in image px.
        stride: px of the image per cell.
        name: of the result.
    """
    return ops.roi_max_mean_pooling(
        data, rois, spatial_scale=1.0 / stride, pooled_size=BINS_PER_SIDE, name=name
    )
