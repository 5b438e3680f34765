"""Coarse chips from images that were decoded small: the same content, at the same place."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from sniper.chips.chip_table import Chip
from sniper.data import append_flipped, load_dataset
from sniper.data.cut import cut_chip, cut_reduced, reduction_of
from sniper.data.image import check_size, read_image
from sniper.data.record import Record, flip_record
from sniper.errors import DataError
from sniper.loader.batch_settings import BatchSettings
from sniper.loader.sample import make_sample
from sniper.models.assembly import DetectorSpec, batch_contract

WIDTH, HEIGHT = 1003, 758


@pytest.fixture(scope="module")
def smooth(tmp_path_factory):
    """A large JPEG without fine texture, where both ways must come to the same pixels."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    planes = [
        127 + 100 * np.sin(x / 60) * np.cos(y / 45),
        30 + 190 * x / WIDTH,
        127 + 110 * np.cos((x + 2 * y) / 90),
    ]
    path = tmp_path_factory.mktemp("smooth") / "smooth.jpg"
    cv2.imwrite(
        str(path), np.stack(planes, axis=2).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 98]
    )
    return Record(
        image_path=str(path),
        image_id=1,
        width=WIDTH,
        height=HEIGHT,
        flipped=False,
        boxes=np.array([[100, 100, 700, 600]], np.float32),
        classes=np.ones(1, np.int32),
        is_gt=np.ones(1, bool),
    )


def both_ways(record, rect, factor, side=400, *, legacy=False):
    """Content of a chip from the full image and from the reduced one, int."""
    reduction = reduction_of(factor)
    full, small = np.zeros((2, side, side, 3), np.uint8)
    image = read_image(record.image_path)
    size = cut_chip(image, rect, factor, full, flipped=record.flipped, legacy=legacy)
    image = read_image(record.image_path, reduction=reduction)
    check_size(image, record, reduction)
    assert cut_reduced(image, reduction, record, rect, factor, small, legacy=legacy) == size
    assert not small[size[0] :].any() and not small[:, size[1] :].any()
    return [pixels[: size[0], : size[1]].astype(int) for pixels in (full, small)]


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(3, 1), (0.51, 1), (0.5, 2), (0.26, 2), (0.25, 4), (0.126, 4), (0.125, 8), (0.01, 8)],
)
def test_an_image_is_never_reduced_below_the_chip(factor, expected):
    assert reduction_of(factor) == expected


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("factor", [0.5, 0.4, 0.31, 0.25, 0.2, 0.125, 0.1])
@pytest.mark.parametrize(
    "rect", [(0, 0, WIDTH - 0.25, HEIGHT - 0.25), (133.7, 61.2, 800.9, 700.1), (-9, 5, 2000, 402)]
)
def test_smooth_content_is_at_the_same_place(smooth, factor, flipped, rect, legacy):
    record = flip_record(smooth) if flipped else smooth
    full, small = both_ways(record, rect, factor, legacy=legacy)
    assert full.std() > 20
    # A shift by one pixel of the chip would change some pixels by 1 / (60 factor) of 100.
    assert np.abs(full - small).mean() < 0.7
    assert np.abs(full - small).max() < 12


def test_content_beyond_the_chip_is_cut_off(smooth):
    full, small = both_ways(smooth, (0, 0, WIDTH, HEIGHT), 0.5, side=100)
    assert full.shape == small.shape == (100, 100, 3)
    assert np.abs(full - small).max() < 12


@pytest.mark.parametrize(("factor", "limit"), [(0.4, 7), (0.2, 14)])
def test_difference_on_photographs_is_what_the_key_says(coco_mini, factor, limit):
    records = append_flipped(load_dataset("coco", str(coco_mini), "val2017").records[:8])
    differences = []
    for record in records:
        full, small = both_ways(record, (3.3, 5.2, record.width, record.height), factor)
        differences.append(np.abs(full - small).mean())
    assert 1 < np.mean(differences) < limit


def test_other_formats_are_decoded_in_full(smooth, tmp_path):
    path = tmp_path / "same.png"
    image = read_image(smooth.image_path)
    cv2.imwrite(str(path), image)
    np.testing.assert_array_equal(read_image(path, reduction=4), image)
    record = dataclasses.replace(smooth, image_path=str(path))
    chip = Chip((0, 0, WIDTH - 0.25, HEIGHT - 0.25), 0.2, 151, 200, 0, np.zeros(1, np.int32), "x")
    plain, reduced = (
        make_sample(record, chip, settings_of(flag))["data"] for flag in (False, True)
    )
    np.testing.assert_array_equal(plain, reduced)


def settings_of(reduced):
    spec = DetectorSpec("resnet_mx_18_e2e", 3, (2, 4), (1,), 16, 1)
    contract = batch_contract(spec, 256)
    return BatchSettings(contract, pixel_means=(1, 2, 3), reduced_decoding=reduced)


def test_samples_use_it_only_where_it_is_asked_for_and_worth_it(smooth, monkeypatch):
    asked = []

    def spy(path, reduction=1, **options):
        asked.append(reduction)
        return read_image(path, reduction=reduction, **options)

    monkeypatch.setattr("sniper.loader.images.read_image", spy)
    for factor, flag in [(0.2, False), (0.2, True), (0.9, True)]:
        chip = Chip((0, 0, 280, 280), factor, 200, 200, 0, np.zeros(1, np.int32), "positive")
        make_sample(smooth, chip, settings_of(flag))
    assert asked == [1, 4, 1]


def test_sizes_are_compared_after_reduction(smooth):
    image = read_image(smooth.image_path, reduction=4)
    assert image.shape[:2] == (190, 251)
    wrong = dataclasses.replace(smooth, width=WIDTH + 5)
    with pytest.raises(DataError, match="251x190"):
        check_size(image, wrong, 4)


def test_windows_without_pixels_are_refused(smooth):
    image = read_image(smooth.image_path, reduction=4)
    out = np.zeros((50, 50, 3), np.uint8)
    with pytest.raises(DataError, match="holds no pixel"):
        cut_reduced(image, 4, smooth, (WIDTH, 0, WIDTH + 90, 50), 0.2, out)
