"""`sniper import-weights`: turns foreign weights into a `.params` file of ours."""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from sniper.config.kinds import Float
from sniper.errors import ConfigError, DataError
from sniper.models.lazy import mx
from sniper.models.networks import BACKBONES
from sniper.models.parts import Released
from sniper.models.weights import join_params, save_arrays
from sniper.tools.arguments import (
    add_check_flag,
    add_overwrite_flag,
    as_count,
    command_parser,
    value_of,
)
from sniper.tools.cli import run_main
from sniper.tools.weights import folded_mobilenet, objectron, ssh
from sniper.tools.weights.place import place
from sniper.tools.weights.unpack import unpack

# BGR, as `network.PIXEL_MEANS` of all recipes.
PIXEL_MEANS = (103.939, 116.779, 123.68)

ZOO_NETWORKS = ("resnet50", "resnet101")

Arrays = dict[str, np.ndarray]

_DESCRIPTION = """\
Converts weights of another project into the .params file that network.pretrained names.

  mobilenetv2 SRC   MobileNetV2 1.0 trained on Open Images V4, out of the npm package
                    @mediapipe/objectron 0.4.1675468480: the package (.tgz), its packed assets, the
                    .tflite file in it (SHA-256 is checked), or an .npz of its folded layers
  resnet50 SRC      resnet50_v2 of MXNet's gluon model zoo: a .params file, or the zoo's .zip of it
  resnet101 SRC     resnet101_v2 of the same
  vgg16 SRC         VGG-16: an .npz of the Caffe model's blobs (conv1_1_weight, conv1_1_bias and
                    so on), or a .params file of the same names whose network takes RGB
  vgg16_ssh SRC     the whole SSH face detector: an .npz of the Caffe model's blobs
                    (m1@ssh_3x3_weight ...), or a .params file of its MXNet port
"""
_EPILOG = "example: sniper import-weights resnet50 resnet50_v2.params"


@dataclass(frozen=True)
class Importer:
    """A network that can be imported.

    Attributes:
        convert: parameters and statistics from a file and the pixel means.
        how_to_get: where the file comes from.
        result: where the backbone expects it, and how to use it.
    """

    convert: Callable[[Path, Sequence[float]], tuple[Arrays, Arrays]]
    how_to_get: str
    result: Released


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns 0 when the file is written, 3 for a source that cannot be used."""
    return run_main(_run, argv)


def _run(argv: Sequence[str]) -> int:
    arguments = _parser().parse_args(argv)
    source = SOURCES[arguments.network]
    if not arguments.source.is_file():
        raise DataError(
            "the source weights are not there", where=arguments.source, fix=source.how_to_get
        )
    with tempfile.TemporaryDirectory(prefix="sniper-import-") as folder:
        single = _single_file(arguments.source, Path(folder))
        if arguments.zoo:
            _check_zoo(single, arguments.network)
        arg, aux = source.convert(single, arguments.pixel_means)
    if arguments.check:
        print(f"{arguments.source}: {len(arg)} parameters and {len(aux)} statistics, as expected")
        return 0
    path = Path(f"{arguments.out or source.result.prefix}-{arguments.epoch:04d}.params")
    file = io.BytesIO()
    save_arrays(file, join_params(_to_mxnet(arg), _to_mxnet(aux)))
    wrote = place(path, file.getvalue(), overwrite=arguments.overwrite)
    facts = f"{len(arg)} parameters, {len(aux)} statistics"
    print(f"wrote {path}: {facts}" if wrote else f"{path} is the same already: {facts}")
    print(source.result.advice)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sniper import-weights", _DESCRIPTION, _EPILOG)
    parser.add_argument("network", choices=SOURCES, help="which network the file holds")
    parser.add_argument("source", type=Path, metavar="SRC", help="the file")
    defaults = ", ".join(f"{name}: {source.result.prefix}" for name, source in SOURCES.items())
    parser.add_argument(
        "--out",
        metavar="PREFIX",
        help=f"prefix of the result, as in network.pretrained (default: {defaults})",
    )
    parser.add_argument(
        "--zoo", action="store_true", help="accept only the model zoo's own file, by its SHA-1"
    )
    add_check_flag(parser)
    add_overwrite_flag(parser)
    parser.add_argument(
        "--epoch",
        type=as_count,
        default=0,
        metavar="E",
        help="number in the file's name (default: %(default)s)",
    )
    parser.add_argument(
        "--pixel-means",
        type=value_of(Float(0, 255)),
        nargs=3,
        default=PIXEL_MEANS,
        metavar=("B", "G", "R"),
        help="network.PIXEL_MEANS of the recipe (default: 103.939 116.779 123.68)",
    )
    return parser


def _single_file(source: Path, folder: Path) -> Path:
    """The source, or the `.params` file of a zip."""
    if source.suffix != ".zip":
        return source
    files = unpack(source, folder, [".params"])
    if len(files) != 1:
        raise DataError(
            "the archive must hold one .params file", where=source, got=f"{len(files)} of them"
        )
    return files[0]


def _check_zoo(path: Path, network: str) -> None:
    if network not in ZOO_NETWORKS:
        raise ConfigError("--zoo is for networks of the model zoo", got=network)
    _gluon_resnet().check_zoo_file(path, network)


def _mobilenetv2(path: Path, pixel_means_bgr: Sequence[float]) -> tuple[Arrays, Arrays]:
    with open(path, "rb") as file:
        is_npz = file.read(2) == b"PK"
    layers = folded_mobilenet.read_folded(path) if is_npz else objectron.read_objectron(path)
    return folded_mobilenet.convert_mobilenetv2(layers, pixel_means_bgr)


def _gluon(network: str) -> Callable[[Path, Sequence[float]], tuple[Arrays, Arrays]]:
    def convert(path: Path, pixel_means_bgr: Sequence[float]) -> tuple[Arrays, Arrays]:
        net = _gluon_resnet().read_gluon(path, network)
        return _gluon_resnet().convert_resnet(net, pixel_means_bgr)

    return convert


def _gluon_resnet() -> ModuleType:
    """The reader of the model zoo: it is MXNet's own, which --help does without."""
    from sniper.tools.weights import gluon_resnet

    return gluon_resnet


GLUON_HOW_TO_GET = "scripts/download_pretrained_models.sh resnet50|resnet101 says from where"

_RELEASED = {
    name: released
    for backbone in BACKBONES.values()
    for name, released in backbone.released.items()
}
SOURCES = {
    "mobilenetv2": Importer(_mobilenetv2, objectron.HOW_TO_GET, _RELEASED["mobilenetv2"]),
    **{name: Importer(_gluon(name), GLUON_HOW_TO_GET, _RELEASED[name]) for name in ZOO_NETWORKS},
    "vgg16": Importer(ssh.import_vgg16, ssh.HOW_TO_GET, _RELEASED["vgg16"]),
    "vgg16_ssh": Importer(ssh.import_ssh, ssh.HOW_TO_GET, ssh.RESULT),
}


def _to_mxnet(arrays: Mapping[str, np.ndarray]) -> dict[str, mx.nd.NDArray]:
    return {name: mx.nd.array(value, dtype="float32") for name, value in arrays.items()}
