"""Right calls of every operator front, of any size: `CASES[name](sizes, rng)`."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import numpy as np

from sniper import ops
from sniper.native import _native

F = np.float32
POISON = F([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e20, -1e12, 1e9, 65536, -1, 0, 0.5, 1e-40])


class Call(NamedTuple):
    """A front with its arrays and attributes, its outputs' shapes, and the same on the host."""

    front: Callable[..., Any]
    arrays: dict[str, np.ndarray]
    attributes: dict[str, Any]
    shapes: list[tuple[int, ...]]
    host: Callable[[], Any] | None = None


def poison(arrays, names, rng, share):
    """Replaces some numbers of the named arrays."""
    for name in names:
        flat = arrays[name].reshape(-1)
        count = int(share * flat.size)
        flat[rng.integers(0, flat.size, count)] = rng.choice(POISON, count)


def float_arrays(**arrays):
    return {name: np.asarray(array, F) for name, array in arrays.items()}


def proposal_inputs(sizes, rng, with_gt):
    n, h, w = sizes["images"], sizes["height"], sizes["width"]
    anchors = sizes["scales"] * sizes["ratios"]
    arrays = float_arrays(
        cls_prob=rng.random((n, 2, anchors * h, w) if with_gt else (n, 2 * anchors, h, w)),
        bbox_pred=rng.normal(0, 0.4, (n, 4 * anchors, h, w)),
        im_info=rng.uniform(16, 16 * max(h, w), (n, 3)),
    )
    if with_gt:
        corners = rng.uniform(0, 100, (n, sizes["rows"], 2))
        far = corners + rng.uniform(1, 80, corners.shape)
        classes = rng.integers(-1, 9, (n, sizes["rows"], 1))
        ranges = np.sort(rng.choice([0, 20, 90, 512], (n, 2)))
        arrays.update(
            float_arrays(gt_boxes=np.dstack([corners, far, classes]), valid_ranges=ranges)
        )
    poison(arrays, list(arrays), rng, sizes["poison"])
    attributes = {
        "scales": tuple(rng.choice([0.5, 1, 2, 4], sizes["scales"]).tolist()),
        "ratios": tuple(rng.choice([0.5, 1, 2], sizes["ratios"]).tolist()),
        "feature_stride": 16,
        "pre_nms_top_n": int(rng.choice([-1, 10, 6000])),
        "post_nms_top_n": sizes["post"],
        "nms_thresh": float(rng.choice([0.3, 0.7])),
        "min_size": int(rng.choice([0, 3])),
    }
    return arrays, attributes


def multi_proposal(sizes, rng):
    arrays, attributes = proposal_inputs(sizes, rng, with_gt=False)
    rows = sizes["images"] * sizes["post"]
    return Call(
        ops.multi_proposal, arrays, attributes, [(rows, 5), (rows,)],
        lambda: _native.multi_proposal(**arrays, **attributes),
    )  # fmt: skip


def target_call(sizes, rng, name, extra, extra_shapes, host=None):
    """`host` takes the front's attributes; None is the host function of the front's name."""
    arrays, attributes = proposal_inputs(sizes, rng, with_gt=True)
    switches = ("legacy_gt_centre", "legacy_areas", "legacy_min_size")
    attributes.update({switch: bool(rng.integers(2)) for switch in switches}, **extra)
    rows = sizes["images"] * sizes["post"]
    shapes = [(rows, columns) for columns in (5, 1, 4, 4)] + extra_shapes
    host = host or getattr(_native, name)
    return Call(
        getattr(ops, name), arrays, attributes, shapes, lambda: host(**arrays, **attributes)
    )


def multi_proposal_target(sizes, rng):
    return target_call(sizes, rng, "multi_proposal_target", {}, [])


def multi_proposal_target_mask(sizes, rng):
    rows = sizes["images"] * sizes["masks"]
    extra = {"max_masks": sizes["masks"]}
    return target_call(sizes, rng, "multi_proposal_target_mask", extra, [(rows, 5), (rows, 1)])


def multi_proposal_target_fine(sizes, rng):
    rows = sizes["images"] * sizes["masks"]
    extra = {
        "super_of": rng.integers(1, 4, int(rng.integers(1, 12))).tolist(),
        "max_fine": sizes["masks"],
        "legacy_cap": bool(rng.integers(2)),
    }

    def host(max_fine, **arguments):
        return _native.multi_proposal_target_mask(max_masks=max_fine, **arguments)

    shapes = [(rows, 5), (rows, 1)]
    return target_call(sizes, rng, "multi_proposal_target_fine", extra, shapes, host)


