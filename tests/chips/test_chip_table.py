from __future__ import annotations

import pickle

import numpy as np
import pytest

from sniper.chips.chip_table import NEGATIVE, POSITIVE, Chip
from sniper.chips.sampler import ChipSettings, make_epoch

SETTINGS = ChipSettings((3.0, 1.667, 512.0), [(-1, 80), (32, 150), (120, -1)], use_neg_chips=True)


@pytest.fixture(scope="module")
def records(ref):
    return [*ref.random_records(12, proposals=60), ref.record([], image_id=99)]


@pytest.fixture(scope="module")
def table(records):
    return make_epoch(records, SETTINGS, seed=0, epoch=0, batch_size=4).chips


def test_reads_like_a_list_of_lists(table, records, ref):
    assert len(table) == len(records) == len(list(table))
    assert table[-1] == [] and table[len(records) - 1] == []
    for record, chips in enumerate(table):
        assert ref.describe(table[record]) == ref.describe(chips)
        assert ref.describe(table[record - len(table)]) == ref.describe(chips)
        alone = [table.chip(record, k) for k in range(len(chips))]
        assert ref.describe(alone) == ref.describe(chips)
        if chips:
            assert ref.describe([table.chip(record, -1)]) == ref.describe(chips[-1:])


def test_chips_have_plain_values(table):
    chip = table[0][0]
    assert isinstance(chip, Chip) and isinstance(chip.rect, tuple)
    kinds = [(chip.rect[0], float), (chip.factor, float), (chip.height, int), (chip.level, int)]
    assert all(type(value) is kind for value, kind in kinds)
    assert chip.rows.dtype == np.int32
    assert {chip.kind for chips in table for chip in chips} == {POSITIVE, NEGATIVE}


def test_flat_arrays(table, records):
    chips = [chip for of_record in table for chip in of_record]
    assert table.num_chips == len(chips) == table.offsets[-1]
    shapes = {
        "rects": ((len(chips), 4), np.float64),
        "level": ((len(chips),), np.uint8),
        "negative": ((len(chips),), np.bool_),
        "factor": ((len(chips),), np.float64),
        "height": ((len(chips),), np.int32),
        "width": ((len(chips),), np.int32),
        "row_offsets": ((len(chips) + 1,), np.int64),
        "num_boxes": ((len(chips),), np.int32),
        "num_gt": ((len(chips),), np.int32),
        "offsets": ((len(records) + 1,), np.int64),
    }
    for name, (shape, dtype) in shapes.items():
        array = getattr(table, name)
        assert (array.shape, array.dtype) == (shape, dtype), name
    np.testing.assert_array_equal(table.rects, [chip.rect for chip in chips])
    np.testing.assert_array_equal(
        table.record_of_chip, [r for r, of_record in enumerate(table) for _ in of_record]
    )
    assert table.rows.dtype == np.int32 and table.row_offsets[-1] == len(table.rows)


def test_slices_are_tables(table, ref):
    for part in (slice(2, 5), slice(0, 0), slice(10, 99), slice(-3, None), slice(5, 2)):
        sliced = table[part]
        assert list(map(ref.describe, sliced)) == list(map(ref.describe, list(table)[part]))
    with pytest.raises(ValueError, match="consecutive"):
        table[::2]


def test_a_slice_and_a_chip_pickle_small(table, ref):
    one = pickle.dumps(table[3:4])
    assert len(one) < len(pickle.dumps(table)) / 3
    assert ref.describe(pickle.loads(one)[0]) == ref.describe(table[3])
    chip = max((chip for chips in table for chip in chips), key=lambda chip: len(chip.rows))
    assert len(pickle.dumps(chip)) < 600 + 4 * len(chip.rows)


@pytest.mark.parametrize("index", [13, -14])
def test_no_such_record(table, index):
    with pytest.raises(IndexError, match="13 records"):
        table[index]


def test_no_such_chip(table):
    with pytest.raises(IndexError, match="chips"):
        table.chip(0, len(table[0]))
    with pytest.raises(IndexError, match="chips"):
        table.chip(12, -1)
