"""Blocks of images, the origin of merged detections, and masks from the right map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.chips.pyramid import test_factor as factor_at_test
from sniper.data import Record
from sniper.data.detections import ImageDetections, table_of
from sniper.data.rle import decode_mask
from sniper.inference.decode import ChipDetections
from sniper.inference.image_blocks import image_blocks
from sniper.inference.instance_masks import BlockMaps, table_with_masks
from sniper.inference.merge_levels import (
    LevelDetections,
    MergeSettings,
    keep_confident,
    merge_levels,
)

RANGES = ((-1, 90), (32, 180), (75, -1))
SETTINGS = MergeSettings(nms_threshold=-1, sigma=0.55)
SCALES = [(300, 500), (128, 128)]


def factors(sizes):
    return [[factor_at_test(w, h, scale) for scale in SCALES] for w, h in sizes]


@given(
    st.lists(st.tuples(st.integers(10, 2000), st.integers(10, 2000)), max_size=30),
    st.floats(1e3, 1e8),
    st.integers(1, 40),
)
@settings(max_examples=60, deadline=None)
def test_blocks_hold_every_image_once_and_stay_small(sizes, memory, most):
    blocks = image_blocks(
        sizes, factors(sizes), bytes_per_px=4.0, memory_bytes=memory, most_images=most
    )
    assert max(map(len, blocks), default=0) <= most
    assert sorted(i for block in blocks for i in block) == list(range(len(sizes)))

    def need(block):
        return sum(
            4 * w * h * factor_at_test(w, h, scale) ** 2
            for w, h in (sizes[i] for i in block)
            for scale in SCALES
        )

    assert all(len(block) == 1 or need(block) <= memory * (1 + 1e-9) for block in blocks)
    # No block could take the first image of the next one.
    for block, following in zip(blocks, blocks[1:]):
        assert len(block) == most or need([*block, following[0]]) > memory * (1 - 1e-9)


def test_images_of_one_size_stand_together():
    sizes = [(640, 480), (100, 90), (640, 480), (480, 640), (100, 90)]
    limits = {"bytes_per_px": 1.0, "memory_bytes": 1e12, "most_images": 9}
    (block,) = image_blocks(sizes, factors(sizes), **limits)
    assert block == [1, 4, 3, 0, 2]
    assert image_blocks([], [], **limits) == []


def _found(rng, image, chip, rois=25, classes=4):
    """Some boxes are the same at every level and chip."""
    corners = np.concatenate([rng.uniform(0, 300, (rois - 5, 2)), np.full((5, 2), 40.0)])
    sizes = np.concatenate([rng.uniform(5, 250, (rois - 5, 2)), np.full((5, 2), 85.0)])
    boxes = np.concatenate([corners, corners + sizes], axis=1).astype(np.float32)
    return ChipDetections(
        image, chip, boxes, rng.dirichlet([0.3] * classes, rois).astype(np.float32)
    )


@pytest.mark.parametrize("threshold", [-1.0, 0.3])
def test_every_detection_stands_where_it_is_said_to_come_from(threshold):
    rng = np.random.default_rng(4)
    parts = [
        [keep_confident(_found(rng, i, chip), level) for level in range(3) for chip in range(2)]
        for i in range(3)
    ]
    settings = MergeSettings(threshold, 0.55, max_per_image=60)
    table, origins = merge_levels(parts, RANGES, settings)
    assert origins.shape == (table.num_detections, 2)
    levels_seen = set()
    for image, image_parts in enumerate(parts):
        by_place = {(part.level, part.chip_index): part for part in image_parts}
        used = set()
        own = slice(*table.offsets[image : image + 2])
        for row, klass, place in zip(table.rows[own], table.classes[own], origins[own].tolist()):
            part = by_place[tuple(place)]
            same = (part.rows[:, :4] == row[:4]).all(axis=1) & (part.classes == klass)
            assert (part.rows[same, 4] >= row[4]).any()
            levels_seen.add(place[0])
            used.add((klass, tuple(place), tuple(row[:4]), row[4]))
        assert len(used) == own.stop - own.start
    assert levels_seen == {0, 1, 2}


def test_of_the_same_box_at_two_levels_each_keeps_its_own():
    row = [100, 100, 160, 160]
    parts = [
        LevelDetections(1, 0, np.float32([[*row, 0.9]]), np.int32([1])),
        LevelDetections(0, 3, np.float32([[*row, 0.5]]), np.int32([1])),
    ]
    for order in (parts, parts[::-1]):
        table, origins = merge_levels([order], RANGES, SETTINGS)
        np.testing.assert_allclose(table.rows[:, 4], [0.9, 0.5 * np.exp(-1 / 0.55)], rtol=1e-5)
        assert origins.tolist() == [[1, 0], [0, 3]]


def _record(width, height):
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
    return Record("x.jpg", 1, width, height, False, *nothing)


class MarkedMaps:
    """A mask head whose masks tell from which map, box and class they were made."""

    def __init__(self):
        self.jobs = []

    def __call__(self, jobs):
        self.jobs = list(jobs)
        results = []
        for job in jobs:
            filled = int(job.roi_map[0, 0, 0])  # so many rows of cells are part of the object
            masks = np.zeros((len(job.boxes), 10, 10), np.float32)
            masks[:, :filled] = 1
            results.append(masks)
        return results


def test_masks_are_read_at_the_level_and_chip_of_their_detection():
    maps, network = BlockMaps(), MarkedMaps()
    places = {(0, 0): (2.0, (0.0, 0.0)), (1, 0): (0.5, (0.0, 0.0)), (1, 7): (0.5, (100.0, 20.0))}
    for mark, ((level, chip), (factor, origin)) in enumerate(places.items(), start=1):
        roi_map = np.full((4, 3, 3), 2 * mark, np.float32)
        found = ChipDetections(0, chip, None, None, factor, roi_map)
        maps.keep(level, found, origin)
    boxes = [
        [10, 10, 30, 30, 0.9],
        [110, 30, 150, 70, 0.8],
        [0, 0, 40, 40, 0.7],
        [5, 5, 15, 25, 0.6],
    ]
    own = ImageDetections(np.float32(boxes), np.int32([1, 1, 1, 2]))
    none = ImageDetections(own.rows[:0], own.classes[:0])
    origins = np.int32([[0, 0], [1, 7], [1, 0], [0, 0]])
    records = [_record(200, 100), _record(50, 60)]
    found, nothing = table_with_masks(network, maps, records, table_of([own, none]), origins)
    assert len(found.masks) == 4 and nothing.masks == []
    heights = [20, 40, 40, 20]  # of the frames
    for counts, box, height, filled in zip(found.masks, boxes, heights, [2, 6, 4, 2]):
        mask = decode_mask(counts, 100, 200)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert (columns[0], columns[-1], rows[0]) == (box[0], box[2], box[1])
        assert len(rows) == round(height * filled / 10)
    by_size = {len(job.boxes): job for job in network.jobs}
    np.testing.assert_array_equal(by_size[2].boxes, [[20, 20, 61, 61], [10, 10, 31, 51]])
    np.testing.assert_array_equal(by_size[2].classes, [1, 2])
    chip = next(job for job in network.jobs if job.roi_map[0, 0, 0] == 6)
    np.testing.assert_array_equal(chip.boxes, [[5, 5, 24.5, 24.5]])


def test_a_block_without_images():
    table = table_with_masks(MarkedMaps(), BlockMaps(), [], table_of([]), np.zeros((0, 2), int))
    assert len(table) == 0 and table.has_masks