def anchor_mining_target(sizes, rng):
    n, h, w = sizes["images"], sizes["height"], sizes["width"]
    anchors = sizes["scales"] * sizes["ratios"]

    def boxes(rows):
        corners = rng.uniform(-10, 8 * max(h, w), (n, rows, 2))
        far = corners + rng.uniform(1, 60, corners.shape)
        return np.dstack([corners, far, rng.integers(-1, 2, (n, rows, 1))])

    arrays = float_arrays(
        cls_prob=rng.random((n, 2, anchors * h, w)),
        im_info=rng.uniform(4 * min(h, w), 8 * max(h, w), (n, 3)),
        gt_boxes=boxes(sizes["rows"]),
        ignore_boxes=boxes(sizes["masks"]),
    )
    poison(arrays, list(arrays), rng, sizes["poison"])
    if rng.integers(2):
        arrays.pop("ignore_boxes")
    attributes = {
        "scales": tuple(rng.choice([0.5, 1, 2, 4], sizes["scales"]).tolist()),
        "ratios": tuple(rng.choice([0.5, 1, 2], sizes["ratios"]).tolist()),
        "feature_stride": 8,
        "border": float(rng.choice([0, 32])),
        "batch_size": int(rng.choice([2, 30, 256])),
        "fg_fraction": float(rng.choice([0.25, 0.5])),
        "positive_overlap": float(rng.choice([0.4, 0.5])),
    }
    deltas = (n, 4 * anchors, h, w)
    return Call(
        ops.anchor_mining_target, arrays, attributes,
        [(n, anchors * h * w), deltas, deltas, (n, 2)],
        lambda: _native.anchor_mining_target(**arrays, **attributes),
    )  # fmt: skip


def mask_rcnn_target(sizes, rng):
    n, rows, count = sizes["images"], sizes["rows"], sizes["post"]
    polygons = rng.uniform(0, 60, (n, rows, 24))
    polygons[..., :4] = (5, 2, 6, 10)
    polygons[:, ::3, 1] = -1
    corners = rng.uniform(0, 40, (count, 2))
    arrays = float_arrays(
        rois=np.hstack([rng.integers(0, n, (count, 1)), corners, corners + 30]),
        mask_polys=polygons,
        mask_ids=rng.integers(-1, rows, (count, 1)),
    )
    poison(arrays, list(arrays), rng, sizes["poison"])
    side = int(rng.choice([1, 14, 28, 33]))
    return Call(
        ops.mask_rcnn_target, arrays, {"mask_size": side}, [(count, side, side)] * 2,
        lambda: _native.mask_rcnn_target(**arrays, mask_size=side),
    )  # fmt: skip


def chip_generator(sizes, rng):
    corners = rng.uniform(0, 400, (sizes["post"], 2))
    arrays = float_arrays(boxes=np.hstack([corners, corners + rng.uniform(1, 90, corners.shape)]))
    poison(arrays, ["boxes"], rng, sizes["poison"])
    attributes = {
        "width": int(rng.integers(1, 500)),
        "height": int(rng.integers(1, 500)),
        "factor": float(rng.choice([0.5, 1.667])),
        "stride": 32,
        "chip_size": int(rng.choice([64, 256])),
        "seed": int(rng.integers(2**63)),
        "max_chips": sizes["masks"],
    }
    return Call(ops.chip_generator, arrays, attributes, [(sizes["masks"], 4), (1,)])


def multi_scale_nms(sizes, rng):
    count = 3 * sizes["post"]
    corners = rng.uniform(0, 90, (count, 2))
    far = corners + rng.uniform(0, 60, corners.shape)
    arrays = float_arrays(
        dets=np.hstack([corners, far, rng.random((count, 1))]),
        levels=rng.integers(0, sizes["rows"], count),
        classes=rng.integers(0, 3, count),
        images=rng.integers(-1, 3, count),
        valid_ranges=rng.choice([-1, 0, 5, 30, 80], (sizes["rows"], 2)),
    )
    poison(arrays, ["dets", "valid_ranges"], rng, sizes["poison"])
    attributes = {
        "nms_threshold": float(rng.choice([-1, 0.4])),
        "max_per_image": int(rng.choice([-1, 3])),
    }
    return Call(ops.multi_scale_nms, arrays, attributes, [(count, 5), (count,), (count,), (1,)])


def rois_around(sizes, rng):
    """RoIs of the map and around it, some of no image."""
    corners = rng.uniform(-20, 16 * max(sizes["height"], sizes["width"]), (sizes["post"], 2))
    far = corners + rng.uniform(-5, 90, corners.shape)
    return np.hstack([rng.integers(-1, sizes["images"] + 1, (sizes["post"], 1)), corners, far])


