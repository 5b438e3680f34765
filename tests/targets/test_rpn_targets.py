import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper import boxes as box_ops
from sniper.data.record import Record
from sniper.errors import ConfigError
from sniper.targets.anchors import base_anchors, shifted_anchors
from sniper.targets.gt import gt_in_chip
from sniper.targets.rpn import RpnTargets

BASE = base_anchors(16, (0.5, 1, 2), (2, 4, 7, 10, 13, 16, 24))
BOXES = [
    [120, 80, 150, 100],
    [140, 90, 200, 170],
    [110, 70, 114, 74],
    [300, 200, 400, 300],
    [90, 55, 130, 95],
]


def rng():
    return np.random.default_rng(0)


def golden_record():
    return Record(
        image_path="a.jpg",
        image_id=1,
        width=640,
        height=480,
        flipped=False,
        boxes=np.array(BOXES, np.float32),
        classes=np.arange(1, 6, dtype=np.int32),
        is_gt=np.ones(5, bool),
    )


def golden_targets(batch_size, origin, rows):
    rect = (*origin, origin[0] + 511 / 3, origin[1] + 511 / 3)
    gt = gt_in_chip(golden_record(), rect, 3.0, np.array(rows, np.int32), 512)
    targets = RpnTargets(BASE, 16, 512, batch_size=batch_size)
    return targets(gt.boxes[gt.valid], gt.boxes[~gt.valid], rng())


def counts(label):
    return [int((label == value).sum()) for value in (1, 0, -1)]


def test_inside_anchors():
    assert RpnTargets(BASE, 16, 512).inside.sum() == 13388


def test_golden_positive_chip_without_sampling():
    label, target, weight = golden_targets(10**6, (100, 60), [0, 1, 2])
    assert label.shape == (21504,) and label.dtype == np.float32
    assert target.shape == weight.shape == (84, 32, 32)
    assert target.dtype == weight.dtype == np.float32
    assert counts(label) == [202, 12710, 8592]
    assert weight.sum() == 808
    positives = np.argwhere(label.reshape(21, 32, 32) == 1)[:5].tolist()
    assert positives == [[1, 5, 5], [1, 5, 6], [1, 5, 7], [1, 6, 6], [8, 5, 5]]
    assert np.argwhere(weight)[:3].tolist() == [[4, 5, 5], [4, 5, 6], [4, 5, 7]]
    for index, value in {
        (4, 5, 5): 0.1902174,
        (4, 5, 6): 0.0163043,
        (4, 5, 7): -0.1576087,
        (5, 5, 5): 0.0520833,
    }.items():
        assert target[index] == pytest.approx(value, abs=1e-6)
        assert weight[index] == 1


def test_golden_positive_chip_with_sampling():
    label, _, weight = golden_targets(256, (100, 60), [0, 1, 2])
    assert counts(label)[:2] == [128, 128]
    assert weight.sum() == 4 * 128


def test_golden_negative_chip():
    label, target, weight = golden_targets(10**6, (300, 200), [])
    assert counts(label) == [0, 12559, 8945]
    assert not target.any() and not weight.any()


def reference(valid_gt, invalid_gt):
    """Section 5.3 of the specification, one step after the other, before sampling."""
    anchors = shifted_anchors(BASE, 16, 32, 32)
    inside = (
        (anchors[:, 0] >= -32)
        & (anchors[:, 1] >= -32)
        & (anchors[:, 2] < 512 + 32)
        & (anchors[:, 3] < 512 + 32)
    )
    label = np.full(len(anchors), -1)
    target = np.zeros((len(anchors), 4))
    kept = np.flatnonzero(inside)
    part = np.zeros(len(kept))
    if len(valid_gt):
        overlaps = box_ops.iou(anchors[kept], valid_gt)
        best = overlaps.max(axis=1)
        part = np.where(best < 0.4, 0, -1)
        for column in overlaps.T:
            if column.max() > 0:
                part[column == column.max()] = 1
        part[best >= 0.5] = 1
        matched = valid_gt[overlaps.argmax(axis=1)]
        target[kept] = box_ops.encode(anchors[kept].astype(np.float64), matched.astype(np.float64))
    if len(invalid_gt):
        part[box_ops.iou(anchors[kept], invalid_gt).max(axis=1) > 0.3] = -1
    label[kept] = part
    target[label != 1] = 0
    return (
        label.reshape(32, 32, 21).transpose(2, 0, 1).ravel(),
        target.reshape(32, 32, 84).transpose(2, 0, 1),
    )


