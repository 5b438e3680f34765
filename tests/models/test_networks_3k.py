"""R-FCN-3K against the facts of 2018: names, shapes, types and order of its three graphs.

The golden file holds what the parameter files of the three graphs say; the last test compares them
where these are present. It is written by `python test_networks_3k.py FACTS_FOLDER`.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from sniper.errors import ConfigError
from sniper.models.assembly import (
    DetectorSpec,
    build_detector,
    inference_input_shapes,
    train_input_shapes,
)
from sniper.models.initialisers import initial_value, is_head
from sniper.models.networks import network_of
from sniper.models.spec import FineSettings
from sniper.models.weights import fixed_names

HERE = Path(__file__).resolve()
GOLDEN = HERE.parents[1] / "golden" / "networks_rfcn3k.json.gz"
SHARED = Path(os.environ.get("SNIPER_SHARED", HERE.parents[3] / "shared")) / "spec" / "params"
KINDS = {"train": 16, "test": 6, "demo": 1}
FIXED = ["conv0", "bn0", "stage1"]
# The graph of the demo of 2018 did not hand the images' numbers through; ours is that of the test
# with one more output. 2018 had no name for it.
PASSED, FEATURES = "im_ids", {"cast7_output": "feature_map_output"}


def facts_of(folder, kind):
    content = json.loads((folder / f"params_rfcn3k_{kind}.json").read_text(encoding="utf-8"))
    names = ("inputs", "outputs", "args", "aux", "n_param_elements", "n_aux_elements")
    return {name: content[name] for name in names}


def write_golden(folder):
    text = json.dumps({kind: facts_of(folder, kind) for kind in KINDS}, separators=(",", ":"))
    GOLDEN.write_bytes(gzip.compress(text.encode(), mtime=0))


def golden():
    return json.loads(gzip.decompress(GOLDEN.read_bytes()))


def spec_3k(images, **values):
    return DetectorSpec(
        *("resnet_mx_101_3k", 3131, (4, 8, 16, 24), (0.5, 1, 2), 16, images),
        **{"fp16": True, "loss_scale": 100.0, **values},
    )


def graph_3k(kind, facts):
    """Our graph and the shapes of its inputs, where those of 2018 hold."""
    images, _, *side = facts["inputs"]["data"]
    spec = spec_3k(images)
    symbol = build_detector(spec, train=kind == "train", feature_map=kind == "demo")
    if kind == "train":
        return symbol, train_input_shapes(spec, side[0])
    return symbol, inference_input_shapes(spec, images, *side)


@pytest.mark.parametrize("kind", KINDS)
def test_graph_is_that_of_2018(kind):
    facts = golden()[kind]
    symbol, inputs = graph_3k(kind, facts)
    passed = {PASSED: [KINDS[kind]]} if kind == "demo" else {}
    assert {name: list(shape) for name, shape in inputs.items()} == {**facts["inputs"], **passed}
    arg_shapes, output_shapes, aux_shapes = symbol.infer_shape(**inputs)
    types, output_types, aux_types = symbol.infer_type(**dict.fromkeys(inputs, "float32"))

    def ours(names, shapes, kinds):
        rows = zip(names, shapes, kinds)
        return [[name, list(shape), np.dtype(kind).name] for name, shape, kind in rows]

    def theirs(entries):
        return [[FEATURES.get(e["name"], e["name"]), e["shape"], e["dtype"]] for e in entries]

    parameters = ours(symbol.list_arguments(), arg_shapes, types)
    parameters = [row for row in parameters if row[0] not in inputs]
    assert parameters == theirs(facts["args"])
    assert sum(np.prod(shape) for _, shape, _ in parameters) == facts["n_param_elements"]
    aux = ours(symbol.list_auxiliary_states(), aux_shapes, aux_types)
    assert aux == theirs(facts["aux"])
    outputs = ours(symbol.list_outputs(), output_shapes, output_types)
    if kind == "demo":
        outputs = [row for row in outputs if row[0] != PASSED]
    assert outputs == theirs(facts["outputs"])
    frozen = [entry["name"] for entry in facts["args"] if entry["frozen"]]
    assert fixed_names(symbol, FIXED) == frozen


def test_divisors_are_those_of_16_images():
    symbol, _ = graph_3k("train", golden()["train"])
    nodes = {node["name"]: node.get("attrs", {}) for node in json.loads(symbol.tojson())["nodes"]}
    scales = {
        name: float(nodes[name]["grad_scale"]) for name in nodes if "grad_scale" in nodes[name]
    }
    assert scales == pytest.approx(
        {
            "rpn_cls_prob": 100,
            "rpn_bbox_loss": 3 * 100 / (16 * 256),
            "cls_prob": 100 / (300 * 16),
            "subcls_prob": 100 / (200 * 16),
            "bbox_loss": 100 / (188 * 16),
        }
    )
    assert nodes["rpn_cls_prob"]["normalization"] == "valid"
    assert {nodes[name]["normalization"] for name in ("cls_prob", "subcls_prob")} == {"null"}


def test_no_tensor_is_larger_than_the_map_of_the_classes():
    """2018 pooled all bins of 1800 RoIs and 3130 classes at once: 1.1 GB, twice."""
    symbol, inputs = graph_3k("test", golden()["test"])
    inner = symbol.get_internals()
    _, shapes, _ = inner.infer_shape(**inputs)
    sizes = {name: np.prod(shape) for name, shape in zip(inner.list_outputs(), shapes)}
    backbone = 6 * 256 * 256 * 64  # `conv0`
    assert max(sizes.values()) <= max(backbone, sizes["conv_new_3_output"])
    assert sizes["conv_new_3_output"] == 6 * 3130 * 32 * 32


def test_position_sensitive_maps_read_what_is_in_front_of_the_relu():
    """2018 made a ReLU there and did not use it; `rfcn_relu` does."""
    for relu, source in ((False, "conv_new_1"), (True, "conv_new_1_relu")):
        symbol = build_detector(spec_3k(1, rfcn_relu=relu), train=False)
        nodes = json.loads(symbol.tojson())["nodes"]
        readers = [node for node in nodes if node["name"] in ("rfcn_cls", "rfcn_bbox")]
        assert {nodes[node["inputs"][0][0]]["name"] for node in readers} == {source}
        assert len(readers) == 2


@pytest.mark.parametrize("init", ["legacy", "scratch"])
def test_starting_values(init):
    """As 2018 where it said so; FocusPixels have a hidden layer of the name of our last one."""
    heads = network_of("resnet_mx_101_3k").heads
    for layer in ("rpn_cls_score", "rpn_bbox_pred", "rfcn_cls", "rfcn_bbox", "conv_new_3"):
        value = initial_value(f"{layer}_weight", (1000, 64), 0, init, heads)
        assert value.std() == pytest.approx(0.01, rel=0.05), layer
        assert is_head(f"{layer}_weight")
    for layer in ("rpn_conv_3x3", "conv_new_1", "conv_new_2"):
        std = 0.01 if init == "legacy" else np.sqrt(2 / 64)
        value = initial_value(f"{layer}_weight", (1000, 64), 0, init, heads)
        assert value.std() == pytest.approx(std, rel=0.05), layer
    assert not initial_value("rfcn_cls_bias", (98,), 0, init, heads).any()
    others = network_of("resnet_mx_101_e2e").heads
    hidden = initial_value("conv_new_3_weight", (1000, 64), 0, "scratch", others)
    assert hidden.std() == pytest.approx(np.sqrt(2 / 64), rel=0.05)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="no FocusPixel branch"):
        spec_3k(1, auto_focus=True)
    with pytest.raises(ConfigError, match="no mask head"):
        spec_3k(1, with_masks=True)
    supers = FineSettings(super_classes=(("a", ("x",)), ("b", ("y",))))
    with pytest.raises(ConfigError, match=r"only the \*_3k networks have super-classes"):
        DetectorSpec("resnet_mx_101_e2e", 3, (4,), (1,), 16, 1, fine=supers)
    spec = DetectorSpec("resnet_mx_101_3k", 3, (4,), (1,), 16, 1, fine=supers)
    with pytest.raises(ConfigError, match="not known yet"):
        build_detector(spec, train=True)


def test_golden_facts_are_those_of_the_json_files():
    if not SHARED.is_dir():
        pytest.skip("no spec here: set SNIPER_SHARED to the folder with spec/params")
    assert golden() == {kind: facts_of(SHARED, kind) for kind in KINDS}


def test_proposals_alone_have_no_stage_4():
    symbol = build_detector(spec_3k(1), train=False, rpn_only=True)
    names = symbol.list_arguments()
    assert "rpn_conv_3x3_weight" in names
    assert not any(name.startswith(("stage4", "conv_new", "rfcn")) for name in names)


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]))
