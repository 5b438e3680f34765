"""VGG-16 and SSH of others: a network in their layout and ours give the same."""

from __future__ import annotations

import numpy as np
import pytest

from sniper.errors import DataError
from sniper.models.assembly import build_detector, inference_input_shapes
from sniper.models.backbones.vgg import vgg16_features
from sniper.models.lazy import mx
from sniper.models.weights import read_params, save_arrays
from sniper.tools.import_weights import main
from sniper.tools.weights.ssh import CAFFE_MEANS, PORT_MEANS, import_ssh, import_vgg16
from tests.models.test_networks_ssh import golden, spec_ssh

SIDES = (45, 59)


@pytest.fixture(scope="module")
def caffe():
    """Random blobs of the Caffe model, of such sizes that no layer dies."""
    rng = np.random.default_rng(0)
    blobs = {}
    for layer, kind, shape, *_ in golden()["caffe"]:
        scale = np.sqrt(2 / np.prod(shape[1:])) if kind == "weight" else 0.1
        value = rng.standard_normal(shape, np.float32) * np.float32(scale)
        blobs[f"{layer}_{kind}"] = value
    return blobs


def run(graph, weights, data):
    shapes = {"data": data.shape}
    for name in graph.list_arguments():
        if name not in weights and name != "data":
            shapes[name] = inference_input_shapes(spec_ssh(), 1, *SIDES)[name]
    executor = graph.simple_bind(mx.cpu(), grad_req="null", **shapes)
    for name, value in weights.items():
        executor.arg_dict[name][:] = value
    return [output.asnumpy() for output in executor.forward(data=data)]


