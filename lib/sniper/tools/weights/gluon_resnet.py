"""ResNet-v2 of MXNet's gluon model zoo -> backbone of `resnet_mx_50_*` and `resnet_mx_101_*`.

Both are pre-activation ResNets with the stride on the 3x3 convolution, so tensors map one to one:

* The zoo's input is (x / 255 - mean) / std of RGB, followed by a batch norm without scale. Ours is
  RGB minus the pixel means, followed by `bn_data`, whose scale is fixed at 1. Both are per-channel
  affine maps in front of the same zero padding, so the zoo's two fold exactly into the mean and
  variance of `bn_data`.
* The zoo's batch norms add 1e-5 to the variance, ours 2e-5: gamma takes up the difference, which
  keeps the variances themselves.
* The zoo's last batch norm and its classifier have no counterpart: our features are the raw sums of
  stage 3 and 4.

Up to stage 3 the features are those of the zoo. Stage 4 has stride 1 and dilated, deformable
kernels here (2018), so the same weights see the image at twice the resolution.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet.gluon import nn
from mxnet.gluon.model_zoo import model_store, vision
from mxnet.gluon.utils import check_sha1

from sniper.errors import DataError
from sniper.models.backbones.resnet import EPSILON
from sniper.models.weights import load_arrays

NETWORKS: dict[str, Callable[..., mx.gluon.Block]] = {
    "resnet50": vision.resnet50_v2,
    "resnet101": vision.resnet101_v2,
}
# Of the model zoo's images, RGB in 0..1.
ZOO_MEAN = (0.485, 0.456, 0.406)
ZOO_STD = (0.229, 0.224, 0.225)
# Children of the zoo's `features`.
BN_DATA, CONV0, BN0, FIRST_STAGE = 0, 1, 2, 5

FULL_NAME = re.compile(r"(?:arg:|aux:)?(resnetv2\d+_)")

Arrays = dict[str, np.ndarray]


def read_gluon(path: Path, network: str) -> mx.gluon.Block:
    """The zoo's network with the weights of a `.params` file.

    Gluon itself reads the file, so all its name styles are understood: those of `save_parameters`
    (`features.0.gamma`), of the old `save_params` and of `export` (`arg:`, `aux:`).

    Raises:
        DataError: the file is missing, damaged, or belongs to another network.
    """
    arrays = load_arrays(path)
    prefix = _common_prefix(arrays)
    net = NETWORKS[network](classes=_classes(arrays), **({"prefix": prefix} if prefix else {}))
    try:
        if prefix:
            net.collect_params().load(str(path), cast_dtype=True)
        else:
            net.load_parameters(str(path), cast_dtype=True)
    except (AssertionError, ValueError) as error:
        raise DataError(
            f"the file is no {network}_v2 of the gluon model zoo",
            where=path,
            got=str(error).strip().splitlines()[0],
            fix="mx.gluon.model_zoo.vision and its save_parameters make such files",
        ) from error
    return net


def zoo_address(network: str) -> str:
    """Where MXNet itself would fetch the file from (MXNET_GLUON_REPO names a mirror): a zip."""
    name = f"{network}_v2"
    repository = os.environ.get("MXNET_GLUON_REPO", model_store.apache_repo_url)
    file_name = f"{name}-{model_store.short_hash(name)}"
    return f"{repository.rstrip('/')}/gluon/models/{file_name}.zip"


def check_zoo_file(path: Path, network: str) -> None:
    """Compares a file with the SHA-1 that MXNet knows of the zoo's own.

    Raises:
        DataError: it is another file.
    """
    expected = model_store._model_sha1[f"{network}_v2"]
    if not check_sha1(str(path), expected):
        raise DataError(
            f"the file is not the {network}_v2 that MXNet's model zoo published",
            where=path,
            expected=f"SHA-1 {expected}",
            fix="fetch it again, or import it without --zoo if you trust it",
        )


def _common_prefix(arrays: Mapping[str, mx.nd.NDArray]) -> str:
    """`resnetv20_` where the names have it, as those of `export` do; empty otherwise."""
    found = {match[1] if (match := FULL_NAME.match(name)) else "" for name in arrays}
    return found.pop() if len(found) == 1 else ""


def convert_resnet(net: mx.gluon.Block, pixel_means_bgr: Sequence[float]) -> tuple[Arrays, Arrays]:
    """Parameters and statistics of the backbone from a loaded network of the zoo."""
    arg: Arrays = {}
    aux: Arrays = {}
    layers = net.features
    _put_input(arg, aux, layers[BN_DATA], pixel_means_bgr)
    for name, layer in _named_layers(layers):
        if isinstance(layer, nn.BatchNorm):
            _put_norm(arg, aux, name, layer)
        else:
            arg[f"{name}_weight"] = _array(layer.weight)
    return arg, aux


def _classes(arrays: Mapping[str, mx.nd.NDArray]) -> int:
    """Outputs of the classifier in the file, which is read and dropped."""
    endings = ("output.weight", "dense0_weight")
    found = [value.shape[0] for name, value in arrays.items() if name.endswith(endings)]
    return found[0] if found else 1000


def _named_layers(features: nn.HybridSequential) -> Iterator[tuple[str, mx.gluon.Block]]:
    """Our name and the zoo's layer, from `conv0` to stage 4."""
    yield "conv0", features[CONV0]
    yield "bn0", features[BN0]
    for stage in range(4):
        for index, unit in enumerate(features[FIRST_STAGE + stage]):
            name = f"stage{stage + 1}_unit{index + 1}"
            for number in (1, 2, 3):
                yield f"{name}_bn{number}", getattr(unit, f"bn{number}")
                yield f"{name}_conv{number}", getattr(unit, f"conv{number}")
            if unit.downsample:
                yield f"{name}_sc", unit.downsample


def _put_input(
    arg: Arrays, aux: Arrays, norm: nn.BatchNorm, pixel_means_bgr: Sequence[float]
) -> None:
    """`bn_data`: ((x / 255 - a) / s - m) / sqrt(v + e) as one mean and one variance of x - p."""
    mean, std = np.asarray(ZOO_MEAN), np.asarray(ZOO_STD)
    inner_mean, inner_variance = (
        _array(value).astype(np.float64) for value in (norm.running_mean, norm.running_var)
    )
    pixel_means = np.asarray(pixel_means_bgr, np.float64)[::-1]
    scale = (255 * std) ** 2
    aux["bn_data_moving_mean"] = (255 * (mean + std * inner_mean) - pixel_means).astype(np.float32)
    aux["bn_data_moving_var"] = (scale * (inner_variance + _epsilon(norm)) - EPSILON).astype(
        np.float32
    )
    arg["bn_data_gamma"] = np.ones(3, np.float32)
    arg["bn_data_beta"] = _array(norm.beta)


def _put_norm(arg: Arrays, aux: Arrays, name: str, norm: nn.BatchNorm) -> None:
    variance = _array(norm.running_var)
    ratio = (variance.astype(np.float64) + EPSILON) / (variance.astype(np.float64) + _epsilon(norm))
    arg[f"{name}_gamma"] = (_array(norm.gamma) * np.sqrt(ratio)).astype(np.float32)
    arg[f"{name}_beta"] = _array(norm.beta)
    aux[f"{name}_moving_mean"] = _array(norm.running_mean)
    aux[f"{name}_moving_var"] = variance


def _epsilon(norm: nn.BatchNorm) -> float:
    return float(norm._kwargs["eps"])


def _array(parameter: mx.gluon.Parameter) -> np.ndarray:
    return parameter.data().asnumpy().astype(np.float32)
