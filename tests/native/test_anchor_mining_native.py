"""Anchor targets with hard example mining: the compiled kernel against the readable reference."""

from __future__ import annotations

import numpy as np
import pytest

from sniper.errors import OpsError
from sniper.native import _native
from sniper.targets import mining_reference
from tests.native.mining_inputs import M1, M2, M3, MODULES, F, random_mining

OUTPUTS = ("label", "bbox_target", "bbox_weight", "count")
# Corners of the anchors of cell 0, of SSH's stride 8, 16 and 32, small ones first.
VECTORS = {
    "m1": [[0, 0, 15, 15], [-8, -8, 23, 23]],
    "m2": [[-24, -24, 39, 39], [-56, -56, 71, 71]],
    "m3": [[-120, -120, 135, 135], [-248, -248, 263, 263]],
}


def check(arrays, boxes, **settings):
    """Labels, weights and counts are equal, targets but for the bits of the logarithm."""
    outputs = _native.anchor_mining_target(*arrays, ignore_boxes=boxes, **settings)
    expected = mining_reference.anchor_mining_target(*arrays, ignore_boxes=boxes, **settings)
    for name, output, wanted in zip(OUTPUTS, outputs, expected):
        tolerance = 2e-6 if name == "bbox_target" else 0
        np.testing.assert_allclose(output, wanted, rtol=tolerance, atol=tolerance, err_msg=name)
    return outputs


def one_image(height, width, *, stride=8, anchors=2, size=None):
    """A map without faces on which all anchors score 0.5."""
    size = size or (stride * height, stride * width)
    return [np.full((1, 2, anchors * height, width), 0.5, F), F([[*size, 1]]),
            np.full((1, 2, 5), -1, F)]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ignored", [0, 4])
@pytest.mark.parametrize("module", MODULES)
def test_equals_the_slow_reference(module, ignored, seed):
    rng = np.random.default_rng(seed)
    settings = {**MODULES[module], "batch_size": int(rng.choice([8, 40, 256]))}
    arrays, boxes = random_mining(rng, 2, 9, 11, 12, ignored, **settings)
    label, _, weight, count = check(arrays, boxes, **settings)
    assert (count[:, 1] > 0).all() and (label == 1).sum() == count[:, 0].sum()
    assert ((weight > 0).sum((1, 2, 3)) == 4 * count[:, 0]).all()


@pytest.mark.parametrize("seed", range(6))
def test_other_settings_equal_the_slow_reference(seed):
    rng = np.random.default_rng(seed)
    low, high = np.sort(rng.uniform(0, 0.7, 2)).tolist()
    settings = {
        "scales": (1, 1.5, 3),
        "feature_stride": int(rng.choice([4, 12])),
        "ratios": (0.5, 1, 2)[: 1 + seed % 3],
        "base_size": int(rng.choice([8, 24])),
        "border": float(rng.choice([0, 10])),
        "batch_size": int(rng.integers(1, 60)),
        "fg_fraction": float(rng.choice([0, 0.1, 0.29, 1])),
        "positive_overlap": high,
        "negative_overlap": low,
        "ignore_overlap": float(rng.choice([0, 0.1, 0.5, 1])),
    }
    arrays, boxes = random_mining(
        rng, 2, 7, 6, 9, 3, scales=(1,) * 3 * len(settings["ratios"]),
        feature_stride=settings["feature_stride"],
    )  # fmt: skip
    check(arrays, boxes, **settings)


@pytest.mark.parametrize("module", MODULES)
def test_anchors_are_those_of_2017(module):
    """A face exactly on an anchor of the cell (0, 0), or of cell (2, 3), has the target 0."""
    settings = {**MODULES[module], "border": 1000}
    stride = settings["feature_stride"]
    for x, y in ((0, 0), (3, 2)):
        for anchor, corners in enumerate(VECTORS[module]):
            arrays = one_image(5, 6, stride=stride)
            arrays[2][0, 1] = [*(np.array(corners) + np.tile([x, y], 2) * stride), 1]
            label, target, weight, _ = _native.anchor_mining_target(*arrays, **settings)
            assert label.reshape(2, 5, 6)[anchor, y, x] == 1
            assert not target[0, 4 * anchor : 4 * anchor + 4, y, x].any()
            assert weight[0, 4 * anchor : 4 * anchor + 4, y, x].all()


