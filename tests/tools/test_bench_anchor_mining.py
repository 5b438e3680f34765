"""The benchmark of anchor mining: its peers compute what the operator does, and it can say no."""

from __future__ import annotations

import numpy as np
import pytest

from bench.case import OutputsDifferError
from bench.cases import anchor_mining as case


def outputs(side, arrays, module):
    prepared = side(arrays, {"module": module}, 1)
    return prepared.outputs(prepared.run())


@pytest.mark.parametrize(("module", "size"), [(1, (64, 88)), (2, (112, 136)), (3, (320, 256))])
def test_the_peers_compute_the_same(module, size):
    arrays = case.inputs(np.random.default_rng(module), module, 2, size, 10)
    assert (arrays["gt_boxes"][..., 4] >= 0).sum() == 18
    assert (arrays["ignore_boxes"][..., 4] >= 0).sum() == 2
    mine = outputs(case.ours, arrays, module)
    assert mine["count"][:, 0].any()
    for name in ("numpy", "loop"):
        peer = outputs(case.CASE.sides[name].setup, arrays, module)
        assert "identical" in case.compare(mine, peer, case.CASE.jobs[0], name)


def test_differences_are_found():
    arrays = case.inputs(np.random.default_rng(0), 1, 1, (64, 64), 10)
    mine, peer = (outputs(side, arrays, 1) for side in (case.ours, case.numpy))
    positive = tuple(np.argwhere(mine["weight"] > 0)[0])
    for name, place, words in [
        ("count", (0, 1), "numbers"),
        ("label", (0, 0), "labels"),
        ("weight", positive, "weights"),
        ("target", positive, "targets"),
    ]:
        changed = {**mine, name: mine[name].copy()}
        changed[name][place] += 1
        with pytest.raises(OutputsDifferError, match=words):
            case.compare(changed, peer, case.CASE.jobs[0], "numpy")
