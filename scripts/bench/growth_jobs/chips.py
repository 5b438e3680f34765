"""Chips of huge images and of many images: `sniper.chips.sampler.make_epoch`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.growth_fit import GrowthJob

# Objects of a 10,000 px image.
OBJECTS, SIDE_PX = 10_000, 10_000


def by_density(objects: int) -> Callable[[], object]:
    """One image of 10,000 px."""
    return epoch_of(objects, SIDE_PX)


def by_area(objects: int) -> Callable[[], object]:
    """One image that grows with its objects."""
    return epoch_of(objects, round(SIDE_PX * (objects / OBJECTS) ** 0.5))


def with_all_kinds(objects: int) -> Callable[[], object]:
    """The same with background chips, and negative ones around as many proposals."""
    side_px = round(SIDE_PX * (objects / OBJECTS) ** 0.5)
    return epoch_of(objects, side_px, proposals=objects, background=0.5)


def by_candidates(area: int) -> Callable[[], object]:
    """Few objects in an image of so many thousand px."""
    return epoch_of(1000, round((1000 * area) ** 0.5))


def by_images(images: int) -> Callable[[], object]:
    """Images as in COCO."""
    from bench.epoch import coco_like_records
    from sniper.chips.sampler import ChipSettings

    ranges = ((-1, 80), (32, 150), (120, -1))
    settings = ChipSettings((3.0, 1.667, 512.0), ranges)
    return call(coco_like_records(images, 0, seed=0), settings)


def epoch_of(
    objects: int, side_px: int, *, proposals: int = 0, background: float = 0.0
) -> Callable[[], object]:
    from sniper.chips.sampler import ChipSettings
    from sniper.data.record import Record

    rng = np.random.default_rng(objects)
    count = objects + proposals
    sides = np.exp(rng.uniform(np.log(4), np.log(200), (count, 2)))
    corners = rng.uniform(0, side_px - sides)
    is_gt = np.arange(count) < objects
    boxes = np.hstack([corners, corners + sides - 1]).astype(np.float32)
    record = Record("huge.jpg", 1, side_px, side_px, False, boxes, is_gt.astype(np.int32), is_gt)
    settings = ChipSettings(
        (1.0, 0.5, 0.2),
        ((-1, 40), (24, 100), (80, -1)),
        chip_size=128,
        use_neg_chips=proposals > 0,
        max_neg_chips=objects,
        background_chips=background,
    )
    return call([record], settings)


def call(records: list, settings: object) -> Callable[[], object]:
    from sniper.chips.box_table import box_table
    from sniper.chips.sampler import make_epoch

    table = box_table(records)
    return lambda: make_epoch(table, settings, seed=0, epoch=0, batch_size=1)


JOBS = [
    GrowthJob("chips of 128 px, objects in 10,000 px", "objects", 5_000, by_density),
    GrowthJob("chips of 128 px, constant density", "objects", 2_500, by_area),
    GrowthJob("chips of all kinds, constant density", "objects", 2_500, with_all_kinds),
    GrowthJob("chips of 128 px, 1,000 objects", "thousand px", 12_500, by_candidates),
    GrowthJob("chips of many images", "images", 2_000, by_images),
]
