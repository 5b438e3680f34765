"""Several devices and several workers: the same updates as one that sees all chips."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import mxnet as mx
import numpy as np
import pytest

from sniper.loader.train import Batch
from sniper.models.assembly import (
    DetectorSpec,
    ProposalSettings,
    batch_contract,
    build_detector,
    train_input_shapes,
)
from sniper.models.weights import fixed_names, initialise
from sniper.training.step_settings import StepSettings
from sniper.training.stepper import Stepper
from tests.training import step_toys as toys

CLOSE = {"rtol": 2e-5, "atol": 1e-7}


def weights_of(stepper):
    return {n: v for n, v in toys.values(stepper).items() if not toys.is_statistic(n)}


def devices_of(stepper):
    return [{n: v.asnumpy() for n, v in r.parameters.items()} for r in stepper._replicas]


def two_batches(seed):
    return toys.toy_batch(4, 2 * seed), toys.toy_batch(4, 2 * seed + 1)


@pytest.mark.instruction_sets
def test_two_devices_with_mean_equal_one_with_all_chips():
    two = toys.make_stepper(4, devices=2, frozen=True, reduction="mean", clip_gradient=0.05)
    one = toys.make_stepper(8, frozen=True, clip_gradient=0.05)
    for seed in range(6):
        batch = toys.joined(*two_batches(seed))
        got, expected = two.step(batch), one.step(batch)
        toys.assert_same(got.outputs, expected.outputs, rtol=1e-4, atol=1e-6)
    toys.assert_same(toys.values(two), toys.values(one), **CLOSE)
    assert two.replicas == 2
    toys.assert_same(*devices_of(two))


def test_two_devices_with_mean_differ_where_the_labels_do():
    """Each device divides its loss by its own labels: unequal numbers weigh unequally."""
    two = toys.make_stepper(4, devices=2, frozen=True, reduction="mean")
    one = toys.make_stepper(8, frozen=True)
    batch = toys.joined(*two_batches(0))
    batch.label["label"][:3] = -1
    for stepper in (two, one):
        stepper.step(batch)
    difference = toys.values(two)["cls_bias"] - toys.values(one)["cls_bias"]
    assert np.abs(difference).max() > 1e-4


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_two_devices_equal_two_accumulated_batches(reduction):
    """Also with batch statistics: these are made of the same chips in both cases."""
    two = toys.make_stepper(4, devices=2, reduction=reduction, ema_decay=0.9)
    one = toys.make_stepper(4, accumulation=2, reduction=reduction, ema_decay=0.9)
    for seed in range(6):
        parts = two_batches(seed)
        two.step(toys.joined(*parts))
        for part in parts:
            one.step(part)
    assert two.updates == one.updates == 6
    toys.assert_same(weights_of(two), weights_of(one))
    averages = [stepper.averaged_params()[0] for stepper in (two, one)]
    toys.assert_same(*({n: v.asnumpy() for n, v in a.items()} for a in averages))


def test_the_sum_of_2018_grows_with_the_devices():
    moves = []
    for devices in (1, 2, 3):
        stepper = toys.make_stepper(4, devices=devices, wd=0.0)
        before = weights_of(stepper)
        batch = batch_of_one = toys.toy_batch(4, 0)
        for _ in range(devices - 1):
            batch = toys.joined(batch, batch_of_one)
        stepper.step(batch)
        after = weights_of(stepper)
        moves.append({name: after[name] - before[name] for name in after})
    for devices in (2, 3):
        for name, move in moves[0].items():
            np.testing.assert_allclose(moves[devices - 1][name], devices * move, 1e-3, 1e-6)


def test_statistics_are_the_mean_over_the_devices():
    stepper = toys.make_stepper(4, devices=2)
    stepper.step(toys.joined(*two_batches(0)))
    each = [r.statistics["bn0_moving_mean"].asnumpy() for r in stepper._replicas]
    assert (each[0] != each[1]).any()
    np.testing.assert_allclose(toys.values(stepper)["bn0_moving_mean"], sum(each) / 2, rtol=1e-6)


def test_states_go_from_several_devices_to_one(tmp_path):
    two = toys.make_stepper(4, devices=2)
    one = toys.make_stepper(4, accumulation=2)
    two.step(toys.joined(*two_batches(0)))
    one._replicas[0].set_parameters(*two.params())
    one.restore(two.state(), 1, tmp_path)
    parts = two_batches(1)
    two.step(toys.joined(*parts))
    for part in parts:
        one.step(part)
    toys.assert_same(weights_of(two), weights_of(one))


class SumStore:
    """The part of a `dist_sync` store that a `Stepper` uses, for threads of one process."""

    def __init__(self, workers):
        self.workers = workers
        self.values = {}
        self.parts = {}
        self.ready = threading.Condition()

    def worker(self, rank):
        return WorkerStore(self, rank)

    def push(self, key, rank, value):
        with self.ready:
            assert self.ready.wait_for(lambda: rank not in self.parts.setdefault(key, {}), 20)
            self.parts[key][rank] = value
            if len(self.parts[key]) == self.workers:
                self.values[key] = sum(self.parts[key][r] for r in range(self.workers))
                self.ready.notify_all()

    def pull(self, key, rank):
        with self.ready:
            parts = self.parts.setdefault(key, {})
            assert self.ready.wait_for(lambda: rank not in parts or self.complete(key), 20)
            value = self.values[key]
            parts.setdefault("pulled", set()).add(rank)
            if len(parts["pulled"]) == self.workers:
                self.parts[key] = {}
                self.ready.notify_all()
            return value

    def complete(self, key):
        return len([rank for rank in self.parts[key] if rank != "pulled"]) == self.workers


class WorkerStore:
    """One worker's end of a `SumStore`."""

    def __init__(self, shared, rank):
        self.shared, self.rank, self.num_workers = shared, rank, shared.workers

    def init(self, key, value):
        with self.shared.ready:
            if self.rank == 0:
                self.shared.values[key] = value.asnumpy()
                self.shared.ready.notify_all()
            assert self.shared.ready.wait_for(lambda: key in self.shared.values, 20)

    def push(self, key, value, priority=0):
        self.shared.push(key, self.rank, value.asnumpy())

    def pull(self, key, out, priority=0):
        out[:] = self.shared.pull(key, self.rank)


