"""Random calls of every host function: what goes in, and what must be true of what comes out.

`CASES[name](sizes, rng)` gives a function, right keyword arguments and a check of the outputs;
`mutate` makes some of the arguments wrong.
"""

from __future__ import annotations

import numpy as np

from sniper.native import _native

F, INT = np.float32, np.int32
POISON = F([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e20, -1e12, 1e9, 65536, -1, 0, 0.5, 1e-40])
WRONG_NUMBERS = [
    None, "3", b"3", "", [], (), {}, object, np.nan, np.inf, -np.inf, -1, -0.0, 0, 0.5, 3.0, True,
    1e30, 1e300, 10**400, -(10**30), 2**31, 2**32, 2**63, 2**64, 10**6, 1j, np.float64(2.5),
    np.int8(4), np.array(3.0), np.array([1.0, 2.0]), np.bool_(True), float, [None], [np.nan], "inf",
]  # fmt: skip


def poisoned(array, rng, share):
    """`array` with some numbers replaced; the shape stays."""
    flat = array.reshape(-1)
    count = int(share * flat.size)
    if count:
        flat[rng.integers(0, flat.size, count)] = rng.choice(POISON, count)
    return array


def all_finite(outputs):
    return all(np.isfinite(output).all() for output in outputs)


def anchor_settings(sizes, rng):
    return {
        "scales": tuple(rng.choice([0.5, 1, 2, 4, 7], sizes["scales"])),
        "ratios": tuple(rng.choice([0.3, 0.5, 1, 2], sizes["ratios"])),
        "feature_stride": int(rng.choice([4, 16, 32])),
        "post_nms_top_n": sizes["post"],
        "pre_nms_top_n": int(rng.choice([-1, 0, 1, 17, 6000])),
        "nms_thresh": float(rng.choice([0, 0.3, 0.7, 1])),
        "min_size": float(rng.choice([0, 3, 50])),
    }


def maps(sizes, rng, channels_of_scores):
    n, h, w = sizes["images"], sizes["height"], sizes["width"]
    anchors = sizes["scales"] * sizes["ratios"]
    scores = (n, 2 * anchors, h, w) if channels_of_scores else (n, 2, anchors * h, w)
    arrays = {
        "cls_prob": rng.random(scores).astype(F),
        "bbox_pred": rng.normal(0, rng.choice([0.1, 1, 30]), (n, 4 * anchors, h, w)).astype(F),
        "im_info": rng.uniform(1, 400, (n, 3)).astype(F),
    }
    return {name: poisoned(array, rng, sizes["poison"]) for name, array in arrays.items()}


def multi_proposal(sizes, rng):
    arguments = {**maps(sizes, rng, True), **anchor_settings(sizes, rng)}
    rows = sizes["images"] * sizes["post"]

    def check(outputs):
        rois, scores = outputs
        assert rois.shape == (rows, 5) and scores.shape == (rows,) and all_finite(outputs)
        np.testing.assert_array_equal(
            rois[:, 0], np.repeat(np.arange(sizes["images"]), sizes["post"])
        )
        assert (rois >= 0).all()

    return _native.multi_proposal, arguments, check


def target_arguments(sizes, rng):
    n, rows = sizes["images"], sizes["rows"]
    corners = rng.uniform(-20, 200, (n, rows, 2))
    gt = np.dstack(
        [corners, corners + rng.uniform(0, 100, (n, rows, 2)), rng.integers(-1, 9, (n, rows))]
    )
    arrays = {
        "gt_boxes": gt.astype(F),
        "valid_ranges": rng.choice([-5, 0, 20, 90, 512], (n, 2)).astype(F),
    }
    more = {}
    if rng.integers(2):
        more["soft_sampling"] = [rng.uniform(), *rng.uniform(0, 99, 2)]
        arrays["crowd_boxes"] = gt[:, : rng.integers(rows + 1)].astype(F)
    return {
        **more,
        **maps(sizes, rng, False),
        **{name: poisoned(array, rng, sizes["poison"]) for name, array in arrays.items()},
        **anchor_settings(sizes, rng),
        **{
            name: bool(rng.integers(2))
            for name in ("legacy_gt_centre", "legacy_areas", "legacy_min_size")
        },
    }


