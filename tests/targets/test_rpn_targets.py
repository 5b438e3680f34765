import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.data.record import Record
from sniper.errors import ConfigError, OpsError
from sniper.targets import reference
from sniper.targets.anchors import base_anchors
from sniper.targets.gt import gt_in_chip
from sniper.targets.rpn import RpnSample, RpnTargets

BASE = base_anchors(16, (0.5, 1, 2), (2, 4, 7, 10, 13, 16, 24))
BASE_32 = base_anchors(32, (0.5, 1, 2), (1, 2, 4, 8, 12))
NONE = np.zeros((0, 4), np.float32)
UNSAMPLED = {"batch_size": 10**6}
BOXES = [
    [120, 80, 150, 100],
    [140, 90, 200, 170],
    [110, 70, 114, 74],
    [300, 200, 400, 300],
    [90, 55, 130, 95],
]


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


def golden_targets(batch_size, origin, rows, seed=0):
    rect = (*origin, origin[0] + 511 / 3, origin[1] + 511 / 3)
    gt = gt_in_chip(golden_record(), rect, 3.0, np.array(rows, np.int32), 512, legacy=True)
    targets = RpnTargets(BASE, 16, 512, batch_size=batch_size)
    return targets.dense(targets(gt.boxes[gt.valid], gt.boxes[~gt.valid], seed))


def counts(label):
    return [int((label == value).sum()) for value in (1, 0, -1)]


def test_inside_anchors():
    targets = RpnTargets(BASE, 16, 512)
    assert targets.inside.sum() == 13388
    np.testing.assert_array_equal(targets.inside, reference.MatrixTargets(BASE, 16, 512).inside)


def test_golden_positive_chip_without_sampling():
    label, target, weight = golden_targets(10**6, (100, 60), [0, 1, 2])
    assert label.shape == (21504,) and target.shape == weight.shape == (84, 32, 32)
    assert label.dtype == target.dtype == weight.dtype == np.float32
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


def random_boxes(generator, count):
    corners = generator.integers(-20, 532, (count, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 9)
    return np.clip(boxes, 0, 511).astype(np.float32)


def assert_equals_reference(slow, targets, valid_gt, invalid_gt, seed=None):
    """Every label and weight; `seed` None: before sampling."""
    sampler = None if seed is None else reference.SplitMix(seed)
    sample = targets(valid_gt, invalid_gt, seed or 0)
    label, target, weight = targets.dense(sample)
    expected_label, expected_target, expected_weight = slow(valid_gt, invalid_gt, sampler)
    np.testing.assert_array_equal(label, expected_label)
    np.testing.assert_array_equal(weight, expected_weight)
    np.testing.assert_allclose(target, expected_target, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(sample.label, expected_label)
    np.testing.assert_array_equal(sample.index, np.flatnonzero(expected_label == 1))


@pytest.mark.parametrize("base, stride", [(BASE, 16), (BASE_32, 32)], ids=["16", "32"])
@pytest.mark.parametrize("name", ["MatrixTargets", "FactoredTargets"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), valid=st.integers(0, 30), invalid=st.integers(0, 8))
def test_equals_the_references(name, base, stride, seed, valid, invalid):
    generator = np.random.default_rng(seed)
    valid_gt, invalid_gt = random_boxes(generator, valid), random_boxes(generator, invalid)
    make = getattr(reference, name)
    assert_equals_reference(
        make(base, stride, 512, **UNSAMPLED),
        RpnTargets(base, stride, 512, **UNSAMPLED),
        valid_gt,
        invalid_gt,
    )
    assert_equals_reference(
        make(base, stride, 512), RpnTargets(base, stride, 512), valid_gt, invalid_gt, seed
    )


def on_the_grid(generator, count):
    """Boxes that equal anchors, are moved by half a cell, or repeat: many ties."""
    shifts = generator.integers(0, 64, (count, 2)) * 8
    boxes = BASE[generator.integers(0, len(BASE), count)] + np.hstack([shifts, shifts])
    return boxes[generator.integers(0, max(count, 1), count)].astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), valid=st.integers(1, 12), invalid=st.integers(0, 3))
def test_ties_are_those_of_the_reference(seed, valid, invalid):
    generator = np.random.default_rng(seed)
    assert_equals_reference(
        reference.MatrixTargets(BASE, 16, 512, **UNSAMPLED),
        RpnTargets(BASE, 16, 512, **UNSAMPLED),
        on_the_grid(generator, valid),
        on_the_grid(generator, invalid),
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), batch_size=st.sampled_from([0, 1, 2, 17, 256, 5000]))
def test_sampling_keeps_a_subset_within_the_limits(seed, batch_size):
    gt = random_boxes(np.random.default_rng(seed), 6)
    full = RpnTargets(BASE, 16, 512, **UNSAMPLED)(gt, NONE, seed).label
    targets = RpnTargets(BASE, 16, 512, batch_size=batch_size)
    some, index, values = targets(gt, NONE, seed)
    positives = int((some == 1).sum())
    assert positives == min(int(batch_size * 0.5), int((full == 1).sum())) == len(index)
    assert (some == 0).sum() == min(batch_size - positives, (full == 0).sum())
    assert (full[some != -1] == some[some != -1]).all()
    assert values.shape == (positives, 4)
    _, target, weight = targets.dense(RpnSample(some, index, values))
    assert weight.sum() == 4 * positives
    assert not target[weight == 0].any()


