"""The CUDA kernels that mine anchors against the CPU kernel: the same choice, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from sniper.native import _native
from tests.native import cuda_sources
from tests.native.cuda_calls import AnchorMiningTargetParams, anchor_mining_target
from tests.native.mining_inputs import M1, M3, MODULES, F, random_mining


def check(cuda, arrays, boxes, **settings):
    """Everything but the logarithms has the same bits."""
    got = anchor_mining_target(cuda, *arrays, boxes, **settings)
    wanted = _native.anchor_mining_target(*arrays, boxes, **settings)
    for index, (own, output) in enumerate(zip(got, wanted)):
        if index == 1:
            np.testing.assert_allclose(own, output, rtol=1e-6, atol=1e-6)
            own, output = (a.reshape(len(a), -1, 4, *a.shape[2:])[:, :, :2] for a in (own, output))
        assert np.ascontiguousarray(own).tobytes() == np.ascontiguousarray(output).tobytes()
    return wanted


def test_structure(tmp_path):
    header = "anchor_mining_target/anchor_mining_target.h"
    structures = {"AnchorMiningTargetParams": AnchorMiningTargetParams}
    cuda_sources.check_layouts(tmp_path, header, structures)


@pytest.mark.parametrize("ignored", [0, 4])
@pytest.mark.parametrize("module", MODULES)
def test_modules_equal_the_cpu(cuda, module, ignored):
    settings = MODULES[module]
    arrays, boxes = random_mining(np.random.default_rng(1), 3, 9, 11, 20, ignored, **settings)
    count = check(cuda, arrays, boxes, **settings, batch_size=60)[3]
    assert (count[:, 1] > 0).all() and count[:, 0].any()


@pytest.mark.parametrize(
    "change",
    [
        {"border": 20, "ratios": (0.5, 2), "base_size": 12},
        {"fg_fraction": 0, "batch_size": 1},
        {"fg_fraction": 1, "batch_size": 10**6},
        {"negative_overlap": 0, "positive_overlap": 1, "ignore_overlap": 0},
        {"negative_overlap": 0, "positive_overlap": 0, "ignore_overlap": 1},
    ],
    ids=str,
)
def test_settings_equal_the_cpu(cuda, change):
    settings = {**M1, **change}
    scales = M1["scales"] * len(settings.get("ratios", (1,)))
    arrays, boxes = random_mining(
        np.random.default_rng(2), 2, 8, 9, 12, 3, scales=scales, feature_stride=8
    )
    check(cuda, arrays, boxes, **settings)


def test_no_anchor_inside_one_of_the_images(cuda):
    arrays, boxes = random_mining(np.random.default_rng(3), 3, 9, 9, 6, 2, **M3)
    arrays[1][1, :2] = 100
    count = check(cuda, arrays, boxes, **{**M3, "border": 0})[3]
    assert count[1, 1] > 0


def test_strange_numbers(cuda):
    arrays, boxes = random_mining(np.random.default_rng(4), 3, 9, 9, 12, 6, **M1)
    arrays[0].flat[::5], arrays[0].flat[1::5] = np.nan, -0.0
    arrays[1][0] = np.nan
    arrays[2][:, ::3, 1], boxes[:, ::2, 2] = np.inf, 1e30
    check(cuda, arrays, boxes, **M1)


@pytest.mark.parametrize(("images", "rows"), [(2, 0), (70, 2)])
def test_no_faces_and_many_images(cuda, images, rows):
    arrays, _ = random_mining(np.random.default_rng(5), images, 1, 2, rows, 0, **M1)
    check(cuda, arrays, None, **M1)


def test_equal_overlaps_and_probabilities(cuda):
    arrays, boxes = random_mining(np.random.default_rng(6), 2, 9, 9, 8, 2, **M1)
    arrays[0][:] = F(0.5)
    arrays[2][:, 1::2] = arrays[2][:, ::2]
    check(cuda, arrays, boxes, **M1, batch_size=24)
