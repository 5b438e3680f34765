"""`sniper import-weights`: turns a foreign backbone into a `.params` file that training can load.

MobileNetV2 with folded batch norms (one array `<layer>_weight` and `<layer>_bias` per layer)
becomes the backbone of `mobilenetv2_e2e`. The values stay exact when the batch norms use their
stored statistics (`network.BN_MODE: frozen`) and strided convolutions pad as TensorFlow does
(`network.PADDING: tf_same`):

* Scale 1, shift = bias, mean 0, variance = 1 - epsilon make a batch norm add the bias only.
* `seq-0-block0-exp` does not exist in the source. It becomes the identity: its input is the output
  of a ReLU6, which a second ReLU6 does not change.
* The source takes RGB in [-1, 1] (x / 127.5 - 1), our networks take RGB minus the pixel means.
  Scale and shift are linear, so they move into the first convolution. Only its zero padding
  differs: there the source sees grey 127.5 and ours sees the pixel mean, which changes the features
  of the last row and column a little.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import mxnet as mx
import numpy as np

from sniper.errors import DataError, SniperError
from sniper.models.mobilenetv2 import EPSILON, LAST_CHANNELS, SEQUENCES, STEM_CHANNELS
from sniper.models.weights import write_params

IDENTITY_BLOCK = "seq-0-block0-exp"
SOURCE_SCALE = 1 / 127.5
SOURCE_SHIFT = -1.0
# BGR, as `network.PIXEL_MEANS` of all recipes.
PIXEL_MEANS = (103.939, 116.779, 123.68)
HOW_TO_GET = """\
the backbone (MobileNetV2 1.0, Open Images V4, Apache-2.0) is part of the npm package
       @mediapipe/objectron 0.4.1675468480: fetch it with `npm pack`, unpack it, take bytes
       184..9987911 of objectron_solution_packed_assets.data (a tflite file, sha256 d0a5255bf8c4...)
       and store its layers as conv0, b0_dw, b0_proj, b1_exp, ... b16_proj, conv_last with
       _weight (NCHW) and _bias in one npz file"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns 0 when the file is written, 3 for a source that cannot be used."""
    arguments = _parser().parse_args(argv)
    try:
        _convert(arguments)
    except SniperError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _convert(arguments: argparse.Namespace) -> None:
    layers = read_folded(arguments.source)
    arg, aux = convert_mobilenetv2(layers, arguments.pixel_means)
    path = Path(f"{arguments.out}-{arguments.epoch:04d}.params")
    write_params(path, _to_mxnet(arg), _to_mxnet(aux))
    print(f"wrote {path}: {len(arg)} parameters, {len(aux)} statistics")
    print("use it with network.BN_MODE frozen and network.PADDING tf_same, which keep its features")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sniper import-weights", description="convert a foreign backbone to .params"
    )
    parser.add_argument("network", choices=["mobilenetv2"], help="which backbone the file holds")
    parser.add_argument("source", type=Path, metavar="SRC.npz", help="arrays with folded norms")
    parser.add_argument(
        "--out",
        default="data/pretrained_model/mobilenetv2",
        help="prefix of the result, as in network.pretrained (default: %(default)s)",
    )
    parser.add_argument("--epoch", type=int, default=0, help="number in the file name (default: 0)")
    parser.add_argument(
        "--pixel-means",
        type=float,
        nargs=3,
        default=PIXEL_MEANS,
        metavar=("B", "G", "R"),
        help="network.PIXEL_MEANS of the recipe (default: 103.939 116.779 123.68)",
    )
    return parser


def read_folded(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays of a folded MobileNetV2 1.0, float32, with names and shapes checked.

    Raises:
        DataError: the file is missing or broken, or a layer is missing or has another shape.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError("the source weights are not there", where=path, fix=HOW_TO_GET)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name].astype(np.float32) for name in archive.files}
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError("the source is no readable npz file", where=path, got=error) from error
    expected = dict(_expected_shapes())
    missing = [name for name in expected if name not in arrays]
    if missing:
        raise DataError(
            f"the source lacks {len(missing)} arrays",
            where=path,
            got=", ".join(sorted(arrays)[:6]) + " ...",
            expected=", ".join(missing[:6]) + (" ..." if len(missing) > 6 else ""),
            fix="the tool reads MobileNetV2 at width 1.0 with folded batch norms",
        )
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise DataError(
                "an array has the wrong shape",
                where=f"{name} of {path}",
                got=arrays[name].shape,
                expected=shape,
                fix="the tool reads MobileNetV2 at width 1.0 in NCHW order",
            )
        if not np.all(np.isfinite(arrays[name])):
            raise DataError("an array holds NaN or infinity", where=f"{name} of {path}")
    return {name: arrays[name] for name in expected}


def convert_mobilenetv2(
    layers: Mapping[str, np.ndarray], pixel_means_bgr: Sequence[float] = PIXEL_MEANS
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Parameters and statistics of the `mobilenetv2_e2e` backbone from checked, folded layers."""
    arg: dict[str, np.ndarray] = {}
    aux: dict[str, np.ndarray] = {}
    for source, target, _ in _layers():
        weight, bias = layers[f"{source}_weight"], layers[f"{source}_bias"]
        if source == "conv0":
            weight, bias = _fold_input(weight, bias, pixel_means_bgr)
        _put(arg, aux, target, weight, bias)
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


def _put(
    arg: dict[str, np.ndarray],
    aux: dict[str, np.ndarray],
    name: str,
    weight: np.ndarray,
    bias: np.ndarray,
) -> None:
    arg[f"{name}-conv2d_weight"] = weight
    arg[f"{name}-batchnorm_gamma"] = np.ones_like(bias)
    arg[f"{name}-batchnorm_beta"] = bias
    aux[f"{name}-batchnorm_moving_mean"] = np.zeros_like(bias)
    aux[f"{name}-batchnorm_moving_var"] = np.full_like(bias, 1 - EPSILON)


def _layers() -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Source layer, our layer and weight shape of every layer of the source, in order."""
    yield "conv0", "first-3x3-conv", (STEM_CHANNELS, 3, 3, 3)
    channels, block = STEM_CHANNELS, 0
    for index, sequence in enumerate(SEQUENCES):
        for repeat in range(sequence.repeats):
            name = f"seq-{index}-block{repeat}"
            expanded = channels * sequence.expansion
            if sequence.expansion > 1:
                yield f"b{block}_exp", f"{name}-exp", (expanded, channels, 1, 1)
            yield f"b{block}_dw", f"{name}-depthwise", (expanded, 1, 3, 3)
            yield f"b{block}_proj", f"{name}-linear", (sequence.channels, expanded, 1, 1)
            channels, block = sequence.channels, block + 1
    yield "conv_last", "last-1x1-conv", (LAST_CHANNELS, channels, 1, 1)


def _expected_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    for source, _, shape in _layers():
        yield f"{source}_weight", shape
        yield f"{source}_bias", shape[:1]


def _to_mxnet(arrays: Mapping[str, np.ndarray]) -> dict[str, mx.nd.NDArray]:
    return {name: mx.nd.array(value, dtype="float32") for name, value in arrays.items()}
