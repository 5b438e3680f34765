"""The target operators without MXNet: golden vectors, a slow reference, properties, edges."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.errors import OpsError
from sniper.native import _native
from sniper.targets import roi_reference
from sniper.targets.roi_reference import LEGACY as RULES
from tests.native.proposal_inputs import RESNET, SMALL, random_maps, random_targets

INPUTS = ("cls_prob", "bbox_pred", "im_info", "gt_boxes", "valid_ranges")
OUTPUTS = ("rois", "label", "bbox_target", "bbox_weight", "mask_rois", "mask_ids")
ALL = np.array([[0, 512]], np.float32)
F = np.float32
SUPER_OF = (2, 1, 1, 3, 2, 1, 3)  # no class 8, which random_targets may draw


def small_batch(n=1, seed=0):
    """Inputs for SMALL (A = 4) on a 3 x 3 map without GT; every box is in the valid range."""
    scores, deltas, sizes = random_maps(np.random.default_rng(seed), n, 4, 3, 3)
    gt = np.full((n, 5, 5), -1, F)
    return [scores.reshape(n, 2, 12, 3), deltas, sizes, gt, np.repeat(ALL, n, 0)]


@pytest.mark.parametrize("suffix", ["", "_padding"])
def test_golden_target(golden, suffix):
    data = np.load(golden / f"golden_multi_proposal_target{suffix}.npz")
    outputs = _native.multi_proposal_target(*(data[name] for name in INPUTS), **RESNET)
    for name, output in zip(OUTPUTS, outputs):
        np.testing.assert_allclose(output, data[name], atol=1e-4, err_msg=name)


def test_golden_target_mask(golden):
    inputs = np.load(golden / "golden_multi_proposal_target.npz")  # the same inputs
    expected = np.load(golden / "golden_multi_proposal_target_mask_outputs.npz")
    outputs = _native.multi_proposal_target_mask(*(inputs[name] for name in INPUTS), **RESNET)
    assert (expected["mask_ids"] >= 0).sum() == 18
    for name, output in zip(OUTPUTS, outputs):
        np.testing.assert_allclose(output, expected[name], atol=1e-4, err_msg=name)


def maps_with(boxes):
    """RPN outputs whose proposals are these boxes, best first: anchors of one shape in a row."""
    anchors = F([[16 * cell, 0, 16 * cell + 15, 15] for cell in range(len(boxes))])
    sides, anchor_sides = boxes[:, 2:] - boxes[:, :2] + 1, F(16)
    shift = (boxes[:, :2] + boxes[:, 2:] - anchors[:, :2] - anchors[:, 2:]) / 2 / anchor_sides
    deltas = np.hstack([shift, np.log(sides / anchor_sides)]).T.reshape(1, 4, 1, -1)
    scores = np.ones((1, 2, 1, len(boxes)), F)
    scores[0, 1, 0] = np.linspace(0.9, 0.1, len(boxes))
    settings = {"scales": (1,), "ratios": (1,), "feature_stride": 16, "nms_thresh": 1.0}
    return [scores, deltas.astype(F), F([[512, 512, 1]])], settings


@pytest.mark.parametrize("legacy_cap", [True, False])
def test_golden_target_of_fine_classes(golden, legacy_cap):
    """Made by the kernel of 2018. Ground truth takes three more rows, behind those of the file."""
    case = json.loads((golden / "golden_rfcn3k.json").read_text())["rfcn3k_targets"]
    rois, gt = F(case["rois"]), F([case["gt_boxes_valid"]])
    maps, settings = maps_with(rois[:, 1:])
    outputs = _native.multi_proposal_target_mask(
        *maps, gt, ALL, post_nms_top_n=15, max_masks=4, super_of=(1,) * 3130,
        legacy_cap=legacy_cap, **settings
    )  # fmt: skip
    np.testing.assert_allclose(outputs[0][:12], rois, atol=1e-3)
    np.testing.assert_array_equal(outputs[1][:12, 0], case["objectness_label"])
    positive = outputs[1][:12, 0] > 0
    wanted = case["bbox_target_of_positives"]
    np.testing.assert_allclose(outputs[2][:12][positive], wanted, atol=1e-4)
    np.testing.assert_array_equal(outputs[3][:12], np.repeat(positive[:, None], 4, 1))
    np.testing.assert_allclose(outputs[4], case["pos_rois"], atol=1e-3)
    np.testing.assert_array_equal(outputs[5][:, 0], case["fine_label"])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("switch", [None, *RULES])
def test_target_equals_the_slow_reference(seed, switch):
    inputs = random_targets(np.random.default_rng(seed))
    rules = {**RULES, **({switch: False} if switch else {})}
    outputs = _native.multi_proposal_target(*inputs, post_nms_top_n=50, **rules, **SMALL)
    *expected, _, _ = roi_reference.target(*inputs, 50, mask=False, rules=rules, **SMALL)
    for name, output, wanted in zip(OUTPUTS, outputs, expected):
        np.testing.assert_allclose(output, wanted, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("switch", [None, *RULES])
def test_target_mask_equals_the_slow_reference(seed, switch):
    rng = np.random.default_rng(seed)
    images = int(rng.integers(1, 4))
    inputs = random_targets(rng, images)
    rules = {**RULES, **({switch: False} if switch else {})}
    settings = {"min_size": 8, "pre": 40, "threshold": 0.5, "post": 30}
    outputs = _native.multi_proposal_target_mask(
        *inputs, post_nms_top_n=30, pre_nms_top_n=40, nms_thresh=0.5, min_size=8, max_masks=4,
        **rules, **SMALL
    )  # fmt: skip
    *expected, matches, _ = roi_reference.target(
        *inputs, mask=True, rules=rules, **settings, **SMALL
    )
    expected += roi_reference.masks(expected[0], expected[1], matches, images, 4)
    for name, output, wanted in zip(OUTPUTS, outputs, expected):
        np.testing.assert_allclose(output, wanted, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("legacy_cap", [True, False])
def test_fine_classes_equal_the_slow_reference(seed, legacy_cap):
    rng = np.random.default_rng(seed)
    images = int(rng.integers(1, 4))
    inputs = random_targets(rng, images)
    max_fine = int(rng.choice([2, 9]))
    outputs = _native.multi_proposal_target_mask(
        *inputs, post_nms_top_n=30, max_masks=max_fine, super_of=SUPER_OF, legacy_cap=legacy_cap,
        **SMALL
    )  # fmt: skip
    *expected, matches, _ = roi_reference.target(
        *inputs, 30, mask=True, pre=6000, super_of=SUPER_OF, **SMALL
    )
    expected += roi_reference.fine(expected[0], matches, inputs[3], max_fine, legacy_cap)
    for name, output, wanted in zip(OUTPUTS, outputs, expected):
        np.testing.assert_allclose(output, wanted, atol=2e-4, err_msg=name)


def random_crowds(rng, images, rows):
    """Regions (images, rows, 5); used rows are not always a prefix."""
    corner = rng.integers(0, 60, (images, rows, 2))
    crowd = np.dstack([corner, corner + rng.integers(5, 60, (images, rows, 2))])
    used = rng.integers(-1, 1, (images, rows, 1))
    return np.dstack([crowd, used]).astype(F)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("legacy_areas", [True, False])
@pytest.mark.parametrize("mask", [True, False])
def test_crowds_and_label_weights_equal_the_slow_reference(seed, legacy_areas, mask):
    rng = np.random.default_rng(seed)
    inputs = random_targets(rng)
    crowd = random_crowds(rng, 2, int(rng.choice([1, 5, 40])))
    soft = (0.25, 50, 20) if seed % 2 else (0.6, 3, 7)
    common = {"crowd_ioa": 0.5, "super_of": SUPER_OF} if mask else {"crowd_ioa": 0.5}
    operator = getattr(_native, "multi_proposal_target" + "_mask" * mask)
    outputs = operator(
        *inputs, post_nms_top_n=50, crowd_boxes=crowd, soft_sampling=soft,
        legacy_areas=legacy_areas, **common, **SMALL
    )  # fmt: skip
    *expected, _, weights = roi_reference.target(
        *inputs, 50, mask=mask, rules={**RULES, "legacy_areas": legacy_areas}, crowd=crowd,
        soft=soft, **({"pre": 6000} if mask else {}), **common, **SMALL
    )  # fmt: skip
    for name, output, wanted in zip(OUTPUTS[:4], outputs, expected):
        np.testing.assert_allclose(output, wanted, atol=2e-4, err_msg=name)
    np.testing.assert_allclose(outputs[-1], weights, atol=1e-6)


def test_crowds_and_weights_change_nothing_else():
    rng = np.random.default_rng(0)
    inputs = random_targets(rng, 4)
    plain = _native.multi_proposal_target(*inputs, **SMALL)
    crowd = random_crowds(rng, 4, 9)
    *rest, weights = _native.multi_proposal_target(
        *inputs, crowd_boxes=crowd, crowd_ioa=0.3, soft_sampling=(0.25, 50, 20), **SMALL
    )
    ignored = rest[1] == -1
    assert ignored.any() and not plain[1][ignored].any()
    assert (weights < 1).any() and (weights[plain[1] > 0] == 1).all()
    rest[1] = np.where(ignored, 0, rest[1])
    for ours, theirs in zip(rest, plain):
        np.testing.assert_array_equal(ours, theirs)


def test_golden_weights(golden):
    """Overlaps, labels and weights of Soft Sampling as 2018's kernel makes them."""
    case = json.loads((golden / "golden_soft_sampling.json").read_text())["openimages_targets"]
    rois, gt = F(case["rois"]), F([case["gt_boxes_valid"]])
    maps, settings = maps_with(rois[:, 1:])
    outputs = _native.multi_proposal_target(
        *maps, gt, ALL, post_nms_top_n=12 + len(gt[0]), crowd_boxes=F([case["crowd_valid"]]),
        soft_sampling=(0.25, 50, 20), **settings
    )  # fmt: skip
    np.testing.assert_allclose(outputs[0][:12], rois, atol=1e-3)
    np.testing.assert_array_equal(outputs[1][:12, 0], case["label"])
    np.testing.assert_allclose(outputs[-1][:12, 0], case["label_weight"], atol=2e-5)
    positive = outputs[1][:12, 0] > 0
    wanted = case["bbox_target_of_positives"]
    np.testing.assert_allclose(outputs[2][:12][positive], wanted, atol=1e-4)