def conv(data, name, channels, kernel, activate=True):
    data = mx.sym.Convolution(
        data, num_filter=channels, kernel=(kernel, kernel), pad=(kernel // 2,) * 2, name=name
    )
    return mx.sym.relu(data) if activate else data


def caffe_graph():
    """The prototxt of the original, written down once more with its names."""
    body, taps = mx.sym.Variable("data"), {}
    for block, (count, width) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
        if block > 1:
            body = pool(body)
        for number in range(1, count + 1):
            body = conv(body, f"conv{block}_{number}", width, 3)
        taps[block] = body
    fine, coarse = conv(taps[4], "conv4_128", 128, 1), conv(taps[5], "conv5_128", 128, 1)
    up = mx.sym.Deconvolution(
        coarse, num_filter=128, num_group=128, kernel=(4, 4), stride=(2, 2), pad=(1, 1),
        no_bias=True, name="conv5_128_up",
    )  # fmt: skip
    fused = conv(fine + mx.sym.Crop(up, fine, offset=(0, 0)), "conv4_fuse_final", 128, 3)
    outputs = []
    for module, (data, width) in {
        "m1": (fused, 128), "m2": (taps[5], 256), "m3": (pool(taps[5]), 256)
    }.items():  # fmt: skip
        wide = conv(data, f"{module}@ssh_3x3", width, 3, activate=False)
        context = conv(data, f"{module}@ssh_dimred", width // 2, 3)
        of_5x5 = conv(context, f"{module}@ssh_5x5", width // 2, 3, activate=False)
        of_7x7 = conv(context, f"{module}@ssh_7x7-1", width // 2, 3)
        of_7x7 = conv(of_7x7, f"{module}@ssh_7x7", width // 2, 3, activate=False)
        body = mx.sym.relu(mx.sym.concat(wide, of_5x5, of_7x7, dim=1))
        scores = conv(body, f"{module}@ssh_cls_score", 4, 1, activate=False)
        scores = mx.sym.reshape(scores, shape=(0, 2, -1, 0))
        outputs.append(mx.sym.softmax(scores, axis=1))
        outputs.append(conv(body, f"{module}@ssh_bbox_pred", 8, 1, activate=False))
    return mx.sym.Group(outputs)


def pool(data):
    return mx.sym.Pooling(
        data, kernel=(2, 2), stride=(2, 2), pool_type="max", pooling_convention="full"
    )


def test_the_caffe_model_computes_the_same_with_our_names(caffe, tmp_path):
    # BGR minus the means, small: no probability is to be close to 0 or 1.
    data = np.random.default_rng(1).normal(0, 2, (1, 3, *SIDES))
    expected = run(caffe_graph(), caffe, data)
    np.savez(tmp_path / "ssh.npz", **caffe)
    arg, aux = import_ssh(tmp_path / "ssh.npz", CAFFE_MEANS)
    assert not aux
    graph = build_detector(spec_ssh(), train=False)
    outputs = run(graph, arg, data[:, ::-1])
    for ours, theirs in zip(outputs[:6], expected):
        assert theirs.std() > 0.05
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


def test_other_means_move_into_the_first_layer(caffe, tmp_path):
    image = np.random.default_rng(1).uniform(0, 255, (3, *SIDES))[::-1]  # RGB
    np.savez(tmp_path / "vgg.npz", **{n: v for n, v in caffe.items() if n.startswith("conv")})
    graph = mx.sym.Group(list(vgg16_features(mx.sym.Variable("data")).values()))
    first = graph.get_internals()["conv1_1_output"]
    results = []
    for means in (CAFFE_MEANS, (10.0, 20.0, 30.0)):
        arg, _ = import_vgg16(tmp_path / "vgg.npz", means)
        assert len(arg) == 26
        data = (image - np.array(means[::-1])[:, None, None])[None]
        weights = {name: arg[name] for name in ("conv1_1_weight", "conv1_1_bias")}
        results.append(run(first, weights, data)[0])
    # The padding of zeros is another colour.
    np.testing.assert_allclose(
        results[0][..., 1:-1, 1:-1], results[1][..., 1:-1, 1:-1], rtol=1e-4, atol=1e-2
    )
    assert np.abs(results[0] - results[1])[..., 0, :].max() > 1


def test_the_port_lists_its_anchors_in_reverse(caffe, tmp_path, capsys):
    """The same detector in the port's layout: names, RGB and the large anchor first."""
    np.savez(tmp_path / "ssh.npz", **caffe)
    ours, _ = import_ssh(tmp_path / "ssh.npz", CAFFE_MEANS)
    port = dict(ours)
    for stride in (8, 16, 32):
        for kind in ("weight", "bias"):
            scores, deltas = (f"rpn_{n}_stride{stride}_{kind}" for n in ("cls_score", "bbox_pred"))
            port[scores] = ours[scores][[1, 0, 3, 2]]
            port[deltas] = ours[deltas][[4, 5, 6, 7, 0, 1, 2, 3]]
    path = tmp_path / "port-0080.params"
    arrays = {f"arg:{name}": mx.nd.array(value) for name, value in port.items()}
    with open(path, "wb") as file:
        save_arrays(file, arrays)
    found, _ = import_ssh(path, PORT_MEANS)
    assert found.keys() == ours.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    out = tmp_path / "ours"
    assert main(["vgg16_ssh", str(path), "--out", str(out)]) == 0
    assert "75 parameters" in capsys.readouterr().out
    written, _ = read_params(f"{out}-0000.params")
    graph = build_detector(spec_ssh(), train=False)
    assert set(written) == {n for n in graph.list_arguments() if "_ids" not in n} - {
        "data", "im_info",
    }  # fmt: skip


def test_what_does_not_fit_is_refused(caffe, tmp_path, capsys):
    broken = {name: value for name, value in caffe.items() if name != "m2@ssh_5x5_bias"}
    np.savez(tmp_path / "less.npz", **broken)
    with pytest.raises(DataError, match="m2@ssh_5x5_bias is missing"):
        import_ssh(tmp_path / "less.npz", CAFFE_MEANS)
    nan = {**caffe, "conv3_2_bias": np.full(256, np.nan, np.float32)}
    np.savez(tmp_path / "nan.npz", **nan)
    with pytest.raises(DataError, match="conv3_2_bias holds NaN"):
        import_ssh(tmp_path / "nan.npz", CAFFE_MEANS)
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 torn")
    assert main(["vgg16", str(tmp_path / "torn.npz")]) == 3
    assert "no readable npz" in capsys.readouterr().err
