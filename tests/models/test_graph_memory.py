"""Memory told from a graph: by hand on small graphs, and against MXNet's own planner."""

from __future__ import annotations

import mxnet as mx
import pytest

from sniper.config import load_config
from sniper.models.assembly import build_detector, inference_input_shapes, train_input_shapes
from sniper.models.graph_memory import graph_memory, sized_graph
from sniper.models.workspace import workspace
from sniper.runs.resolve import detector_spec

MIB = 2.0**20


def memory_of(symbol, shapes, *, trained=True, fixed=()):
    names = symbol.list_arguments() if trained else []
    weights = [name for name in names if name not in shapes and name not in fixed]
    graph = sized_graph(symbol, shapes)
    return graph_memory(graph, shapes, symbol.list_auxiliary_states(), weights)


def planned_by_mxnet(symbol, shapes, *, trained=True):
    """MiB of the pools that an executor takes."""
    requests = "null"
    if trained:
        names = symbol.list_arguments()
        requests = {name: "null" if name in shapes else "write" for name in names}
    executor = symbol.simple_bind(mx.cpu(), grad_req=requests, **shapes)
    return float(executor.debug_str().rsplit("Total ", 2)[1].split()[0])


def layers(count):
    """`count` fully connected layers of 8 on 8, which nothing can replace in place."""
    layer = mx.sym.var("data")
    for index in range(count):
        layer = mx.sym.FullyConnected(layer, num_hidden=8, no_bias=True, name=f"fc{index}")
    return layer


def test_a_forward_pass_holds_two_neighbours():
    memory = memory_of(layers(5), {"data": (2, 8)}, trained=False)
    assert memory.activations == memory.at_once == 2 * (2 * 8 * 4)
    assert memory.parameters == 5 * 64 * 4
    assert memory.inputs == 2 * 8 * 4
    assert memory.gradients == memory.optimizer == 0


def test_training_holds_all_that_gradients_read():
    memory = memory_of(mx.sym.MakeLoss(layers(4)), {"data": (2, 8)})
    layer = 2 * 8 * 4
    # Outputs of three layers are read by gradients of weights; at the last layer both its output,
    # the loss and a gradient live.
    assert 5 * layer <= memory.at_once <= 7 * layer
    assert memory.gradients == memory.optimizer == memory.parameters == 4 * 64 * 4


def test_activations_in_place_cost_nothing_in_testing_and_outputs_live_to_the_end():
    data = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=8, name="fc")
    once = memory_of(data, {"data": (2, 8)}, trained=False).at_once
    relu = mx.sym.Activation(data, act_type="relu")
    assert memory_of(relu, {"data": (2, 8)}, trained=False).at_once == once
    both = mx.sym.Group([data, relu])
    assert memory_of(both, {"data": (2, 8)}, trained=False).at_once == 2 * once


def test_gradients_of_a_layer_that_many_read_live_until_they_are_added():
    shared = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=8, name="shared")
    heads = [mx.sym.FullyConnected(shared, num_hidden=8, name=f"head{k}") for k in range(6)]
    few, many = (
        memory_of(mx.sym.Group([mx.sym.MakeLoss(head) for head in heads[:count]]), {"data": (2, 8)})
        for count in (2, 6)
    )
    assert many.at_once >= few.at_once + 4 * 2 * 8 * 4


def test_frozen_layers_have_no_gradients_and_hold_nothing_for_them():
    symbol = mx.sym.MakeLoss(layers(6))
    whole = memory_of(symbol, {"data": (64, 8)})
    frozen = memory_of(symbol, {"data": (64, 8)}, fixed=[f"fc{k}_weight" for k in range(5)])
    assert frozen.gradients == 64 * 4 and frozen.parameters == whole.parameters
    assert frozen.at_once < 0.7 * whole.at_once


def test_halves_take_half_and_have_masters():
    data = mx.sym.Cast(mx.sym.var("data"), dtype="float16")
    weight = mx.sym.var("weight", dtype="float16")
    layer = mx.sym.FullyConnected(data, weight, num_hidden=8, no_bias=True)
    memory = memory_of(mx.sym.MakeLoss(layer), {"data": (2, 8)})
    assert memory.parameters == memory.gradients == 64 * 2
    assert memory.optimizer == 64 * (4 + 4)  # momenta and masters


RECIPES = ("sniper_mobilenetv2_toy", "sniper_res18_toy_autofocus", "ssh_mobilenetv2_toy")


@pytest.mark.parametrize("recipe", [*RECIPES, "mobilenetv2_3k_toy"])
def test_training_is_what_mxnet_plans(recipe):
    cfg = load_config(recipe, ["gpus", "cpu"])
    spec = detector_spec(cfg, train=True, batch_images=8, fp16=False)
    symbol = build_detector(spec, train=True)
    shapes = train_input_shapes(spec, cfg.TRAIN.CHIP_SIZE)
    memory = memory_of(symbol, shapes)
    planned = planned_by_mxnet(symbol, shapes)
    assert memory.activations / MIB == pytest.approx(planned, rel=0.05, abs=1.5)
    assert memory.at_once <= memory.activations
    assert sum(size for _, size in memory.largest) <= memory.at_once


@pytest.mark.parametrize("recipe", RECIPES)
def test_testing_is_what_mxnet_plans(recipe):
    spec = detector_spec(load_config(recipe), train=False, batch_images=1, fp16=False)
    symbol = build_detector(spec, train=False)
    shapes = inference_input_shapes(spec, 1, 512, 640)
    memory = memory_of(symbol, shapes, trained=False)
    assert memory.activations / MIB == pytest.approx(
        planned_by_mxnet(symbol, shapes, trained=False), rel=0.05, abs=1.5
    )


def test_workspace_of_a_convolution():
    layer = mx.sym.Convolution(mx.sym.var("data"), num_filter=16, kernel=(3, 3), pad=(1, 1))
    graph = sized_graph(layer, {"data": (2, 4, 10, 10)})
    output, weights = 2 * 16 * 100 * 4, 16 * 4 * 9 * 4
    tested = workspace(graph, train=False, on_gpu=False)
    assert (tested.layers, tested.kept) == (output // 2, 0)
    trained = workspace(graph, train=True, on_gpu=False)
    assert (trained.layers, trained.kept) == (output + 2 * weights, 2 * weights)
    unfolded = 2 * (4 * 9) * 100 * 4
    assert workspace(graph, train=True, on_gpu=True).total == unfolded


def test_deformable_convolutions_unfold_the_whole_batch_on_a_gpu():
    data, offset = mx.sym.var("data"), mx.sym.var("offset")
    layer = mx.sym.contrib.DeformableConvolution(
        data, offset, num_filter=8, kernel=(3, 3), pad=(1, 1), no_bias=True
    )
    shapes = {"data": (3, 4, 10, 10), "offset": (3, 18, 10, 10)}
    graph = sized_graph(layer, shapes)
    assert workspace(graph, train=False, on_gpu=True).columns == 3 * (4 * 9) * 100 * 4
    tested = workspace(graph, train=False, on_gpu=False).columns
    assert tested == 4 * (4 * 100 + 8 * 4 * 9) + 9 * 100 * 20
    assert workspace(graph, train=True, on_gpu=False).columns > 2 * tested
