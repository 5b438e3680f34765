from __future__ import annotations

import dataclasses
import gc
import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from sniper.chips.sampler import ChipSettings
from sniper.data.image import read_image
from sniper.data.record import with_proposals
from sniper.errors import ConfigError, DataError, TrainingError
from sniper.loader import stream
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
        "max_gt": 10,
        "targets": TargetSettings(RANGES, **(targets or {})),
    }
    network = ("resnet_mx_18_e2e_mask", 6, (1, 2, 4), (0.5, 1, 2), 16, 1)
    contract = batch_contract(DetectorSpec(*network, **{**base, **values}), 128, rpn_only=rpn_only)
    return BatchSettings(contract, pixel_means=(103.939, 116.779, 123.68))


BATCHES = settings_of()


def loader_of(records, workers=0, *, batches=BATCHES, **options):
    settings = {"batch_size": 4, "seed": 7, **options}
    return TrainLoader(records, CHIPS, batches, num_workers=workers, **settings)


def copies(loader):
    """All batches that are left in the epoch, copied."""
    return [
        (
            batch.index,
            batch.image_paths,
            {k: v.copy() for k, v in {**batch.data, **batch.label}.items()},
        )
        for batch in loader
    ]


def assert_same(first, second):
    assert [batch[:2] for batch in first] == [batch[:2] for batch in second]
    for (_, _, a), (_, _, b) in zip(first, second):
        assert list(a) == list(b)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.fixture(scope="module")
def expected(image_records):
    """Epochs 0 and 1, made in this process."""
    with loader_of(image_records) as loader:
        epochs = []
        for epoch in range(2):
            loader.start_epoch(epoch)
            epochs.append(copies(loader))
    return epochs


@pytest.mark.parametrize("workers, prefetch", [(1, 1), (2, 2), (4, 4)])
def test_content_does_not_depend_on_the_workers(image_records, expected, workers, prefetch):
    with loader_of(image_records, workers, prefetch=prefetch) as loader:
        for epoch in range(2):
            loader.start_epoch(epoch)
            assert_same(copies(loader), expected[epoch])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_exactly_where_it_was_interrupted(image_records, expected, workers):
    with loader_of(image_records, workers) as loader:
        loader.start_epoch(1, first_batch=3)
        assert loader.batches_per_epoch == len(expected[1])
        assert_same(copies(loader), expected[1][3:])
        loader.start_epoch(0, first_batch=len(expected[0]))
        assert copies(loader) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_running_epoch_can_be_given_up(image_records, expected, workers):
    with loader_of(image_records, workers) as loader:
        loader.start_epoch(0)
        next(loader)
        loader.start_epoch(1)
        assert_same(copies(loader), expected[1])


def test_epochs_and_seeds_differ(image_records, expected):
    def differ(a, b):
        return [x[1] for x in a] != [x[1] for x in b]

    assert differ(*expected)
    with loader_of(image_records, seed=8) as loader:
        loader.start_epoch(0)
        assert differ(copies(loader), expected[0])


def test_names_and_shapes_of_a_batch(image_records):
    with loader_of(image_records) as loader:
        loader.start_epoch(0)
        batch = next(loader)
    assert list(batch.data) == ["data", "valid_ranges", "im_info"]
    assert list(batch.label) == ["label", "bbox_target", "bbox_weight", "gt_boxes"]
    assert batch.data["data"].shape == (4, 3, 128, 128)
    assert batch.label["bbox_target"].shape == (4, 36, 8, 8)
    assert len(batch.image_paths) == 4 and batch.index == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_arrays_stay_valid_while_the_next_batch_is_in_use(image_records, expected, workers):
    with loader_of(image_records, workers, prefetch=1) as loader:
        loader.start_epoch(0)
        batch = next(loader)
        time.sleep(0.3)  # the workers fill all slots that they may
        np.testing.assert_array_equal(batch.data["data"], expected[0][0][2]["data"])
        next(loader)
        for name, array in {**batch.data, **batch.label}.items():
            np.testing.assert_array_equal(array, expected[0][0][2][name])


def test_small_image_caches_change_nothing(image_records, expected):
    with loader_of(image_records, 2, image_cache_mb=0) as loader:
        loader.start_epoch(0)
        assert_same(copies(loader), expected[0])


