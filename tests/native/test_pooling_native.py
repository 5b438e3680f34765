"""Pooling of RoIs without MXNet: the same bits as the operators in MXNet's graph."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from sniper import ops
from sniper.errors import OpsError
from sniper.native import _native

F = np.float32
SETTINGS = {"spatial_scale": 0.125, "output_dim": 6, "pooled_size": 3}


def inputs(rng, channels, count=9):
    corners = rng.uniform(-30, 200, (count, 2, 2))
    corners.sort(axis=1)
    rois = np.hstack([rng.integers(0, 2, (count, 1)), corners.reshape(count, 4)]).astype(F)
    return rng.normal(size=(2, channels, 13, 17)).astype(F), rois


@pytest.mark.parametrize("classes", [0, 1, 3])
@pytest.mark.parametrize("group", [1, 3])
def test_position_sensitive_pooling(group, classes):
    rng = np.random.default_rng(group)
    data, rois = inputs(rng, 6 * group**2)
    more = {"group_size": group, "sample_per_part": 4, "trans_std": 0.1}
    trans = rng.normal(size=(9, 2 * classes, 3, 3)).astype(F) if classes else None
    given = [array for array in (data, rois, trans) if array is not None]
    output = _native.deformable_psroi_pooling(*given, **SETTINGS, **more)
    expected = ops.deformable_psroi_pooling(*map(mx.nd.array, given), **SETTINGS, **more)
    assert output.any()
    np.testing.assert_array_equal(output, expected.asnumpy())


def test_max_pooling_with_a_mean():
    data, rois = inputs(np.random.default_rng(0), 40)
    output = _native.roi_max_mean_pooling(data, rois, spatial_scale=0.125)
    expected = ops.roi_max_mean_pooling(*map(mx.nd.array, (data, rois)), spatial_scale=0.125)
    assert output.any()
    np.testing.assert_array_equal(output, expected.asnumpy())


def test_without_rois_or_maps_there_is_nothing():
    nothing = np.zeros((0, 5), F)
    assert _native.deformable_psroi_pooling(
        np.zeros((1, 6, 4, 4), F), nothing, **SETTINGS
    ).shape == (0, 6, 3, 3)
    empty = _native.roi_max_mean_pooling(
        np.ones((1, 2, 0, 4), F), np.ones((3, 5), F), spatial_scale=1
    )
    assert empty.shape == (3, 2) and not empty.any()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"output_dim": 5}, "data"),
        ({"pooled_size": 0}, "pooled_size"),
        ({"trans": np.zeros((9, 3, 3, 3), F)}, "classes"),
        ({"trans": np.zeros((8, 2, 3, 3), F)}, "trans"),
        ({"trans": np.zeros((9, 8, 3, 3), F)}, "classes"),
    ],
)
def test_what_does_not_fit_is_refused(change, word):
    data, rois = inputs(np.random.default_rng(0), 6)
    with pytest.raises(OpsError, match=word):
        _native.deformable_psroi_pooling(data, rois, **{**SETTINGS, **change})
