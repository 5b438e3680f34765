"""Rows in several arrays, and the limit of an image that spares hard NMS most candidates."""

from __future__ import annotations

import numpy as np
import pytest

from sniper.errors import OpsError
from sniper.native import _native

RANGES = np.float32([[-1, 60], [20, -1]])
OPEN = np.float32([[-1, -1]])


def rows_of(rng, count):
    corners = rng.uniform(0, 200, (count, 2))
    sides = rng.uniform(5, 90, (count, 2))
    scores = rng.integers(1, 200, (count, 1)) / 200  # many ties
    return np.hstack([corners, corners + sides, scores]).astype(np.float32)


@pytest.mark.parametrize("threshold", [-1.0, 0.5])
@pytest.mark.parametrize("limit", [-1, 30])
def test_parts_are_merged_like_their_rows_in_one_array(threshold, limit):
    rng = np.random.default_rng(3)
    lengths = rng.integers(0, 400, 12).tolist()
    levels, images = (rng.integers(0, 2, 12).astype(np.int32) for _ in range(2))
    dets = [rows_of(rng, length) for length in lengths]
    classes = [rng.integers(1, 5, length).astype(np.int32) for length in lengths]
    settings = {"sigma": 0.55, "nms_threshold": threshold, "max_per_image": limit}
    *merged, parts = _native.multi_scale_nms_parts(
        dets, classes, levels, images, RANGES, **settings
    )
    *expected, rows = _native.multi_scale_nms(
        np.concatenate(dets),
        *(np.repeat(levels, lengths), np.concatenate(classes), np.repeat(images, lengths)),
        RANGES,
        with_rows=True,
        **settings,
    )
    assert len(rows) > 50
    for ours, wanted in zip(merged, expected):
        np.testing.assert_array_equal(ours, wanted)
    np.testing.assert_array_equal(parts, np.repeat(np.arange(12), lengths)[rows])


def test_no_parts_and_empty_parts_give_nothing():
    nothing = np.zeros(0, np.int32)
    empty = np.zeros((0, 5), np.float32)
    for dets, classes, levels in (([], [], nothing), ([empty], [nothing], np.int32([9]))):
        merged = _native.multi_scale_nms_parts(dets, classes, levels, levels, OPEN, 0.55, 0.5)
        assert [len(output) for output in merged] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"dets": [np.zeros((2, 5))]}, "dets"),
        ({"classes": [np.zeros(3, np.int32)]}, "`classes` does not fit to `dets`"),
        ({"classes": []}, "`classes` does not fit to `dets`"),
        ({"images": np.zeros(2, np.int32)}, "`images` does not fit to `dets`"),
        ({"levels": np.int32([1])}, "row 0 has level 1"),
        ({"levels": np.int64([0])}, "levels"),
    ],
)
def test_wrong_parts_are_refused(change, word):
    arguments = {
        "dets": [np.zeros((2, 5), np.float32)],
        "classes": [np.zeros(2, np.int32)],
        "levels": np.zeros(1, np.int32),
        "images": np.zeros(1, np.int32),
    }
    with pytest.raises(OpsError, match=word):
        _native.multi_scale_nms_parts(**{**arguments, **change}, valid_ranges=OPEN, sigma=0.55,
                                      nms_threshold=0.5)  # fmt: skip


def limited(outputs, images, limit):
    """What a limit leaves of the outputs for each image without one."""
    kept = np.zeros(len(images), bool)
    for image in np.unique(images):
        scores = np.sort(outputs[0][images == image, 4])[::-1]
        least = scores[min(limit, len(scores)) - 1]
        kept |= (images == image) & (outputs[0][:, 4] >= least)
    return [output[kept] for output in outputs]


@pytest.mark.parametrize("copies", [1, 3, 40, 700])
@pytest.mark.parametrize("limit", [1, 7, 60])
def test_a_limit_of_hard_nms_is_exact_however_many_candidates_fall(copies, limit):
    # The best candidates are `copies` of few boxes: with 700 the first looks at some find too few.
    rng = np.random.default_rng(copies)
    dets = np.concatenate([rows_of(rng, 40).repeat(copies, axis=0), rows_of(rng, 300)])
    dets[: 40 * copies, 4] += 1
    dets = dets[rng.permutation(len(dets))]
    classes, images = (rng.integers(1, n, len(dets)).astype(np.int32) for n in (4, 4))
    levels = np.zeros(len(dets), np.int32)
    arguments = (dets, levels, classes, images, OPEN, 0.55, 0.5)
    everything = _native.multi_scale_nms(*arguments, with_rows=True)
    merged = _native.multi_scale_nms(*arguments, max_per_image=limit, with_rows=True)
    for ours, wanted in zip(merged, limited(everything, everything[2], limit)):
        np.testing.assert_array_equal(ours, wanted)


def test_the_limit_takes_both_zeros_for_one_score():
    dets = np.zeros((60, 5), np.float32)
    dets[:, 0] = np.arange(60) * 100
    dets[:, 2:4] = dets[:, :2] + 10
    dets[::2, 4] = -0.0
    dets[50:, 4] = -0.5
    index = np.zeros(60, np.int32)
    merged = _native.multi_scale_nms(dets, index, index, index, OPEN, 0.55, 0.5, max_per_image=3)
    assert len(merged[0]) == 50


def test_class_numbers_may_lie_far_apart():
    rng = np.random.default_rng(8)
    dets = rows_of(rng, 500)
    few = rng.integers(0, 4, 500).astype(np.int32)
    numbers = np.int32([-(2**31), -5, 70_000, 2**31 - 1])
    index = np.zeros(500, np.int32)
    merged, classes, _ = _native.multi_scale_nms(dets, index, numbers[few], index, OPEN, 0.55, 0.5)
    expected, of_few, _ = _native.multi_scale_nms(dets, index, few, index, OPEN, 0.55, 0.5)
    np.testing.assert_array_equal(merged, expected)
    np.testing.assert_array_equal(classes, numbers[of_few])