def check_targets(sizes, outputs):
    rows = sizes["images"] * sizes["post"]
    assert [output.shape for output in outputs] == [(rows, k) for k in (5, 1, 4, 4, 1)][
        : len(outputs)
    ]
    assert all_finite(outputs)
    rois, label, target, weight, *label_weight = outputs
    np.testing.assert_array_equal(rois[:, 0], np.repeat(np.arange(sizes["images"]), sizes["post"]))
    assert all((0 <= values).all() and (values <= 1).all() for values in label_weight)
    assert (label >= (-1 if label_weight else 0)).all() and np.isin(weight, [0, 1]).all()
    assert (target[weight == 0] == 1).all() and (label[weight[:, 0] == 0] <= 0).all()


def multi_proposal_target(sizes, rng):
    return (_native.multi_proposal_target, target_arguments(sizes, rng),
            lambda outputs: check_targets(sizes, outputs))  # fmt: skip


def multi_proposal_target_mask(sizes, rng):
    arguments = {**target_arguments(sizes, rng), "max_masks": sizes["masks"]}
    rows = sizes["images"] * sizes["masks"]
    with_classes = bool(rng.integers(2))
    if with_classes:
        arguments["super_of"] = rng.integers(1, 4, int(rng.integers(1, 12))).tolist()
        arguments["legacy_cap"] = bool(rng.integers(2))

    def check(outputs):
        check_targets(sizes, [*outputs[:4], *outputs[6:]])
        mask_rois, ids = outputs[4:6]
        assert mask_rois.shape == (rows, 5) and ids.shape == (rows, 1) and all_finite(outputs)
        assert np.isin(ids, np.arange(-1, 11 if with_classes else sizes["rows"])).all()
        if not arguments.get("legacy_cap", True):
            np.testing.assert_array_equal(
                mask_rois[:, 0], np.repeat(np.arange(sizes["images"]), sizes["masks"])
            )
            return
        used = int((ids >= 0).sum())
        positive = outputs[0][outputs[1][:, 0] > 0]
        assert used == min(len(positive), rows)
        np.testing.assert_array_equal(mask_rois[:used], positive[:used])

    return _native.multi_proposal_target_mask, arguments, check


def anchor_mining_target(sizes, rng):
    n, h, w = sizes["images"], sizes["height"], sizes["width"]
    anchors = sizes["scales"] * sizes["ratios"]
    settings = anchor_settings(sizes, rng)
    target = target_arguments(sizes, rng)
    arguments = {
        "cls_prob": poisoned(rng.random((n, 2, anchors * h, w)).astype(F), rng, sizes["poison"]),
        "im_info": target["im_info"],
        "gt_boxes": target["gt_boxes"],
        **{name: settings[name] for name in ("scales", "ratios", "feature_stride")},
        "base_size": int(rng.choice([1, 16, 4096])),
        "border": float(rng.choice([0, 99.5])),
        "batch_size": int(rng.choice([1, 7, 256])),
        "fg_fraction": float(rng.choice([0, 0.25, 1])),
        "negative_overlap": float(rng.choice([0, 0.3])),
        "positive_overlap": float(rng.choice([0.3, 0.5, 1])),
        "ignore_overlap": float(rng.choice([0, 0.3, 1])),
    }
    if "crowd_boxes" in target:
        arguments["ignore_boxes"] = target["crowd_boxes"]

    def check(outputs):
        label, box_target, weight, count = outputs
        assert label.shape == (n, anchors * h * w) and count.shape == (n, 2)
        assert box_target.shape == weight.shape == (n, 4 * anchors, h, w) and all_finite(outputs)
        assert np.isin(label, [-1, 0, 1]).all() and (count[:, 1] <= arguments["batch_size"]).all()
        np.testing.assert_array_equal(count[:, 0], (label == 1).sum(1))
        np.testing.assert_array_equal(count[:, 1], (label >= 0).sum(1))
        planes = weight.reshape(n, anchors, 4, h * w)
        positive = np.broadcast_to((label == 1).reshape(n, anchors, 1, h * w), planes.shape)
        np.testing.assert_array_equal(planes > 0, positive)
        assert not box_target.reshape(planes.shape)[~positive].any()

    return _native.anchor_mining_target, arguments, check


