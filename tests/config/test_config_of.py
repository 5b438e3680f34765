"""Configurations from plain values, as archives bring them along."""

import pytest
import yaml

from sniper.config import config_of, dump_config, load_config
from sniper.errors import ConfigError


@pytest.mark.parametrize("recipe", ["sniper_res101_e2e", "sniper_mobilenetv2_toy"])
def test_what_was_dumped_comes_back(recipe):
    cfg = load_config(recipe, ["TEST.MAX_PER_IMAGE", "37"])
    values = yaml.safe_load(dump_config(cfg))
    back = config_of(values, "model.zip")
    assert dump_config(back) == dump_config(cfg)
    assert back.TEST.MAX_PER_IMAGE == 37 and back.name == recipe
    assert values == yaml.safe_load(dump_config(cfg))  # not touched


def test_all_problems_are_listed():
    with pytest.raises(ConfigError) as error:
        config_of({"TEST": {"NMS": "much"}, "no_such_key": 1}, "meta.json of model.zip")
    assert "TEST.NMS" in str(error.value) and "no_such_key" in str(error.value)
    assert "meta.json of model.zip" in str(error.value)
