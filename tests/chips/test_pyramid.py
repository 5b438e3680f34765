import numpy as np
import pytest

from sniper.chips import pyramid
from sniper.errors import ConfigError

PAIRS = [(1400, 2000), (800, 1280), (-1, 512)]


@pytest.mark.parametrize(
    "size, expected",
    [
        ((640, 480), (2.916667, 1.666667, 0.8)),
        ((500, 375), (3.733333, 2.133333, 1.024)),
        ((640, 360), (3.125, 2.0, 0.8)),
        ((333, 500), (4.0, 2.402402, 1.024)),
    ],
)
def test_golden_resolution_mode(size, expected):
    assert pyramid.level_factors(*size, PAIRS) == pytest.approx(expected, abs=1e-6)


def test_factor_mode_makes_the_last_entry_a_long_side():
    assert pyramid.level_factors(640, 480, (3.0, 1.667, 512.0)) == (3.0, 1.667, 0.8)
    assert pyramid.level_factors(480, 640, [3, 512]) == (3.0, 0.8)
    assert pyramid.level_factors(1024, 640, [512]) == (0.5,)


def test_a_long_side_that_rounds_to_the_limit_is_not_capped():
    # 500 * (100 / 250) = 200.4 after scaling 501: rounds to 200, which is not above the limit.
    assert pyramid.level_factors(501, 250, [(100, 200)]) == (100 / 250,)
    assert pyramid.level_factors(502, 250, [(100, 200)]) == (200 / 502,)


@pytest.mark.parametrize("scales", [[], [(800, 1280), 512.0], [(-1, -1)], [3.0, -1.0], [(1, 2, 3)]])
def test_impossible_scales_are_config_errors(scales):
    with pytest.raises(ConfigError):
        pyramid.level_factors(640, 480, scales)


def test_level_size_truncates():
    assert pyramid.level_size(640, 480, 1.667) == (1066, 800)


def test_test_time_factor():
    assert pyramid.test_factor(640, 426, (800, 1280)) == pytest.approx(1.8779343)
    assert pyramid.test_factor(640, 427, (480, 512)) == pytest.approx(0.8)
    assert pyramid.test_factor(640, 480, np.array([480, 512])) == pytest.approx(0.8)
    with pytest.raises(ConfigError):
        pyramid.test_factor(640, 480, (-1, 512))