def mask_rcnn_target(sizes, rng):
    n, rows, length, count = sizes["images"], sizes["rows"], int(rng.integers(0, 60)), sizes["post"]
    polygons = rng.uniform(-20, 120, (n, rows, length)).astype(F)
    polygons[..., :1] = rng.integers(-1, 80)
    polygons[..., 1:2] = rng.integers(-1, 4)
    polygons[..., 2:5] = rng.choice([2, 6, 8, 12, 7, -1, 100], polygons[..., 2:5].shape)
    corners = rng.uniform(-20, 100, (count, 2))
    rois = np.hstack(
        [rng.integers(-1, n + 1, (count, 1)), corners, corners + rng.uniform(-3, 60, (count, 2))]
    )
    arrays = {
        "rois": rois.astype(F),
        "mask_polys": polygons,
        "mask_ids": rng.integers(-1, rows + 1, (count, 1)).astype(F),
    }
    arguments = {name: poisoned(array, rng, sizes["poison"]) for name, array in arrays.items()}
    side = int(rng.choice([1, 5, 28, 65]))

    def check(outputs):
        targets, classes = outputs
        assert targets.shape == classes.shape == (count, side, side)
        assert np.isin(targets, [-1, 0, 1]).all() and all_finite(outputs)
        ignored = (targets == -1).reshape(count, -1)
        assert (ignored.all(1) == ignored.any(1)).all()
        assert not classes[ignored.any(1)].any() and (classes >= 0).all()

    return _native.mask_rcnn_target, {**arguments, "mask_size": side}, check


def chip_cover(sizes, rng):
    corners = rng.uniform(-50, 700, (sizes["post"], 2))
    boxes = np.hstack([corners, corners + rng.uniform(-5, 200, corners.shape)]).astype(F)
    arguments = {
        "boxes_im": poisoned(boxes, rng, sizes["poison"]),
        "factor": float(rng.choice([0.01, 0.5, 1, 1.667, 3])),
        "width_im": int(rng.integers(1, 800)),
        "height_im": int(rng.integers(1, 800)),
        "chip_size": int(rng.choice([1, 64, 512])),
        "stride": int(rng.choice([7, 32, 59])),
        "seed": int(rng.integers(2**63)),
        "legacy_clip": bool(rng.integers(2)),
    }

    def check(chips):
        assert chips.dtype == np.float64 and chips.ndim == 2 and chips.shape[1] == 4
        assert np.isfinite(chips).all() and len(chips) <= sizes["post"]
        assert (chips >= 0).all() and (chips[:, :2] <= chips[:, 2:]).all()

    return _native.chip_cover, arguments, check


def chip_lattice(sizes, rng):
    arguments = dict(
        zip(("width", "height", "chip_size", "stride"), rng.integers(1, 300, 4).tolist())
    )

    def check(chips):
        assert chips.dtype == F and chips.shape[1] == 4 and (chips >= 0).all()

    return _native.chip_lattice, arguments, check


def chip_permutation(sizes, rng):
    count = int(rng.integers(0, 300))

    def check(order):
        np.testing.assert_array_equal(np.sort(order), np.arange(count))

    return _native.chip_permutation, {"count": count, "seed": int(rng.integers(2**63))}, check


def detections(sizes, rng):
    corners = rng.uniform(-10, 90, (sizes["post"] * 4, 2))
    boxes = np.hstack(
        [corners, corners + rng.uniform(-1, 60, corners.shape), rng.random((len(corners), 1))]
    )
    return poisoned(boxes.astype(F), rng, sizes["poison"])


def soft_nms(sizes, rng):
    dets = detections(sizes, rng)
    settings = {
        "sigma": float(rng.choice([1e-3, 0.55, 100])),
        "min_score": float(rng.choice([-1, 0.001, 0.5])),
    }

    def check(rows):
        assert rows.dtype == F and rows.shape[1:] == (5,) and np.isfinite(rows).all()
        known = {row[:4].tobytes() for row in dets}
        assert len(rows) <= len(dets) and all(row[:4].tobytes() in known for row in rows)

    return _native.soft_nms, {"dets": dets, **settings}, check


def hard_nms(sizes, rng):
    dets = detections(sizes, rng)

    def check(rows):
        assert rows.dtype == np.int64 and len(set(rows.tolist())) == len(rows)
        scores = dets[rows, 4]
        assert (scores[1:] <= scores[:-1]).all() and np.isfinite(dets[rows]).all()

    return _native.hard_nms, {"dets": dets, "threshold": float(rng.choice([0, 0.4, 1]))}, check


