import dataclasses

import cv2
import numpy as np
import pytest

from sniper.chips.chip_table import Chip
from sniper.data.cut import chip_image, cut_chip
from sniper.errors import ConfigError, DataError, TrainingError
from sniper.loader import sample as sample_module
from sniper.loader.compact import compact_specs, empty_arrays
from sniper.loader.images import ImageCache, RecentKeys
from sniper.loader.train import BatchSettings, make_sample
from sniper.models.assembly import DetectorSpec, batch_contract
from sniper.models.spec import TargetSettings
from sniper.targets.contract import BatchContract
from sniper.targets.gt import GtLabels


def settings_of(*, rpn_only=False, targets=None, **values):
    """Settings of a network with all heads; `values` of `DetectorSpec`."""
    base = {
        "max_gt": 10,
        "targets": TargetSettings(((-1, 80), (32, 150), (120, -1)), **(targets or {})),
    }
    network = ("resnet_mx_18_e2e_mask", 6, (1, 2, 4), (0.5, 1, 2), 16, 1)
    contract = batch_contract(DetectorSpec(*network, **{**base, **values}), 128, rpn_only=rpn_only)
    return BatchSettings(contract, pixel_means=(103.939, 116.779, 123.68))


SETTINGS = settings_of()
LEGACY = dataclasses.replace(SETTINGS, legacy_boxes=True)
CONTRACT = SETTINGS.contract


def chip_of(level=1, rows=(0, 1), rect=(8, 4, 72, 68), factor=2.0):
    return Chip(rect, factor, 128, 120, level, np.array(rows, np.int32), "positive")


def sample_of(record, chip=None, settings=SETTINGS):
    return make_sample(record, chip or chip_of(), settings)


def test_names_shapes_and_types(image_records):
    sample = sample_of(image_records[0])
    assert {name: array.shape for name, array in sample.items()} == CONTRACT.shapes
    assert CONTRACT.shapes == {
        "data": (3, 128, 128),
        "valid_ranges": (2,),
        "im_info": (3,),
        "label": (9 * 8 * 8,),
        "bbox_target": (36, 8, 8),
        "bbox_weight": (36, 8, 8),
        "gt_boxes": (10, 5),
    }
    assert all(array.dtype == np.float32 for array in sample.values())
    assert CONTRACT.data_names == ("data", "valid_ranges", "im_info")
    assert CONTRACT.label_names == ("label", "bbox_target", "bbox_weight", "gt_boxes")


def test_only_proposal_leaves_the_rest_out(image_records):
    settings = settings_of(rpn_only=True)
    sample = sample_of(image_records[0], settings=settings)
    assert (
        set(sample)
        == set(settings.contract.shapes)
        == {"data", "label", "bbox_target", "bbox_weight"}
    )
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
    settings = settings_of(max_gt=2)
    chip = chip_of(rows=(3, 4))
    boxes = np.array([[10 + i, 10, 40 + i, 40] for i in range(5)], np.float32)
    record = dataclasses.replace(image_records[0], boxes=boxes)
    row = {name: array[0, ...] for name, array in empty_arrays(compact_specs(settings), 1).items()}
    assert sample_module.write_sample(record, chip, settings, 0, ImageCache(), row) == 3
    assert row["gt_boxes"][:, 4].tolist() == [4, 5]


def test_small_pieces_of_objects_are_left_out_when_asked(image_records):
    boxes = np.array([[10, 10, 40, 40], [66, 10, 106, 50]], np.float32)  # the chip ends at 72
    record = dataclasses.replace(
        image_records[0],
        boxes=boxes,
        classes=np.array([3, 4], np.int32),
        is_gt=np.ones(2, bool),
    )
    strict = dataclasses.replace(SETTINGS, min_visible=0.5)
    samples = [sample_of(record, chip_of(rows=(0,)), settings) for settings in (SETTINGS, strict)]
    assert [s["gt_boxes"][:3, 4].tolist() for s in samples] == [[3, 4, -1], [3, -1, -1]]
    np.testing.assert_array_equal(samples[0]["label"], samples[1]["label"])


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
    def broken(*_, **__):
        raise MemoryError("no memory left")

    for function, stage in [("cut_chip", "cut chip"), ("gt_in_chip", "make labels")]:
        with monkeypatch.context() as patch:
            patch.setattr(sample_module, function, broken)
            with pytest.raises(TrainingError, match=stage) as failure:
                sample_of(image_records[0])
        assert image_records[0].image_path in str(failure.value)
        assert "MemoryError: no memory left" in str(failure.value)


