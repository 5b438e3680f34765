"""`sniper.chips` as a library: zero and NaN are refused by name."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from sniper.chips import (
    ChipSettings,
    FocusSettings,
    SliceSettings,
    focus_chips,
    level_factors,
    level_size,
    make_epoch,
    measure,
    slice_windows,
)
from sniper.chips import (
    test_factor as factor_of_test,
)
from sniper.chips.anchor_fit import anchor_fit
from sniper.chips.box_table import box_table
from sniper.data import image_record
from sniper.errors import ConfigError, DataError
from sniper.targets.anchors import AnchorGrid

NAN = math.nan
SCALES, RANGES = (2.0, 100.0), ((-1, 50), (30, -1))
FOCUS = FocusSettings(3, 0.5, 2)
MAP = np.zeros((4, 4), np.float32)
RECORD = image_record("a.jpg", 1, 40, 30)


@pytest.mark.parametrize("wrong", [NAN, 0, -1, math.inf])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("width", lambda x: level_factors(x, 10, SCALES)),
        ("height", lambda x: level_factors(10, x, [[10, 20]])),
        ("factor", lambda x: level_size(10, 10, x)),
        ("width", lambda x: level_size(x, 10, 1.0)),
        ("height", lambda x: factor_of_test(10, x, (10, 20))),
        ("width", lambda x: slice_windows(x, 10, SliceSettings(8, 0.5))),
        ("height", lambda x: slice_windows(10, x, SliceSettings(8, 0.5))),
        ("positive size", lambda x: SliceSettings(x, 0.5)),
        ("factor", lambda x: focus_chips(MAP, FOCUS, (64, 64), x)),
        ("width", lambda x: focus_chips(MAP, FOCUS, (x, 64), 1.0)),
        ("height", lambda x: focus_chips(MAP, FOCUS, (64, x), 1.0)),
        ("stride", lambda x: focus_chips(MAP, FOCUS, (64, 64), 1.0, stride=x)),
        ("chip_size", lambda x: ChipSettings(SCALES, RANGES, chip_size=x)),
        ("batch_size", lambda x: make_epoch(
            [RECORD], ChipSettings(SCALES, RANGES), seed=0, epoch=0, batch_size=x)),
        ("stride", lambda x: anchor_fit(
            np.zeros((1, 4)), [AnchorGrid(np.zeros((1, 4)), x, 32)], 64)),
    ],
)  # fmt: skip
def test_sizes_are_positive(name, call, wrong):
    with pytest.raises(ConfigError, match=name):
        call(wrong)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("pyramid", lambda: level_factors(10, 10, (NAN, 100.0))),
        ("pyramid", lambda: level_factors(10, 10, ([10, NAN],))),
        ("pyramid", lambda: ChipSettings((2.0, NAN), RANGES)),
        ("VALID_RANGES", lambda: ChipSettings(SCALES, ((-1, NAN), (30, -1)))),
        ("VALID_RANGES", lambda: ChipSettings(SCALES, ((-1, 50), (NAN, -1)))),
        ("VALID_RANGES", lambda: ChipSettings(SCALES, ((-1, 50, 3), (30, -1)))),
        ("max_neg_chips", lambda: ChipSettings(SCALES, RANGES, max_neg_chips=NAN)),
        ("background_chips", lambda: ChipSettings(SCALES, RANGES, background_chips=NAN)),
        ("test scale", lambda: factor_of_test(10, 10, (NAN, 20))),
        ("overlap", lambda: SliceSettings(8, NAN)),
        ("threshold", lambda: FocusSettings(3, NAN, 2)),
        ("threshold", lambda: FocusSettings(3, 50, 2)),
        ("dilation", lambda: FocusSettings(NAN, 0.5, 2)),
        ("origin", lambda: focus_chips(MAP, FOCUS, (64, 64), 1.0, (NAN, 0))),
        ("records", lambda: measure([], ChipSettings(SCALES, RANGES), seed=0, epoch=0)),
    ],
)
def test_other_numbers_are_numbers(name, call):
    with pytest.raises(ConfigError, match=name):
        call()


@pytest.mark.parametrize("wrong", [NAN, 0, -3])
def test_images_have_a_size(wrong):
    with pytest.raises(DataError, match=r"a\.jpg"):
        image_record("a.jpg", 1, wrong, 30)
    with pytest.raises(DataError, match="width"):
        replace(box_table([RECORD]), width=np.array([wrong]))


def test_maps_and_boxes_with_nan_are_refused():
    broken = MAP.copy()
    broken[1, 2] = NAN
    with pytest.raises(DataError, match="1 of 16 cells"):
        focus_chips(broken, FOCUS, (64, 64), 1.0)
    with pytest.raises(DataError, match="not finite"):
        replace(
            RECORD,
            boxes=np.array([[NAN, 1, 2, 3]], np.float32),
            classes=np.array([1], np.int32),
            is_gt=np.array([True]),
        )