def multi_scale_nms(sizes, rng):
    dets = detections(sizes, rng)
    ranges = rng.choice([-1, 0, 5, 30, 80], (sizes["rows"] + 1, 2)).astype(F)
    arguments = {
        "dets": dets,
        "levels": rng.integers(0, len(ranges), len(dets)).astype(INT),
        "classes": rng.integers(-2, 3, len(dets)).astype(INT),
        "images": rng.integers(0, 3, len(dets)).astype(INT),
        "valid_ranges": poisoned(ranges, rng, sizes["poison"]),
        "sigma": 0.55,
        "nms_threshold": float(rng.choice([-1, 0, 0.4, 1])),
        "max_per_image": int(rng.choice([-1, 0, 1, 5])),
    }

    def check(outputs):
        rows, classes, images = outputs
        assert rows.shape == (len(classes), 5) and len(classes) == len(images) <= len(dets)
        assert np.isfinite(rows).all()
        order = list(zip(images.tolist(), classes.tolist()))
        assert order == sorted(order)

    return _native.multi_scale_nms, arguments, check


def multi_scale_nms_parts(sizes, rng):
    _, settings, check = multi_scale_nms(sizes, rng)
    dets, classes = settings.pop("dets"), settings.pop("classes")
    cut = int(rng.integers(len(dets) + 1))
    arguments = {
        **settings,
        **{"dets": dets[:cut], "more": dets[cut:]},
        **{"classes": classes[:cut], "more_classes": classes[cut:]},
        "levels": rng.integers(0, len(settings["valid_ranges"]), 2).astype(INT),
        "images": rng.integers(0, 2, 2).astype(INT),
    }

    def run(dets, more, classes, more_classes, **settings):
        return _native.multi_scale_nms_parts([dets, more], [classes, more_classes], **settings)

    def check_parts(outputs):
        check(outputs[:3])
        assert np.isin(outputs[3], [0, 1]).all() and len(outputs[3]) == len(outputs[0])

    return run, arguments, check_parts


def operator_anchors(sizes, rng):
    settings = anchor_settings(sizes, rng)
    arguments = {
        "stride": settings["feature_stride"],
        "scales": settings["scales"],
        "ratios": settings["ratios"],
    }

    def check(boxes):
        assert boxes.shape == (sizes["scales"] * sizes["ratios"], 4) and np.isfinite(boxes).all()

    return _native.operator_anchors, arguments, check


def rois_on_maps(sizes, rng, channels):
    """A map and RoIs of its images, some far out."""
    n, h, w = sizes["images"], sizes["height"], sizes["width"]
    corners = rng.uniform(-40, 120, (sizes["post"], 4))
    images = rng.integers(-1, n + 1, (sizes["post"], 1))
    arrays = {
        "data": rng.normal(size=(n, channels, h, w)).astype(F),
        "rois": np.hstack([images, corners]).astype(F),
    }
    return {name: poisoned(array, rng, sizes["poison"]) for name, array in arrays.items()}


def deformable_psroi_pooling(sizes, rng):
    classes, group = sizes["ratios"], int(rng.integers(1, 3))
    channels = classes * int(rng.integers(1, 12))
    part = int(rng.integers(0, 3))
    arguments = {
        **rois_on_maps(sizes, rng, channels * group**2),
        "spatial_scale": 0.25,
        "output_dim": channels,
        "pooled_size": int(rng.integers(1, 4)),
        "group_size": group,
        "part_size": part,
        "sample_per_part": int(rng.integers(1, 4)),
        "trans_std": float(rng.choice([0, 0.1])),
    }
    if rng.random() < 0.5:
        side = part or arguments["pooled_size"]
        trans = rng.normal(size=(sizes["post"], 2 * classes, side, side)).astype(F)
        arguments["trans"] = poisoned(trans, rng, sizes["poison"])

    def check(output):
        pooled = arguments["pooled_size"]
        assert output.shape == (sizes["post"], channels, pooled, pooled) and output.dtype == F

    return _native.deformable_psroi_pooling, arguments, check


def roi_max_mean_pooling(sizes, rng):
    channels = int(rng.integers(1, 70))
    arguments = {
        **rois_on_maps(sizes, rng, channels),
        "spatial_scale": 0.25,
        "pooled_size": int(rng.integers(1, 8)),
    }

    def check(output):
        assert output.shape == (sizes["post"], channels) and output.dtype == F
        assert not np.isnan(output).any()

    return _native.roi_max_mean_pooling, arguments, check


def in_place(function, result):
    """`function` on copies of its arrays; gives what they and its result have become."""

    def plain(array):
        """Which NaN comes of two is the processor's choice."""
        return np.where(np.isnan(array), F(np.nan), array) if array.dtype == F else array

    def call(**arguments):
        copied = {
            name: value.copy() if isinstance(value, np.ndarray) else value
            for name, value in arguments.items()
        }
        return tuple(map(plain, result(function(**copied), copied)))

    return call


