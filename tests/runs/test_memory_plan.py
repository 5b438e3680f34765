"""How much memory training and testing need, and what fits."""

from __future__ import annotations

import pytest

from sniper.config import load_config
from sniper.errors import ConfigError
from sniper.runs.measured_memory import measure_testing, measure_training
from sniper.runs.memory_plan import (
    MemoryPlan,
    asks_for_gpu,
    largest_batch,
    testing_memory,
    training_memory,
)

TOY = "sniper_res18_toy"


def toy(*overrides):
    return load_config(TOY, ["gpus", "cpu", *overrides])


def test_activations_grow_with_the_batch_and_weights_do_not():
    few, many = (training_memory(toy(), batch_images=batch) for batch in (4, 16))
    assert many.items["weights"] == few.items["weights"]
    assert many.items["activations"] == pytest.approx(4 * few.items["activations"], rel=0.05)
    assert many.total == sum(many.items.values()) > few.total


def test_chips_of_half_the_side_need_about_a_quarter():
    large, small = (training_memory(toy(), chip_size=side) for side in (256, 128))
    assert 3 < large.items["activations"] / small.items["activations"] < 4.5


def test_sums_averages_and_frozen_layers_count():
    plain = training_memory(toy())
    summed = training_memory(toy("TRAIN.ACCUMULATION_STEPS", "2"))
    assert summed.items["gradients"] == 2 * plain.items["gradients"]
    averaged = training_memory(toy("TRAIN.EMA_DECAY", "0.99"))
    assert averaged.items["averaged weights"] == plain.items["gradients"]
    frozen = training_memory(toy("network.FIXED_PARAMS", "['bn_data', 'conv0', 'bn0', 'stage1']"))
    assert frozen.items["gradients"] < plain.items["gradients"]
    assert frozen.items["activations"] < plain.items["activations"]


def test_a_gpu_need_not_be_there_and_halves_the_layers():
    halves = training_memory(load_config("sniper_res101_e2e", ["gpus", "0"]), batch_images=2)
    full = training_memory(
        load_config("sniper_res101_e2e", ["gpus", "0", "TRAIN.fp16", "False"]), batch_images=2
    )
    assert halves.on_gpu and full.on_gpu
    assert 0.5 < halves.items["activations"] / full.items["activations"] < 0.65
    # Float32 momenta, and masters of the layers in float16.
    assert halves.items["optimizer"] > full.items["optimizer"]


@pytest.mark.parametrize(
    ("gpus", "expected"), [("", False), ("cpu", False), ("cpu,cpu", False), ("0,1", True)]
)
def test_devices_are_read_as_runs_read_them(gpus, expected):
    assert asks_for_gpu(load_config(TOY, ["gpus", gpus])) is expected


def test_testing_follows_the_levels():
    single = testing_memory(toy(), (320, 240), mode="single")
    pyramid = testing_memory(toy(), (320, 240), mode="pyramid")
    assert single.items["activations"] < pyramid.items["activations"]
    assert "1 level(s): 448x352" in single.what and "1280x960" in pyramid.what
    # A CPU sees windows one by one.
    assert testing_memory(toy(), (320, 240), batch_images=8).items == pyramid.items
    bound = testing_memory(toy("TEST.MAX_PIXELS", "200000"), (320, 240), mode="pyramid")
    assert bound.items["activations"] < 0.25 * pyramid.items["activations"]


def test_masks_have_a_head_of_their_own():
    masks = ["symbol", "mobilenetv2_e2e_mask", "TRAIN.WITH_MASK", "True"]
    cfg = load_config("sniper_mobilenetv2_toy", ["gpus", "cpu", *masks])
    assert testing_memory(cfg, (160, 120), mode="single").items["mask head"] > 0
    assert "mask head" not in testing_memory(toy(), (160, 120), mode="single").items


def test_an_image_that_no_level_can_see_is_refused():
    with pytest.raises(ConfigError, match="too thin"):
        testing_memory(toy(), (100000, 1))


def plan_of(size, *, on_gpu=False):
    return MemoryPlan("", {"all": size}, size, "layer", (), on_gpu)


@pytest.mark.parametrize("most", [1, 2, 3, 63, 64, 65, 4096])
def test_the_largest_batch_is_exact(most):
    memory = plan_of(0).around + most * 1_000_000
    assert largest_batch(lambda batch: plan_of(batch * 1_000_000), memory) == most


def test_nothing_may_fit():
    assert largest_batch(lambda batch: plan_of(batch * 1_000_000), 1_000_000) == 0


def test_gpus_keep_a_reserve():
    memory = 10_000_000_000
    assert plan_of(int(memory * 0.95) - 500_000_000, on_gpu=True).fits(memory)
    assert not plan_of(int(memory * 0.95) - 499_000_000, on_gpu=True).fits(memory)


def test_peaks_are_measured_on_a_cpu_alone():
    with pytest.raises(ConfigError, match="on the CPU"):
        measure_training(load_config(TOY, ["gpus", "0"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        "sniper_mobilenetv2_toy",
        "sniper_res18_toy_autofocus",
        "ssh_mobilenetv2_toy",
        "mobilenetv2_3k_toy",
    ],
)
def test_plans_are_within_15_percent_of_measured_peaks(recipe, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as docs/plan_memory.md says it is measured
    cfg = load_config(recipe, ["gpus", "cpu"])
    training, testing = measure_training(cfg), measure_testing(cfg, (320, 240))
    assert training_memory(cfg).total == pytest.approx(training.above_process, rel=0.15)
    assert testing_memory(cfg, (320, 240)).total == pytest.approx(testing.above_process, rel=0.15)
