"""SSH against the facts of its Caffe model and of the MXNet port: parameters, shapes, kernel.

The golden file holds what their parameter files say; the last test compares them where these are
present. It is written by `python -m tests.models.test_networks_ssh FACTS_FOLDER`.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from sniper.errors import ConfigError
from sniper.models.assembly import DetectorSpec, build_detector, inference_input_shapes
from sniper.models.heads.ssh import SshModule
from sniper.models.initialisers import initial_value, is_head
from sniper.models.lazy import mx
from sniper.models.networks import network_of
from tests.models.test_networks_3k import HERE, SHARED

GOLDEN = HERE.parents[1] / "golden" / "networks_ssh.json.gz"
SCALES = (1, 2, 4, 8, 16, 32)
NETWORKS = ("vgg16_ssh", "resnet_mx_50_ssh", "mobilenetv2_ssh")
# x1 y1 x2 y2 of the first cell's anchors (test vectors of the original).
ANCHORS = {
    1: [[0, 0, 15, 15], [-8, -8, 23, 23]],
    2: [[-24, -24, 39, 39], [-56, -56, 71, 71]],
    3: [[-120, -120, 135, 135], [-248, -248, 263, 263]],
}
KERNEL = [
    [0.0625, 0.1875, 0.1875, 0.0625],
    [0.1875, 0.5625, 0.5625, 0.1875],
    [0.1875, 0.5625, 0.5625, 0.1875],
    [0.0625, 0.1875, 0.1875, 0.0625],
]


def facts_of(folder):
    def content(name):
        return json.loads((folder / name).read_text(encoding="utf-8"))

    caffe = content("params_ssh_vgg16.json")
    names = ("caffe_layer", "blob", "shape", "lr_mult", "decay_mult")
    port = content("params_ssh_vgg16_mxnet_port.json")
    return {
        "caffe": [[blob[name] for name in names] for blob in caffe["params"]],
        "elements": caffe["n_elements"],
        "port": [[entry["name"], entry["shape"]] for entry in port["args"]],
    }


def write_golden(folder):
    text = json.dumps(facts_of(folder), separators=(",", ":"))
    GOLDEN.write_bytes(gzip.compress(text.encode(), mtime=0))


def golden():
    return json.loads(gzip.decompress(GOLDEN.read_bytes()))


def spec_ssh(symbol="vgg16_ssh", **values):
    return DetectorSpec(symbol, 2, SCALES, (1,), 16, **{"batch_images": 1, **values})


def parameters(graph, shapes):
    found, _, _ = graph.infer_shape(**shapes)
    return {n: list(s) for n, s in zip(graph.list_arguments(), found) if n not in shapes}


def test_parameters_are_those_of_the_port():
    spec = spec_ssh()
    graph = build_detector(spec, train=False)
    ours = parameters(graph, inference_input_shapes(spec, 1, 64, 64))
    facts = golden()
    assert ours == dict(facts["port"])
    assert len(ours) == len(facts["caffe"]) == 75
    assert sum(map(np.prod, ours.values())) == facts["elements"] == 19_768_420
    assert not graph.list_auxiliary_states()


def test_multipliers_are_those_of_caffe():
    """MXNet's own: 1 and 1 for weights, 1 and 0 for biases. Frozen layers are up to the recipe."""
    theirs = {}
    for layer, blob, _, lr, decay in golden()["caffe"]:
        theirs[caffe_to_port(layer) + "_" + blob] = (lr, decay)
    attributes = build_detector(spec_ssh(), train=False).attr_dict()
    for name, (lr, decay) in theirs.items():
        own = attributes.get(name, {})
        default_decay = 0.0 if name.endswith("_bias") else 1.0
        found = float(own.get("__lr_mult__", 1)), float(own.get("__wd_mult__", default_decay))
        if not name.startswith(("conv1", "conv2")):
            assert found == (lr, decay), name


def caffe_to_port(layer):
    from sniper.tools.weights.ssh import LAYERS

    return LAYERS.get(layer, layer)


@pytest.mark.parametrize("symbol", NETWORKS)
@pytest.mark.parametrize(
    ("size", "sides"),
    [
        ((901, 1203), ((113, 151), (57, 76), (29, 38))),
        ((33, 17), ((5, 3), (3, 2), (2, 1))),
        ((250, 127), ((32, 16), (16, 8), (8, 4))),
    ],
)
def test_sizes_are_rounded_up(symbol, size, sides):
    """901x1203 is the case of the original; its upsampled map of 114x152 cells is cropped."""
    spec = spec_ssh(symbol)
    graph = build_detector(spec, train=False)
    inputs = inference_input_shapes(spec, 2, *size)
    _, shapes, _ = graph.infer_shape(**inputs)
    outputs = dict(zip(graph.list_outputs(), shapes))
    for stride, (height, width) in zip((8, 16, 32), sides):
        assert outputs[f"rpn_cls_prob_stride{stride}_output"] == (2, 2, 2 * height, width)
        assert outputs[f"rpn_bbox_pred_stride{stride}_output"] == (2, 8, height, width)
    inner = graph.get_internals()
    _, shapes, _ = inner.infer_shape(**inputs)
    inside = dict(zip(inner.list_outputs(), shapes))
    height, width = sides[1]
    assert inside["ssh_m2_red_upsampling_output"][2:] == (2 * height, 2 * width)
    assert inside["ssh_m1_sum_output"][2:] == sides[0]
    assert inside["ssh_m1_det_concat_output"][1] == 256
    assert inside["ssh_m3_det_concat_output"][1] == 512