def in_threads(functions):
    with ThreadPoolExecutor(len(functions)) as pool:
        return [future.result(60) for future in [pool.submit(each) for each in functions]]


@pytest.mark.parametrize(("reduction", "devices"), [("sum", 1), ("mean", 1), ("mean", 2)])
def test_two_workers_equal_two_devices(reduction, devices):
    """Weights, momenta and the number of updates; the second worker starts with others."""
    batches = [toys.toy_batch(8 * devices, seed) for seed in range(4)]
    store = SumStore(2)

    def worker(rank):
        stepper = None

        def run():
            nonlocal stepper
            stepper = toys.make_stepper(
                4, devices=devices, kvstore=store.worker(rank), reduction=reduction, seed=rank
            )
            for batch in batches:
                rows = slice(rank * 4 * devices, (rank + 1) * 4 * devices)
                data, label = (
                    {name: value[rows] for name, value in group.items()}
                    for group in (batch.data, batch.label)
                )
                stepper.step(Batch(data, label, batch.index, [], []))
            return stepper

        return run

    workers = in_threads([worker(0), worker(1)])
    alone = toys.make_stepper(4, devices=2 * devices, reduction=reduction)
    for batch in batches:
        alone.step(batch)
    assert not any(name.startswith("aux:") for name in workers[0].state())
    assert [w.replicas for w in workers] == [2 * devices] * 2 == [alone.replicas] * 2
    toys.assert_same(weights_of(workers[0]), weights_of(workers[1]))
    toys.assert_same(weights_of(workers[0]), weights_of(alone), **CLOSE)