def test_impossible_settings_are_config_errors():
    with pytest.raises(ConfigError, match="PIXEL_MEANS"):
        dataclasses.replace(SETTINGS, pixel_means=(1, 2))
    with pytest.raises(ConfigError, match="MAX_GT"):
        GtLabels(128, 0, [(-1, -1)])
    with pytest.raises(ConfigError, match="suffix"):
        BatchContract(128, (CONTRACT.parts[0], CONTRACT.parts[0]))


def test_the_cache_keeps_the_latest_images_within_its_limits(image_records):
    paths = [record.image_path for record in image_records[:4]]
    cache = ImageCache(max_images=2)
    first = cache.read(paths[0])
    assert cache.read(paths[0]) is first
    cache.read(paths[1])
    assert cache.read(paths[0]) is first
    cache.read(paths[2])
    assert cache.read(paths[0]) is first, "the one that was used last is kept"
    cache.read(paths[2])
    cache.read(paths[3])
    assert cache.read(paths[0]) is not first
    none = ImageCache(0)
    assert none.read(paths[3]) is not none.read(paths[3])


def test_a_full_cache_keeps_one_image(image_records):
    paths = [record.image_path for record in image_records[:2]]
    cache = ImageCache(max_bytes=1)
    image = cache.read(paths[0])
    assert cache.read(paths[0]) is image
    cache.read(paths[1])
    assert cache.read(paths[0]) is not image


def test_keys_are_dropped_as_the_least_recently_used():
    recent = RecentKeys(max_items=10, max_bytes=100)
    assert recent.use("a", 40) == recent.use("b", 40) == recent.use("a", 40) == []
    assert recent.use("c", 40) == ["b"]
    assert "a" in recent and "b" not in recent and len(recent) == 2
    assert recent.use("huge", 500) == ["a", "c"]
    assert recent.use("d", 1) == ["huge"]


@pytest.mark.parametrize("factor", [1.0, 2.0, 0.7])
def test_chips_of_the_mirror_image_mirror_their_own_pixels_only(image_records, factor):
    """As if the whole image were mirrored first, by the rules of 2018 to the last bit."""
    record = image_records[6]
    assert record.flipped
    image = cv2.flip(cv2.imread(record.image_path), 1)
    rect, means = (8.4, 4.7, 72.9, 68.2), SETTINGS.pixel_means
    data = sample_of(record, chip_of(rect=rect, factor=factor), LEGACY)["data"]
    np.testing.assert_array_equal(data, chip_image(image, rect, factor, (128, 128), means))
    data = sample_of(record, chip_of(rect=rect, factor=factor))["data"]
    pixels = np.zeros((128, 128, 3), np.uint8)
    height, width = cut_chip(image, rect, factor, pixels)
    content = pixels[:height, :width, ::-1].transpose(2, 0, 1) - np.array(means)[::-1, None, None]
    # Noise shows a place to 1/32 px: 8 of 255 grey levels.
    assert np.abs(data[:, :height, :width] - content).max() < 17
    assert not data[:, height:].any() and not data[:, :, width:].any()


def test_content_that_is_larger_than_the_chip_is_cut_off(image_records):
    record = image_records[0]
    image = cv2.imread(record.image_path)
    for side in (64.0, 65.0, 100.0):
        rect = (3.0, 2.0, 3.0 + side, 2.0 + side)
        data = sample_of(record, chip_of(rect=rect), LEGACY)["data"]
        expected = chip_image(image, rect, 2.0, (128, 128), SETTINGS.pixel_means)
        np.testing.assert_array_equal(data, expected)
