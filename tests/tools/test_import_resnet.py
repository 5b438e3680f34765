"""Backbones imported from gluon's ResNet-v2 beside gluon's own forward pass."""

import hashlib
import zipfile

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon.model_zoo import model_store
from mxnet.gluon.model_zoo.vision.resnet import BottleneckV2, ResNetV2

from sniper.errors import DataError
from sniper.models.backbones import resnet
from sniper.models.backbones.blocks import NormSettings
from sniper.models.weights import read_params
from sniper.tools.import_weights import PIXEL_MEANS, main
from sniper.tools.weights.gluon_resnet import (
    NETWORKS,
    ZOO_MEAN,
    ZOO_STD,
    convert_resnet,
    read_gluon,
)

ARCHES = {"resnet50": resnet.RESNET_50, "resnet101": resnet.RESNET_101}
STAGE_4 = 8
KINDS = ("gamma", "beta", "running_mean", "running_var")


def random_net(name, classes=7):
    """A network of the zoo whose batch norms have statistics of all sizes, tiny ones included."""
    mx.random.seed(3)
    rng = np.random.default_rng(3)
    net = NETWORKS[name](classes=classes)
    net.initialize(mx.init.Xavier())
    net(mx.nd.zeros((1, 3, 64, 64)))
    for key in [key for key in net.collect_params() if key.endswith("running_var")]:
        parameters = {
            kind: net.collect_params()[key.replace("running_var", kind)] for kind in KINDS
        }
        shape = parameters["gamma"].shape
        # Below epsilon as well: there the two epsilons differ by up to a factor of 1.4.
        variance = 10.0 ** rng.uniform(-6, 0.5, shape) if shape != (3,) else [0.5, 0.9, 1.7]
        parameters["running_var"].set_data(mx.nd.array(variance))
        # In proportion, so that the signal neither dies nor explodes.
        gamma = np.sqrt(variance) * rng.uniform(0.2, 0.6, shape)
        parameters["gamma"].set_data(mx.nd.array(gamma))
        for kind in ("running_mean", "beta"):
            parameters[kind].set_data(mx.nd.array(rng.normal(0, 0.2, shape)))
    return net


@pytest.fixture(scope="module")
def resnet50():
    return random_net("resnet50")


@pytest.fixture
def narrow_zoo(monkeypatch):
    """The zoo with 1/16 of the channels: the same names, small files."""
    channels = [4, 16, 32, 64, 128]
    for name, arch in ARCHES.items():

        def make(arch=arch, **options):
            return ResNetV2(BottleneckV2, arch.units, channels, **options)

        monkeypatch.setitem(NETWORKS, name, make)
    return random_net("resnet50")


def pixels(height=96, width=128):
    return np.random.default_rng(1).integers(0, 256, (3, height, width)).astype(np.float32)


def zoo_input(rgb):
    mean, std = (np.reshape(v, (3, 1, 1)).astype(np.float32) for v in (ZOO_MEAN, ZOO_STD))
    return mx.nd.array(((rgb / 255 - mean) / std)[None])


def our_features(name, arrays, rgb, names, pixel_means=PIXEL_MEANS):
    """Outputs of our layers for the same picture, in inference."""
    symbol = resnet.resnet_features(mx.sym.Variable("data"), ARCHES[name], NormSettings())
    inner = symbol["stage3_4"].get_internals()
    data = mx.nd.array((rgb - np.asarray(pixel_means, np.float32)[::-1, None, None])[None])
    return [_forward(inner[f"{layer}_output"], data, *arrays) for layer in names]


def _forward(symbol, data, arg, aux):
    executor = symbol.simple_bind(mx.cpu(), grad_req="null", data=data.shape)
    for name, value in executor.arg_dict.items():
        if "_offset_" in name:
            value[:] = 0
    arg, aux = ({n: mx.nd.array(v) for n, v in part.items()} for part in (arg, aux))
    executor.copy_params_from(arg, aux, allow_extra_params=True)
    (output,) = executor.forward(is_train=False, data=data)
    return output.asnumpy()


