"""Starting values and pretrained tensors of the 2018 networks against the golden facts."""

import gzip
import json

import numpy as np
import pytest

from sniper.models.initialisers import initial_value, is_head


@pytest.mark.parametrize(
    "key", ["resnet_mx_101_e2e/train", "resnet_mx_50_e2e/train_rpn", "mobilenetv2_e2e/train"]
)
def test_rules_of_2018(golden, key):
    with gzip.open(golden / "networks_2018.json.gz", "rt", encoding="utf-8") as file:
        facts = json.load(file)[key]
    shapes = dict(map(tuple, facts["arguments"]))
    assert facts["init"]
    for name, rule in facts["init"].items():
        assert is_head(name), name
        # A few numbers are enough: the big layers hold 13 million.
        value = initial_value(name, (1000,) if rule != "zeros" else tuple(shapes[name]), seed=0)
        if rule == "zeros":
            assert not value.any(), name
        else:
            assert rule == "normal(0,0.01)"
            assert abs(value.std() / 0.01 - 1) < 0.15, name
    for name in facts["pretrained"] + facts["pretrained_aux"]:
        assert not is_head(name), name
    assert np.float32 is value.dtype.type
