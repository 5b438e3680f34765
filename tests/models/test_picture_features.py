"""Features of RoIs and pictures against a slow reference, and the key of a network."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from sniper.models.assembly import DetectorSpec, build_detector
from sniper.models.features import build_picture_features, features_key, pool_features
from sniper.models.parts import FeatureMap

STRIDE = 16


def reference(data, rois):
    """Max of 7x7 bins of whole cells, and the mean over them, written out."""
    rows = []
    for index, *box in rois:
        x1, y1, x2, y2 = (int(np.floor(value / STRIDE + 0.5)) for value in box)
        sides = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
        bins = []
        for i in range(7):
            for j in range(7):
                left, right = edges(x1, sides[0], j, data.shape[3])
                top, bottom = edges(y1, sides[1], i, data.shape[2])
                cells = data[int(index), :, top:bottom, left:right]
                empty = cells.shape[1] == 0 or cells.shape[2] == 0
                bins.append(np.zeros(data.shape[1]) if empty else cells.max(axis=(1, 2)))
        rows.append(np.mean(bins, axis=0))
    return np.array(rows)


def edges(start, side, number, limit):
    low = int(np.floor(number * side / 7)) + start
    high = int(np.ceil((number + 1) * side / 7)) + start
    return min(max(low, 0), limit), min(max(high, 0), limit)


def test_features_are_the_mean_of_the_largest_of_each_bin():
    rng = np.random.default_rng(0)
    data = rng.normal(0, 1, (2, 3, 9, 11)).astype(np.float32)
    rois = np.float32(
        [[0, 0, 0, 175, 143], [1, 20, 30, 140, 100], [0, 90, 10, 95, 12], [1, 0, 0, 0, 0]]
    )
    level = FeatureMap("map", mx.sym.Variable("data"), STRIDE)
    symbol = pool_features(level, mx.sym.Variable("rois"))
    assert symbol.list_outputs() == ["roi_features_output"]
    bound = symbol.bind(mx.cpu(), {"data": mx.nd.array(data), "rois": mx.nd.array(rois)})
    np.testing.assert_allclose(
        bound.forward()[0].asnumpy(), reference(data, rois), rtol=1e-5, atol=1e-6
    )


def spec(**changes):
    values = {
        "symbol": "mobilenetv2_e2e",
        "num_classes": 4,
        "anchor_scales": (2,),
        "anchor_ratios": (1,),
        "feature_stride": STRIDE,
        "batch_images": 1,
        "width": 0.25,
    }
    return DetectorSpec(**{**values, **changes})


@pytest.mark.parametrize("symbol", ["mobilenetv2_e2e", "resnet_mx_18_e2e", "mobilenetv2_e2e_mask"])
def test_every_network_gives_features_of_its_last_map(symbol):
    network = spec(symbol=symbol)
    channels = 320 if symbol.startswith("mobilenetv2") else 192
    graph = build_picture_features(network, "mean")
    assert graph.list_inputs()[0] == "data" and "rois" not in graph.list_inputs()
    _, shapes, _ = graph.infer_shape(data=(2, 3, 64, 96))
    assert shapes == [(2, channels)]
    names = build_detector(network, train=False, roi_features=True).list_outputs()
    assert names[-1] == "roi_features_output"
    assert names[:-1] == build_detector(network, train=False).list_outputs()


def test_the_key_tells_networks_and_weights_apart_and_nothing_else():
    def key(network, value=0.0):
        symbol = build_picture_features(network, "mean")
        return features_key(symbol, {"w": mx.nd.array([value])})

    same = key(spec())
    build_detector(spec(), train=True)  # names of what it builds are numbered on
    assert key(spec()) == same
    assert key(spec(num_classes=9, anchor_scales=(2, 4))) == same, "heads make no features"
    others = [key(spec(), 1.0), key(spec(width=0.5)), key(spec(activation="relu"))]
    assert len({same, *others}) == 4
