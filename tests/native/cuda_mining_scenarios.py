"""Calls of the operator that mines anchors, for cuda_scenarios."""

from __future__ import annotations

import numpy as np

from tests.native.cuda_calls import anchor_mining_target
from tests.native.mining_inputs import M1, M2, M3, random_mining


def mining(seed, *shape, strange=False, **settings):
    """`shape`: images, height, width, rows of faces and of ignored boxes."""
    arrays, boxes = random_mining(np.random.default_rng(seed), *shape, **settings)
    if strange:
        arrays[0].flat[::5] = np.nan
        arrays[0].flat[1::5] = -0.0
        arrays[1][0] = np.nan  # no anchor inside
        arrays[2][:, ::3, 1] = [np.inf]
        arrays[2][:, 1::3] = arrays[2][:, :1]
        boxes[:, ::2, 2] = 1e30
    return lambda backend: anchor_mining_target(backend, *arrays, boxes, **settings)


def small_mining():
    yield "m1", lambda: mining(1, 3, 9, 11, 12, 0, **M1)
    yield "m2", lambda: mining(2, 2, 12, 7, 20, 5, **M2)
    yield "m3", lambda: mining(3, 3, 6, 7, 5, 2, **M3, batch_size=20)
    yield "none_inside", lambda: mining(4, 2, 3, 4, 5, 2, **{**M3, "border": 0})
    yield "strange", lambda: mining(5, 4, 9, 11, 12, 6, strange=True, **M1, batch_size=30)
    yield "no_rows", lambda: mining(6, 2, 9, 9, 0, 0, **M1)
    yield "no_images", lambda: mining(7, 0, 9, 9, 4, 0, **M1)
    yield "one_anchor", lambda: mining(8, 70, 1, 1, 2, 1, **M1)
    yield "overlaps_of_0_and_1", lambda: mining(9, 2, 9, 9, 9, 3, **M1, negative_overlap=0,
                                                positive_overlap=1, ignore_overlap=0)  # fmt: skip


def large_mining():
    yield "photo_m1", lambda: mining(1, 1, 150, 200, 1000, 0, **M1)
    yield "crops_16_m1", lambda: mining(2, 16, 80, 80, 100, 50, **M1)
    yield "crops_16_m3", lambda: mining(3, 16, 20, 20, 100, 50, **M3)


def random_mining_call(seed, number):
    """A call with sizes and settings by seed; `number(low, high)` draws a size."""
    shape = number(1, 6), number(1, 30), number(1, 30), number(0, 60), number(1, 9)
    strange = bool(number(0, 1)) and shape[3] > 0
    return mining(
        seed, *shape, strange=strange, **(M1, M2, M3)[seed % 3], batch_size=number(1, 300)
    )
