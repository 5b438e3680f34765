"""The training step: equal to MXNet's own, states in and out, accumulation, averaging."""

from __future__ import annotations

from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from sniper.errors import TrainingError
from sniper.training.averaging import decay_at
from sniper.training.schedule import WarmupSchedule
from tests.training import step_toys as toys

WHERE = Path("somewhere.states")


def module_of_mxnet(images, scale=1.0, clip=0.0, fp16=False):
    """MXNet's own training step with the settings of the toy."""
    symbol = toys.toy_symbol(images, scale=scale, fp16=fp16)
    shapes = toys.toy_shapes(images)
    labels = ["label", "box_target", "box_weight"]
    module = mx.mod.Module(symbol, ["data"], labels, fixed_param_names=list(toys.SETTINGS["fixed"]))
    module.bind([("data", shapes["data"])], [(name, shapes[name]) for name in labels])
    module.set_params(*toys.toy_weights(symbol, images))
    schedule = WarmupSchedule(toys.SETTINGS["lr"] / scale, (6,), 0.1, 0.02 / scale, 4)
    options = {
        "learning_rate": toys.SETTINGS["lr"] / scale,
        "momentum": 0.9,
        "wd": toys.SETTINGS["wd"] * scale,
        "lr_scheduler": schedule,
        "rescale_grad": 1.0,
        "clip_gradient": clip or None,
        "multi_precision": fp16,
    }
    module.init_optimizer("device", "sgd", options)
    return module


def module_step(module, batch):
    label = [mx.nd.array(batch.label[name]) for name in module.label_names]
    module.forward_backward(mx.io.DataBatch([mx.nd.array(batch.data["data"])], label))
    module.update()
    return [output.asnumpy() for output in module.get_outputs()]


def module_values(module):
    arg, aux = module.get_params()
    return {name: value.asnumpy() for name, value in {**arg, **aux}.items()}


@pytest.mark.parametrize(
    ("scale", "clip", "fp16"), [(1.0, 0.0, False), (100.0, 0.0, True), (1.0, 0.05, False)]
)
def test_one_device_makes_the_updates_of_mxnet_bit_for_bit(scale, clip, fp16):
    module = module_of_mxnet(4, scale, clip, fp16)
    stepper = toys.make_stepper(
        clip_gradient=clip, fp16=fp16, multi_precision=fp16, loss_scale=scale
    )
    for update in range(1, 10):
        batch = toys.toy_batch(4, seed=update)
        expected = module_step(module, batch)
        result = stepper.step(batch)
        for output, value in zip(result.outputs.values(), expected):
            np.testing.assert_array_equal(output, value)
        assert (result.updated, result.skipped, result.loss_scale) == (True, False, scale)
        assert stepper.updates == update
        toys.assert_same(toys.values(stepper), module_values(module))
    assert list(result.outputs) == ["prob", "box_loss"]
    assert stepper.learning_rate == pytest.approx(0.01)


def test_fixed_parameters_stay_and_all_others_move():
    stepper = toys.make_stepper()
    before = toys.values(stepper)
    stepper.step(toys.toy_batch(4, seed=1))
    after = toys.values(stepper)
    moved = {name for name in before if (before[name] != after[name]).any()}
    assert moved == before.keys() - {"conv0_weight"}


def test_old_state_files_still_load():
    """A file of the step before this one: momenta of `_optimizer_arrays`, here from MXNet."""
    module, stepper = module_of_mxnet(4), toys.make_stepper()
    for seed in range(3):
        module_step(module, toys.toy_batch(4, seed))
    names = [name for name in module._param_names if name not in toys.SETTINGS["fixed"]]
    states = module._updater.states
    old = {f"0:{name}:0": states[module._param_names.index(name)] for name in names}
    stepper._replicas[0].set_parameters(*module.get_params())
    stepper.restore(old, 3, WHERE)
    assert stepper.updates == 3
    for seed in range(3, 8):
        module_step(module, toys.toy_batch(4, seed))
        stepper.step(toys.toy_batch(4, seed))
    toys.assert_same(toys.values(stepper), module_values(module))


