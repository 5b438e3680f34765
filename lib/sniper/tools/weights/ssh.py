"""The SSH face detectors of others, and VGG-16 of Caffe -> parameters of `vgg16_ssh`.

Three layouts of the same 75 arrays are told by their names:

* those of the Caffe model (`m1@ssh_3x3`, `conv4_128`), as an `.npz` of `<layer>_weight` and
  `<layer>_bias`: Caffe's own files need Caffe to be read;
* those of the MXNet port (`ssh_m1_det_conv1`): a `.params` file;
* ours, which are the port's.

What differs besides names:

* Caffe's networks take BGR, ours RGB: `conv1_1` has its inputs in reverse.
* All subtract means. Where `network.PIXEL_MEANS` are others than those of the source, the bias of
  `conv1_1` takes up the difference; its zero padding then differs by that, below one grey level.
* Caffe lists the small anchor of a module first, as we do; the port lists the large one first. The
  channels of `rpn_cls_score` (background of both anchors, face of both) and of `rpn_bbox_pred` (the
  four deltas of an anchor stand together) change places.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sniper.errors import DataError
from sniper.models.backbones.vgg import BLOCKS, vgg16_layers
from sniper.models.parts import Released
from sniper.models.weights import load_arrays

Arrays = dict[str, np.ndarray]

# What the networks subtract, BGR.
CAFFE_MEANS = (102.9801, 115.9465, 122.7717)
PORT_MEANS = (103.939, 116.779, 123.68)
STRIDES = {1: 8, 2: 16, 3: 32}
ANCHORS, CLASSES = 2, 2
FIRST_LAYER = "conv1_1"
_MODULE_LAYERS = {
    "3x3": "conv1",
    "dimred": "context_conv1",
    "5x5": "context_conv2",
    "7x7-1": "context_conv3_1",
    "7x7": "context_conv3_2",
}
_HEAD_LAYERS = ("cls_score", "bbox_pred")
# Names of layers: Caffe -> ours; those of VGG-16 are the same.
LAYERS = {
    "conv4_128": "ssh_m1_red_conv",
    "conv5_128": "ssh_m2_red_conv",
    "conv5_128_up": "ssh_m2_red_upsampling",
    "conv4_fuse_final": "ssh_m1_conv",
    **{
        f"m{number}@ssh_{theirs}": f"ssh_m{number}_det_{ours}"
        for number in STRIDES
        for theirs, ours in _MODULE_LAYERS.items()
    },
    **{
        f"m{number}@ssh_{layer}": f"rpn_{layer}_stride{stride}"
        for number, stride in STRIDES.items()
        for layer in _HEAD_LAYERS
    },
}
RESULT = Released(
    "data/pretrained_model/vgg16_ssh",
    "a whole detector: train on with --set network.pretrained PREFIX, or test it as it is with the "
    "recipe ssh/ssh_vgg16_wider",
)
HOW_TO_GET = (
    "an .npz of the Caffe model's blobs, <layer>_weight and <layer>_bias (net.params[layer]), or "
    "the .params file of the MXNet port"
)


def import_vgg16(path: Path, pixel_means_bgr: Sequence[float]) -> tuple[Arrays, Arrays]:
    """The backbone of `vgg16_*` from a file; no statistics.

    Args:
        path: an `.npz` of the Caffe model (BGR), or a `.params` file whose network takes RGB.
        pixel_means_bgr: `network.PIXEL_MEANS` of the recipe.

    Raises:
        DataError: the file is broken, arrays are missing, have other shapes or are not finite.
    """
    arrays, is_npz = _read(path)
    means = CAFFE_MEANS if is_npz else PORT_MEANS
    return _convert_vgg16(arrays, path, pixel_means_bgr, means, bgr=is_npz), {}


def import_ssh(path: Path, pixel_means_bgr: Sequence[float]) -> tuple[Arrays, Arrays]:
    """All parameters of `vgg16_ssh` from those of the Caffe model or of the port; no statistics.

    Args:
        path: `.npz` or `.params`; the names in it tell whose it is.
        pixel_means_bgr: `network.PIXEL_MEANS` of the recipe.

    Raises:
        DataError: the file is broken, arrays are missing, have other shapes or are not finite.
    """
    source, _ = _read(path)
    is_caffe = any("@ssh" in name for name in source)
    means = CAFFE_MEANS if is_caffe else PORT_MEANS
    arrays = _convert_vgg16(source, path, pixel_means_bgr, means, bgr=is_caffe)
    theirs = {ours: name for name, ours in LAYERS.items()} if is_caffe else {}
    layer_shapes = _ssh_shapes()
    names = {name: _their_name(name, theirs) for name in layer_shapes}
    heads = _checked(source, {names[name]: layer_shapes[name] for name in names}, path)
    for ours, name in names.items():
        value = heads[name]
        arrays[ours] = value if is_caffe else _small_anchor_first(ours, value)
    return arrays, {}


def _read(path: Path) -> tuple[Arrays, bool]:
    """All arrays of a file by name without `arg:`, and whether it is an `.npz`."""
    with open(path, "rb") as file:
        is_npz = file.read(2) == b"PK"
    if not is_npz:
        found = load_arrays(path)
        return {name.rpartition(":")[2]: value.asnumpy() for name, value in found.items()}, False
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name].astype(np.float32) for name in archive.files}, True
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError("the source is no readable npz file", where=path, got=error) from error


def _convert_vgg16(
    source: Mapping[str, np.ndarray],
    where: Path,
    means_bgr: Sequence[float],
    source_means_bgr: Sequence[float],
    *,
    bgr: bool,
) -> Arrays:
    """The convolutions; dense layers and others are left out."""
    arrays = _checked(source, _vgg16_shapes(), where)
    weight, bias = (f"{FIRST_LAYER}_{kind}" for kind in ("weight", "bias"))
    kernel = arrays[weight][:, ::-1] if bgr else arrays[weight]
    arrays[weight] = np.ascontiguousarray(kernel)
    # x - source = (x - ours) + (ours - source), a constant colour.
    rest = np.subtract(means_bgr, source_means_bgr)[::-1]
    shift = (arrays[weight].astype(np.float64).sum(axis=(2, 3)) * rest).sum(axis=1)
    arrays[bias] = (arrays[bias] + shift).astype(np.float32)
    return arrays


def _their_name(name: str, theirs: Mapping[str, str]) -> str:
    layer, _, kind = name.rpartition("_")
    return f"{theirs.get(layer, layer)}_{kind}"


def _small_anchor_first(name: str, value: np.ndarray) -> np.ndarray:
    """The same with the two anchors of the module in reverse."""
    rest = value.shape[1:]
    if name.startswith("rpn_cls_score"):
        return value.reshape(CLASSES, ANCHORS, *rest)[:, ::-1].reshape(value.shape)
    if name.startswith("rpn_bbox_pred"):
        return value.reshape(ANCHORS, 4, *rest)[::-1].reshape(value.shape)
    return value


def _checked(
    source: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], where: Path
) -> Arrays:
    """These arrays, float32."""
    problems = [
        f"{name} {source[name].shape if name in source else 'is missing'}, expected {shape}"
        for name, shape in shapes.items()
        if name not in source or source[name].shape != shape
    ] or [f"{name} holds NaN or infinity" for name in shapes if not np.isfinite(source[name]).all()]
    if problems:
        more = f"; and {len(problems) - 6} more" if problems[6:] else ""
        raise DataError(
            "the file does not hold the arrays of this network",
            where=where,
            got="; ".join(problems[:6]) + more,
            expected=f"{len(shapes)} arrays by name and shape",
            fix=HOW_TO_GET,
        )
    return {name: source[name].astype(np.float32) for name in shapes}


def _vgg16_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    inputs = 3
    for layer in vgg16_layers():
        outputs = BLOCKS[int(layer[len("conv")]) - 1][1]
        shapes.update(_layer(layer, outputs, inputs, 3))
        inputs = outputs
    return shapes


def _ssh_shapes() -> dict[str, tuple[int, ...]]:
    """Our names."""
    shapes = {
        **_layer("ssh_m1_red_conv", 128, 512, 1),
        **_layer("ssh_m2_red_conv", 128, 512, 1),
        "ssh_m2_red_upsampling_weight": (128, 1, 4, 4),
        **_layer("ssh_m1_conv", 128, 128, 3),
    }
    for number, stride in STRIDES.items():
        inputs, width = (128, 128) if number == 1 else (512, 256)
        name = f"ssh_m{number}_det"
        shapes.update(_layer(f"{name}_conv1", width, inputs, 3))
        shapes.update(_layer(f"{name}_context_conv1", width // 2, inputs, 3))
        for part in ("2", "3_1", "3_2"):
            shapes.update(_layer(f"{name}_context_conv{part}", width // 2, width // 2, 3))
        shapes.update(_layer(f"rpn_cls_score_stride{stride}", CLASSES * ANCHORS, 2 * width, 1))
        shapes.update(_layer(f"rpn_bbox_pred_stride{stride}", 4 * ANCHORS, 2 * width, 1))
    return shapes


def _layer(name: str, outputs: int, inputs: int, kernel: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}_weight": (outputs, inputs, kernel, kernel), f"{name}_bias": (outputs,)}
