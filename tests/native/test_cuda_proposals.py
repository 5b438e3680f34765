"""The CUDA proposal operators against the CPU kernels: the same choice, bit for bit."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from sniper.native import _native

RESNET = {"scales": (2, 4, 7, 10, 13, 16, 24), "ratios": (0.5, 1, 2), "feature_stride": 16}
MOBILENET = {"scales": (1, 2, 4, 8, 12), "ratios": (0.5, 1, 2), "feature_stride": 32}
SMALL = {"scales": (1, 2, 3), "ratios": (0.5, 1, 1.5), "feature_stride": 16}
F = np.float32


class AnchorGrid(ctypes.Structure):
    _fields_ = [
        ("base", ctypes.c_void_p),
        ("num_anchors", ctypes.c_int),
        ("height", ctypes.c_int),
        ("width", ctypes.c_int),
        ("stride", ctypes.c_float),
    ]


class ProposalLimits(ctypes.Structure):
    _fields_ = [
        ("pre_nms_top_n", ctypes.c_int64),
        ("post_nms_top_n", ctypes.c_int),
        ("nms_threshold", ctypes.c_float),
    ]


class MultiProposalParams(ctypes.Structure):
    _fields_ = [
        ("num_images", ctypes.c_int),
        ("grid", AnchorGrid),
        ("limits", ProposalLimits),
        ("min_size", ctypes.c_float),
    ]


class TargetRules(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_bool)
        for name in (
            "legacy_gt_centre", "legacy_areas", "legacy_min_size", "gt_slots_descending",
            "gt_range_closed", "fill_depends_on_image",
        )
    ]  # fmt: skip


class MultiProposalTargetParams(ctypes.Structure):
    _fields_ = [
        ("num_images", ctypes.c_int),
        ("max_gt", ctypes.c_int),
        ("grid", AnchorGrid),
        ("limits", ProposalLimits),
        ("min_size", ctypes.c_float),
        ("rules", TargetRules),
    ]


class MultiProposalTargetMaskParams(ctypes.Structure):
    _fields_ = [("target", MultiProposalTargetParams), ("max_masks", ctypes.c_int)]


# ---- Calls with the arguments of _native ---------------------------------------------------------


def make_grid(bbox_pred, scales, ratios, feature_stride):
    anchors = _native.operator_anchors(feature_stride, scales, ratios)
    return AnchorGrid(None, len(anchors), *bbox_pred.shape[2:], feature_stride), anchors


def multi_proposal(cuda, cls_prob, bbox_pred, im_info, *, pre_nms_top_n=12000, post_nms_top_n=300,
                   nms_thresh=0.7, min_size=3, **anchors):  # fmt: skip
    grid, base = make_grid(bbox_pred, **anchors)
    limits = ProposalLimits(pre_nms_top_n, post_nms_top_n, nms_thresh)
    rows = len(im_info) * post_nms_top_n
    return cuda.run(
        "multi_proposal", MultiProposalParams(len(im_info), grid, limits, min_size),
        cls_prob, bbox_pred, im_info, cuda.out((rows, 5)), cuda.out((rows,)),
        hosts={"grid.base": base},
    )  # fmt: skip


def target_params(bbox_pred, gt_boxes, rules, *, pre_nms_top_n, post_nms_top_n=300, nms_thresh=0.7,
                  min_size=3, legacy_gt_centre=True, legacy_areas=True, legacy_min_size=True,
                  **anchors):  # fmt: skip
    grid, base = make_grid(bbox_pred, **anchors)
    limits = ProposalLimits(pre_nms_top_n, post_nms_top_n, nms_thresh)
    rules = TargetRules(legacy_gt_centre, legacy_areas, legacy_min_size, *rules)
    return (
        MultiProposalTargetParams(*gt_boxes.shape[:2], grid, limits, min_size, rules),
        base,
        len(gt_boxes) * post_nms_top_n,
    )


def multi_proposal_target(cuda, *arrays, pre_nms_top_n=-1, **settings):
    params, base, rows = target_params(
        arrays[1], arrays[3], (False, True, True), pre_nms_top_n=pre_nms_top_n, **settings
    )
    outputs = [cuda.out((rows, width)) for width in (5, 1, 4, 4)]
    return cuda.run("multi_proposal_target", params, *arrays, *outputs, hosts={"grid.base": base})


def multi_proposal_target_mask(cuda, *arrays, pre_nms_top_n=6000, max_masks=50, **settings):
    params, base, rows = target_params(
        arrays[1], arrays[3], (True, False, False), pre_nms_top_n=pre_nms_top_n, **settings
    )
    masks = len(arrays[3]) * max_masks
    outputs = [cuda.out((rows, width)) for width in (5, 1, 4, 4)]
    outputs += [cuda.out((masks, 5)), cuda.out((masks, 1))]
    return cuda.run(
        "multi_proposal_target_mask", MultiProposalTargetMaskParams(params, max_masks), *arrays,
        *outputs, hosts={"target.grid.base": base},
    )  # fmt: skip


def same_bits(got, wanted):
    np.testing.assert_array_equal(got, wanted)
    assert np.ascontiguousarray(got).tobytes() == np.ascontiguousarray(wanted).tobytes()


def check_proposals(cuda, *arrays, **settings):
    got = multi_proposal(cuda, *arrays, **settings)
    wanted = _native.multi_proposal(*arrays, **settings)
    for a, b in zip(got, wanted):
        same_bits(a, b)
    return wanted


def check_targets(cuda, *arrays, masks=False, **settings):
    """Everything but the logarithms has the same bits."""
    name = "multi_proposal_target_mask" if masks else "multi_proposal_target"
    got = globals()[name](cuda, *arrays, **settings)
    wanted = getattr(_native, name)(*arrays, **settings)
    assert len(got) == len(wanted)
    for index, (a, b) in enumerate(zip(got, wanted)):
        if index == 2:
            same_bits(a[:, :2], b[:, :2])
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-5)
        else:
            same_bits(a, b)
    return wanted


# ---- Inputs --------------------------------------------------------------------------------------


def random_maps(seed, n, num_anchors, height, width, spread=0.3):
    rng = np.random.default_rng(seed)
    scores = rng.random((n, 2 * num_anchors, height, width)).astype(F)
    deltas = rng.normal(0, spread, (n, 4 * num_anchors, height, width)).astype(F)
    sizes = rng.integers([8 * height, 8 * width], [16 * height + 1, 16 * width + 1], (n, 2))
    return scores, deltas, np.hstack([sizes, np.ones((n, 1))]).astype(F)


def random_batch(seed, n, height, width, num_gt, max_gt):
    """Inputs of the target operators for the SMALL anchors; used rows are not always a prefix."""
    rng = np.random.default_rng(seed)
    scores, deltas, sizes = random_maps(seed, n, 9, height, width)
    gt = np.full((n, max_gt, 5), -1, F)
    for image in range(n):
        corner = rng.integers(0, 8 * min(height, width), (num_gt, 2))
        side = rng.integers(1, 60, (num_gt, 2))
        rows = np.sort(rng.permutation(max_gt)[:num_gt])
        classes = rng.integers(1, 9, (num_gt, 1))
        gt[image, rows] = np.hstack([corner, corner + side, classes])
    ranges = rng.choice([0, 12, 30], (n, 1)) + np.array([[0, 40]])
    return scores.reshape(n, 2, 9 * height, width), deltas, sizes, gt, ranges.astype(F)


# ---- Tests ---------------------------------------------------------------------------------------


def test_parameter_structs_are_those_of_the_kernels(cuda_sources, tmp_path):
    check = cuda_sources.check_layouts
    check(tmp_path, "multi_proposal/multi_proposal.h", {"MultiProposalParams": MultiProposalParams})
    check(
        tmp_path,
        "multi_proposal_target_mask/multi_proposal_target_mask.h",
        {"MultiProposalTargetMaskParams": MultiProposalTargetMaskParams},
    )
    with pytest.raises(cuda_sources.LaunchError, match="differ"):
        check(tmp_path, "multi_proposal/multi_proposal.h", {"MultiProposalParams": AnchorGrid})


@pytest.mark.parametrize(
    ("file", "anchors"),
    [("golden_multi_proposal_exact", RESNET), ("golden_multi_proposal_exact_mobilenet", MOBILENET)],
)
def test_golden_multi_proposal(cuda, golden, file, anchors):
    data = np.load(golden / f"{file}.npz")
    rois, scores = multi_proposal(
        cuda, data["cls_prob"], data["bbox_pred"], data["im_info"], **anchors
    )
    for n, kept in enumerate(data["num_kept"]):
        rows = slice(300 * n, 300 * n + kept)
        np.testing.assert_allclose(rois[rows], data["rois"][rows], atol=1e-4)
        np.testing.assert_array_equal(scores[rows], data["score"][rows])


@pytest.mark.parametrize("suffix", ["", "_padding"])
def test_golden_multi_proposal_target(cuda, golden, suffix):
    data = np.load(golden / f"golden_multi_proposal_target{suffix}.npz")
    inputs = ("cls_prob", "bbox_pred", "im_info", "gt_boxes", "valid_ranges")
    outputs = multi_proposal_target(cuda, *(data[name] for name in inputs), **RESNET)
    for name, output in zip(("rois", "label", "bbox_target", "bbox_weight"), outputs):
        np.testing.assert_allclose(output, data[name], atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("pre", "post", "threshold", "min_size"),
    [(-1, 40, 0.7, 3), (60, 300, 0.3, 20), (700, 900, 0.6, 0), (1, 5, 0.5, 3), (5000, 1, 0.0, 3)],
)
def test_multi_proposal_equals_the_cpu(cuda, pre, post, threshold, min_size):
    arrays = random_maps(pre + post, 3, 9, 11, 13)
    check_proposals(cuda, *arrays, pre_nms_top_n=pre, post_nms_top_n=post, nms_thresh=threshold,
                    min_size=min_size, **SMALL)  # fmt: skip


def test_more_boxes_kept_than_one_tile_holds(cuda):
    arrays = random_maps(5, 1, 9, 16, 16)
    _, scores = check_proposals(cuda, *arrays, post_nms_top_n=3000, nms_thresh=0.95, **SMALL)
    assert (scores > 0).sum() > 900


def test_clustered_boxes_and_equal_scores(cuda):
    """Hundreds of ties, and whole tiles that one box suppresses."""
    scores, deltas, sizes = random_maps(6, 2, 9, 12, 12, spread=0.02)
    scores = np.round(scores, 1)
    scores[1] = 0.25
    deltas[:, :, 3:, :] -= 2
    sizes[:, :2] = 150
    check_proposals(cuda, scores, deltas, sizes, post_nms_top_n=200, nms_thresh=0.6, **SMALL)


def test_scores_and_deltas_that_are_no_numbers(cuda):
    scores, deltas, sizes = random_maps(7, 3, 9, 8, 8)
    rng = np.random.default_rng(7)
    strange = F([np.nan, np.inf, -np.inf, -1, -1.5, -0.0, 0, 1e-40, -1e-40, -0.5, 3e38, -0.999])
    where = rng.random(scores.shape) < 0.8
    scores[where] = rng.choice(strange, where.sum())
    where = rng.random(deltas.shape) < 0.1
    deltas[where] = rng.choice(F([np.nan, np.inf, -np.inf, 90, -90, 200, 1e38]), where.sum())
    scores[2] = np.nan  # an image without any candidate
    _, kept = check_proposals(cuda, scores, deltas, sizes, **SMALL)
    assert not kept.reshape(3, -1)[2].any()


def test_many_images_and_few_anchors(cuda):
    arrays = random_maps(8, 70, 1, 1, 2)
    check_proposals(cuda, *arrays, post_nms_top_n=4, scales=(2,), ratios=(1,), feature_stride=16)


def test_more_base_anchors_than_one_argument_holds(cuda):
    scales, ratios = tuple(range(1, 16)), tuple(0.25 * k for k in range(1, 12))
    arrays = random_maps(9, 2, 165, 3, 2)
    check_proposals(cuda, *arrays, scales=scales, ratios=ratios, feature_stride=8)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"legacy_gt_centre": False, "legacy_areas": False, "legacy_min_size": False},
        {"pre_nms_top_n": 50, "nms_thresh": 0.5, "min_size": 25},
        {"post_nms_top_n": 2000, "nms_thresh": 1.0},
    ],
    ids=str,
)
def test_targets_equal_the_cpu(cuda, masks, settings):
    arrays = random_batch(10, 3, 9, 8, num_gt=7, max_gt=12)
    outputs = check_targets(
        cuda, *arrays, masks=masks, **{"post_nms_top_n": 60, **settings}, **SMALL
    )
    assert (outputs[1] > 0).any()
    if masks:
        assert (outputs[5] >= 0).any()


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize(("num_gt", "max_gt"), [(0, 5), (5, 5), (1, 1), (20, 300), (300, 300)])
def test_numbers_of_ground_truth_boxes(cuda, masks, num_gt, max_gt):
    """None, all, across the tiles of a block, and more than there are rois."""
    arrays = random_batch(num_gt, 2, 8, 8, num_gt, max_gt)
    outputs = check_targets(cuda, *arrays, masks=masks, post_nms_top_n=150, **SMALL)
    assert (outputs[1] > 0).any() == (num_gt > 0)


def test_ground_truth_that_is_not_finite_is_not_used(cuda):
    arrays = random_batch(3, 2, 8, 8, 6, 8)
    gt = arrays[3]
    gt[0, :3, :4] = [[np.nan, 1, 5, 9], [0, 0, np.inf, 9], [0, 0, 9, 1e20]]
    gt[1, :, 4] = np.nan
    check_targets(cuda, *arrays, post_nms_top_n=40, **SMALL)
    check_targets(cuda, *arrays, masks=True, post_nms_top_n=40, **SMALL)


@pytest.mark.parametrize("masks", [False, True])
def test_equal_overlaps_go_to_the_first_row(cuda, masks):
    arrays = random_batch(12, 2, 8, 8, 6, 6)
    gt = arrays[3]
    gt[:, 3:, :4] = gt[:, :3, :4]
    gt[:, :, 4] = np.arange(1, 7)
    outputs = check_targets(cuda, *arrays, masks=masks, post_nms_top_n=60, **SMALL)
    assert set(np.unique(outputs[1])) <= {0, 1, 2, 3}
    assert outputs[1].any()


def test_an_image_without_proposals_is_filled(cuda):
    arrays = random_batch(4, 3, 8, 8, 2, 4)
    arrays[0][1] = -1
    arrays[4][2] = [5000, 6000]
    check_targets(cuda, *arrays, post_nms_top_n=150, **SMALL)
    check_targets(cuda, *arrays, masks=True, post_nms_top_n=150, **SMALL)


@pytest.mark.parametrize("max_masks", [1, 3, 200])
def test_mask_rows_fewer_and_more_than_positive_rois(cuda, max_masks):
    arrays = random_batch(11, 4, 8, 8, 5, 6)
    outputs = check_targets(
        cuda, *arrays, masks=True, max_masks=max_masks, post_nms_top_n=50, **SMALL
    )
    assert (outputs[5] == -1).any() == (max_masks == 200)


def test_workspace_grows_with_the_maps_and_too_many_anchors_are_refused(cuda, cuda_harness):
    def bytes_for(height):
        grid = AnchorGrid(None, 9, height, 100, 16)
        params = MultiProposalParams(4, grid, ProposalLimits(-1, 300, 0.7), 3)
        return cuda.workspace_bytes("multi_proposal", params)

    assert 4 * 9 * 100 * 100 * 24 <= bytes_for(100) < bytes_for(200)
    with pytest.raises(cuda_harness.LaunchError, match="status 1"):
        bytes_for(2_000_000)