@pytest.mark.parametrize("number", ANCHORS)
def test_anchors_are_those_of_the_original(number):
    anchors = SshModule(number).anchors(spec_ssh())
    np.testing.assert_array_equal(anchors, ANCHORS[number])


def test_upsampling_is_bilinear():
    value = initial_value("ssh_m2_red_upsampling_weight", (128, 1, 4, 4), 0)
    np.testing.assert_array_equal(value, np.broadcast_to(KERNEL, (128, 1, 4, 4)))
    assert value.dtype == np.float32
    spec = spec_ssh(width=0.1, rpn_channels=8)
    inner = build_detector(spec, train=False).get_internals()
    graph = mx.sym.Group([inner["ssh_m2_red_conv_relu_output"], inner["ssh_m2_red_crop_output"]])
    executor = graph.simple_bind(mx.cpu(), grad_req="null", data=(1, 3, 75, 41))
    rng = np.random.default_rng(0)
    for name, array in executor.arg_dict.items():
        array[:] = initial_value(name, array.shape, 0, "scratch")
    executor.arg_dict["data"][:] = rng.normal(0, 50, (1, 3, 75, 41))
    coarse, cropped = (output.asnumpy()[0] for output in executor.forward())
    assert coarse.shape == (4, 5, 3) and cropped.shape == (4, 10, 6)
    assert cropped.any()
    padded = np.pad(coarse, ((0, 0), (1, 1), (1, 1)))
    for row, column in np.ndindex(10, 6):
        # A new pixel's centre lies a quarter of a cell from that of the nearest one.
        y, x = (row + 0.5) / 2 + 0.5, (column + 0.5) / 2 + 0.5
        top, left = int(y), int(x)
        corner = padded[:, top : top + 2, left : left + 2]
        weights = np.outer((top + 1 - y, y - top), (left + 1 - x, x - left))
        expected = (corner * weights).sum(axis=(1, 2))
        np.testing.assert_allclose(cropped[:, row, column], expected, rtol=1e-4, atol=1e-5)


def test_starting_values():
    heads = network_of("vgg16_ssh").heads
    layers = [layer for head in heads[:3] for layer in head.layers]
    assert len(layers) == len(set(layers)) == 4 + 3 * 7
    for layer in layers:
        assert is_head(f"{layer}_weight"), layer
        if layer != "ssh_m2_red_upsampling":
            value = initial_value(f"{layer}_weight", (1000, 64), 0, "legacy", heads)
            assert value.std() == pytest.approx(0.01, rel=0.05), layer
    assert not is_head("conv5_3_weight")


def test_backbones_have_no_more_than_ssh_reads():
    names = build_detector(spec_ssh("mobilenetv2_ssh"), train=False).list_arguments()
    assert "seq-4-block2-linear-conv2d_weight" in names
    assert not any(name.startswith(("seq-5", "seq-6", "last")) for name in names)
    names = build_detector(spec_ssh("resnet_mx_50_ssh"), train=False).list_arguments()
    assert not any(name.startswith("stage4") for name in names)


def test_channels_follow_the_key():
    spec = spec_ssh("mobilenetv2_ssh", rpn_channels=64)
    shapes = parameters(build_detector(spec, train=False), inference_input_shapes(spec, 1, 64, 64))
    assert shapes["ssh_m1_red_conv_weight"] == [32, 32, 1, 1]
    assert shapes["ssh_m1_det_conv1_weight"] == [32, 32, 3, 3]
    assert shapes["ssh_m2_det_conv1_weight"] == [64, 96, 3, 3]
    assert shapes["ssh_m3_det_context_conv2_weight"] == [32, 32, 3, 3]


def test_what_does_not_fit_is_refused():
    for values in ({"anchor_scales": (1, 2)}, {"feature_stride": 32}):
        arguments = {
            "anchor_scales": SCALES, "anchor_ratios": (1,), "feature_stride": 16, **values,
        }  # fmt: skip
        spec = DetectorSpec("mobilenetv2_ssh", 2, batch_images=1, **arguments)
        with pytest.raises(ConfigError, match="three modules"):
            build_detector(spec, train=False)
    with pytest.raises(ConfigError, match="tell faces from background"):
        build_detector(DetectorSpec("vgg16_ssh", 3, SCALES, (1,), 16, 1), train=False)
    with pytest.raises(ConfigError, match="multiple of 4"):
        build_detector(spec_ssh(rpn_channels=6), train=False)


def test_golden_facts_are_those_of_the_json_files():
    if not SHARED.is_dir():
        pytest.skip("no spec here: set SNIPER_SHARED to the folder with spec/params")
    assert golden() == facts_of(SHARED)
    vectors = SHARED.parents[1] / "golden" / "branches_testvectors.json"
    if vectors.is_file():
        content = json.loads(vectors.read_text(encoding="utf-8"))
        assert content["bilinear_4x4"] == KERNEL
        for number, stride in ((1, 8), (2, 16), (3, 32)):
            assert content["anchors"][f"ssh_m{number}_stride{stride}"] == ANCHORS[number]


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]))
