"""Random crops instead of chips: with what they cannot be joined."""

import pytest

from sniper.chips.sampler import ChipSettings
from sniper.errors import ConfigError


@pytest.mark.parametrize("other", [{"use_neg_chips": True}, {"background_chips": 0.5}])
def test_crops_take_the_place_of_all_chips(other):
    ChipSettings([1.0], [(-1, -1)], random_crops=2)
    with pytest.raises(ConfigError, match="random crops take the place of all chips"):
        ChipSettings([1.0], [(-1, -1)], random_crops=2, **other)


def test_no_number_of_crops_is_negative():
    with pytest.raises(ConfigError, match=r"RANDOM_CROPS"):
        ChipSettings([1.0], [(-1, -1)], random_crops=-1)