def test_targets_by_hand():
    """A face of 12 x 20 px and the anchor (8, 8, 23, 23)."""
    arrays = one_image(6, 6, anchors=1, size=(48, 48))
    arrays[2][0, 0] = [10, 7, 21, 26, 1]
    label, target, weight, count = _native.anchor_mining_target(
        *arrays, scales=(1,), feature_stride=8
    )
    wanted = [(16 - 16) / 16, (17 - 16) / 16, np.log(12 / 16), np.log(20 / 16)]
    assert label.reshape(6, 6)[1, 1] == 1
    np.testing.assert_allclose(target[0, :, 1, 1], wanted, atol=1e-6)
    np.testing.assert_array_equal(weight[0, :, 1, 1], F(1) / count[0, 1])
    # Who decodes without the last -1 gets the corner behind the last px.
    centre = 16 + wanted[1] * 16
    assert centre + np.exp(wanted[3]) * 16 / 2 == pytest.approx(26 + 1)


@pytest.mark.parametrize("low", [0, 1])
def test_positives_are_the_least_likely_and_negatives_the_most_likely(low):
    rng = np.random.default_rng(0)
    arrays = one_image(32, 32, size=(256, 256))
    arrays[0] = rng.random(arrays[0].shape).astype(F)
    # Faces of 24 px, which anchors of 16 and 32 px fit alike.
    corners = rng.integers(0, 220, (150, 2))
    arrays[2] = F([[[x, y, x + 23, y + 23, 1] for x, y in corners]])
    if low:  # only what is not positive is looked at
        arrays[0][:, 1] *= 0.5
    everything = _native.anchor_mining_target(*arrays, **M1, batch_size=10**6)[0][0]
    label, _, weight, count = _native.anchor_mining_target(*arrays, **M1)
    label, scores = label[0], arrays[0][0, 1].ravel()
    assert (everything == 1).sum() > 100 and (everything == 0).sum() > 400
    np.testing.assert_array_equal(count, [[64, 256]])
    order = np.argsort(np.where(everything == 1, scores, np.inf), kind="stable")
    np.testing.assert_array_equal(np.flatnonzero(label == 1), np.sort(order[:64]))
    order = np.argsort(np.where(everything == 0, -scores, np.inf), kind="stable")
    np.testing.assert_array_equal(np.flatnonzero(label == 0), np.sort(order[:192]))
    np.testing.assert_array_equal(np.unique(weight), [0, 1 / 256])


def test_equal_probabilities_go_to_the_lower_index():
    arrays = one_image(32, 32, size=(256, 256))
    label = _native.anchor_mining_target(*arrays, **M1, batch_size=5)[0]
    np.testing.assert_array_equal(np.flatnonzero(label == 0), range(5))
    arrays[0][0, 1, 0, :3] = [-0.0, np.nan, 0]
    arrays[0][0, 1, 3, 4] = 0.6
    arrays[0][0, 1, 1:] = np.where(arrays[0][0, 1, 1:] == F(0.6), 0.6, 0)
    label = _native.anchor_mining_target(*arrays, **M1, batch_size=31)[0]
    chosen = [*range(3, 31), 3 * 32 + 4, 0, 1]  # the last anchor of the row sticks out
    np.testing.assert_array_equal(np.flatnonzero(label == 0), np.sort(chosen))


def test_an_image_without_anchors_inside_is_trained_on_all():
    """96 px hold no anchor of 256 px, whose cells 0..2 all stick out."""
    arrays = one_image(3, 3, stride=32)
    settings = {**M3, "border": 0}
    _, _, _, count = _native.anchor_mining_target(*arrays, **settings)
    np.testing.assert_array_equal(count, [[0, 18]])
    arrays[2][0, 0] = [-100, -100, 140, 140, 1]
    label, _, _, count = check(arrays, None, **settings)
    assert count[0, 0] > 0 and (label == 0).any()
    # The same face in an image with an anchor inside: no anchor there fits it.
    arrays = one_image(16, 16, stride=32)
    arrays[2][0, 0] = [-100, -100, 140, 140, 1]
    assert check(arrays, None, **settings)[3][0, 0] == 0


def test_the_border_lets_the_large_anchors_in():
    arrays = one_image(16, 16, stride=32)
    for border, trained in ((0, 8 * 8), (120, 16 * 16 + 8 * 8), (512, 2 * 16 * 16)):
        settings = {**M3, "border": border, "batch_size": 1000}
        count = _native.anchor_mining_target(*arrays, **settings)[3]
        np.testing.assert_array_equal(count, [[0, trained]])


def test_few_negatives_are_all_trained_and_divide_the_box_loss():
    """A 12 x 12 map of one face has fewer than 256 negatives; the divisor is what is trained."""
    arrays = one_image(12, 12)
    arrays[2][0, 0] = [20, 20, 50, 52, 1]
    label, _, weight, count = check(arrays, None, **M1)
    assert 0 < count[0, 0] < count[0, 1] < 256
    assert (label >= 0).sum() == count[0, 1]
    np.testing.assert_array_equal(np.unique(weight), [0, F(1) / count[0, 1]])


