import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sniper.chips.slices import SliceSettings, slice_windows
from sniper.errors import ConfigError


def windows(width, height, size, overlap):
    return slice_windows(width, height, SliceSettings(size, overlap)).tolist()


@pytest.mark.parametrize(
    "image, size, overlap, starts",
    [
        ((100, 40), 40, 0.0, [0, 40, 60]),  # the last one is moved inwards
        ((120, 40), 40, 0.0, [0, 40, 80]),
        ((100, 40), 40, 0.5, [0, 20, 40, 60]),
        ((17, 10), 10, 0.7, [0, 3, 6, 7]),  # 7 px are shared, not 8
        ((41, 40), 40, 0.2, [0, 1]),
        ((40, 40), 40, 0.2, [0]),
    ],
)
def test_windows_of_one_row(image, size, overlap, starts):
    expected = [[x, 0, x + size, size] for x in starts]
    assert windows(*image, size, overlap) == expected


def test_windows_go_row_by_row():
    assert windows(30, 20, 16, 0.25) == [
        *([0, 0, 16, 16], [12, 0, 28, 16], [14, 0, 30, 16]),
        *([0, 4, 16, 20], [12, 4, 28, 20], [14, 4, 30, 20]),
    ]


def test_an_image_smaller_than_a_window_is_one_window():
    assert windows(300, 200, 512, 0.2) == [[0, 0, 300, 200]]
    assert windows(600, 200, 512, 0.2) == [[0, 0, 512, 200], [88, 0, 600, 200]]


@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.floats(0, 0.99, exclude_max=True)
)
def test_windows_cover_the_image_and_overlap_as_asked(width, height, size, overlap):
    chips = slice_windows(width, height, SliceSettings(size, overlap))
    assert (chips[:, 2:] - chips[:, :2] == [min(size, width), min(size, height)]).all()
    assert (chips >= 0).all() and (chips[:, 2] <= width).all() and (chips[:, 3] <= height).all()
    assert len(np.unique(chips, axis=0)) == len(chips)
    seen = np.zeros((height, width), bool)
    for x1, y1, x2, y2 in chips.astype(int):
        seen[y1:y2, x1:x2] = True
    assert seen.all()
    for axis in (0, 1):
        starts = np.unique(chips[:, axis])
        # A window of which all but a fraction of a pixel is to be shared still moves by one pixel.
        shared = min(size * overlap, size - 1)
        assert (size - np.diff(starts) >= shared - 1e-5).all()


@pytest.mark.parametrize("size, overlap", [(0, 0.2), (512, 1.0), (512, -0.1), (512, float("nan"))])
def test_impossible_windows_are_config_errors(size, overlap):
    with pytest.raises(ConfigError, match="TEST.SLICE_SIZE"):
        SliceSettings(size, overlap)
