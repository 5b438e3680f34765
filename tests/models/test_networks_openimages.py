"""The network of 2018 for Open Images: names, shapes and order of its training graph.

The golden file holds what its parameter file says; the last test compares the two where that is
present. It is written by `python -m tests.models.test_networks_openimages FACTS_FOLDER`.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from sniper.models.assembly import DetectorSpec, build_detector, train_input_shapes
from tests.models.test_networks_3k import HERE, SHARED

GOLDEN = HERE.parents[1] / "golden" / "networks_openimages.json.gz"
# The last output of 2018 was the weight of each RoI, once for every class; ours is (R, 1).
WEIGHTS_2018 = "blockgrad3_output"


def facts_of(folder):
    content = json.loads((folder / "params_openimages_train.json").read_text(encoding="utf-8"))
    names = ("inputs", "outputs", "args", "aux", "n_param_elements", "n_aux_elements")
    return {name: content[name] for name in names}


def write_golden(folder):
    text = json.dumps(facts_of(folder), separators=(",", ":"))
    GOLDEN.write_bytes(gzip.compress(text.encode(), mtime=0))


def golden():
    return json.loads(gzip.decompress(GOLDEN.read_bytes()))


def spec_of_2018():
    return DetectorSpec(
        *("resnet_mx_101_e2e_c4", 602, (3, 6, 12, 24), (0.5, 1, 2), 16, 16),
        fp16=True, loss_scale=100.0, crowd_ioa=0.9, soft_sampling=(0.25, 50.0, 20.0),
    )  # fmt: skip


def test_graph_is_that_of_2018():
    facts, spec = golden(), spec_of_2018()
    symbol = build_detector(spec, train=True)
    inputs = train_input_shapes(spec, 512)
    assert {name: list(shape) for name, shape in inputs.items()} == facts["inputs"]
    shapes, output_shapes, aux_shapes = symbol.infer_shape(**inputs)
    types, output_types, aux_types = symbol.infer_type(**dict.fromkeys(inputs, "float32"))

    def ours(names, shapes, kinds):
        rows = zip(names, shapes, kinds)
        return [[name, list(shape), np.dtype(kind).name] for name, shape, kind in rows]

    def theirs(entries):
        return [[entry["name"], entry["shape"], entry["dtype"]] for entry in entries]

    parameters = ours(symbol.list_arguments(), shapes, types)
    parameters = [row for row in parameters if row[0] not in inputs]
    assert parameters == theirs(facts["args"])
    assert sum(np.prod(shape) for _, shape, _ in parameters) == facts["n_param_elements"]
    assert ours(symbol.list_auxiliary_states(), aux_shapes, aux_types) == theirs(facts["aux"])
    outputs = ours(symbol.list_outputs(), output_shapes, output_types)
    *wanted, weights = theirs(facts["outputs"])
    assert weights[0] == WEIGHTS_2018
    assert [row[1:] for row in outputs] == [row[1:] for row in wanted] + [[[4800, 1], "float32"]]
    assert [row[0] for row in outputs[:4]] == [row[0] for row in wanted[:4]]


def test_divisors_are_those_of_16_images():
    symbol = build_detector(spec_of_2018(), train=True)
    nodes = {node["name"]: node.get("attrs", {}) for node in json.loads(symbol.tojson())["nodes"]}
    scales = {
        name: float(nodes[name]["grad_scale"]) for name in nodes if "grad_scale" in nodes[name]
    }
    assert scales["rpn_bbox_loss"] == pytest.approx(3 * 100 / (16 * 256))


def test_golden_facts_are_those_of_the_json_file():
    if not SHARED.is_dir():
        pytest.skip("no spec here: set SNIPER_SHARED to the folder with spec/params")
    assert golden() == facts_of(SHARED)


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]))