def test_an_image_is_decoded_once_for_its_chips_and_its_mirror_image(image_records, monkeypatch):
    decoded = []

    def spy(path, **options):
        decoded.append(path)
        return read_image(path, **options)

    monkeypatch.setattr("sniper.loader.images.read_image", spy)
    with loader_of(image_records) as loader:
        for epoch in range(2):
            loader.start_epoch(epoch)
            copies(loader)
    assert sorted(decoded) == sorted(record.image_path for record in image_records[:6])


def test_masks_and_focus_labels_do_not_depend_on_the_workers(image_records):
    batches = settings_of(auto_focus=True, with_masks=True)
    records = [
        dataclasses.replace(
            record, polygons=tuple((box[[0, 1, 2, 1, 2, 3]],) for box in record.boxes)
        )
        for record in image_records
    ]
    made = []
    for workers in (0, 2):
        with loader_of(records, workers, batches=batches) as loader:
            loader.start_epoch(0)
            made.append(copies(loader))
    assert_same(*made)
    names = ["gt_boxes", "scale_label", "gt_masks"]
    assert list(made[0][0][2])[-3:] == names
    assert all((of_batch["gt_masks"][:, 0, 1] > 0).any() for _, _, of_batch in made[0])


def test_proposals_and_unused_polygons_stay_with_the_parent(image_records, expected):
    """With 900 proposals an image they would be most of every message."""
    rng = np.random.default_rng(0)
    records = []
    for record in image_records:
        corner = rng.uniform(0, 50, (20_000, 2))
        boxes = np.concatenate([corner, corner + 20], axis=1).astype(np.float32)
        polygons = tuple((np.zeros(10_000, np.float32),) for _ in record.boxes)
        records.append(dataclasses.replace(with_proposals(record, boxes), polygons=polygons))
    with loader_of(records, 2) as loader:
        loader.start_epoch(0)
        assert_same(copies(loader), expected[0])
        loader.start_epoch(0)
        tasks = loader._stream._tasks(0)
        assert len(pickle.dumps(tasks)) < 1000 * len(tasks)


def begun_epochs(monkeypatch):
    """Numbers of the epochs whose chips are made from here on."""
    begun = []
    original = module.make_epoch

    def spy(*arguments, epoch, **options):
        begun.append(epoch)
        return original(*arguments, epoch=epoch, **options)

    monkeypatch.setattr(module, "make_epoch", spy)
    return begun


@pytest.mark.parametrize("workers", [0, 2])
def test_the_chips_of_the_next_epoch_are_made_meanwhile(
    image_records, expected, workers, monkeypatch
):
    begun = begun_epochs(monkeypatch)
    with loader_of(image_records, workers, end_epoch=2) as loader:
        loader.start_epoch(0)
        deadline_s = time.monotonic() + 10
        while begun != [0, 1]:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        assert_same(copies(loader), expected[0])
        loader.start_epoch(1)
        assert_same(copies(loader), expected[1])
    assert begun == [0, 1], "nothing is made beyond the last epoch, and nothing twice"


def test_nothing_is_made_ahead_without_a_last_epoch(image_records, monkeypatch):
    begun = begun_epochs(monkeypatch)
    with loader_of(image_records) as loader:
        loader.start_epoch(5)
        copies(loader)
    assert begun == [5]


def test_any_epoch_can_follow(image_records, expected):
    """A resumed run begins anywhere; what was made ahead for another epoch is dropped."""
    with loader_of(image_records, end_epoch=100) as loader:
        loader.start_epoch(7)
        loader.start_epoch(1)
        assert_same(copies(loader), expected[1])
        loader.start_epoch(0)
        loader.start_epoch(1, first_batch=2)
        assert_same(copies(loader), expected[1][2:])


def test_a_failure_in_the_background_is_raised_when_its_epoch_starts(image_records, monkeypatch):
    original = module.make_epoch

    def broken(*arguments, epoch, **options):
        if epoch == 1:
            raise DataError("no luck", where="epoch 1")
        return original(*arguments, epoch=epoch, **options)

    monkeypatch.setattr(module, "make_epoch", broken)
    with loader_of(image_records, 2, end_epoch=3) as loader:
        loader.start_epoch(0)
        copies(loader)
        with pytest.raises(DataError, match="no luck"):
            loader.start_epoch(1)