def saved(stepper):
    """What a checkpoint holds: states by way of a file, parameters, number of updates."""
    copies = {name: value.copyto(mx.cpu()) for name, value in stepper.state().items()}
    return stepper.params(), copies, stepper.updates


def resumed(parts, **options):
    params, state, updates = parts
    stepper = toys.make_stepper(**options)
    for replica in stepper._replicas:
        replica.set_parameters(*params)
    stepper.restore(state, updates, WHERE)
    return stepper


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"devices": 2},
        {"steps": (), "cosine_updates": 8},
        {"accumulation": 3, "ema_decay": 0.9},
        {"fp16": True, "multi_precision": True, "loss_scale": 8.0, "ema_decay": 0.5},
        {"dynamic_loss_scale": True, "loss_scale": 4.0, "loss_scale_window": 3},
    ],
)
@pytest.mark.parametrize("stop", [3, 4])
def test_a_resumed_run_equals_an_unbroken_one(options, stop):
    batches = [toys.toy_batch(4 * options.get("devices", 1), seed) for seed in range(8)]
    unbroken = toys.make_stepper(**options)
    for batch in batches[:stop]:
        unbroken.step(batch)
    again = resumed(saved(unbroken), **options)
    for batch in batches[stop:]:
        one, other = unbroken.step(batch), again.step(batch)
        assert (one.updated, one.loss_scale) == (other.updated, other.loss_scale)
    toys.assert_same(toys.values(again), toys.values(unbroken))
    assert again.updates == unbroken.updates
    toys.assert_same(*({n: v.asnumpy() for n, v in s.state().items()} for s in (again, unbroken)))
    if unbroken.averaged_params():
        toys.assert_same(*(
            {n: v.asnumpy() for n, v in s.averaged_params()[0].items()} for s in (again, unbroken)
        ))  # fmt: skip


def test_states_survive_the_file_format(tmp_path):
    stepper = toys.make_stepper(ema_decay=0.9)
    stepper.step(toys.toy_batch(4, 0))
    mx.nd.save(str(tmp_path / "a"), stepper.state())
    loaded = mx.nd.load(str(tmp_path / "a"))
    assert loaded["scalars"].dtype == np.float64
    toys.assert_same(*({n: v.asnumpy() for n, v in s.items()} for s in (loaded, stepper.state())))


@pytest.mark.parametrize("prefix", ["0:cls_weight:0", "ema:cls_weight"])
@pytest.mark.parametrize("broken", ["missing", "shape"])
def test_states_of_another_network_are_refused(prefix, broken):
    stepper = toys.make_stepper(ema_decay=0.9)
    stepper.step(toys.toy_batch(4, 0))
    arrays = dict(stepper.state())
    if broken == "missing":
        del arrays[prefix]
    else:
        arrays[prefix] = mx.nd.zeros((2, 2))
    with pytest.raises(TrainingError, match=r"somewhere\.states") as info:
        toys.make_stepper(ema_decay=0.9).restore(arrays, 1, WHERE)
    assert "cls_weight" in str(info.value)


def test_an_unfinished_sum_needs_its_accumulation():
    stepper = toys.make_stepper(accumulation=3)
    stepper.step(toys.toy_batch(4, 0))
    stepper.step(toys.toy_batch(4, 1))
    with pytest.raises(TrainingError, match="ACCUMULATION_STEPS 2"):
        toys.make_stepper(accumulation=2).restore(stepper.state(), 0, WHERE)
    arrays = {n: v for n, v in stepper.state().items() if n != "accumulated:cls_bias"}
    with pytest.raises(TrainingError, match="unfinished update"):
        toys.make_stepper(accumulation=3).restore(arrays, 0, WHERE)


def test_accumulation_with_mean_equals_one_large_batch():
    """With frozen norms; the mean over batches of means is the mean over all their chips."""
    parts = [toys.toy_batch(4, seed) for seed in range(6)]
    small = toys.make_stepper(4, frozen=True, accumulation=2, reduction="mean")
    large = toys.make_stepper(8, frozen=True)
    flags = [small.step(part).updated for part in parts]
    assert flags == [False, True] * 3
    assert (small.updates, small.replicas) == (3, 2)
    outputs = [large.step(toys.joined(*parts[i : i + 2])).outputs for i in (0, 2, 4)]
    assert outputs[0]["prob"].shape[0] == 8
    toys.assert_same(toys.values(small), toys.values(large), rtol=1e-5, atol=1e-7)


