"""Weight and symbol files as the program of 2018 wrote them."""

import dataclasses
import gzip
import json
import struct

import mxnet as mx
import numpy as np
import pytest

from sniper.inference.mxnet_executor import MxnetExecutor
from sniper.models.assembly import (
    DetectorSpec,
    ProposalSettings,
    build_detector,
    inference_input_shapes,
    train_input_shapes,
)
from sniper.models.fit import Model, fit_params
from sniper.models.weights import (
    for_test,
    initialise,
    read_params,
    with_test_params,
    write_params,
)
from sniper.ops import load_library

CPU, GPU = 1, 2
TYPE_FLAGS = {"float32": 0, "float16": 2}
SPEC = DetectorSpec(
    "mobilenetv2_e2e",
    81,
    (1, 2, 4, 8, 12),
    (0.5, 1, 2),
    32,
    batch_images=2,
    proposal=ProposalSettings(6000, 0.7, 0, 300),
)
SMALL = dataclasses.replace(
    SPEC, num_classes=5, width=0.25, fc_channels=16, roi_channels=16, batch_images=1
)
SIDE = 96


def file_of_2018(arrays, device=CPU):
    """The bytes that MXNet 1.2 wrote for named arrays, by its source."""
    data = struct.pack("<QQQ", 0x112, 0, len(arrays))
    for value in arrays.values():
        data += struct.pack("<IiI", 0xF993FAC9, 0, value.ndim)
        data += struct.pack(f"<{value.ndim}q", *value.shape)
        data += struct.pack("<iii", device, 0, TYPE_FLAGS[value.dtype.name]) + value.tobytes()
    data += struct.pack("<Q", len(arrays))
    for name in arrays:
        data += struct.pack("<Q", len(name)) + name.encode()
    return data


@pytest.fixture(scope="module")
def graph(golden):
    """The MobileNetV2 test graph of 2018: nodes, arguments, types, outputs."""
    with gzip.open(golden / "graph_mobilenetv2_2018.json.gz") as file:
        return json.load(file)


@pytest.fixture(scope="module")
def params():
    """Starting values of a small detector, with random heads and halves where 2018 had them."""
    symbol = build_detector(SMALL, train=True)
    arg, aux, _ = initialise(symbol, train_input_shapes(SMALL, 64), None, 1)
    rng = np.random.default_rng(1)
    for name in (
        "rpn_cls_score",
        "rpn_bbox_pred",
        "conv_new_1",
        "fc_new_1",
        "fc_new_2",
        "cls_score",
    ):
        weight = arg[f"{name}_weight"]
        weight[:] = rng.normal(0, 0.1, weight.shape)
    return with_test_params(arg), aux


def layout_of_2018(params, graph):
    """Arrays by their names in the file; convolutions of the backbone are float16."""
    arg, aux = params
    arrays = {}
    for name, value in arg.items():
        dtype = graph["dtypes"].get(name, "float32")
        arrays[f"arg:{name}"] = value.asnumpy().astype(dtype)
    return {**arrays, **{f"aux:{name}": value.asnumpy() for name, value in aux.items()}}


def test_files_come_back_byte_for_byte(tmp_path, params, graph):
    arrays = layout_of_2018(params, graph)
    kinds = {value.dtype.name for value in arrays.values()}
    assert kinds == {"float32", "float16"}
    assert {"arg:bbox_pred_weight_test", "arg:seq-3-block1-depthwise-conv2d_weight"} < set(arrays)
    old, new, theirs = (tmp_path / f"{name}.params" for name in ("old", "new", "theirs"))
    old.write_bytes(file_of_2018(arrays))
    arg, aux = read_params(old)
    assert {name: value.dtype for name, value in arg.items() if value.dtype == np.float16} == {
        name: np.float16 for name, dtype in graph["dtypes"].items() if dtype == "float16"
    }
    write_params(new, arg, aux)
    assert new.read_bytes() == old.read_bytes()
    mx.nd.save(str(theirs), {n: mx.nd.array(v, dtype=v.dtype) for n, v in arrays.items()})
    assert theirs.read_bytes() == old.read_bytes()


def test_tensors_saved_from_a_gpu_load_on_a_cpu(tmp_path, params, graph):
    arrays = layout_of_2018(params, graph)
    (tmp_path / "gpu.params").write_bytes(file_of_2018(arrays, GPU))
    arg, aux = read_params(tmp_path / "gpu.params")
    for name, value in {**arg, **aux}.items():
        assert value.context == mx.cpu()
        expected = arrays.get(f"arg:{name}", arrays.get(f"aux:{name}"))
        np.testing.assert_array_equal(value.asnumpy(), expected)