def test_the_curve_of_the_weights(golden):
    """One proposal of 200 px, and a GT that is shifted until they overlap by so much."""
    table = json.loads((golden / "golden_soft_sampling.json").read_text())["soft_sampling_weight"]
    maps, settings = maps_with(F([[100, 100, 299, 299]]))
    for overlap, weight in table:
        shift = 200 * (1 - overlap) / (1 + overlap)
        gt = F([[[100 + shift, 100, 299 + shift, 299, 1]]])
        *_, weights = _native.multi_proposal_target(
            *maps, gt, ALL, post_nms_top_n=2, legacy_areas=False, soft_sampling=(0.25, 50, 20),
            **settings
        )  # fmt: skip
        np.testing.assert_allclose(weights[:, 0], [weight, 1], atol=2e-4)


@pytest.mark.parametrize(("a", "b", "c"), [(1, 50, 20), (0.3, 0, 20), (0, 1000, 0)])
def test_ends_of_the_curve(a, b, c):
    """a = 1: all count alike, to the bit. b = 0 the same. c = 0: all background alike."""
    inputs = random_targets(np.random.default_rng(1))
    *_, weights = _native.multi_proposal_target(*inputs, soft_sampling=(a, b, c), **SMALL)
    background = weights[weights != 1]
    assert (a != 1 or not background.size) and weights.max() == 1
    if b == 0:
        np.testing.assert_allclose(weights, 1, atol=1e-6)
    elif c == 0:
        np.testing.assert_allclose(background, np.exp(-87.0), rtol=1e-3)