def test_an_overflow_of_one_worker_stops_the_update_of_both():
    store = SumStore(2)

    def worker(rank):
        def run():
            stepper = toys.make_stepper(
                4, kvstore=store.worker(rank), dynamic_loss_scale=True, loss_scale=8.0
            )
            weight = np.full((4, 4), np.inf if rank else 1.0)
            results = [
                stepper.step(toys.toy_batch(4, 0, box_weight=weight)),
                stepper.step(toys.toy_batch(4, rank)),
            ]
            return [(r.updated, r.skipped, r.loss_scale) for r in results]

        return run

    assert in_threads([worker(0), worker(1)]) == [[(False, True, 8.0), (True, False, 4.0)]] * 2


def test_a_store_of_mxnet_sums_as_expected():
    """MXNet's own store with one worker: what is pushed comes back, weights included."""
    steppers = [toys.make_stepper(kvstore=kvstore) for kvstore in (None, mx.kv.create("local"))]
    for seed in range(4):
        for stepper in steppers:
            stepper.step(toys.toy_batch(4, seed))
    toys.assert_same(*map(toys.values, steppers))


# ------------------------------------------------------------------- a whole detector

CHIP, CLASSES = 96, 4


FEW_ROIS = ProposalSettings(-1, 0.9, 3, 12)


def detector(images, devices, *, frozen, proposal=FEW_ROIS, **settings):
    """A tiny ResNet-18 detector; under `mean` the box loss is divided by 188 x images."""
    spec = DetectorSpec(
        "resnet_mx_18_e2e",
        CLASSES,
        anchor_scales=(1, 2, 3),
        anchor_ratios=(0.5, 1, 2),
        feature_stride=16,
        batch_images=images,
        rpn_batch_size=16,
        width=0.25,
        roi_channels=16,
        fc_channels=32,
        proposal=proposal,
        max_gt=5,
        bn_mode="frozen" if frozen else "batch",
        bbox_loss_divisor=188 * images,
    )
    symbol = build_detector(spec, train=True)
    shapes = train_input_shapes(spec, CHIP)
    arg, aux, _ = initialise(symbol, shapes, None, 0)
    # Boxes that do not cover each other: no chip runs out of proposals, whose place others take.
    arg["rpn_bbox_pred_weight"][:] = 0
    fixed = fixed_names(symbol, ["gamma", "beta"] if frozen else [])
    usual = {"lr": 0.02, "momentum": 0.9, "wd": 1e-4, "fixed": tuple(fixed)}
    settings = StepSettings(**{**usual, **settings})
    contexts = [mx.cpu(i) for i in range(devices)]
    return Stepper(spec, symbol, contexts, shapes, arg, aux, settings), shapes, spec


def detector_batch(shapes, spec, seed, images):
    """Sixteen labels on every chip, so that all losses are divided by the same numbers."""
    rng = np.random.default_rng(seed)
    shapes = {name: (images, *shape[1:]) for name, shape in shapes.items()}
    anchors, side = spec.num_anchors, CHIP // 16
    label = np.full(shapes["label"], -1.0)
    for row in label:
        chosen = rng.choice(row.size, 16, replace=False)
        row[chosen] = rng.integers(0, 2, 16)
    positive = (label == 1).reshape(images, anchors, 1, side, side)
    weight = np.repeat(positive, 4, axis=2).reshape(shapes["bbox_weight"])
    boxes = np.full(shapes["gt_boxes"], -1.0)
    for row in boxes:
        corner = rng.integers(2, 40, (2, 2))
        row[:2] = np.hstack([corner, corner + rng.integers(20, 50, (2, 2)), [[1], [CLASSES - 1]]])
    arrays = {
        "data": rng.normal(0, 50, shapes["data"]),
        "valid_ranges": np.tile([0.0, 512.0], (images, 1)),
        "im_info": np.tile([CHIP, CHIP, 1.0], (images, 1)),
        "label": label,
        "bbox_target": rng.normal(0, 0.5, shapes["bbox_target"]) * weight,
        "bbox_weight": weight,
        "gt_boxes": boxes,
    }
    arrays = {name: value.astype(np.float32) for name, value in arrays.items()}
    label_arrays = {name: arrays.pop(name) for name in batch_contract(spec, CHIP).label_names}
    return Batch(arrays, label_arrays, seed, [], [])