def assert_close(ours, theirs, tolerance=1e-4):
    assert ours.shape == theirs.shape
    assert theirs.std() > 0
    worst = np.abs(ours - theirs).max() / theirs.std()
    assert worst < tolerance, worst


@pytest.mark.parametrize("means", [PIXEL_MEANS, (0.0, 50.0, 200.0)])
def test_features_up_to_stage_3_equal_those_of_gluon(resnet50, means):
    rgb = pixels()
    ours = our_features(
        "resnet50",
        convert_resnet(resnet50, means),
        rgb,
        ["bn_data", "relu0", "stage1_unit3_plus", "stage3_unit6_plus"],
        means,
    )
    x, theirs = zoo_input(rgb), {}
    for index in range(STAGE_4):
        x = theirs[index] = resnet50.features[index](x)
    for feature, index in zip(ours, (0, 3, 5, 7)):
        assert_close(feature, theirs[index].asnumpy())


def test_stage_4_uses_the_same_weights_at_twice_the_resolution(resnet50):
    """The zoo's stage 4 with our stride and dilation, and what stays equal without that."""
    rgb = pixels()
    names = ["stage4_unit1_conv1", "stage4_unit1_sc", "stage4_unit3_plus"]
    conv1, shortcut, last = our_features(
        "resnet50", convert_resnet(resnet50, PIXEL_MEANS), rgb, names
    )
    x = zoo_input(rgb)
    for index in range(STAGE_4):
        x = resnet50.features[index](x)
    unit = resnet50.features[STAGE_4][0]
    first = mx.nd.relu(unit.bn1(x))
    assert_close(conv1, unit.conv1(first).asnumpy())
    assert_close(shortcut[:, :, ::2, ::2], unit.downsample(first).asnumpy())
    net = random_net("resnet50")
    net.features[STAGE_4][0].downsample._kwargs["stride"] = (1, 1)
    for unit in net.features[STAGE_4]:
        unit.conv2._kwargs.update(stride=(1, 1), pad=(2, 2), dilate=(2, 2))
    assert_close(last, net.features[STAGE_4](x).asnumpy())


def test_epsilons_are_compensated(resnet50):
    """Without that, channels with a variance near epsilon differ."""
    name, layer = "stage2_unit1_bn2", resnet50.features[6][0].bn2
    arg, aux = convert_resnet(resnet50, PIXEL_MEANS)
    x = np.random.default_rng(0).normal(size=(2, layer.gamma.shape[0], 3, 3)).astype(np.float32)
    theirs = layer(mx.nd.array(x)).asnumpy()
    shape = (1, -1, 1, 1)
    mean, var = (aux[f"{name}_moving_{kind}"].reshape(shape) for kind in ("mean", "var"))
    plain = (x - mean) / np.sqrt(var + resnet.EPSILON)
    ours = plain * arg[f"{name}_gamma"].reshape(shape) + arg[f"{name}_beta"].reshape(shape)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    uncorrected = plain * layer.gamma.data().asnumpy().reshape(shape)
    uncorrected += arg[f"{name}_beta"].reshape(shape)
    assert np.abs(uncorrected - theirs).max() > 0.05 * np.abs(theirs).max()


def test_all_name_styles_give_the_same_file(tmp_path, narrow_zoo):
    narrow_zoo.save_parameters(str(tmp_path / "new.params"))
    params = narrow_zoo.collect_params()
    params.save(str(tmp_path / "old.params"), strip_prefix=narrow_zoo.prefix)
    params.save(str(tmp_path / "full.params"))
    narrow_zoo.hybridize()
    narrow_zoo(mx.nd.zeros((1, 3, 64, 64)))
    narrow_zoo.export(str(tmp_path / "exported"))
    narrow_zoo.hybridize(active=False)
    sources = ["new.params", "old.params", "full.params", "exported-0000.params"]
    written = set()
    for source in sources:
        assert main(["resnet50", str(tmp_path / source), "--out", str(tmp_path / "ours")]) == 0
        written.add((tmp_path / "ours-0000.params").read_bytes())
    assert len(written) == 1
    arg, aux = read_params(tmp_path / "ours-0000.params")
    symbol = resnet.resnet_features(mx.sym.Variable("data"), resnet.RESNET_50, NormSettings())[
        "stage3_4"
    ]
    wanted = {n for n in symbol.list_arguments() if n != "data" and "_offset_" not in n}
    assert set(arg) == wanted and set(aux) == set(symbol.list_auxiliary_states())


