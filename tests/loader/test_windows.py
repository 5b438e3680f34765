from __future__ import annotations

import dataclasses
import gc
import threading
import time

import cv2
import numpy as np
import pytest

from sniper.chips.pyramid import test_factor as factor_at_test
from sniper.errors import ConfigError, DataError, TrainingError
from sniper.loader import windows as module

MEANS = (103.939, 116.779, 123.68)
SCALE = (96, 160)


def whole(records):
    return [[(0, 0, record.width, record.height)] for record in records]


def loader_of(records, crops=None, **options):
    settings = {"batch_size": 4, "pixel_means": MEANS, "num_threads": 2, **options}
    factors = [factor_at_test(record.width, record.height, SCALE) for record in records]
    crops = whole(records) if crops is None else crops
    return module.TestLoader(records, crops, factors, **settings)


def real_items(loader):
    """(image, chip) -> (data, im_info), without the padding."""
    return {
        (int(batch.image_index[i]), int(batch.chip_index[i])): (batch.data[i], batch.im_info[i])
        for batch in loader
        for i in np.flatnonzero(~batch.is_padding)
    }


def test_every_window_is_there_once(image_records):
    with loader_of(image_records[:6]) as loader:
        batches = list(loader)
        assert len(loader) == len(batches)
    seen = []
    for batch in batches:
        assert batch.data.dtype == batch.im_info.dtype == np.float32
        assert batch.data.shape[0] <= 4 and batch.data.shape[1] == 3
        assert batch.data.shape[2] % 32 == 0 and batch.data.shape[3] % 32 == 0
        assert batch.im_info.shape == (len(batch.data), 3)
        assert not batch.is_padding.any()
        seen += batch.image_index[~batch.is_padding].tolist()
    assert sorted(seen) == list(range(6))


def test_pixels_and_im_info_equal_the_plain_computation(image_records):
    records = image_records[:6]
    with loader_of(records) as loader:
        items = real_items(loader)
    for index, record in enumerate(records):
        data, im_info = items[index, 0]
        short, long = sorted((record.width, record.height))
        factor = 96 / short if round(96 / short * long) <= 160 else 160 / long
        image = cv2.imread(record.image_path)
        resized = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
        height, width = resized.shape[:2]
        assert im_info.tolist() == [height, width, np.float32(factor)]
        expected = (resized - np.array(MEANS)).transpose(2, 0, 1)[::-1]
        np.testing.assert_allclose(data[:, :height, :width], expected, atol=1e-4)
        assert not data[:, height:].any() and not data[:, :, width:].any()


def test_results_do_not_depend_on_batch_size_or_threads(image_records):
    crops = [
        [(0, 0, r.width, r.height), (10.5, 20, 60.5, 100)] if i % 2 else [(5, 5, 90, 70)]
        for i, r in enumerate(image_records[:6])
    ]
    with loader_of(image_records[:6], crops, batch_size=1, num_threads=1) as loader:
        reference = real_items(loader)
    assert len(reference) == 9
    for options in ({"batch_size": 3, "num_threads": 4}, {"batch_size": 20, "prefetch": 1}):
        with loader_of(image_records[:6], crops, **options) as loader:
            items = real_items(loader)
        assert items.keys() == reference.keys()
        for key, (data, im_info) in items.items():
            np.testing.assert_array_equal(im_info, reference[key][1])
            np.testing.assert_array_equal(data, reference[key][0])  # the padding too