def test_a_box_outside_all_anchors_makes_no_anchor_positive():
    far = np.array([[5000, 5000, 5100, 5100]], np.float32)
    label = RpnTargets(BASE, 16, 512, **UNSAMPLED)(far, NONE, 0).label
    assert counts(label) == [0, 13388, 21504 - 13388]


def test_an_anchor_between_two_equal_boxes_is_moved_to_the_first():
    left, right = np.array([[148, 152, 179, 183], [156, 152, 187, 183]], np.float32)
    targets = RpnTargets(BASE, 16, 512, **UNSAMPLED)
    for first, second, dx in [(left, right, -4 / 32), (right, left, 4 / 32)]:
        label, target, _ = targets.dense(targets(np.stack([first, second]), NONE, 0))
        assert label.reshape(21, 32, 32)[7, 10, 10] == 1
        assert target[4 * 7, 10, 10] == pytest.approx(dx)


def test_the_seed_alone_decides():
    first, again, other = (
        golden_targets(256, (100, 60), [0, 1, 2], seed)[0] for seed in (-1, 2**64 - 1, 8)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_stride_32_shapes():
    targets = RpnTargets(BASE_32, 32, 512)
    label, target, _ = targets.dense(targets(NONE, NONE, 0))
    assert label.shape == (3840,) and target.shape == (60, 16, 16)
    assert counts(label)[:2] == [0, 256]


def test_a_pickled_copy_gives_the_same():
    targets = RpnTargets(BASE, 16, 512, batch_size=64, positive_overlap=0.6, border=0)
    copy = pickle.loads(pickle.dumps(targets))
    gt = random_boxes(np.random.default_rng(0), 9)
    for array, same in zip(targets(gt[:6], gt[6:], 3), copy(gt[:6], gt[6:], 3)):
        np.testing.assert_array_equal(array, same)
    np.testing.assert_array_equal(targets.inside, copy.inside)
    assert (copy.max_positives, copy.batch_size, copy.stride) == (32, 64, 16)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 1])
def test_a_box_that_is_not_finite_is_named(position, value):
    boxes = [random_boxes(np.random.default_rng(0), 3), random_boxes(np.random.default_rng(1), 3)]
    boxes[position][1, 2] = value
    with pytest.raises(OpsError, match=rf"{('valid', 'invalid')[position]} box 1 is \(.*finite"):
        RpnTargets(BASE, 16, 512)(*boxes, 0)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"chip_size": 500}, r"multiple of the feature stride[\s\S]*chip size 500, stride 16"),
        ({"stride": 0}, r"multiple of the feature stride[\s\S]*chip size 512, stride 0"),
        ({"stride": 1024}, r"multiple of the feature stride[\s\S]*chip size 512, stride 1024"),
        ({"batch_size": -1}, r"number of sampled anchors[\s\S]*got: -1, 0.5"),
        ({"fg_fraction": 1.5}, r"share of positives[\s\S]*RPN_FG_FRACTION[\s\S]*got: 256, 1.5"),
        ({"fg_fraction": np.nan}, r"share of positives[\s\S]*got: 256, nan"),
        ({"positive_overlap": 0}, r"positive anchor must overlap[\s\S]*got: 0, 0.4, 0.3"),
        ({"positive_overlap": 1.2}, r"IoU[\s\S]*RPN_POSITIVE_OVERLAP[\s\S]*got: 1.2, 0.4"),
        ({"negative_overlap": -0.1}, r"IoU[\s\S]*RPN_NEGATIVE_OVERLAP[\s\S]*got: 0.5, -0.1"),
        ({"negative_overlap": np.nan}, r"IoU[\s\S]*got: 0.5, nan"),
        ({"ignore_overlap": 2}, r"IoU[\s\S]*got: 0.5, 0.4, 2"),
    ],
    ids=str,
)
def test_impossible_settings_are_config_errors(change, words):
    with pytest.raises(ConfigError, match=words):
        RpnTargets(**{"base_anchors": BASE, "stride": 16, "chip_size": 512, **change})


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    counts=st.tuples(*[st.integers(0, 4)] * 3),
    crowd_ioa=st.sampled_from([0.0, 0.5, 0.9]),
)
def test_regions_of_many_objects_give_no_negatives(seed, counts, crowd_ioa):
    generator = np.random.default_rng(seed)
    valid, invalid, crowd = (random_boxes(generator, count) // 4 for count in counts)
    options = {"batch_size": 40, "crowd_ioa": crowd_ioa}
    slow = reference.MatrixTargets(BASE_32[:6], 32, 128, **options)
    targets = RpnTargets(BASE_32[:6], 32, 128, **options)
    expected = slow(valid, invalid, reference.SplitMix(seed), crowd=crowd)
    for ours, theirs in zip(targets.dense(targets(valid, invalid, seed, crowd)), expected):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


def test_an_object_in_a_region_of_many_stays_positive():
    targets = RpnTargets(BASE_32, 32, 512, **UNSAMPLED)
    box, everywhere = np.float32([[100, 100, 200, 200]]), np.float32([[-600, -600, 1200, 1200]])
    plain, label = targets(box, NONE, 0).label, targets(box, NONE, 0, everywhere).label
    np.testing.assert_array_equal(label == 1, plain == 1)
    assert not (label == 0).any() and (label == 1).any() and (plain == 0).any()
    with pytest.raises(OpsError, match="crowd"):
        targets(box, NONE, 0, np.float32([[np.nan, 0, 1, 1]]))