def test_an_object_in_a_crowd_stays_an_object():
    inputs = small_batch()
    inputs[0][:] = -1
    inputs[3][0, 0] = (0, 0, 30, 30, 5)
    crowd = F([[[0, 0, 100, 100, 0], [200, 200, 250, 250, -1]]])
    rois, label, *_ = _native.multi_proposal_target(
        *inputs, crowd_boxes=crowd, post_nms_top_n=3, **SMALL
    )
    np.testing.assert_array_equal(rois[-1, 1:], [0, 0, 30, 30])
    np.testing.assert_array_equal(label[:, 0], [0, 0, 5])  # fillers of 200 px stick out
    crowd[0, 0, 2:4] = 300
    *_, label, _, _ = _native.multi_proposal_target(
        *inputs, crowd_boxes=crowd, post_nms_top_n=3, **SMALL
    )
    np.testing.assert_array_equal(label[:, 0], [-1, -1, 5])


def test_every_image_has_rows_of_its_own_for_fine_classes():
    """The first image has more positive rois than the batch has rows, the second one has one."""
    inputs = small_batch(2)
    inputs[0][:] = -1  # no proposals
    inputs[3][0] = [[i, i, i + 30, i + 30, 3] for i in range(5)]
    inputs[3][1, 0] = (100, 0, 140, 30, 5)
    arguments = {"post_nms_top_n": 6, "max_masks": 2, "super_of": SUPER_OF, **SMALL}
    *_, rois, labels = _native.multi_proposal_target_mask(*inputs, legacy_cap=False, **arguments)
    np.testing.assert_array_equal(labels[:, 0], [2, 2, 4, -1])
    np.testing.assert_array_equal(rois[:, 0], [0, 0, 1, 1])
    np.testing.assert_array_equal(rois[2:, 1:], [[100, 0, 140, 30], [3, 3, 103, 103]])
    *_, rois, labels = _native.multi_proposal_target_mask(*inputs, legacy_cap=True, **arguments)
    np.testing.assert_array_equal(labels[:, 0], [2, 2, 2, 2])
    np.testing.assert_array_equal(rois[:, 0], [0, 0, 0, 0])


