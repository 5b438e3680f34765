"""Detections of many images in flat arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sniper.data.detections import (
    DetectionTable,
    ImageDetections,
    join_tables,
    load_detections,
    reorder,
    table_of,
)
from sniper.errors import DataError


def an_image(count, seed=0, masks=False):
    rng = np.random.default_rng([seed, count])
    classes = np.sort(rng.integers(1, 5, count)).astype(np.int32)
    blobs = [rng.bytes(int(n)) for n in rng.integers(0, 9, count)] if masks else None
    return ImageDetections(rng.uniform(0, 99, (count, 5)).astype(np.float32), classes, blobs)


def images(counts, masks=False):
    return [an_image(count, seed, masks) for seed, count in enumerate(counts)]


def assert_same(table, expected):
    """A table holds exactly these images."""
    assert len(table) == len(expected)
    for found, image in zip(table, expected):
        np.testing.assert_array_equal(found.rows, image.rows)
        np.testing.assert_array_equal(found.classes, image.classes)
        assert found.masks == image.masks


def same_arrays(table, other):
    a, b = table.arrays(), other.arrays()
    return all(a[n].dtype == b[n].dtype and np.array_equal(a[n], b[n]) for n in a | b)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("counts", [[], [0], [0, 0, 0], [3], [2, 0, 5, 0], [0, 4]])
def test_round_trip_through_a_file(tmp_path, counts, masks):
    expected = images(counts, masks)
    table = table_of(expected, with_masks=masks)
    assert_same(table, expected)
    table.save(tmp_path / "x.npz")
    loaded = load_detections(tmp_path / "x.npz")
    assert loaded.has_masks is masks
    assert same_arrays(loaded, table)
    assert_same(loaded, expected)


@given(st.lists(st.lists(st.integers(0, 4), max_size=4), max_size=4), st.booleans(), st.randoms())
def test_join_and_reorder_keep_every_image(groups, masks, random):
    expected = [images(group, masks) for group in groups]
    joined = join_tables([table_of(group, with_masks=masks) for group in expected])
    flat = [image for group in expected for image in group]
    assert_same(joined, flat)
    order = random.sample(range(len(flat)), random.randint(0, len(flat)))
    shuffled = reorder(joined, order)
    assert_same(shuffled, [flat[index] for index in order])
    assert shuffled.has_masks == joined.has_masks


def test_a_permutation_and_its_inverse_cancel():
    table = table_of(images([3, 0, 1, 7, 2], masks=True), with_masks=True)
    order = np.array([4, 2, 0, 1, 3])
    assert same_arrays(reorder(reorder(table, order), np.argsort(order)), table)


def test_tables_with_and_without_masks_do_not_join():
    with pytest.raises(DataError, match="cannot be joined"):
        join_tables([table_of(images([1])), table_of(images([1], True), with_masks=True)])


def test_images_are_found_by_their_place():
    table = table_of(images([2, 0, 3]))
    assert [len(image) for image in table] == [2, 0, 3]
    assert len(table[-1]) == 3 and table.num_detections == 5
    assert table.image_of_row.tolist() == [0, 0, 2, 2, 2]
    for index in (3, -4):
        with pytest.raises(IndexError, match="3 images"):
            table[index]


def test_masks_are_added_row_by_row():
    table = table_of(images([2, 1]))
    assert not table.has_masks and table[0].masks is None
    with_masks = table.with_masks([b"ab", b"", b"c"])
    assert with_masks[0].masks == [b"ab", b""] and with_masks[1].masks == [b"c"]
    with pytest.raises(DataError, match="mask offsets"):
        table.with_masks([b"ab"])


GOOD = {
    "offsets": np.int64([0, 2, 3]),
    "rows": np.zeros((3, 5), np.float32),
    "classes": np.int32([1, 2, 1]),
    "mask_offsets": np.int64([0, 1, 1, 4]),
    "mask_bytes": np.zeros(4, np.uint8),
}


@pytest.mark.parametrize(
    "broken",
    [
        {"offsets": np.int64([0, 2])},
        {"offsets": np.int64([1, 2, 3])},
        {"offsets": np.int64([0, 4, 3])},
        {"offsets": np.zeros(0, np.int64)},
        {"offsets": np.int32([0, 2, 3])},
        {"offsets": np.int64(3)},
        {"rows": np.zeros((3, 4), np.float32)},
        {"rows": np.zeros((2, 5), np.float32)},
        {"rows": np.zeros((3, 5))},
        {"rows": np.float32(1)},
        {"classes": np.int32([1, 2])},
        {"classes": np.int64([1, 2, 1])},
        {"classes": np.int32([1, 0, 1])},
        {"classes": np.int32([2, 1, 1])},
        {"mask_offsets": np.int64([0, 1, 4])},
        {"mask_offsets": np.int64([0, 1, 1, 3])},
        {"mask_offsets": np.int64([0, 2, 1, 4])},
        {"mask_offsets": None},
        {"mask_bytes": None},
        {"mask_bytes": np.zeros(4, np.int8)},
    ],
    ids=str,
)
def test_arrays_that_do_not_fit_are_refused(broken):
    DetectionTable(**GOOD)
    with pytest.raises(DataError, match="the detections are broken"):
        DetectionTable(**{**GOOD, **broken})


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    table_of(images([5, 6])).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"x\.npz"):
        load_detections(path)