def reduce_gradients(sizes, rng):
    size = sizes["height"] * sizes["post"]
    arguments = {
        "gradient": poisoned(rng.normal(size=size).astype(F), rng, sizes["poison"]),
        "other": poisoned(rng.normal(size=size).astype(F), rng, sizes["poison"]),
        "divisor": float(rng.choice([1, 2, 3])),
        "threads": int(rng.integers(1, 4)),
    }

    def check(outputs):
        total, finite = outputs
        assert total.shape == (size,) and total.dtype == F
        assert bool(finite) == bool(np.isfinite(total).all())

    def run(gradient, other, divisor, threads):
        return _native.reduce_gradients([gradient], [[other]], divisor, threads)

    def result(finite, arrays):
        return np.asarray(arrays["gradient"]), np.asarray(finite)

    return in_place(run, result), arguments, check


def sgd_update(sizes, rng):
    size = sizes["height"] * sizes["post"]
    names = ("gradient", "weight", "momenta", "other")
    arguments = {
        **{name: poisoned(rng.normal(size=size).astype(F), rng, sizes["poison"]) for name in names},
        "rate": float(rng.choice([0, 0.1, 10])),
        "decay": float(rng.choice([0, 0.0005])),
        "momentum": float(rng.choice([0, 0.9, 1])),
        "clip": float(rng.choice([-1, 0, 0.5])),
        "threads": int(rng.integers(1, 4)),
    }

    def check(outputs):
        weight, momenta, other = outputs
        assert weight.shape == momenta.shape == (size,) and weight.dtype == F
        np.testing.assert_array_equal(other, weight)

    def run(gradient, weight, momenta, other, rate, decay, momentum, clip, threads):
        lists = [gradient], [weight], [momenta], [[other]], [rate], [decay]
        return _native.sgd_update(*lists, momentum, clip, threads)

    def result(_, arrays):
        return tuple(np.asarray(arrays[name]) for name in ("weight", "momenta", "other"))

    return in_place(run, result), arguments, check


CASES = {
    case.__name__: case
    for case in (
        multi_proposal, multi_proposal_target, multi_proposal_target_mask, anchor_mining_target,
        mask_rcnn_target, chip_cover, chip_lattice, chip_permutation, soft_nms, hard_nms,
        multi_scale_nms, multi_scale_nms_parts, operator_anchors, deformable_psroi_pooling,
        roi_max_mean_pooling, reduce_gradients, sgd_update,
    )
}  # fmt: skip


def wrong_array(array, rng):
    """An array (or not) that a caller may pass by mistake."""
    with np.errstate(invalid="ignore", over="ignore"):
        choices = [
            lambda: array.astype(
                rng.choice([np.float64, np.float16, np.int32, np.uint8, np.int64])
            ),
            lambda: array.astype(np.complex64),
            lambda: array.astype(object),
            lambda: array.astype(array.dtype.newbyteorder(">")),
            lambda: array[None],
            lambda: array[..., None],
            lambda: array.reshape(-1),
            lambda: array.T,
            lambda: np.asfortranarray(array),
            lambda: array[..., :-1],
            lambda: array[:-1],
            lambda: np.concatenate([array, array]),
            lambda: np.take(array, [], axis=int(rng.integers(array.ndim))),
            lambda: np.zeros((0,) * array.ndim, array.dtype),
            lambda: array[::-1],
            lambda: np.broadcast_to(array.reshape(-1)[:1].sum(), array.shape),
            lambda: np.zeros((), array.dtype),
            lambda: array.tolist(),
            lambda: array.tobytes(),
            lambda: memoryview(np.ascontiguousarray(array)),
            lambda: None,
            lambda: "array",
            lambda: 3,
        ]
        return choices[int(rng.integers(len(choices)))]()


def mutate(arguments, rng):
    """One or two of the arguments replaced."""
    changed = dict(arguments)
    for name in rng.choice(list(arguments), int(rng.integers(1, 3))):
        value = arguments[name]
        if isinstance(value, np.ndarray) and rng.random() < 0.9:
            changed[name] = wrong_array(value, rng)
        else:
            changed[name] = WRONG_NUMBERS[int(rng.integers(len(WRONG_NUMBERS)))]
    return changed
