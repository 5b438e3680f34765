"""The parameters of every CUDA launcher, and calls of them on any backend of cuda_harness."""

from __future__ import annotations

import ctypes
import math

import numpy as np

F = np.float32
RESNET = {"scales": (2, 4, 7, 10, 13, 16, 24), "ratios": (0.5, 1, 2), "feature_stride": 16}
MOBILENET = {"scales": (1, 2, 4, 8, 12), "ratios": (0.5, 1, 2), "feature_stride": 32}
SMALL = {"scales": (1, 2, 3), "ratios": (0.5, 1, 1.5), "feature_stride": 16}


# Largest difference from the CPU kernels by operator and output, as a share of the output's largest
# value (at least 1): logarithms of box targets, and offset gradients, which are summed in another
# order. All other outputs have the same bits.
TOLERANCES = {
    ("multi_proposal_target", 2): 2e-6,
    ("anchor_mining_target", 1): 2e-6,
    ("multi_proposal_target_mask", 2): 2e-6,
    ("psroi_backward", 1): 2e-6,
}

# ---- Structures of the C++ headers ---------------------------------------------------------------


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


class ClassTable(ctypes.Structure):
    _fields_ = [("super_of", ctypes.c_void_p), ("num_classes", ctypes.c_int)]


class MultiProposalTargetParams(ctypes.Structure):
    _fields_ = [
        ("num_images", ctypes.c_int),
        ("max_gt", ctypes.c_int),
        ("max_crowd", ctypes.c_int),
        ("crowd_ioa", ctypes.c_float),
        ("soft_sampling", ctypes.c_float * 3),
        ("grid", AnchorGrid),
        ("limits", ProposalLimits),
        ("min_size", ctypes.c_float),
        ("rules", TargetRules),
        ("classes", ClassTable),
    ]


class MultiProposalTargetMaskParams(ctypes.Structure):
    _fields_ = [
        ("target", MultiProposalTargetParams),
        ("max_masks", ctypes.c_int),
        ("legacy_cap", ctypes.c_bool),
    ]


class AnchorMiningTargetParams(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int) for name in ("num_images", "max_gt", "max_ignored")),
        ("grid", AnchorGrid),
        *((name, ctypes.c_float)
          for name in ("border", "positive_overlap", "negative_overlap", "ignore_overlap")),
        ("batch_size", ctypes.c_int),
        ("max_positives", ctypes.c_int),
    ]  # fmt: skip


class MaskRcnnTargetParams(ctypes.Structure):
    _fields_ = [
        *((n, ctypes.c_int64) for n in ("num_rois", "num_images", "num_polygons", "row_length")),
        ("mask_size", ctypes.c_int),
        ("ignore_label", ctypes.c_float),
    ]


class ChipGeneratorParams(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("width_im", "height_im")),
        ("factor", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("chip_size", "stride")),
        ("seed", ctypes.c_uint64),
        ("legacy_clip", ctypes.c_bool),
        *((name, ctypes.c_int64) for name in ("width", "height", "lattice_size", "lattice_stride")),
        *((name, ctypes.c_int64) for name in ("num_boxes", "max_chips")),
    ]


class MultiScaleNmsParams(ctypes.Structure):
    _fields_ = [
        ("count", ctypes.c_int64),
        ("num_levels", ctypes.c_int64),
        ("sigma", ctypes.c_float),
        ("nms_threshold", ctypes.c_float),
        ("min_score", ctypes.c_float),
        ("max_per_image", ctypes.c_int64),
    ]


class PsRoiShape(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "rois", "output_dim")),
        *((name, ctypes.c_int) for name in ("group", "pooled", "part", "samples")),
        ("classes", ctypes.c_int64),
        ("spatial_scale", ctypes.c_float),
        ("trans_std", ctypes.c_float),
    ]


class RoiMaxMeanParams(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "channels", "height", "width", "rois")),
        ("pooled", ctypes.c_int),
        ("spatial_scale", ctypes.c_float),
    ]


class Relu6Params(ctypes.Structure):
    _fields_ = [("size", ctypes.c_int64)]


# ---- Calls ---------------------------------------------------------------------------------------


def make_anchors(scales, ratios, feature_stride):
    """Anchors of the cell (0, 0), ratio-major, px."""
    centre = (feature_stride - 1) / 2
    anchors = []
    for ratio in ratios:
        width = math.floor(math.sqrt(math.floor(feature_stride**2 / ratio)) + 0.5)
        height = math.floor(width * ratio + 0.5)
        for scale in scales:
            half = np.array([width * scale - 1, height * scale - 1]) / 2
            anchors.append([*(centre - half), *(centre + half)])
    return np.array(anchors, F)


