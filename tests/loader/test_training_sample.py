import dataclasses

import numpy as np
import pytest

from sniper.chips.chip import Chip
from sniper.errors import ConfigError, DataError, TrainingError
from sniper.loader import sample as sample_module
from sniper.loader.images import ImageCache
from sniper.loader.train import BatchSettings, make_sample
from sniper.targets.anchors import base_anchors

SETTINGS = BatchSettings(
    chip_size=128,
    feature_stride=16,
    base_anchors=base_anchors(16, (0.5, 1, 2), (1, 2, 4)),
    pixel_means=(103.939, 116.779, 123.68),
    valid_ranges=[(-1, 80), (32, 150), (120, -1)],
    max_gt=10,
)


def chip_of(level=1, rows=(0, 1), rect=(8, 4, 72, 68), factor=2.0):
    return Chip(rect, factor, 128, 120, level, np.array(rows, np.int32), "positive")


def sample_of(record, chip=None, settings=SETTINGS):
    return make_sample(record, chip or chip_of(), settings, np.random.default_rng(0))


def test_names_shapes_and_types(image_records):
    sample = sample_of(image_records[0])
    assert {name: array.shape for name, array in sample.items()} == SETTINGS.shapes
    assert SETTINGS.shapes == {
        "data": (3, 128, 128),
        "valid_ranges": (2,),
        "im_info": (3,),
        "label": (9 * 8 * 8,),
        "bbox_target": (36, 8, 8),
        "bbox_weight": (36, 8, 8),
        "gt_boxes": (10, 5),
    }
    assert all(array.dtype == np.float32 for array in sample.values())
    assert SETTINGS.data_names == ("data", "valid_ranges", "im_info")
    assert SETTINGS.label_names == ("label", "bbox_target", "bbox_weight", "gt_boxes")


def test_only_proposal_leaves_the_rest_out(image_records):
    settings = dataclasses.replace(SETTINGS, only_proposal=True)
    sample = sample_of(image_records[0], settings=settings)
    assert set(sample) == set(settings.shapes) == {"data", "label", "bbox_target", "bbox_weight"}
    full = sample_of(image_records[0])
    for name in sample:
        np.testing.assert_array_equal(sample[name], full[name])


@pytest.mark.parametrize("level, expected", [(0, [0, 160]), (1, [64, 300]), (2, [240, 128])])
def test_valid_ranges_and_im_info_are_in_chip_pixels(image_records, level, expected):
    sample = sample_of(image_records[0], chip_of(level))
    assert sample["valid_ranges"].tolist() == expected
    assert sample["im_info"].tolist() == [128, 120, 2]


def test_a_chip_and_its_mirror_image_hold_the_same_pixels(image_records):
    record, mirrored = image_records[0], image_records[6]
    width = record.width
    left = sample_of(record, chip_of(rect=(8, 4, 72, 68), factor=1.0))["data"]
    right = sample_of(mirrored, chip_of(rect=(width - 72, 4, width - 8, 68), factor=1.0))["data"]
    np.testing.assert_array_equal(left[:, :64, :64], right[:, :64, 63::-1])
    assert left.any()


def test_boxes_beyond_the_limit_are_left_out(image_records):
    settings = dataclasses.replace(SETTINGS, max_gt=2)
    rng = np.random.default_rng(0)
    chip = chip_of(rows=(3, 4))
    boxes = np.array([[10 + i, 10, 40 + i, 40] for i in range(5)], np.float32)
    record = dataclasses.replace(image_records[0], boxes=boxes)
    sample, surplus = sample_module.build_sample(record, chip, settings, rng, ImageCache())
    assert surplus == 3
    assert sample["gt_boxes"][:, 4].tolist() == [4, 5]


def test_missing_and_truncated_images_name_the_file(image_records, tmp_path):
    path = tmp_path / "half.png"
    with open(image_records[0].image_path, "rb") as whole:
        path.write_bytes(whole.read()[:2000])
    for broken in (path, tmp_path / "missing.png"):
        with pytest.raises(DataError, match=broken.name):
            sample_of(dataclasses.replace(image_records[0], image_path=str(broken)))


def test_another_image_size_is_a_data_error(image_records):
    record = dataclasses.replace(image_records[0], width=image_records[0].width + 1)
    with pytest.raises(DataError, match="size"):
        sample_of(record)


def test_unexpected_failures_name_stage_and_image(image_records, monkeypatch):
    def broken(*_):
        raise MemoryError("no memory left")

    for function, stage in [("chip_image", "cut chip"), ("gt_in_chip", "make labels")]:
        with monkeypatch.context() as patch:
            patch.setattr(sample_module, function, broken)
            with pytest.raises(TrainingError, match=stage) as failure:
                sample_of(image_records[0])
        assert image_records[0].image_path in str(failure.value)
        assert "MemoryError: no memory left" in str(failure.value)


@pytest.mark.parametrize("change", [{"max_gt": 0}, {"pixel_means": (1, 2)}, {"chip_size": 100}])
def test_impossible_settings_are_config_errors(change):
    with pytest.raises(ConfigError):
        dataclasses.replace(SETTINGS, **change)


def test_the_cache_keeps_the_latest_images_within_its_limits(image_records):
    paths = [record.image_path for record in image_records[:4]]
    cache = ImageCache(max_images=2)
    first = cache.read(paths[0])
    assert cache.read(paths[0]) is first
    assert cache.read(paths[0], flipped=True) is not first
    np.testing.assert_array_equal(cache.read(paths[0], flipped=True), first[:, ::-1])
    cache.read(paths[1])
    assert cache.read(paths[0]) is not first
    small = ImageCache(max_bytes=1)
    assert small.read(paths[2]) is not small.read(paths[2])
    none = ImageCache(0)
    assert none.read(paths[3]) is not none.read(paths[3])