def test_no_face_gets_an_anchor_by_force():
    """A face of 5 px overlaps every anchor by less than half."""
    arrays = one_image(8, 8)
    arrays[2][0, 0] = [20, 20, 24, 24, 1]
    _, target, weight, count = check(arrays, None, **M1)
    assert count[0, 0] == 0 and not target.any() and not weight.any()


def test_ignored_boxes_take_positives_and_negatives_away():
    arrays = one_image(8, 8)
    arrays[2][0, 0] = [16, 16, 31, 31, 1]
    before, *_ = _native.anchor_mining_target(*arrays, **M1)
    boxes = F([[[16, 16, 31, 31, 0], [32, 32, 63, 63, -1]]])
    after, *_ = check(arrays, boxes, **M1)
    assert (before == 1).any() and not (after == 1).any()
    lost = (before >= 0) & (after < 0)
    assert lost.sum() < 20 and (after[~lost] == before[~lost]).all()


def test_of_equal_overlaps_the_first_face_is_taken():
    arrays = one_image(6, 6, anchors=1)
    arrays[2] = F([[[6, 8, 21, 23, 1], [10, 8, 25, 23, 2]]])
    _, target, *_ = check(arrays, None, scales=(1,), feature_stride=8)
    assert target[0, 0, 1, 1] == -2 / 16


@pytest.mark.parametrize(
    "row",
    [
        [np.nan, 8, 23, 23, 1], [8, 8, np.inf, 23, 1], [8, 8, 23, 2e9, 1], [8, 8, 23, 23, np.nan],
        [8, 8, 23, 23, -1], [23, 23, 8, 8, 1], [8, 23, 23, 8, 1], [8, 8, 7, 23, 1],
    ],
)  # fmt: skip
def test_boxes_that_are_none_are_not_used(row):
    arrays = one_image(6, 6)
    arrays[2][0, 0] = row
    expected = _native.anchor_mining_target(*one_image(6, 6), **M1)
    for output, wanted in zip(_native.anchor_mining_target(*arrays, **M1), expected):
        np.testing.assert_array_equal(output, wanted)
    boxes = F([[row]])
    for output, wanted in zip(
        _native.anchor_mining_target(*one_image(6, 6), ignore_boxes=boxes, **M1), expected
    ):
        np.testing.assert_array_equal(output, wanted)


def test_images_of_a_batch_do_not_meet():
    rng = np.random.default_rng(3)
    arrays, boxes = random_mining(rng, 5, 8, 9, 10, 3, **M2)
    together = _native.anchor_mining_target(*arrays, ignore_boxes=boxes, **M2)
    for n in range(5):
        alone = _native.anchor_mining_target(
            *(a[n : n + 1] for a in arrays), ignore_boxes=boxes[n : n + 1], **M2
        )
        for output, own in zip(together, alone):
            np.testing.assert_array_equal(output[n : n + 1], own)


@pytest.mark.parametrize("rows", [0, 3])
def test_without_faces_and_without_images(rows):
    arrays = one_image(6, 6)
    arrays[2] = np.full((1, rows, 5), -1, F)
    outputs = _native.anchor_mining_target(*arrays, ignore_boxes=arrays[2], **M1)
    np.testing.assert_array_equal(outputs[3], [[0, (outputs[0] == 0).sum()]])
    empty = _native.anchor_mining_target(*(array[:0] for array in arrays), **M1)
    assert [output.shape for output in empty] == [(0, 72), (0, 8, 6, 6), (0, 8, 6, 6), (0, 2)]


@pytest.mark.parametrize(
    "change",
    [
        {"cls_prob": np.zeros((1, 2, 11, 6), F)},
        {"cls_prob": np.zeros((1, 3, 12, 6), F)},
        {"cls_prob": np.zeros((1, 2, 12, 6))},
        {"im_info": np.zeros((2, 3), F)},
        {"gt_boxes": np.zeros((1, 5), F)},
        {"gt_boxes": np.zeros((1, 2, 4), F)},
        {"ignore_boxes": np.zeros((2, 2, 5), F)},
        {"ignore_boxes": [[[1, 2, 3, 4, 5]]]},
        {"scales": ()},
        {"scales": 1},
        {"ratios": (0,)},
        {"feature_stride": 0},
        {"base_size": 5000},
        {"border": -1},
        {"border": float("nan")},
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"fg_fraction": 1.5},
        {"positive_overlap": 2},
        {"negative_overlap": 0.6},
        {"ignore_overlap": None},
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(change):
    arguments = {**dict(zip(("cls_prob", "im_info", "gt_boxes"), one_image(6, 6))), **M1}
    _native.anchor_mining_target(**arguments)
    with pytest.raises(OpsError, match=next(iter(change))):
        _native.anchor_mining_target(**{**arguments, **change})