def test_close_ends_the_background_thread(image_records, monkeypatch):
    original = module.make_epoch

    def slow(*arguments, epoch, cancelled, **options):
        while epoch == 1 and not cancelled():
            time.sleep(0.01)
        return original(*arguments, epoch=epoch, cancelled=cancelled, **options)

    monkeypatch.setattr(module, "make_epoch", slow)
    loader = loader_of(image_records, end_epoch=3)
    loader.start_epoch(0)
    assert any(thread.name.startswith("sniper-chips") for thread in threading.enumerate())
    start_s = time.monotonic()
    loader.close()
    assert time.monotonic() - start_s < 10
    assert not any(thread.name.startswith("sniper-chips") for thread in threading.enumerate())


def test_a_loader_that_nobody_holds_ends_its_workers(image_records, all_gone):
    loader = loader_of(image_records, 2, end_epoch=3)
    loader.start_epoch(0)
    next(loader)
    workers = [process.pid for process in loader.processes]
    del loader
    gc.collect()
    assert all_gone(workers)


def test_every_chip_is_in_the_epoch_with_its_own_image(image_records, expected):
    paths = [path for _, of_batch, _ in expected[0] for path in of_batch]
    assert set(paths) == {record.image_path for record in image_records}
    images = {path: cv2.imread(path).reshape(-1, 3).mean() for path in set(paths)}
    assert len(images) == 6


def test_only_proposal(image_records):
    batches = settings_of(rpn_only=True)
    with loader_of(image_records, 1, batches=batches) as loader:
        loader.start_epoch(0)
        batch = next(loader)
    assert list(batch.data) == ["data"]
    assert list(batch.label) == ["label", "bbox_target", "bbox_weight"]


@pytest.mark.parametrize("workers", [0, 2])
def test_surplus_boxes_are_counted_and_reported_once_per_epoch(image_records, workers, caplog):
    batches = settings_of(max_gt=2)
    with loader_of(image_records, workers, batches=batches) as loader:
        for epoch in range(2):
            caplog.clear()
            loader.start_epoch(epoch)
            assert loader.epoch_stats.surplus_gt == 0
            with caplog.at_level(logging.WARNING):
                rows = [(b[2]["gt_boxes"][:, :, 4] > 0).sum(axis=1) for b in copies(loader)]
            stats = loader.epoch_stats
            assert stats.surplus_gt >= stats.chips_with_surplus > 0
            assert np.concatenate(rows).max() == 2
            messages = [r.getMessage() for r in caplog.records if "MAX_GT" in r.getMessage()]
            assert len(messages) == 1 and f" {stats.surplus_gt} boxes" in messages[0]
            assert stats.chips.chips > 0


def test_wait_time_counts_from_the_start_of_the_epoch(image_records):
    with loader_of(image_records) as loader:
        loader.start_epoch(0)
        assert loader.wait_time_s == 0
        next(loader)
        assert loader.wait_time_s > 0
        loader.start_epoch(1)
        assert loader.wait_time_s == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_image_ends_the_run_and_is_named(image_records, workers, tmp_path):
    path = tmp_path / "half.png"
    with open(image_records[0].image_path, "rb") as whole:
        path.write_bytes(whole.read()[:2000])
    broken = dataclasses.replace(image_records[0], image_path=str(path))
    with loader_of([broken, *image_records[1:]], workers) as loader:
        start_s = time.monotonic()
        with pytest.raises(DataError, match=r"half\.png"):
            loader.start_epoch(0)
            copies(loader)
        assert time.monotonic() - start_s < 10


@pytest.mark.parametrize(
    ("content", "words"), [(b"no image", "cannot be decoded"), (None, "cannot be read")]
)
def test_an_image_that_disappears_or_changes_is_named(image_records, tmp_path, content, words):
    copied = []
    for record in image_records:
        path = tmp_path / Path(record.image_path).name
        path.write_bytes(Path(record.image_path).read_bytes())
        copied.append(dataclasses.replace(record, image_path=str(path)))
    with loader_of(copied, 2, image_cache_mb=0) as loader:
        loader.start_epoch(0)
        next(loader)
        for path in tmp_path.iterdir():
            if content is None:
                path.unlink()
            else:  # in one step: a worker that reads meanwhile would see an empty file
                (tmp_path.parent / "new").write_bytes(content)
                (tmp_path.parent / "new").replace(path)
        with pytest.raises(DataError, match=words) as error:
            copies(loader)
        assert str(tmp_path) in str(error.value)


def made_samples(monkeypatch):
    """Counts the samples that all processes make from here on."""
    made = multiprocessing.Value("i", 0)
    original = stream.write_sample

    def counting(*arguments):
        with made.get_lock():
            made.value += 1
        return original(*arguments)

    monkeypatch.setattr(stream, "write_sample", counting)
    return made


