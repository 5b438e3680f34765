"""The MobileNetV2 inside the public npm package @mediapipe/objectron (Apache-2.0).

It was the trunk of a detector trained on Open Images V4. The package holds a file of packed assets,
which holds a TensorFlow Lite file; each of the three is a valid source here.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from pathlib import Path

from sniper.errors import DataError
from sniper.tools.weights.folded_mobilenet import Arrays, Layer, check_folded, layers
from sniper.tools.weights.tflite import Convolution, read_convolutions

PACKAGE = "@mediapipe/objectron@0.4.1675468480"
PACKAGE_SHA256 = "fc3e37b326b05e8f596099c90b3e0931b05a56cd3160b9ac450b621794bac94c"
ASSETS = "package/objectron_solution_packed_assets.data"
ASSETS_SHA256 = "470986ca5df183f41698da6de74b027d838fe289d77b5ab094497d350bee664e"
ASSETS_SIZE = 9_987_912
MODEL_START = 184  # in front of it stands the list of the detector's classes
MODEL_SHA256 = "d0a5255bf8c4f5a0bc4240741a76c41d5e939f7655078f945f50ab53a9375da6"
LARGEST_FILE = 100 << 20

HOW_TO_GET = f"""\
npm pack {PACKAGE}
       fetches the package (32.7 MB); scripts/download_pretrained_models.sh mobilenetv2 does all"""


def read_objectron(path: Path) -> Arrays:
    """Folded layers of the package (.tgz), of its packed assets or of its `.tflite` file.

    Raises:
        DataError: the file is missing, is none of the three, or its SHA-256 is not the known one.
    """
    data = _read(path)
    if data[:2] == b"\x1f\x8b":
        _check_sha256(data, PACKAGE_SHA256, path)
        data = _assets(path)
    if data[4:8] != b"TFL3" and len(data) == ASSETS_SIZE:
        _check_sha256(data, ASSETS_SHA256, path)
        data = data[MODEL_START:]
    _check_sha256(data, MODEL_SHA256, path)
    return trunk(read_convolutions(data, path), path)


def trunk(convolutions: list[Convolution], where: Path) -> Arrays:
    """Folded layers of the backbone; the convolutions of a detector's heads are left out.

    Raises:
        DataError: the convolutions hold no MobileNetV2 1.0.
    """
    arrays: Arrays = {}
    rest = iter(convolutions)
    before: Convolution | None = None
    for layer in layers():
        convolution = next((entry for entry in rest if _fits(entry, layer)), None)
        source = None  # the tensor that it must read, where the layer before says so
        chained = layer.source.endswith(("_dw", "_proj")) and layer.source != "b0_dw"
        if before is not None and chained:
            source = before.result
        if convolution is None or source not in (None, convolution.source):
            raise DataError(
                "the file holds no MobileNetV2 1.0",
                where=where,
                expected=f"a convolution {layer.source} {layer.shape} with stride {layer.stride}"
                + (" behind the layer before it" if convolution else ""),
            )
        arrays[f"{layer.source}_weight"] = convolution.weight
        arrays[f"{layer.source}_bias"] = convolution.bias
        before = convolution
    return check_folded(arrays, where)


def _fits(convolution: Convolution, layer: Layer) -> bool:
    return (
        convolution.weight.shape == layer.shape
        and convolution.bias.shape == layer.shape[:1]
        and convolution.depthwise == layer.source.endswith("_dw")
        and convolution.stride == layer.stride
        and convolution.padding == "same"
        and convolution.activation == ("relu6" if layer.relu6 else "none")
    )


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise DataError("the source is too large", where=path, got=f"{size} bytes")
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            "the source weights cannot be read", where=path, got=error.strerror, fix=HOW_TO_GET
        ) from error


def _assets(path: Path) -> bytes:
    """The packed assets of a package; nothing is written to disk."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            file = archive.extractfile(archive.getmember(ASSETS))
            data = b"" if file is None else file.read(LARGEST_FILE)
    except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        raise DataError(
            f"the package holds no readable {ASSETS}", where=path, got=error, fix=HOW_TO_GET
        ) from error
    _check_sha256(data, ASSETS_SHA256, f"{ASSETS} of {path}")
    return data


def _check_sha256(data: bytes, expected: str, where: object) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise DataError(
            "the file is not the one that this tool knows: damaged, truncated or another version",
            where=where,
            got=f"{len(data)} bytes with SHA-256 {found}",
            expected=f"SHA-256 {expected}",
            fix=HOW_TO_GET,
        )
