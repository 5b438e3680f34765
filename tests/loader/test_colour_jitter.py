"""Colour jitter: what it does to colours, and that it depends on the sample alone."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import pytest

from sniper.errors import ConfigError
from sniper.loader.colour_jitter import ColourJitter
from sniper.loader.train import TrainLoader
from tests.loader.test_train_loader import BATCHES, CHIPS, assert_same, copies

ALL = ColourJitter(0.4, 0.4, 0.4, 0.1)
GREY = np.array([0.114, 0.587, 0.299])


def picture(seed=0, low=60, high=180):
    return np.random.default_rng(seed).integers(low, high, (40, 50, 3), np.uint8)


def changed(jitter, image, seed=1, image_id=2):
    image = image.copy()
    jitter.apply(image, seed, image_id)
    return image


def test_brightness_is_one_factor():
    image = picture()
    factors = [changed(ColourJitter(brightness=0.3), image, s).mean() / image.mean()
               for s in range(40)]  # fmt: skip
    assert 0.69 < min(factors) < 0.8 and 1.2 < max(factors) < 1.31
    one = changed(ColourJitter(brightness=0.3), image)
    ratio = one.astype(float).sum() / image.sum()
    assert np.abs(one - image * ratio).max() < 1


def test_contrast_keeps_the_mean_grey_and_saturation_each_grey():
    image = picture()
    mean = (image @ GREY).mean()
    spread = []
    for seed in range(30):
        one = changed(ColourJitter(contrast=0.5), image, seed)
        assert (one @ GREY).mean() == pytest.approx(mean, abs=0.6)
        spread.append(one.std() / image.std())
        other = changed(ColourJitter(saturation=0.5), image, seed)
        assert np.abs(other @ GREY - image @ GREY).max() < 1.1
    assert min(spread) < 0.7 and max(spread) > 1.3


def test_hue_turns_colours_and_leaves_greys():
    grey = np.repeat(picture()[:, :, :1], 3, axis=2)
    turned = changed(ColourJitter(hue=0.5), grey)
    assert np.abs(turned.astype(int) - grey).max() <= 1
    colour = np.tile(np.uint8([90, 110, 150]), (4, 4, 1))  # BGR
    hues = []
    for seed in range(60):
        blue, green, red = changed(ColourJitter(hue=0.5), colour, seed)[0, 0] / 255
        hues.append(colorsys.rgb_to_hsv(red, green, blue)[0])
    assert np.histogram(hues, 4, (0, 1))[0].min() > 3, "all around the circle"


def test_it_depends_on_the_sample_alone():
    image = picture()
    assert (changed(ALL, image) == changed(ALL, image)).all()
    assert (changed(ALL, image) != changed(ALL, image, seed=2)).any()
    assert (changed(ALL, image) != changed(ALL, image, image_id=3)).any()
    frame = np.full((60, 70, 3), 7, np.uint8)
    frame[:40, :50] = image
    ALL.apply(frame[:40, :50], 1, 2)
    assert (frame[:40, :50] == changed(ALL, image)).all(), "views as well"
    assert (frame[40:] == 7).all() and (frame[:, 50:] == 7).all()
    ALL.apply(image[:0], 1, 2)


def test_off_is_off():
    assert not ColourJitter() and ALL
    assert (changed(ColourJitter(), picture()) == picture()).all()


@pytest.mark.parametrize("values", [(-0.1,), (1.1,), (0, 2), (0, 0, -1), (0, 0, 0, 0.51)])
def test_numbers_out_of_range_are_refused(values):
    with pytest.raises(ConfigError, match="colour jitter"):
        ColourJitter(*values)


def loader_of(records, workers, jitter=ALL):
    settings = replace(BATCHES, jitter=jitter)
    return TrainLoader(records, CHIPS, settings, batch_size=4, seed=7, num_workers=workers)


def test_batches_do_not_depend_on_workers_nor_on_a_resume(image_records):
    epochs = {}
    for workers in (0, 2):
        with loader_of(image_records, workers) as loader:
            for epoch in range(2):
                loader.start_epoch(epoch)
                epochs[workers, epoch] = copies(loader)
            loader.start_epoch(1, 2)
            assert_same(copies(loader), epochs[workers, 1][2:])
    for epoch in range(2):
        assert_same(epochs[0, epoch], epochs[2, epoch])


def test_pixels_alone_change(image_records):
    with (
        loader_of(image_records, 0) as jittered,
        loader_of(image_records, 0, ColourJitter()) as as_is,
    ):
        jittered.start_epoch(0)
        as_is.start_epoch(0)
        for (_, _, one), (_, _, other) in zip(copies(jittered), copies(as_is)):
            assert (one["data"] != other["data"]).mean() > 0.3
            assert ((one["data"] == 0) >= (other["data"] == 0)).mean() > 0.99, "padding stays"
            for name in set(one) - {"data"}:
                np.testing.assert_array_equal(one[name], other[name])