def make_grid(bbox_pred, scales, ratios, feature_stride):
    anchors = make_anchors(scales, ratios, feature_stride)
    return AnchorGrid(None, len(anchors), *bbox_pred.shape[2:], feature_stride), anchors


def multi_proposal(cuda, cls_prob, bbox_pred, im_info, *, pre_nms_top_n=12000, post_nms_top_n=300,
                   nms_thresh=0.7, min_size=3, **anchors):  # fmt: skip
    """rois (rows, 5), scores (rows,)."""
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
                  crowd_boxes=None, crowd_ioa=0.9, soft_sampling=None, **anchors):  # fmt: skip
    grid, base = make_grid(bbox_pred, **anchors)
    limits = ProposalLimits(pre_nms_top_n, post_nms_top_n, nms_thresh)
    rules = TargetRules(legacy_gt_centre, legacy_areas, legacy_min_size, *rules)
    return (
        MultiProposalTargetParams(
            *gt_boxes.shape[:2],
            0 if crowd_boxes is None else crowd_boxes.shape[1],
            crowd_ioa,
            (ctypes.c_float * 3)(*(soft_sampling or ())),
            grid,
            limits,
            min_size,
            rules,
        ),
        base,
        len(gt_boxes) * post_nms_top_n,
    )


def multi_proposal_target(cuda, *arrays, pre_nms_top_n=-1, **settings):
    """rois, label, target, weight, and with `soft_sampling` label weights."""
    params, base, rows = target_params(
        arrays[1], arrays[3], (False, True, True), pre_nms_top_n=pre_nms_top_n, **settings
    )
    outputs = [cuda.out((rows, width)) for width in (5, 1, 4, 4)]
    return cuda.run(
        "multi_proposal_target", params, *arrays, settings.get("crowd_boxes"), *outputs,
        weights_out(cuda, rows, settings), hosts={"grid.base": base},
    )  # fmt: skip


def weights_out(cuda, rows, settings):
    return cuda.out((rows, 1)) if settings.get("soft_sampling") else None


def multi_proposal_target_mask(cuda, *arrays, pre_nms_top_n=6000, max_masks=50, super_of=None,
                               legacy_cap=True, **settings):  # fmt: skip
    """rois, label, target, weight, mask_rois, mask_ids, and with `soft_sampling` label weights."""
    params, base, rows = target_params(
        arrays[1], arrays[3], (True, False, False), pre_nms_top_n=pre_nms_top_n, **settings
    )
    masks = len(arrays[3]) * max_masks
    outputs = [cuda.out((rows, width)) for width in (5, 1, 4, 4)]
    outputs += [cuda.out((masks, 5)), cuda.out((masks, 1))]
    hosts = {"target.grid.base": base}
    if super_of is not None:
        hosts["target.classes.super_of"] = np.array(super_of, np.int32)
        params.classes.num_classes = len(super_of)
    return cuda.run(
        "multi_proposal_target_mask", MultiProposalTargetMaskParams(params, max_masks, legacy_cap),
        *arrays, settings.get("crowd_boxes"), *outputs, weights_out(cuda, rows, settings),
        hosts=hosts,
    )  # fmt: skip


def anchor_mining_target(cuda, cls_prob, im_info, gt_boxes, ignore_boxes=None, *, scales,
                         feature_stride, ratios=(1,), base_size=16, border=0, batch_size=256,
                         fg_fraction=0.25, positive_overlap=0.5, negative_overlap=0.3,
                         ignore_overlap=0.3):  # fmt: skip
    """label (N, A * h * w), target and weight (N, 4A, h, w), count (N, 2)."""
    base = make_anchors(scales, ratios, base_size)
    images, _, rows, width = cls_prob.shape
    height = rows // len(base)
    params = AnchorMiningTargetParams(
        images, gt_boxes.shape[1], 0 if ignore_boxes is None else ignore_boxes.shape[1],
        AnchorGrid(None, len(base), height, width, feature_stride), border, positive_overlap,
        negative_overlap, ignore_overlap, batch_size, int(batch_size * fg_fraction),
    )  # fmt: skip
    deltas = cuda.out((images, 4 * len(base), height, width))
    return cuda.run(
        "anchor_mining_target", params, cls_prob, im_info, gt_boxes, ignore_boxes,
        cuda.out((images, rows * width)), deltas, deltas, cuda.out((images, 2)),
        hosts={"grid.base": base},
    )  # fmt: skip


def mask_rcnn_target(cuda, rois, polys, ids, size=28, ignore=-1.0):
    """targets, classes, both (rois, size, size)."""
    params = MaskRcnnTargetParams(len(rois), *polys.shape, size, ignore)
    out = cuda.out((len(rois), size, size))
    return cuda.run("mask_rcnn_target", params, rois, polys, ids, out, out)