def deformable_psroi_pooling(sizes, rng):
    n, h, w, count = sizes["images"], sizes["height"], sizes["width"], sizes["post"]
    pooled, channels = int(rng.integers(1, 5)), 2 * sizes["masks"]
    group = int(rng.choice([0, pooled]))  # 0: with offsets
    arrays = float_arrays(
        data=rng.normal(0, 1, (n, channels * max(group, 1) ** 2, h, w)),
        rois=rois_around(sizes, rng),
        trans=rng.normal(0, 1, (count, 4, pooled, pooled)),
    )
    poison(arrays, ["rois", "trans"], rng, sizes["poison"])
    if group:
        arrays.pop("trans")
    attributes = {
        "spatial_scale": 1 / 16,
        "output_dim": channels,
        "pooled_size": pooled,
        "group_size": max(group, 1),
        "sample_per_part": int(rng.integers(1, 5)),
        "trans_std": 0.1,
    }
    shape = (count, channels, pooled, pooled)
    return Call(ops.deformable_psroi_pooling, arrays, attributes, [shape])


def deformable_window(sizes, rng, arrays):
    """Attributes, with the map and offsets that go with them, and the cells of the output."""
    n, h, w = sizes["images"], sizes["height"], sizes["width"]
    groups = int(rng.choice([1, 2]))
    kernel, dilate = rng.integers(1, 4, 2), rng.integers(1, 3, 2)
    pad, stride = (dilate * (kernel - 1) + 1) // 2, rng.integers(1, 3, 2)
    cells = (np.array([h, w]) + 2 * pad - dilate * (kernel - 1) - 1) // stride + 1
    channels = groups * int(rng.choice([sizes["masks"], 17, 32, 40]))
    arrays.update(
        float_arrays(
            data=rng.normal(0, 1, (n, channels, h, w)),
            offset=rng.normal(0, 2, (n, groups * kernel.prod() * 2, *cells)),
        )
    )
    poison(arrays, ["offset"], rng, sizes["poison"])
    window = {"kernel": kernel, "stride": stride, "pad": pad, "dilate": dilate}
    attributes = {name: tuple(value.tolist()) for name, value in window.items()}
    return {**attributes, "num_deformable_group": groups}, (n, channels, *cells.tolist())


def deformable_convolution(sizes, rng):
    arrays = {}
    attributes, (n, channels, *cells) = deformable_window(sizes, rng, arrays)
    conv_groups = 2 if channels % 2 == 0 and rng.integers(2) else 1
    filters = conv_groups * int(rng.integers(1, 20))
    weight = (filters, channels // conv_groups, *attributes["kernel"])
    arrays.update(float_arrays(weight=rng.normal(0, 1, weight)))
    if rng.integers(2):
        arrays.update(float_arrays(bias=rng.normal(0, 1, filters)))
    attributes.update(num_filter=filters, num_group=conv_groups)
    return Call(ops.deformable_convolution, arrays, attributes, [(n, filters, *cells)])


def deformable_columns(sizes, rng):
    arrays = {}
    attributes, (n, channels, *cells) = deformable_window(sizes, rng, arrays)
    taps = attributes["kernel"][0] * attributes["kernel"][1]
    return Call(ops.deformable_columns, arrays, attributes, [(n, channels * taps, *cells)])


def winograd_convolution(sizes, rng):
    n, height, width = sizes["images"], sizes["height"] + 1, sizes["width"] + 1
    channels, filters = (int(rng.choice([1, 5, 16, 40, 200])) for _ in range(2))
    pad = tuple(rng.integers(1, 3, 2).tolist())
    arrays = float_arrays(
        data=rng.normal(0, 1, (n, channels, height, width)),
        weight=rng.normal(0, 1, (filters, channels, 3, 3)),
    )
    if rng.integers(2):
        arrays.update(float_arrays(bias=rng.normal(0, 1, filters)))
    attributes = {"num_filter": filters, "pad": pad, "relu": bool(rng.integers(2))}
    shape = (n, filters, height + 2 * pad[0] - 2, width + 2 * pad[1] - 2)
    return Call(ops.winograd_convolution, arrays, attributes, [shape])


def roi_max_mean_pooling(sizes, rng):
    shape = tuple(sizes[side] for side in ("images", "masks", "height", "width"))
    arrays = float_arrays(data=rng.normal(0, 1, shape), rois=rois_around(sizes, rng))
    poison(arrays, ["rois"], rng, sizes["poison"])
    attributes = {"spatial_scale": 1 / 16, "pooled_size": int(rng.integers(1, 8))}
    return Call(ops.roi_max_mean_pooling, arrays, attributes, [(sizes["post"], sizes["masks"])])


def relu6(sizes, rng):
    shape = tuple(sizes[side] for side in ("images", "masks", "height", "width"))
    arrays = float_arrays(data=rng.uniform(-4, 10, shape))
    data = arrays["data"]
    return Call(ops.relu6, arrays, {}, [shape], lambda: (np.clip(data, 0, 6),))


CASES = {
    case.__name__: case
    for case in (
        multi_proposal, multi_proposal_target, multi_proposal_target_mask,
        multi_proposal_target_fine, anchor_mining_target, mask_rcnn_target, chip_generator,
        multi_scale_nms, deformable_psroi_pooling, deformable_convolution, deformable_columns,
        winograd_convolution, roi_max_mean_pooling, relu6,
    )
}  # fmt: skip