def random_boxes(generator, count):
    corners = generator.integers(-20, 532, (count, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 9)
    return np.clip(boxes, 0, 511).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), valid=st.integers(0, 12), invalid=st.integers(0, 5))
def test_equals_the_step_by_step_reference(seed, valid, invalid):
    generator = np.random.default_rng(seed)
    valid_gt, invalid_gt = random_boxes(generator, valid), random_boxes(generator, invalid)
    label, target, weight = RpnTargets(BASE, 16, 512, batch_size=10**6)(valid_gt, invalid_gt, rng())
    expected_label, expected_target = reference(valid_gt, invalid_gt)
    np.testing.assert_array_equal(label, expected_label)
    np.testing.assert_allclose(target, expected_target, atol=1e-5)
    positive = np.repeat(expected_label.reshape(21, 1, 32, 32) == 1, 4, axis=1).reshape(84, 32, 32)
    np.testing.assert_array_equal(weight, positive)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), batch_size=st.sampled_from([1, 2, 17, 256]))
def test_sampling_keeps_a_subset_within_the_limits(seed, batch_size):
    gt = random_boxes(np.random.default_rng(seed), 6)
    none = gt[:0]
    full = RpnTargets(BASE, 16, 512, batch_size=10**6)(gt, none, rng())[0]
    some, target, weight = RpnTargets(BASE, 16, 512, batch_size=batch_size)(gt, none, rng())
    positives = int((some == 1).sum())
    assert positives == min(int(batch_size * 0.5), int((full == 1).sum()))
    assert (some == 0).sum() == min(batch_size - positives, (full == 0).sum())
    assert (full[some != -1] == some[some != -1]).all()
    assert weight.sum() == 4 * positives
    assert not target[weight == 0].any()


def test_a_box_outside_all_anchors_makes_no_anchor_positive():
    far = np.array([[5000, 5000, 5100, 5100]], np.float32)
    label, _, _ = RpnTargets(BASE, 16, 512, batch_size=10**6)(far, far[:0], rng())
    assert counts(label) == [0, 13388, 21504 - 13388]


def test_an_anchor_between_two_equal_boxes_is_moved_to_the_first():
    left, right = np.array([[148, 152, 179, 183], [156, 152, 187, 183]], np.float32)
    for first, second, dx in [(left, right, -4 / 32), (right, left, 4 / 32)]:
        pair = np.stack([first, second])
        label, target, _ = RpnTargets(BASE, 16, 512, batch_size=10**6)(pair, pair[:0], rng())
        assert label.reshape(21, 32, 32)[7, 10, 10] == 1
        assert target[4 * 7, 10, 10] == pytest.approx(dx)


def test_same_generator_same_sample():
    first, second = (golden_targets(256, (100, 60), [0, 1, 2])[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_stride_32_shapes():
    base = base_anchors(32, (0.5, 1, 2), (1, 2, 4, 8, 12))
    none = np.zeros((0, 4), np.float32)
    label, target, _ = RpnTargets(base, 32, 512)(none, none, rng())
    assert label.shape == (3840,) and target.shape == (60, 16, 16)
    assert counts(label)[:2] == [0, 256]


@pytest.mark.parametrize("stride, chip_size", [(16, 500), (0, 512), (1024, 512)])
def test_chip_size_must_fit_the_stride(stride, chip_size):
    with pytest.raises(ConfigError):
        RpnTargets(BASE, stride, chip_size)
