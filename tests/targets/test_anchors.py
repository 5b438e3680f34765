import numpy as np
import pytest

from sniper.errors import ConfigError
from sniper.targets.anchors import base_anchors, shifted_anchors

RATIOS = (0.5, 1, 2)

STRIDE_16 = [
    [-15, -4, 30, 19], [-38, -16, 53, 31], [-72.5, -34, 87.5, 49], [-107, -52, 122, 67],
    [-141.5, -70, 156.5, 85], [-176, -88, 191, 103], [-268, -136, 283, 151],
    [-8, -8, 23, 23], [-24, -24, 39, 39], [-48, -48, 63, 63], [-72, -72, 87, 87],
    [-96, -96, 111, 111], [-120, -120, 135, 135], [-184, -184, 199, 199],
    [-3, -14, 18, 29], [-14, -36, 29, 51], [-30.5, -69, 45.5, 84], [-47, -102, 62, 117],
    [-63.5, -135, 78.5, 150], [-80, -168, 95, 183], [-124, -256, 139, 271],
]  # fmt: skip
STRIDE_32 = [
    [-6.5, 5, 37.5, 26], [-29, -6, 60, 37], [-74, -28, 105, 59], [-164, -72, 195, 103],
    [-254, -116, 285, 147],
    [0, 0, 31, 31], [-16, -16, 47, 47], [-48, -48, 79, 79], [-112, -112, 143, 143],
    [-176, -176, 207, 207],
    [4.5, -7, 26.5, 38], [-7, -30, 38, 61], [-30, -76, 61, 107], [-76, -168, 107, 199],
    [-122, -260, 153, 291],
]  # fmt: skip


def test_stride_16_is_the_published_table():
    anchors = base_anchors(16, RATIOS, (2, 4, 7, 10, 13, 16, 24))
    assert anchors.dtype == np.float32
    np.testing.assert_array_equal(anchors, STRIDE_16)


def test_stride_32_is_the_published_table():
    np.testing.assert_array_equal(base_anchors(32, RATIOS, (1, 2, 4, 8, 12)), STRIDE_32)


def test_the_roundings_agree_at_stride_16_and_differ_at_32():
    scales = (2, 4, 7, 10, 13, 16, 24)
    np.testing.assert_array_equal(
        base_anchors(16, RATIOS, scales), base_anchors(16, RATIOS, scales, "half_up")
    )
    legacy, half_up = (
        base_anchors(32, RATIOS, (1,), rounding) for rounding in ("legacy", "half_up")
    )
    heights = [(a[:, 3] - a[:, 1] + 1).tolist() for a in (legacy, half_up)]
    assert heights == [[22, 32, 46], [23, 32, 46]]
    np.testing.assert_array_equal(legacy[1:], half_up[1:])


def test_shifted_anchors_run_over_columns_then_rows():
    base = base_anchors(16, RATIOS, (2, 4))
    anchors = shifted_anchors(base, 16, 3, 5)
    assert anchors.shape == (3 * 5 * 6, 4) and anchors.dtype == np.float32
    for row, column, a in [(0, 0, 0), (0, 4, 5), (2, 1, 3)]:
        expected = base[a] + np.array([column, row, column, row]) * 16
        np.testing.assert_array_equal(anchors[(row * 5 + column) * 6 + a], expected)


@pytest.mark.parametrize(
    "arguments",
    [(0, (1,), (1,)), (16, (), (1,)), (16, (1,), ()), (16, (-1,), (1,)), (16, (1,), (1,), "up")],
)
def test_bad_arguments_are_config_errors(arguments):
    with pytest.raises(ConfigError):
        base_anchors(*arguments)