def chip_generator(
    cuda, boxes, factor, width, height, size, stride, seed, legacy_clip=False, max_chips=40
):
    """chips (max_chips, 4), count (1,)."""
    params = ChipGeneratorParams(
        width, height, factor, size, stride, seed % 2**64, legacy_clip,
        int(width * factor), int(height * factor), size, stride, len(boxes), max_chips,
    )  # fmt: skip
    return cuda.run("chip_generator", params, boxes, cuda.out((max_chips, 4)), cuda.out(1))


def multi_scale_nms(cuda, dets, levels, classes, images, ranges, sigma=0.55, threshold=-1.0,
                    min_score=0.001, limit=-1):  # fmt: skip
    """Padded dets, classes, images, and their number (1,)."""
    count = len(dets)
    params = MultiScaleNmsParams(count, len(ranges), sigma, threshold, min_score, limit)
    return cuda.run(
        "multi_scale_nms", params, dets, levels, classes, images, ranges,
        cuda.out((count, 5)), cuda.out(count), cuda.out(count), cuda.out(1),
    )  # fmt: skip


def psroi_shape(data, rois, trans, attributes):
    return PsRoiShape(
        images=data.shape[0],
        height=data.shape[2],
        width=data.shape[3],
        rois=len(rois),
        output_dim=attributes["output_dim"],
        group=attributes["group_size"],
        pooled=attributes["pooled_size"],
        part=attributes["part_size"] or attributes["pooled_size"],
        samples=attributes["sample_per_part"],
        classes=1 if trans is None else trans.shape[1] // 2,
        spatial_scale=attributes["spatial_scale"],
        trans_std=attributes["trans_std"],
    )


def psroi_forward(cuda, data, rois, trans, attributes):
    """The pooled RoIs."""
    pooled = attributes["pooled_size"]
    return cuda.run(
        "deformable_psroi_pooling", psroi_shape(data, rois, trans, attributes), data, rois, trans,
        cuda.out((len(rois), attributes["output_dim"], pooled, pooled)),
    )  # fmt: skip


def psroi_backward(cuda, data, rois, trans, head, attributes):
    """Gradients of data and trans; only the first without trans."""
    return cuda.run(
        "deformable_psroi_pooling", psroi_shape(data, rois, trans, attributes),
        head, data, rois, trans, cuda.out(data.shape),
        None if trans is None else cuda.out(trans.shape),
        launcher="backward", workspace="backward_workspace",
    )  # fmt: skip


def roi_max_mean_params(data, rois, attributes):
    return RoiMaxMeanParams(
        *data.shape, len(rois), attributes["pooled_size"], attributes["spatial_scale"]
    )


def roi_max_mean_forward(cuda, data, rois, attributes):
    """The pooled RoIs (rois, channels)."""
    params = roi_max_mean_params(data, rois, attributes)
    out = cuda.out((len(rois), data.shape[1]))
    return cuda.run("roi_max_mean_pooling", params, data, rois, out)


def roi_max_mean_backward(cuda, data, rois, head, attributes):
    """The gradient of data."""
    return cuda.run(
        "roi_max_mean_pooling", roi_max_mean_params(data, rois, attributes), head, data, rois,
        cuda.out(data.shape), launcher="backward", workspace="backward_workspace",
    )  # fmt: skip


def relu6_forward(cuda, data):
    return cuda.run("relu6", Relu6Params(data.size), data, cuda.out(data.shape))


def relu6_backward(cuda, data, head):
    """The gradient of data."""
    params = Relu6Params(data.size)
    return cuda.run("relu6", params, head, data, cuda.out(data.shape), launcher="backward")


def differences(operator, got, wanted):
    """Largest difference of each output as in TOLERANCES; 0: equal bits.

    Raises:
        AssertionError: one is larger than its tolerance.
    """
    got, wanted = ([x] if isinstance(x, np.ndarray) else list(x) for x in (got, wanted))
    assert len(got) == len(wanted), f"{operator}: {len(got)} outputs, expected {len(wanted)}"
    found = []
    for index, (ours, theirs) in enumerate(zip(got, wanted)):
        if ours.tobytes() == theirs.tobytes():
            found.append(0.0)
            continue
        finite = np.isfinite(theirs)
        np.testing.assert_array_equal(np.isfinite(ours), finite)
        size = max(1.0, float(np.abs(theirs[finite]).max()))
        found.append(float(np.abs(ours[finite] - theirs[finite]).max()) / size)
        allowed = TOLERANCES.get((operator, index))
        assert allowed is not None, f"{operator}: output {index} has other bits: {found[-1]:.1e}"
        assert found[-1] <= allowed, f"{operator}: output {index} differs by {found[-1]:.1e}"
    return found