def test_workers_wait_for_a_consumer_that_stalls(image_records, expected, monkeypatch):
    """Memory for a few batches is all they get; afterwards the run goes on as if nothing was."""
    made = made_samples(monkeypatch)
    with loader_of(image_records, 2, prefetch=2) as loader:
        loader.start_epoch(0)
        first = next(loader)
        deadline_s = time.monotonic() + 10
        while made.value < 3 * 4:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        time.sleep(0.5)
        assert made.value == 3 * 4, "the batch that was handed out and two ahead"
        assert first.index == 0
        assert_same(copies(loader), expected[0][1:])


def test_a_worker_that_dies_while_the_consumer_stalls(image_records, all_gone):
    with loader_of(image_records, 2, prefetch=2) as loader:
        loader.start_epoch(0)
        next(loader)
        workers = [process.pid for process in loader.processes]
        time.sleep(0.3)
        os.kill(workers[1], signal.SIGKILL)
        start_s = time.monotonic()
        with pytest.raises(TrainingError, match="SIGKILL"):
            copies(loader)
        assert time.monotonic() - start_s < 10
    assert all_gone(workers)


def test_a_bug_in_a_worker_names_image_and_stage(image_records, monkeypatch):
    def broken(*_, **__):
        raise ValueError("bad luck")

    monkeypatch.setattr("sniper.loader.sample.gt_in_chip", broken)
    with loader_of(image_records, 2) as loader:
        with pytest.raises(TrainingError, match=r"make labels[\s\S]*\.png[\s\S]*bad luck"):
            loader.start_epoch(0)
            copies(loader)
        with pytest.raises(TrainingError, match="closed"):
            next(loader)


def test_a_killed_worker_ends_the_run(image_records, all_gone):
    with loader_of(image_records, 2) as loader:
        loader.start_epoch(0)
        next(loader)
        workers = [process.pid for process in loader.processes]
        os.kill(workers[0], signal.SIGKILL)
        start_s = time.monotonic()
        with pytest.raises(TrainingError, match="SIGKILL"):
            while True:
                copies(loader)
                loader.start_epoch(1)
        assert time.monotonic() - start_s < 10
    assert all_gone(workers)


def test_close_in_the_middle_of_an_epoch(image_records, all_gone):
    loader = loader_of(image_records, 2)
    loader.start_epoch(0)
    batch = next(loader)
    workers = [process.pid for process in loader.processes]
    loader.close()
    assert all_gone(workers)
    assert np.isfinite(batch.data["data"]).all()
    with pytest.raises(TrainingError, match="closed"):
        next(loader)
    with pytest.raises(TrainingError, match="closed"):
        loader.start_epoch(1)


def test_an_exception_in_the_body_closes_the_loader(image_records, all_gone):
    with pytest.raises(KeyboardInterrupt):
        with loader_of(image_records, 2) as loader:
            loader.start_epoch(0)
            workers = [process.pid for process in loader.processes]
            raise KeyboardInterrupt
    assert all_gone(workers)


def test_the_memory_does_not_grow_from_epoch_to_epoch(image_records):
    def pages():
        with open("/proc/self/statm") as stat:
            return int(stat.read().split()[1])

    with loader_of(image_records, 1) as loader:
        for epoch in range(8):
            loader.start_epoch(epoch)
            copies(loader)
            if epoch == 2:
                before = pages()
        assert pages() - before < 0.02 * before


def test_no_epoch_started(image_records):
    with loader_of(image_records) as loader:
        for ask in (lambda: next(loader), lambda: loader.batches_per_epoch):
            with pytest.raises(TrainingError, match="start_epoch"):
                ask()


def test_no_chips_and_wrong_numbers(image_records):
    with loader_of([]) as loader, pytest.raises(DataError, match="no chip"):
        loader.start_epoch(0)
    with loader_of(image_records) as loader, pytest.raises(ConfigError):
        loader.start_epoch(0, first_batch=10**6)
    for wrong in ({"batch_size": 0}, {"workers": -1}, {"prefetch": 0}, {"image_cache_mb": -1}):
        with pytest.raises(ConfigError):
            loader_of(image_records, **wrong)
    with pytest.raises(ConfigError, match="chip size"):
        TrainLoader(
            image_records,
            dataclasses.replace(CHIPS, chip_size=256),
            BATCHES,
            batch_size=1,
            num_workers=0,
            seed=0,
        )