def test_a_float32_graph_takes_float16_tensors(tmp_path, params, graph):
    arrays = layout_of_2018(params, graph)
    (tmp_path / "old.params").write_bytes(file_of_2018(arrays))
    arg, aux = read_params(tmp_path / "old.params")
    widened = {name: value.astype("float32") for name, value in arg.items()}
    rng = np.random.default_rng(2)
    data = rng.normal(0, 60, (1, 3, SIDE, SIDE)).astype(np.float32)
    info = np.array([[SIDE, SIDE, 1]], np.float32)
    results = []
    for given in (arg, widened):
        model = Model(SMALL, for_test(given), aux, tuple("abcde"))
        results += MxnetExecutor(model, [mx.cpu()]).run(data, info)
    assert len(results[0].boxes) > 10 and results[0].scores.std() > 1e-4
    np.testing.assert_array_equal(results[0].boxes, results[1].boxes)
    np.testing.assert_array_equal(results[0].scores, results[1].scores)


def symbol_json(graph, *, float32):
    """MXNet's JSON of the graph as 2018 saved it; without halves for a CPU."""
    aux = set(graph["aux"])
    names = {name for _, _, _, sources in graph["nodes"] for name in sources}
    inner = {name for _, name, _, _ in graph["nodes"]}
    outer = [name for name in graph["arguments"] if name in names]
    outer += [name for name in graph["outputs"] if name in graph["arguments"] and name not in names]
    outer += [name for name in graph["aux"] if name in names]
    assert names - inner <= set(outer) and aux <= set(outer)
    nodes = [{"op": "null", "name": name, "inputs": []} for name in outer]
    index = {name: i for i, name in enumerate(outer)}
    for op, name, attributes, sources in graph["nodes"]:
        if op == "Cast" and float32:
            attributes = {"dtype": "float32"}
        inputs = []
        for source in sources:
            base, _, output = source.partition(":")
            inputs.append([index[base], int(output or 0), 0])
        index[name] = len(nodes)
        nodes.append({"op": op, "name": name, "attrs": attributes, "inputs": inputs})
    heads = [[index[name.removesuffix("_output")], 0, 0] for name in graph["outputs"]]
    arguments = list(range(len(outer)))
    attributes = {"mxnet_version": ["int", 10200]}
    return json.dumps({"nodes": nodes, "arg_nodes": arguments, "heads": heads, "attrs": attributes})


def test_a_symbol_file_of_2018_loads_and_gives_our_numbers(graph):
    load_library()
    old = mx.sym.load_json(symbol_json(graph, float32=True))
    ours = build_detector(SPEC, train=False)
    assert set(old.list_arguments()) == set(ours.list_arguments())
    assert old.list_auxiliary_states() == ours.list_auxiliary_states()
    # Outputs of extension operators carry a number; all others keep their names.
    assert old.list_outputs() == ["rois_output0", *graph["outputs"][1:]]
    shapes = inference_input_shapes(SPEC, 2, SIDE, SIDE)
    arg, aux, _ = initialise(ours, shapes, None, 7)
    rng = np.random.default_rng(7)
    for name in ("rpn_cls_score_weight", "rpn_bbox_pred_weight", "cls_score_weight"):
        arg[name][:] = rng.normal(0, 0.05, arg[name].shape)
    fit_params(old, shapes, arg, aux, "2018")
    inputs = {
        "data": mx.nd.array(rng.normal(0, 60, shapes["data"])),
        "im_info": mx.nd.array([[SIDE, SIDE, 1], [SIDE - 9, SIDE - 30, 1]]),
        "im_ids": mx.nd.array([4, 5]),
        "chip_ids": mx.nd.array([0, 0]),
    }
    results = []
    for symbol in (old, ours):
        executor = symbol.simple_bind(mx.cpu(), grad_req="null", **shapes)
        executor.copy_params_from(arg, aux)
        executor.forward(is_train=False, **inputs)
        results.append([output.asnumpy() for output in executor.outputs])
    for name, theirs, mine in zip(graph["outputs"], *results):
        assert theirs.shape == mine.shape
        np.testing.assert_allclose(theirs, mine, rtol=1e-4, atol=1e-4, err_msg=name)
    assert np.ptp(results[0][1]) > 1e-3


def test_a_half_precision_symbol_loads_too(graph):
    """It cannot run on a CPU, but its types are those of 2018."""
    load_library()
    symbol = mx.sym.load_json(symbol_json(graph, float32=False))
    types, _, _ = symbol.infer_type(data="float32", im_ids="float32", chip_ids="float32")
    found = {n: np.dtype(t).name for n, t in zip(symbol.list_arguments(), types)}
    assert found["seq-3-block1-exp-conv2d_weight"] == "float16"
    assert found["fc_new_1_weight"] == "float32"
