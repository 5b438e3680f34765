"""MobileNetV2 1.0 with folded batch norms: one weight and one bias per layer.

It becomes the backbone of `mobilenetv2_e2e`. The values stay exact when the batch norms use their
stored statistics (`network.BN_MODE: frozen`) and strided convolutions pad as TensorFlow does
(`network.PADDING: tf_same`):

* Scale 1, shift = bias, mean 0, variance = 1 - epsilon make a batch norm add the bias only.
* `seq-0-block0-exp` does not exist in the source. It becomes the identity: its input is the output
  of a ReLU6, which a second ReLU6 does not change.
* The source takes RGB in [-1, 1] (x / 127.5 - 1), our networks take RGB minus the pixel means.
  Scale and shift are linear, so they move into the first convolution. Only its zero padding
  differs: there the source sees grey 127.5 and ours sees the pixel mean, which changes the features
  of the last row and column, and a little of their neighbours with every further 3x3 layer.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sniper.errors import DataError
from sniper.models.backbones.mobilenetv2 import EPSILON, LAST_CHANNELS, SEQUENCES, STEM_CHANNELS

IDENTITY_BLOCK = "seq-0-block0-exp"
SOURCE_SCALE = 1 / 127.5
SOURCE_SHIFT = -1.0

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Layer:
    """One convolution of the source.

    Attributes:
        source: its name there (`conv0`, `b0_dw`, `b0_proj`, `b1_exp`, ..., `conv_last`).
        target: our name.
        shape: of the weight, (O, I, kh, kw) or depthwise (C, 1, 3, 3).
        stride: of both axes.
        relu6: with activation.
    """

    source: str
    target: str
    shape: tuple[int, int, int, int]
    stride: int
    relu6: bool


def layers() -> Iterator[Layer]:
    """All layers of the source, in the order of execution."""
    yield Layer("conv0", "first-3x3-conv", (STEM_CHANNELS, 3, 3, 3), 2, True)
    channels, block = STEM_CHANNELS, 0
    for index, sequence in enumerate(SEQUENCES):
        for repeat in range(sequence.repeats):
            name, stride = f"seq-{index}-block{repeat}", sequence.stride if repeat == 0 else 1
            expanded, out = channels * sequence.expansion, sequence.channels
            if sequence.expansion > 1:
                yield Layer(f"b{block}_exp", f"{name}-exp", (expanded, channels, 1, 1), 1, True)
            yield Layer(f"b{block}_dw", f"{name}-depthwise", (expanded, 1, 3, 3), stride, True)
            yield Layer(f"b{block}_proj", f"{name}-linear", (out, expanded, 1, 1), 1, False)
            channels, block = out, block + 1
    yield Layer("conv_last", "last-1x1-conv", (LAST_CHANNELS, channels, 1, 1), 1, True)


def read_folded(path: Path) -> Arrays:
    """`<layer>_weight` and `<layer>_bias` of an `.npz` file, float32, checked.

    Raises:
        DataError: the file is missing or broken, or a layer is missing or has another shape.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name].astype(np.float32) for name in archive.files}
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError("the source is no readable npz file", where=path, got=error) from error
    return check_folded(arrays, path)


def check_folded(arrays: Mapping[str, np.ndarray], where: Path) -> Arrays:
    """The arrays of all layers, in order.

    Raises:
        DataError: one is missing, has another shape, or holds NaN or infinity.
    """
    expected = dict(_expected_shapes())
    missing = [name for name in expected if name not in arrays]
    if missing:
        raise DataError(
            f"the source lacks {len(missing)} arrays",
            where=where,
            got=", ".join(sorted(arrays)[:6]) + " ...",
            expected=", ".join(missing[:6]) + (" ..." if len(missing) > 6 else ""),
            fix="the tool reads MobileNetV2 at width 1.0 with folded batch norms",
        )
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise DataError(
                "an array has the wrong shape",
                where=f"{name} of {where}",
                got=arrays[name].shape,
                expected=shape,
                fix="the tool reads MobileNetV2 at width 1.0 in NCHW order",
            )
        if not np.all(np.isfinite(arrays[name])):
            raise DataError("an array holds NaN or infinity", where=f"{name} of {where}")
    return {name: arrays[name] for name in expected}


def convert_mobilenetv2(
    source: Mapping[str, np.ndarray], pixel_means_bgr: Sequence[float]
) -> tuple[Arrays, Arrays]:
    """Parameters and statistics of the `mobilenetv2_e2e` backbone from checked, folded layers."""
    arg: Arrays = {}
    aux: Arrays = {}
    for layer in layers():
        weight, bias = source[f"{layer.source}_weight"], source[f"{layer.source}_bias"]
        if layer.source == "conv0":
            weight, bias = _fold_input(weight, bias, pixel_means_bgr)
        _put(arg, aux, layer.target, weight, bias)
    identity = np.eye(STEM_CHANNELS, dtype=np.float32)[:, :, None, None]
    _put(arg, aux, IDENTITY_BLOCK, identity, np.zeros(STEM_CHANNELS, np.float32))
    return arg, aux


def _fold_input(
    weight: np.ndarray, bias: np.ndarray, pixel_means_bgr: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """First convolution for RGB minus means: x * s + t = (x - m) * s + (m * s + t)."""
    means_rgb = np.asarray(pixel_means_bgr, np.float64)[::-1]
    constant = means_rgb * SOURCE_SCALE + SOURCE_SHIFT  # (3,) what a mean-coloured pixel becomes
    kernel = weight.astype(np.float64)  # (32, 3, 3, 3)
    shift = (kernel.sum(axis=(2, 3)) * constant).sum(axis=1)
    return (kernel * SOURCE_SCALE).astype(np.float32), (bias + shift).astype(np.float32)


def _put(arg: Arrays, aux: Arrays, name: str, weight: np.ndarray, bias: np.ndarray) -> None:
    arg[f"{name}-conv2d_weight"] = weight
    arg[f"{name}-batchnorm_gamma"] = np.ones_like(bias)
    arg[f"{name}-batchnorm_beta"] = bias
    aux[f"{name}-batchnorm_moving_mean"] = np.zeros_like(bias)
    aux[f"{name}-batchnorm_moving_var"] = np.full_like(bias, 1 - EPSILON)


def _expected_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    for layer in layers():
        yield f"{layer.source}_weight", layer.shape
        yield f"{layer.source}_bias", layer.shape[:1]