def split(batch, parts):
    def part(index):
        def cut(group):
            return {name: np.split(value, parts)[index] for name, value in group.items()}

        return Batch(cut(batch.data), cut(batch.label), batch.index, [], [])

    return [part(index) for index in range(parts)]


# Every anchor is a RoI and no box suppresses another, so the scores decide the order of the RoIs
# but not which ones there are. The two objects of a chip join them.
ALL_ROIS = ProposalSettings(-1, 1.0, 3, 9 * (CHIP // 16) ** 2 + 2)


def sorted_by_chip(outputs, images):
    return {name: np.sort(value.reshape(images, -1)) for name, value in outputs.items()}


def keep_boxes(stepper):
    """Lets the RPN put out its anchors again, whose labels no rounding can change."""
    for replica in stepper._replicas:
        for name in ("rpn_bbox_pred_weight", "rpn_bbox_pred_bias"):
            replica.parameters[name][:] = 0


@pytest.mark.instruction_sets
def test_a_detector_trains_alike_on_two_devices_and_on_one():
    """Mean, frozen norms, equal numbers of labels: two devices x 2 chips = one x 4.

    To rounding only: oneDNN may take other kernels for other batch sizes. The operators of the
    extension library run at the same time on both devices.
    """
    # A rate that keeps the weights small: what grows without limit magnifies every rounding.
    settings = {"frozen": True, "proposal": ALL_ROIS, "lr": 2e-4}
    two, shapes, spec = detector(2, 2, reduction="mean", **settings)
    one, _, _ = detector(4, 1, **settings)
    for seed in range(3):
        batch, start = detector_batch(shapes, spec, seed, 4), toys.values(one)
        got, expected = (sorted_by_chip(s.step(batch).outputs, 4) for s in (two, one))
        np.testing.assert_array_equal(got["roi_label"], expected["roi_label"])
        assert (got["roi_label"] > 0).any()
        toys.assert_same(got, expected, rtol=1e-3, atol=1e-5)
        ours, theirs = toys.values(two), toys.values(one)
        for name, value in theirs.items():
            moved = np.abs(value - start[name]).max()
            allowed = 5e-4 * moved + 4 * np.spacing(np.abs(value).max())
            assert np.abs(ours[name] - value).max() <= allowed, name
        keep_boxes(one)
        keep_boxes(two)


@pytest.mark.instruction_sets
def test_a_detector_trains_alike_on_two_devices_and_by_accumulation():
    two, shapes, spec = detector(2, 2, frozen=False)
    one, _, _ = detector(2, 1, frozen=False, accumulation=2)
    for seed in range(3):
        batch = detector_batch(shapes, spec, seed, 4)
        outputs = two.step(batch).outputs
        parts = [one.step(part).outputs for part in split(batch, 2)]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        toys.assert_same(outputs, joined)
    toys.assert_same(weights_of(two), weights_of(one))


def test_a_detector_is_bound_anew_for_another_loss_scale():
    """Through the graph's JSON form, with the operators of the extension library in it."""
    options = {"dynamic_loss_scale": True, "loss_scale_window": 1}
    growing, shapes, spec = detector(2, 1, frozen=False, **options)
    plain, _, _ = detector(2, 1, frozen=False)
    for seed in range(3):
        batch = detector_batch(shapes, spec, seed, 2)
        outputs = [stepper.step(batch).outputs for stepper in (growing, plain)]
        toys.assert_same(*outputs)
    assert growing.state()["scalars"].asnumpy()[0] == 8
    toys.assert_same(toys.values(growing), toys.values(plain))
