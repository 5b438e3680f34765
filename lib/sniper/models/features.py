"""Features of RoIs and of whole pictures, which classifiers of new classes read (R-FCN-3K).

Both are pooled from the backbone's map that the heads of RoIs read, by the same rule: a picture is
one RoI. Max pooling of 7x7 bins and the mean over them are of 2018; for pictures 2018 took the mean
of the map, whose numbers are smaller.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sniper.models.heads.layers import pool_class_map
from sniper.models.lazy import mx
from sniper.models.parts import FeatureMap, Graph

if TYPE_CHECKING:
    from sniper.models.spec import DetectorSpec

ROI_FEATURES = "roi_features"
# How a picture becomes one row of features: as a RoI, or the mean of its map.
POOLINGS = ("roi", "mean")


def pool_features(level: FeatureMap, rois: mx.sym.Symbol) -> mx.sym.Symbol:
    """`roi_features_output` (R, channels): max pooling of 7x7 bins, and their mean.

    Args:
        level: the map.
        rois: (R, 5) image index and box in px of the network's input.
    """
    return pool_class_map(level.data, rois, level.stride, ROI_FEATURES)


def build_picture_features(spec: DetectorSpec, pooling: str) -> mx.sym.Symbol:
    """The backbone with `roi_features_output` (R, channels); inputs `data`, and `rois` to pool.

    The same network gives the same text of its graph at any time.

    Args:
        spec: the network.
        pooling: one of `POOLINGS`; "mean" is that of the whole map, padding included (2018).
    """
    # A fresh manager: numbers in automatic names would depend on what was built before.
    with mx.name.NameManager():
        graph = Graph(spec, ())
        backbone = spec.network.backbone
        strides = backbone.strides_of(spec.feature_stride)
        maps = backbone.features(graph.input("data"), spec, train=False)
        graph.maps = {name: FeatureMap(name, data, strides[name]) for name, data in maps.items()}
        if pooling == "mean":
            return mx.sym.mean(graph.map().data, axis=(2, 3), name=ROI_FEATURES)
        return pool_features(graph.map(), graph.input("rois"))


def features_key(symbol: mx.sym.Symbol, params: Mapping[str, mx.nd.NDArray]) -> str:
    """A text that two networks share if, and only if, their features are the same.

    Args:
        symbol: of `build_picture_features`.
        params: its parameters and statistics.
    """
    digest = hashlib.sha256(symbol.tojson().encode())
    for name in sorted(params):
        digest.update(name.encode())
        digest.update(params[name].asnumpy().tobytes())
    return digest.hexdigest()