@pytest.mark.parametrize(("cls", "label"), [(1, 2), (7, 3), (0, 0), (8, 0), (3e38, 0)])
def test_classes_that_a_table_does_not_have_are_not_used(cls, label):
    inputs = small_batch()
    inputs[0][:] = -1
    inputs[3][0, 0] = (0, 0, 30, 30, cls)
    outputs = _native.multi_proposal_target_mask(
        *inputs, post_nms_top_n=2, max_masks=1, super_of=SUPER_OF, **SMALL
    )
    assert outputs[1].max() == label
    assert outputs[5][0, 0] == (cls - 1 if label else -1)


@pytest.mark.parametrize(("legacy", "label"), [(True, 3), (False, 0)])
def test_legacy_areas_decide_over_a_label(legacy, label):
    """4 px boxes shifted by 2 px overlap by 8 / (9 + 9 - 8) or 8 / (16 + 16 - 8)."""
    maps = [np.ones((1, 2, 1, 1), F), np.zeros((1, 4, 1, 1), F), F([[16, 16, 1]])]
    gt = F([[[8, 6, 11, 9, 3]]])
    rois, labels, _, _ = _native.multi_proposal_target(
        *maps, gt, ALL, scales=(0.25,), ratios=(1,), feature_stride=16, post_nms_top_n=2,
        legacy_areas=legacy
    )  # fmt: skip
    np.testing.assert_array_equal(rois, [[0, 6, 6, 9, 9], [0, 8, 6, 11, 9]])
    np.testing.assert_array_equal(labels, [[label], [3]])


@pytest.mark.parametrize("legacy", [True, False])
def test_legacy_min_size_lets_thin_boxes_survive(legacy):
    scores, deltas, sizes, gt, ranges = small_batch()
    scores[:] = -1
    scores[0, 1, 0, 0] = 1  # the only proposal: 2.5 px wide, 12 px high
    deltas[:] = 0
    deltas[0, 2, 0, 0] = -2.2
    sizes[:] = 48
    rois, *_ = _native.multi_proposal_target(
        scores, deltas, sizes, gt, ranges, legacy_min_size=legacy, **SMALL
    )
    width = rois[0, 3] - rois[0, 1] + 1
    assert width == pytest.approx(23 * np.exp(-2.2) if legacy else 201)


def test_without_gt_rows_all_is_background():
    inputs = small_batch(2)
    for rows in (0, 4):
        inputs[3] = np.full((2, rows, 5), -1, F)
        _, label, target, weight, _, ids = _native.multi_proposal_target_mask(*inputs, **SMALL)
        assert not label.any() and not weight.any() and (target == 1).all() and (ids == -1).all()


def test_more_gt_boxes_than_rows():
    """The one operator keeps the last GT boxes, the other the first, from the back."""
    inputs = small_batch()
    inputs[3] = np.array([[[i, i, i + 20, i + 20, i + 1] for i in range(9)]], F)
    rois, label, _, _ = _native.multi_proposal_target(*inputs, post_nms_top_n=4, **SMALL)
    np.testing.assert_array_equal(rois[:, 1], [5, 6, 7, 8])
    np.testing.assert_array_equal(label[:, 0], [6, 7, 8, 9])
    rois, label, *_ = _native.multi_proposal_target_mask(*inputs, post_nms_top_n=4, **SMALL)
    np.testing.assert_array_equal(rois[:, 1], [3, 2, 1, 0])
    np.testing.assert_array_equal(label[:, 0], [4, 3, 2, 1])