def test_large_tensors_come_first_and_sizes_do_not_mix(image_records):
    with loader_of(image_records[:6], batch_size=2) as loader:
        batches = list(loader)
    areas = [batch.data.shape[2] * batch.data.shape[3] for batch in batches]
    assert areas == sorted(areas, reverse=True)
    for batch in batches:
        for height, width in batch.im_info[:, :2]:
            assert -(-height // 32) * 32 == batch.data.shape[2]
            assert -(-width // 32) * 32 == batch.data.shape[3]


def test_one_window_serves_several_devices_by_repetition(image_records):
    with loader_of(image_records[:1], batch_size=8, batch_multiple=4) as loader:
        (batch,) = list(loader)
    assert batch.is_padding.tolist() == [False] + [True] * 3
    assert (batch.image_index == 0).all()
    for copy in batch.data[1:]:
        np.testing.assert_array_equal(copy, batch.data[0])


def test_a_batch_must_divide_among_the_devices(image_records):
    with pytest.raises(ConfigError, match="divide"):
        loader_of(image_records[:1], batch_size=3, batch_multiple=2)


def test_no_windows_give_no_batches(image_records):
    with loader_of(image_records[:3], [[], [], []]) as loader:
        assert len(loader) == 0 and list(loader) == []
    with loader_of([], []) as loader:
        assert list(loader) == []


def test_windows_are_clamped_to_the_image(image_records):
    record = image_records[0]
    huge = [[(-20.0, -9.0, record.width + 30.0, record.height + 1.0)]]
    with loader_of([record], huge) as loader, loader_of([record]) as plain:
        data, im_info = real_items(loader)[0, 0]
        expected, expected_info = real_items(plain)[0, 0]
    np.testing.assert_array_equal(im_info, expected_info)
    height, width = im_info[:2].astype(int)
    np.testing.assert_array_equal(data[:, :height, :width], expected[:, :height, :width])


def test_it_can_be_iterated_again_and_be_left_early(image_records):
    with loader_of(image_records[:6], batch_size=1) as loader:
        first = next(iter(loader))
        again = list(loader)
        np.testing.assert_array_equal(first.data, again[0].data)
        assert len(again) == 6


def test_broken_images_are_named(image_records, tmp_path):
    missing = dataclasses.replace(image_records[1], image_path=str(tmp_path / "missing.jpg"))
    with loader_of([image_records[0], missing]) as loader:
        with pytest.raises(DataError, match=r"missing\.jpg"):
            list(loader)


def test_a_slow_disk_times_out(image_records, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr("sniper.loader.images.read_image", lambda *_, **__: release.wait(20))
    with loader_of(image_records[:1], timeout_s=0.2) as loader:
        with pytest.raises(TrainingError, match=r"0\.2 s"):
            list(loader)
        release.set()


def test_close_ends_the_threads(image_records):
    before = threading.active_count()
    loader = loader_of(image_records[:6], batch_size=1)
    iterator = iter(loader)
    next(iterator)
    assert threading.active_count() > before
    loader.close()
    loader.close()
    assert threading.active_count() == before
    with pytest.raises(TrainingError, match="closed"):
        list(iterator)


def test_a_collected_loader_ends_its_threads(image_records):
    before = threading.active_count()
    loader = loader_of(image_records[:6], batch_size=1)
    list(loader)
    del loader
    gc.collect()
    assert threading.active_count() == before


def test_a_stuck_thread_does_not_keep_the_program_from_ending(start_script):
    process = start_script(
        "import time\n"
        "from sniper.loader.threads import DaemonThreads\n"
        "threads = DaemonThreads(1, 'x')\n"
        "stuck, waiting = threads.submit(lambda: time.sleep(60)), threads.submit(print)\n"
        "time.sleep(0.1)\n"
        "threads.close(0.1)\n"
        "print(stuck.running(), waiting.cancelled())\n"
    )
    output, errors = process.communicate(timeout=10)
    assert process.returncode == 0 and not errors
    assert output.split() == ["True", "True"]


def test_only_a_few_batches_are_made_ahead(image_records):
    with loader_of(image_records[:6] * 4, batch_size=1, prefetch=2) as loader:
        made = []
        original = loader._fill
        loader._fill = lambda *arguments: (made.append(1), original(*arguments))
        iterator = iter(loader)
        next(iterator)
        time.sleep(0.2)
        assert len(made) == 3
        iterator.close()


@pytest.mark.parametrize("name", ["batch_size", "num_threads", "prefetch", "timeout_s"])
def test_numbers_must_be_positive(image_records, name):
    with pytest.raises(ConfigError):
        loader_of(image_records[:1], **{name: 0})


def test_one_list_of_windows_per_image(image_records):
    with pytest.raises(ConfigError):
        loader_of(image_records[:2], [[]])