def test_sums_of_accumulated_batches_grow_with_their_number():
    batch = toys.toy_batch(4, 0)
    moves = []
    for accumulation in (1, 3):
        stepper = toys.make_stepper(frozen=True, wd=0.0, accumulation=accumulation)
        before = toys.values(stepper)
        for _ in range(accumulation):
            stepper.step(batch)
        after = toys.values(stepper)
        moves.append({name: after[name] - before[name] for name in after})
    for name in moves[0]:
        np.testing.assert_allclose(moves[1][name], 3 * moves[0][name], rtol=1e-3, atol=1e-6)


def test_the_average_follows_its_rule_and_leaves_the_training_alone():
    averaging, plain = toys.make_stepper(ema_decay=0.4), toys.make_stepper()
    assert plain.averaged_params() is None
    expected = toys.values(averaging)
    for update in range(1, 6):
        for stepper in (averaging, plain):
            stepper.step(toys.toy_batch(4, update))
        decay = min(0.4, (1 + update) / (10 + update))
        for name, value in toys.values(plain).items():
            expected[name] = decay * expected[name].astype(np.float64) + (1 - decay) * value
    toys.assert_same(toys.values(averaging), toys.values(plain))
    arg, aux = averaging.averaged_params()
    for name, value in arg.items():
        np.testing.assert_allclose(value.asnumpy(), expected[name], rtol=1e-5, atol=1e-7)
    toys.assert_same({n: v.asnumpy() for n, v in aux.items()}, {
        n: v for n, v in toys.values(plain).items() if n in aux
    })  # fmt: skip
    assert [decay_at(n, 0.999) for n in (1, 90, 100_000)] == pytest.approx([2 / 11, 0.91, 0.999])


def test_averages_of_half_precision_weights_take_the_masters():
    """Steps below the resolution of fp16 reach the masters, and so the average."""
    stepper = toys.make_stepper(
        fp16=True, multi_precision=True, ema_decay=0.5, lr=1e-5, warmup_step=0, wd=0.0
    )
    start = toys.values(stepper)["gain_weight"]
    for seed in range(4):
        stepper.step(toys.toy_batch(4, seed))
    assert start.dtype == np.float16
    np.testing.assert_array_equal(toys.values(stepper)["gain_weight"], start)
    average = stepper.state()["ema:gain_weight"].asnumpy()
    assert average.dtype == np.float32
    assert (average != start).all()


def test_what_is_given_out_does_not_change_with_the_next_step():
    stepper = toys.make_stepper(ema_decay=0.9)
    stepper.step(toys.toy_batch(4, 0))
    before = toys.values(stepper)
    arg, aux = stepper.params()
    averaged = {n: v.asnumpy() for n, v in stepper.averaged_params()[0].items()}
    kept = stepper.averaged_params()[0]
    stepper.step(toys.toy_batch(4, 1))
    toys.assert_same({n: v.asnumpy() for n, v in {**arg, **aux}.items()}, before)
    toys.assert_same({n: v.asnumpy() for n, v in kept.items()}, averaged)


def test_batches_that_do_not_fit_are_refused():
    stepper = toys.make_stepper(4, devices=2)
    with pytest.raises(TrainingError, match="4 chips"):
        stepper.step(toys.toy_batch(4, 0))
    batch = toys.toy_batch(8, 0)
    del batch.label["box_weight"]
    with pytest.raises(TrainingError, match="box_weight"):
        stepper.step(batch)


def test_weights_of_another_network_are_refused():
    arg, aux = toys.make_stepper().params()
    replica = toys.make_stepper()._replicas[0]
    del arg["cls_bias"]
    with pytest.raises(TrainingError, match="cls_bias"):
        replica.set_parameters(arg, aux)