def test_upper_end_of_the_valid_range():
    """A GT of exactly that area joins the proposals of the one operator only."""
    inputs = small_batch()
    inputs[3][0, 0] = (40, 40, 50, 50, 1)
    inputs[4][:] = (0, 10)
    assert _native.multi_proposal_target(*inputs, **SMALL)[0][-1, 1] == 40
    assert _native.multi_proposal_target_mask(*inputs, **SMALL)[0][-1, 1] != 40


def test_masks_are_handed_out_in_the_order_of_the_batch():
    inputs = small_batch(3)
    inputs[3][:, 2] = (0, 0, 30, 30, 5)  # row 2: rows 0 and 1 are unused
    rois, label, _, _, mask_rois, ids = _native.multi_proposal_target_mask(
        *inputs, max_masks=2, post_nms_top_n=8, **SMALL
    )
    positive = rois[label[:, 0] > 0]
    used = min(len(positive), 6)
    assert used > 2
    np.testing.assert_array_equal(mask_rois[:used], positive[:used])
    np.testing.assert_array_equal(ids[:used], 2)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_numbers_give_finite_targets(seed):
    rng = np.random.default_rng(seed)
    inputs = random_targets(rng)
    poison = F([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e12, -1e9, 0, -1])
    for array in inputs:
        flat = array.reshape(-1)
        flat[rng.integers(0, flat.size, 8)] = rng.choice(poison, 8)
    rules = {name: bool(rng.integers(2)) for name in RULES}
    settings = {"post_nms_top_n": 30, "min_size": float(rng.choice([0, 3])), **rules, **SMALL}
    for operator in (_native.multi_proposal_target, _native.multi_proposal_target_mask):
        outputs = operator(*inputs, **settings)
        assert all(np.isfinite(output).all() for output in outputs)
        np.testing.assert_array_equal(outputs[0][:, 0], np.repeat([0, 1], 30))
        np.testing.assert_array_equal(outputs[1] > 0, outputs[3][:, :1] * outputs[1] > 0)


@pytest.mark.parametrize(
    "change",
    [
        {"gt_boxes": np.zeros((1, 5), F)},
        {"gt_boxes": np.zeros((1, 5, 4), F)},
        {"valid_ranges": np.zeros((2, 2), F)},
        {"cls_prob": np.zeros((1, 2, 11, 3), F)},
        {"im_info": np.zeros((1, 3), np.float16)},
        {"im_info": [[1, 2, 3]]},
        {"max_masks": 0},
        {"max_masks": 10**8},
        {"legacy_areas": 1},
        {"legacy_min_size": None},
        {"min_size": float("inf")},
        {"super_of": ()},
        {"super_of": "11"},
        {"super_of": 3},
        {"super_of": (1, 0)},
        {"super_of": (1, 1.5)},
        {"super_of": [1] * 65537},
        {"legacy_cap": None},
        {"crowd_boxes": np.zeros((1, 5), F)},
        {"crowd_boxes": np.zeros((2, 3, 5), F)},
        {"crowd_ioa": 1.5},
        {"soft_sampling": (0.25, 50)},
        {"soft_sampling": (1.25, 50, 20)},
        {"soft_sampling": (0.25, -1, 20)},
    ],
)
def test_wrong_arguments_are_refused(change):
    arguments = {**dict(zip(INPUTS, small_batch())), **SMALL}
    _native.multi_proposal_target_mask(**arguments)
    with pytest.raises(OpsError, match=next(iter(change))):
        _native.multi_proposal_target_mask(**{**arguments, **change})


def test_arrays_that_are_not_contiguous_are_copied():
    inputs = small_batch(2)
    expected = _native.multi_proposal_target(*inputs, **SMALL)
    strided = [np.asfortranarray(array) for array in inputs]
    assert not strided[0].flags.c_contiguous
    for output, wanted in zip(_native.multi_proposal_target(*strided, **SMALL), expected):
        np.testing.assert_array_equal(output, wanted)


def test_no_images_give_no_rows():
    inputs = [array[:0] for array in small_batch()]
    outputs = _native.multi_proposal_target_mask(*inputs, **SMALL)
    assert [output.shape for output in outputs] == [(0, columns) for columns in (5, 1, 4, 4, 5, 1)]
