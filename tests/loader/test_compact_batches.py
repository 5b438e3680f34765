"""Compact samples and what becomes of them, against slow NumPy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sniper.chips.chip_table import Chip
from sniper.loader.batch_settings import BatchSettings
from sniper.loader.compact import Expander, compact_specs, empty_arrays
from sniper.loader.images import ImageCache
from sniper.loader.sample import make_sample, write_sample
from sniper.models.assembly import DetectorSpec, batch_contract
from sniper.models.spec import TargetSettings
from sniper.targets.focus_map import FocusRanges, focus_labels
from sniper.targets.gt import boxes_in_chip, gt_in_chip
from sniper.targets.masks import mask_rows


def settings_of(*, rpn_only=False, targets=None, **values):
    """Settings of a network with all heads; `values` of `DetectorSpec`."""
    base = {
        "rpn_batch_size": 32,
        "max_gt": 6,
        "targets": TargetSettings(((-1, 80), (32, 150), (120, -1)), **(targets or {})),
    }
    network = ("resnet_mx_18_e2e_mask", 6, (1, 2, 4), (0.5, 1, 2), 16, 1)
    contract = batch_contract(DetectorSpec(*network, **{**base, **values}), 128, rpn_only=rpn_only)
    return BatchSettings(contract, pixel_means=(103.939, 116.779, 123.68))


SETTINGS = settings_of()
BOTH = settings_of(auto_focus=True, with_masks=True, mask_row_length=40)


def with_polygons(record):
    """Each box becomes a triangle; the first object has two, the last one none."""
    triangles = [(box[[0, 1, 2, 1, 2, 3]] + 0.5,) for box in record.boxes]
    triangles[0] = (triangles[0][0], triangles[0][0][:6] + 2)
    triangles[-1] = ()
    return dataclasses.replace(record, polygons=tuple(triangles))


def chips_of(record, count=4):
    rng = np.random.default_rng(3)
    chips = []
    for k in range(count):
        x, y = rng.uniform(0, 50, 2)
        rows = rng.choice(5, rng.integers(0, 6), replace=False).astype(np.int32)
        rect = (float(x), float(y), float(x) + 63.75, float(y) + 63.75)
        chips.append(Chip(rect, 2.0, 128, 120 + k, k % 3, np.sort(rows), "positive"))
    return chips


def batch_of(record, settings, count=4):
    """Compact arrays of a batch, filled with rubbish before."""
    arrays = empty_arrays(compact_specs(settings), count)
    for array in arrays.values():
        array[...] = 77
    for i, chip in enumerate(chips_of(record, count)):
        row = {name: array[i, ...] for name, array in arrays.items()}
        write_sample(record, chip, settings, i, ImageCache(), row)
    return arrays


def test_a_compact_sample_is_small():
    spec = DetectorSpec("resnet_mx_18_e2e", 6, range(1, 8), (0.5, 1, 2), 16, 1, rpn_batch_size=32)
    full = BatchSettings(batch_contract(spec, 512), SETTINGS.pixel_means)
    compact = sum(array.nbytes for array in empty_arrays(compact_specs(full), 1).values())
    expanded = sum(4 * int(np.prod(shape)) for shape in full.contract.shapes.values())
    assert compact < expanded / 4


def test_expanded_batches_hold_the_samples(image_records):
    record = with_polygons(image_records[1])
    expanded = Expander(BOTH, 4).expand(batch_of(record, BOTH))
    assert {name: array.shape[1:] for name, array in expanded.items()} == BOTH.contract.shapes
    assert all(array.dtype == np.float32 for array in expanded.values())
    for i, chip in enumerate(chips_of(record)):
        sample = make_sample(record, chip, BOTH, seed=i)
        for name, array in sample.items():
            np.testing.assert_array_equal(expanded[name][i], array, err_msg=name)
    assert (expanded["label"] == 1).any(), "positives make the comparison worth something"


def test_rpn_planes_equal_the_dense_form_of_the_targets(image_records):
    record = image_records[1]
    expanded = Expander(SETTINGS, 4).expand(batch_of(record, SETTINGS))
    targets = SETTINGS.contract.parts[0].targets
    positives = 0
    for i, chip in enumerate(chips_of(record)):
        gt = gt_in_chip(record, chip.rect, chip.factor, chip.rows, 128)
        sample = targets(gt.boxes[gt.valid], gt.boxes[~gt.valid], i)
        for name, array in zip(("label", "bbox_target", "bbox_weight"), targets.dense(sample)):
            np.testing.assert_array_equal(expanded[name][i], array, err_msg=name)
        positives += len(sample.index)
    assert positives


def test_masks_and_focus_labels_are_those_of_the_chip(image_records):
    record = with_polygons(image_records[2])
    for i, chip in enumerate(chips_of(record)):
        sample = make_sample(record, chip, BOTH, seed=i)
        gt = gt_in_chip(record, chip.rect, chip.factor, chip.rows, 128)
        np.testing.assert_array_equal(sample["gt_masks"], mask_rows(record, gt, chip, 6, 40))
        boxes = boxes_in_chip(record.boxes, chip.rect, chip.factor, 128)
        labels = focus_labels(boxes, FocusRanges(5, 64, 90), 16, 8)
        np.testing.assert_array_equal(sample["scale_label"], labels)
        used = sample["gt_boxes"][:, 4] > 0
        np.testing.assert_array_equal(sample["gt_masks"][:, 0] >= 0, used)
        np.testing.assert_array_equal(sample["gt_masks"][used, 0], sample["gt_boxes"][used, 4] - 1)


def test_masks_and_focus_labels_change_nothing_else(image_records):
    record = with_polygons(image_records[0])
    (chip,) = chips_of(record, 1)
    plain, both = make_sample(record, chip, SETTINGS, 5), make_sample(record, chip, BOTH, 5)
    assert set(both) - set(plain) == {"scale_label", "gt_masks"}
    for name, array in plain.items():
        np.testing.assert_array_equal(both[name], array)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["gt_boxes"]),
        ({"auto_focus": True}, ["gt_boxes", "scale_label"]),
        ({"with_masks": True}, ["gt_boxes", "gt_masks"]),
        (
            {"auto_focus": True, "with_masks": True},
            ["gt_boxes", "scale_label", "gt_masks"],
        ),
        ({"auto_focus": True, "with_masks": True, "rpn_only": True}, []),
    ],
)
def test_names_come_in_the_order_of_the_network(changes, names):
    contract = settings_of(**changes).contract
    assert list(contract.label_names) == ["label", "bbox_target", "bbox_weight", *names]
    assert list(contract.shapes) == [*contract.data_names, *contract.label_names]


def test_a_batch_stays_while_the_next_one_is_made(image_records):
    expander = Expander(SETTINGS, 4)
    compact = batch_of(image_records[0], SETTINGS)
    first = expander.expand(compact)
    kept = {name: array.copy() for name, array in first.items()}
    second = expander.expand(batch_of(image_records[3], SETTINGS))
    assert any((first[name] != second[name]).any() for name in first)
    for name, array in kept.items():
        np.testing.assert_array_equal(first[name], array)
    third = expander.expand(compact)
    for name, array in kept.items():
        assert third[name] is first[name], "the memory of two batches is enough"
        np.testing.assert_array_equal(third[name], array)


def test_a_sampling_limit_above_the_number_of_anchors(image_records):
    settings = settings_of(rpn_batch_size=10**6)
    (chip,) = chips_of(image_records[0], 1)
    sample = make_sample(image_records[0], chip, settings)
    assert compact_specs(settings)["positive_index"][1] == (9 * 8 * 8,)
    assert (sample["label"] >= 0).sum() > 32


def test_a_batch_without_positives_is_allowed(image_records):
    settings = settings_of(targets={"rpn_fg_fraction": 0})
    (chip,) = chips_of(image_records[0], 1)
    sample = make_sample(image_records[0], chip, settings)
    assert not sample["bbox_weight"].any() and not (sample["label"] == 1).any()