def test_the_zoos_zip_is_taken_when_its_sha1_is_right(tmp_path, narrow_zoo, monkeypatch, capsys):
    narrow_zoo.save_parameters(str(tmp_path / "net.params"))
    with zipfile.ZipFile(tmp_path / "zoo.zip", "w") as archive:
        archive.write(tmp_path / "net.params", "resnet50_v2-ecdde353.params")
    argv = ["resnet50", str(tmp_path / "zoo.zip"), "--zoo", "--out", str(tmp_path / "ours")]
    assert main(argv) == 3
    assert "SHA-1 ecdde353" in capsys.readouterr().err
    digest = hashlib.sha1((tmp_path / "net.params").read_bytes()).hexdigest()
    monkeypatch.setitem(model_store._model_sha1, "resnet50_v2", digest)
    assert main([*argv, "--check"]) == 0 and not (tmp_path / "ours-0000.params").exists()
    assert main(argv) == 0
    assert "bn_data_moving_var" in read_params(tmp_path / "ours-0000.params")[1]


def test_half_precision_files_are_read(tmp_path, narrow_zoo):
    narrow_zoo.save_parameters(str(tmp_path / "net.params"))
    halves = {n: v.astype("float16") for n, v in mx.nd.load(str(tmp_path / "net.params")).items()}
    mx.nd.save(str(tmp_path / "half.params"), halves)
    arg, _ = convert_resnet(read_gluon(tmp_path / "half.params", "resnet50"), PIXEL_MEANS)
    expected, _ = convert_resnet(narrow_zoo, PIXEL_MEANS)
    assert all(value.dtype == np.float32 for value in arg.values())
    np.testing.assert_allclose(arg["conv0_weight"], expected["conv0_weight"], atol=1e-3)


def test_other_networks_and_broken_files_are_refused(tmp_path, narrow_zoo, capsys):
    path = tmp_path / "net.params"
    narrow_zoo.save_parameters(str(path))
    with pytest.raises(DataError, match="no resnet101_v2"):
        read_gluon(path, "resnet101")
    arrays = mx.nd.load(str(path))
    extra = {**arrays, "features.7.6.bn1.gamma": mx.nd.ones((64,))}
    mx.nd.save(str(path), extra)
    with pytest.raises(DataError, match="no resnet50_v2"):
        read_gluon(path, "resnet50")
    mx.nd.save(str(path), {**arrays, "features.1.weight": mx.nd.ones((4, 3, 3, 3))})
    with pytest.raises(DataError, match="no resnet50_v2"):
        read_gluon(path, "resnet50")
    path.write_bytes(path.read_bytes()[:5000])
    assert main(["resnet50", str(path), "--out", str(tmp_path / "ours")]) == 3
    assert "damaged" in capsys.readouterr().err
    assert main(["resnet50", str(tmp_path / "none"), "--out", str(tmp_path / "ours")]) == 3
    assert not (tmp_path / "ours-0000.params").exists()


@pytest.mark.slow
def test_resnet_101_maps_too():
    rgb, net = pixels(64, 64), random_net("resnet101")
    (ours,) = our_features(
        "resnet101", convert_resnet(net, PIXEL_MEANS), rgb, ["stage3_unit23_plus"]
    )
    x = zoo_input(rgb)
    for index in range(STAGE_4):
        x = net.features[index](x)
    assert_close(ours, x.asnumpy())
