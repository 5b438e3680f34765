"""`TEST.MAX_PIXELS`: no window of a level is larger, whatever the image, and it is told once."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sniper.chips.slices import SliceSettings
from sniper.data.cut import content_size
from sniper.data.record import image_record
from sniper.inference.detector import Detector
from sniper.inference.level import SLICES, Level
from sniper.inference.merge_levels import MergeSettings
from tests.inference.spot_executor import SpotExecutor

SIDE = st.integers(20, 5000)
SLICED = {"windows": SLICES, "slices": SliceSettings(640, 0.2)}


@given(SIDE, SIDE, st.sampled_from([(300, 500), (1600, 2400), 0.4, 3.0]), st.booleans())
def test_windows_have_no_more_pixels(width, height, scale, sliced):
    record = image_record("photo.jpg", 0, width, height)
    common = SLICED if sliced else {}
    free, bound = (Level(scale, max_pixels=most, **common) for most in (0, 250_000))
    assert free.factor(record) == free.asked_factor(record) == bound.asked_factor(record)
    assert not free.is_bound(record)
    sides = [min(side, 640) if sliced else side for side in (width, height)]
    rows, columns = content_size((height, width), (0, 0, *sides), bound.factor(record))
    # Sides are rounded.
    assert (rows - 0.5) * (columns - 0.5) <= 250_000
    asked = sides[0] * sides[1] * free.factor(record) ** 2
    assert bound.is_bound(record) == (asked > 250_000)
    if not bound.is_bound(record):
        assert bound.factor(record) == free.factor(record)


def test_it_holds_for_what_the_network_gets_and_is_told_once(tmp_path, caplog):
    records = []
    for number, (width, height) in enumerate([(100, 80), (640, 480), (900, 700)]):
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))
        records.append(image_record(str(path), number, width, height))
    levels = [Level((100, 200), max_pixels=60_000), Level((400, 600), max_pixels=60_000)]
    executor = SpotExecutor()
    detector = Detector(executor, levels, MergeSettings(), np.zeros(3))
    detector.detect(records[:1])
    assert "level 2 would have 500 x 400 px and gets 274 x 219" in caplog.text
    detector.detect(records)
    assert len([one for one in caplog.records if "MAX_PIXELS" in one.message]) == 1
    # Padding to 32 px is not counted.
    assert all((h - 32) * (w - 32) < 60_000 for _, _, h, w in executor.shapes)
    caplog.clear()
    detector = Detector(SpotExecutor(), levels[:1], MergeSettings(), np.zeros(3))
    detector.detect(records)
    assert "MAX_PIXELS" not in caplog.text
