"""Several training processes divide the batches: together they are those of a single one."""

from __future__ import annotations

import time

import numpy as np
import pytest

from sniper.chips.sampler import ChipSettings
from sniper.errors import ConfigError
from sniper.loader import train as module
from sniper.loader.train import BatchSettings, TrainLoader
from sniper.models.assembly import DetectorSpec, batch_contract
from sniper.models.spec import TargetSettings

RANGES = [(-1, 24), (16, -1)]
CHIPS = ChipSettings(scales=(2.0, 128.0), valid_ranges=RANGES, chip_size=128)


def settings_of(*, rpn_only=False, targets=None, **values):
    """Settings of a network with all heads; `values` of `DetectorSpec`."""
    base = {
        "rpn_batch_size": 32,
        "max_gt": 3,
        "targets": TargetSettings(RANGES, **(targets or {})),
    }
    network = ("resnet_mx_18_e2e_mask", 6, (1, 2, 4), (0.5, 1, 2), 16, 1)
    contract = batch_contract(DetectorSpec(*network, **{**base, **values}), 128, rpn_only=rpn_only)
    return BatchSettings(contract, pixel_means=(103.939, 116.779, 123.68))


BATCHES = settings_of()


def epochs_of(records, shard, *, starts=((0, 0), (1, 0)), workers=0, batch_size=12, **options):
    """Copies of all batches of some epochs, each as (index, paths, surplus, arrays)."""
    options = {"num_workers": workers, "seed": 7, "shard": shard, **options}
    with TrainLoader(records, CHIPS, BATCHES, batch_size=batch_size, **options) as loader:
        made = []
        for epoch, first in starts:
            loader.start_epoch(epoch, first_batch=first)
            assert loader.batches_per_epoch == len(loader._running().samples) // batch_size
            made.append([copy_of(batch) for batch in loader])
    return made


def copy_of(batch):
    arrays = {name: array.copy() for name, array in {**batch.data, **batch.label}.items()}
    return batch.index, batch.image_paths, batch.surplus_gt, arrays


def joined(shards):
    """The batches of all shards, put together in the order of the ranks."""
    for parts in zip(*shards):
        (index,) = {part[0] for part in parts}
        paths, surplus = ([x for part in parts for x in part[k]] for k in (1, 2))
        names = parts[0][3]
        yield index, paths, surplus, {n: np.concatenate([p[3][n] for p in parts]) for n in names}


def assert_same(first, second):
    first, second = list(first), list(second)
    assert [batch[:3] for batch in first] == [batch[:3] for batch in second]
    for (*_, a), (*_, b) in zip(first, second):
        assert list(a) == list(b)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.fixture(scope="module")
def whole(image_records):
    """Two epochs of a single process."""
    return epochs_of(image_records, (0, 1))


@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_the_shards_together_are_the_batches_of_one_process(image_records, whole, count):
    shards = [epochs_of(image_records, (rank, count)) for rank in range(count)]
    for epoch, expected in enumerate(whole):
        assert len(expected) > 2 and any(any(batch[2]) for batch in expected), "worth comparing"
        of_epoch = [shard[epoch] for shard in shards]
        assert all(len(shard) == len(expected) for shard in of_epoch)
        assert_same(joined(of_epoch), expected)


def test_worker_processes_change_nothing(image_records, whole):
    shards = [
        epochs_of(image_records, (0, 2), workers=2, prefetch=2),
        epochs_of(image_records, (1, 2), workers=1, prefetch=3),
    ]
    for epoch, expected in enumerate(whole):
        assert_same(joined(shard[epoch] for shard in shards), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_begin_in_the_middle_of_an_epoch(image_records, whole, workers):
    last = len(whole[0])
    starts = ((0, 2), (1, 1), (0, last))
    shards = [
        epochs_of(image_records, (rank, 2), starts=starts, workers=workers) for rank in range(2)
    ]
    for run, (epoch, first) in enumerate(starts):
        assert_same(joined(shard[run] for shard in shards), whole[epoch][first:])


def test_the_next_epoch_is_made_ahead_also_from_the_middle(image_records, whole, monkeypatch):
    begun = []
    original = module.make_epoch

    def spy(*arguments, epoch, **options):
        begun.append(epoch)
        return original(*arguments, epoch=epoch, **options)

    monkeypatch.setattr(module, "make_epoch", spy)
    options = {"num_workers": 0, "seed": 7, "shard": (1, 2), "end_epoch": 2}
    with TrainLoader(image_records, CHIPS, BATCHES, batch_size=12, **options) as loader:
        loader.start_epoch(0, first_batch=len(whole[0]) - 1)
        deadline_s = time.monotonic() + 10
        while begun != [0, 1]:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        assert [batch.index for batch in loader] == [len(whole[0]) - 1]
        loader.start_epoch(1)
        paths = [batch.image_paths for batch in loader]
    assert paths == [batch[1][6:] for batch in whole[1]]
    assert begun == [0, 1]


def test_a_shard_loads_only_its_own_rows(image_records, monkeypatch):
    made = []
    original = module.BatchStream._tasks

    def counting(stream, index):
        tasks = original(stream, index)
        made.append(len(tasks))
        return tasks

    monkeypatch.setattr(module.BatchStream, "_tasks", counting)
    (epoch,) = epochs_of(image_records, (2, 3), starts=((0, 0),))
    assert made == [4] * len(epoch)


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0)])
def test_shards_that_do_not_exist(image_records, shard):
    with pytest.raises(ConfigError, match="rank"):
        epochs_of(image_records, shard)


def test_a_batch_that_cannot_be_divided(image_records):
    with pytest.raises(ConfigError, match="12 chips for 5 processes"):
        epochs_of(image_records, (0, 5))
