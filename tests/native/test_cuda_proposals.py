"""The CUDA proposal operators against the CPU kernels: the same choice, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from sniper.native import _native
from tests.native import cuda_harness, cuda_sources
from tests.native.cuda_calls import (
    MOBILENET,
    RESNET,
    SMALL,
    AnchorGrid,
    MultiProposalParams,
    MultiProposalTargetMaskParams,
    ProposalLimits,
    multi_proposal,
    multi_proposal_target,
    multi_proposal_target_mask,
)
from tests.native.cuda_cases import (
    random_batch,
    random_crowds,
    random_maps,
    strange_maps,
    tied_maps,
)


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
    call = multi_proposal_target_mask if masks else multi_proposal_target
    got = call(cuda, *arrays, **settings)
    wanted = getattr(_native, name)(*arrays, **settings)
    assert len(got) == len(wanted)
    for index, (a, b) in enumerate(zip(got, wanted)):
        if index == 2:
            same_bits(a[:, :2], b[:, :2])
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-5)
        else:
            same_bits(a, b)
    return wanted


# ---- Tests ---------------------------------------------------------------------------------------


def test_parameter_structs_are_those_of_the_kernels(tmp_path):
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
    arrays = tied_maps(6, 2, 9, 12, 12)
    check_proposals(cuda, *arrays, post_nms_top_n=200, nms_thresh=0.6, **SMALL)


def test_scores_and_deltas_that_are_no_numbers(cuda):
    _, kept = check_proposals(cuda, *strange_maps(7, 3, 9, 8, 8), **SMALL)
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


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("legacy_areas", [True, False])
@pytest.mark.parametrize("rows", [1, 12, 300])
def test_crowds_and_label_weights_equal_the_cpu(cuda, masks, legacy_areas, rows):
    outputs = check_targets(
        cuda, *random_batch(14, 3, 8, 8, 5, 6), masks=masks, post_nms_top_n=60,
        crowd_boxes=random_crowds(rows, 3, rows, 64), crowd_ioa=0.4, soft_sampling=(0.25, 50, 20),
        legacy_areas=legacy_areas, **SMALL
    )  # fmt: skip
    assert rows == 1 or (outputs[1] == -1).any() and (outputs[1] > 0).any()
    assert outputs[-1].min() < 0.5 and outputs[-1].max() == 1


@pytest.mark.parametrize("legacy_cap", [True, False])
@pytest.mark.parametrize(("max_masks", "classes"), [(1, 5), (4, 3130), (200, 8)])
def test_fine_classes_equal_the_cpu(cuda, max_masks, classes, legacy_cap):
    """Tables with fewer classes than the data, and with more than one argument holds."""
    arrays = random_batch(13, 4, 8, 8, 5, 6)
    super_of = np.random.default_rng(0).integers(1, 9, classes).tolist()
    outputs = check_targets(
        cuda, *arrays, masks=True, max_masks=max_masks, post_nms_top_n=50, super_of=super_of,
        legacy_cap=legacy_cap, **SMALL
    )  # fmt: skip
    assert 0 <= outputs[5].max() < min(classes, 8)


@pytest.mark.parametrize("max_masks", [1, 3, 200])
def test_mask_rows_fewer_and_more_than_positive_rois(cuda, max_masks):
    arrays = random_batch(11, 4, 8, 8, 5, 6)
    outputs = check_targets(
        cuda, *arrays, masks=True, max_masks=max_masks, post_nms_top_n=50, **SMALL
    )
    assert (outputs[5] == -1).any() == (max_masks == 200)


def test_workspace_grows_with_the_maps_and_too_many_anchors_are_refused(cuda):
    def bytes_for(height):
        grid = AnchorGrid(None, 9, height, 100, 16)
        params = MultiProposalParams(4, grid, ProposalLimits(-1, 300, 0.7), 3)
        return cuda.workspace_bytes("multi_proposal", params)

    assert 4 * 9 * 100 * 100 * 24 <= bytes_for(100) < bytes_for(200)
    with pytest.raises(cuda_harness.LaunchError, match="status 1"):
        bytes_for(2_000_000)
