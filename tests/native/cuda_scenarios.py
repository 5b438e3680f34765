"""Calls of every operator for the comparison of a GPU with the CPU kernels.

A scenario is a function that makes its inputs and returns `call(backend) -> outputs`. The small
ones hold the edge cases and suit compute-sanitizer, the large ones have the sizes of training and
of COCO images, the random ones draw sizes and settings.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from tests.native import cuda_calls as calls
from tests.native import cuda_cases as cases
from tests.native.cuda_calls import RESNET, SMALL, F
from tests.native.cuda_mining_scenarios import large_mining, random_mining_call, small_mining

OPERATORS = (
    "multi_proposal", "multi_proposal_target", "multi_proposal_target_mask", "mask_rcnn_target",
    "anchor_mining_target",
    "chip_generator", "multi_scale_nms", "psroi_forward", "psroi_backward", "roi_max_mean_forward",
    "roi_max_mean_backward", "relu6_forward", "relu6_backward",
)  # fmt: skip
NO_RANGE = F([[-1, -1]])
RANGES = F([[-1, 60], [20, 50], [30, -1]])


def call_of(operator, *arguments, **settings):
    """call(backend) of a function of cuda_calls."""
    return lambda backend: getattr(calls, operator)(backend, *arguments, **settings)


# ---- Proposals and targets -----------------------------------------------------------------------


def proposals(maps, *shape, **settings):
    return call_of("multi_proposal", *maps(len(settings) + sum(shape), *shape), **settings)


def strange_truth(batch):
    """Rows of ground truth that are not finite, equal ones, an image without proposals."""
    scores, _, _, gt, ranges = batch
    gt[0, :3, :4] = [[np.nan, 1, 5, 9], [0, 0, np.inf, 9], [0, 0, 9, 1e20]]
    gt[1, :, 4] = np.nan
    gt[2, 3:, :4] = gt[2, : gt.shape[1] - 3, :4]
    scores[-1] = -1
    ranges[0] = [5000, 6000]
    return batch


def targets(operator, *shape, strange=False, num_anchors=9, crowd_rows=0, **settings):
    batch = cases.random_batch(sum(shape), *shape, num_anchors=num_anchors)
    if crowd_rows:
        crowd = cases.random_crowds(crowd_rows, shape[0], crowd_rows, 8 * min(shape[1:3]))
        settings = {"crowd_boxes": crowd, "soft_sampling": (0.25, 50, 20), **settings}
    return call_of(operator, *(strange_truth(batch) if strange else batch), **settings)


def small_proposals():
    random = partial(proposals, cases.random_maps)
    yield "random", lambda: random(3, 9, 11, 13, post_nms_top_n=40, pre_nms_top_n=-1, **SMALL)
    yield "few_enter", lambda: random(2, 9, 11, 13, pre_nms_top_n=60, min_size=20, **SMALL)
    yield "one_enters", lambda: random(2, 9, 5, 5, pre_nms_top_n=1, post_nms_top_n=5, **SMALL)
    yield "all_kept", lambda: random(1, 9, 16, 16, post_nms_top_n=2500, nms_thresh=0.95, **SMALL)
    yield "ties", lambda: proposals(cases.tied_maps, 2, 9, 12, 12, post_nms_top_n=200, **SMALL)
    yield "no_numbers", lambda: proposals(cases.strange_maps, 3, 9, 8, 8, **SMALL)
    yield "one_anchor", lambda: random(70, 1, 1, 2, post_nms_top_n=4, scales=(2,), ratios=(1,),
                                       feature_stride=16)  # fmt: skip
    yield "no_images", lambda: random(0, 9, 4, 4, **SMALL)


def large_proposals():
    coco = partial(proposals, cases.random_maps, 16, 21, 88, 125, **RESNET)
    yield "coco_16", lambda: coco(pre_nms_top_n=6000)
    yield "coco_16_all", lambda: coco(pre_nms_top_n=-1, post_nms_top_n=2000)
    yield "coco_ties", lambda: proposals(cases.tied_maps, 4, 21, 88, 125, **RESNET)
    yield "coco_no_numbers", lambda: proposals(cases.strange_maps, 4, 21, 88, 125, **RESNET)


def small_targets(operator):
    run = partial(targets, operator, post_nms_top_n=60, **SMALL)
    yield "random", lambda: run(3, 9, 8, 7, 12)
    yield "new_rules", lambda: run(3, 9, 8, 7, 12, legacy_gt_centre=False, legacy_areas=False,
                                   legacy_min_size=False)  # fmt: skip
    yield "no_truth", lambda: run(2, 8, 8, 0, 5)
    yield "more_truth_than_rois", lambda: run(2, 8, 8, 300, 300)
    yield "strange", lambda: run(4, 8, 8, 6, 8, strange=True)
    yield "crowds", lambda: run(3, 8, 8, 5, 6, crowd_rows=12, crowd_ioa=0.4)
    if operator.endswith("mask"):
        yield "few_mask_rows", lambda: run(4, 8, 8, 5, 6, max_masks=1)
        yield "many_mask_rows", lambda: run(4, 8, 8, 5, 6, max_masks=200)
        fine = partial(run, 4, 8, 8, 5, 6, super_of=[1, 2, 2, 3, 1], max_masks=4, strange=True)
        yield "fine_classes", lambda: fine(legacy_cap=False)
        yield "fine_classes_of_the_batch", lambda: fine(legacy_cap=True)


def large_targets(operator):
    run = partial(targets, operator, num_anchors=21, **RESNET)
    yield "chips_16", lambda: run(16, 32, 32, 20, 100, pre_nms_top_n=6000)
    yield "chips_64", lambda: run(64, 32, 32, 100, 100, pre_nms_top_n=-1, strange=True)
    yield "coco_16", lambda: run(16, 88, 125, 60, 100, pre_nms_top_n=12000, post_nms_top_n=2000)
    yield "crowds_16", lambda: run(16, 32, 32, 20, 100, crowd_rows=10)
    if operator.endswith("mask"):
        yield "3130_classes", lambda: run(16, 32, 32, 20, 100, super_of=[1] * 3130,
                                          legacy_cap=False)  # fmt: skip


# ---- Masks, chips, detections --------------------------------------------------------------------


def masks(*shape, strange=False, **settings):
    rois, polys, ids = cases.random_masks(sum(shape), *shape)
    if strange:
        rois[0, 1:], rois[1, 0], rois[2, 0], rois[3, 3] = np.nan, -1, np.nan, 3e38
        ids[4:8, 0] = [-1, 99, 0.5, np.nan]
        polys[0, 0, 6], polys[0, 1, 1], polys[1, 0, 2], polys[1, 1, 1] = np.nan, 1e9, 5, 0
        rois[8:, 0], ids[8:16, 0] = rois[8:, 0] % 2, [0, 1] * 4
    return call_of("mask_rcnn_target", rois, polys, ids, **settings)


def small_masks():
    for size in (1, 28, 33):
        yield f"{size}_px", lambda size=size: masks(12, 2, 5, size=size)
    yield "bands", lambda: masks(2, 2, 5, size=300)
    yield "strange", lambda: masks(20, 2, 5, strange=True, ignore=255.0)
    yield "no_rois", lambda: call_of("mask_rcnn_target", np.zeros((0, 5), F),
                                     np.zeros((1, 1, 9), F), np.zeros((0, 1), F))  # fmt: skip


def large_masks():
    yield "2000_rois", lambda: masks(2000, 16, 40)
    yield "100_rois_224_px", lambda: masks(100, 4, 40, size=224)


def chips(seed, count, side, *level, **settings):
    boxes = cases.random_boxes(np.random.default_rng(seed), count, level[1], level[2], side)
    return call_of("chip_generator", boxes, *level, seed, **settings)


def small_chips():
    coco = (3.0, 640, 480, 512, 57)
    yield "fine", lambda: chips(1, 40, 100, *coco)
    yield "corners", lambda: chips(2, 20, 400, 0.8, 640, 480, 512, 59)
    yield "one_row", lambda: chips(3, 33, 50, 1.0, 300, 40, 64, 9)
    yield "no_boxes", lambda: chips(4, 0, 50, *coco)
    yield "ties", lambda: chips(2**64 - 1, 1, 12, *coco)
    yield "further_chips_dropped", lambda: chips(5, 50, 20, 3.0, 640, 480, 200, 57, max_chips=4)
    yield "many_candidates", lambda: chips(6, 12, 30, 1.0, 300, 200, 100, 2)
    yield "no_pixels", lambda: chips(7, 5, 50, 0.001, 640, 480, 512, 57)


def large_chips():
    yield "2000_proposals", lambda: chips(8, 2000, 150, 3.0, 640, 480, 512, 56, max_chips=100)
    yield "20000_proposals", lambda: chips(9, 20000, 90, 1.667, 4000, 3000, 512, 56, max_chips=400)


def detections(seed, count, *, strange=False, ranges=RANGES, groups=(3, 4, 3), **settings):
    rng = np.random.default_rng(seed)
    rows = cases.make_rows(rng, count, len(ranges), *groups[1:], size=20.0 * count**0.5)
    if strange:
        rows[0][:20].flat[::6] = [np.nan, np.inf, -np.inf, np.nan] * 4 + [3e38]
        rows[0][20] = [50, 50, 40, 40, 0.98]
        rows[0][30:, 4] = rng.choice(F([0.9, 0.5, 0.5, 0.002, 0.0, -0.0, -0.5]), count - 30)
        rows[0][31::5, :4] = rows[0][30:-1:5, :4]
        for column in (1, 2, 3):
            rows[column][column::9] = rng.choice(F([0.5, -1, np.nan, 16777218, 3e38]))
    return call_of("multi_scale_nms", *rows, ranges, **settings)


def small_detections():
    for threshold in (-1.0, 0.45):
        kind = partial(detections, threshold=threshold)
        name = "soft" if threshold < 0 else "hard"
        yield f"{name}", lambda kind=kind: kind(1, 300, limit=10)
        yield f"{name}_strange", lambda kind=kind: kind(2, 150, strange=True, limit=20)
        yield f"{name}_one_row", lambda kind=kind: kind(3, 1)
        yield f"{name}_no_rows", lambda kind=kind: kind(4, 0)
        for count in (256, 257, 1700):
            yield f"{name}_group_of_{count}", lambda kind=kind, count=count: kind(
                5, count, ranges=NO_RANGE, groups=(1, 1, 1), min_score=0.004, sigma=0.05
            )  # fmt: skip
        yield f"{name}_large_groups", lambda kind=kind: kind(6, 4000, groups=(3, 3, 4))


def large_detections():
    for threshold in (-1.0, 0.45):
        kind = partial(detections, threshold=threshold)
        name = "soft" if threshold < 0 else "hard"
        yield f"{name}_coco", lambda kind=kind: kind(6, 100_000, groups=(3, 80, 16), limit=100)
        yield f"{name}_million", lambda kind=kind: kind(7, 1_000_000, groups=(3, 80, 1000))
        yield f"{name}_one_class", lambda kind=kind: kind(
            8, 12_000, ranges=NO_RANGE, groups=(1, 1, 1)
        )  # fmt: skip


# ---- Pooling -------------------------------------------------------------------------------------


def pooling(direction, seed, *, strange=False, **sizes):
    (data, rois, trans, head), attributes = cases.random_pooling(seed, **sizes)
    if strange:
        rois[0] = [0, np.nan, 10, np.inf, 60]
        rois[1:4, 0] = [-1, 2, np.nan]
        rois[4, 1:] = [-np.inf, -np.inf, np.inf, np.inf]
        if trans is not None:
            trans[5, 0, 0, 0] = np.nan
    if direction == "forward":
        return call_of("psroi_forward", data, rois, trans, attributes)
    return call_of("psroi_backward", data, rois, trans, head, attributes)


def small_pooling(direction):
    sizes = {
        "plain": {},
        "no_offsets": {"classes": 0},
        "groups": {"group": 3, "pooled": 5, "part": 2},
        "score_maps": {"classes": 0, "channels": 2, "group": 7, "pooled": 7, "samples": 4},
        "classes": {"group": 2, "pooled": 3, "part": 7, "classes": 3, "channels": 2},
        "channel_blocks": {"channels": 40, "samples": 4, "pooled": 7, "rois": 4},
        "strips": {"channels": 33, "classes": 2, "height": 3, "width": 70, "rois": 4},
        "tiles": {"pooled": 9, "channels": 3, "classes": 2, "rois": 5},
        "many_rois": {"rois": 40, "images": 3, "channels": 2, "height": 4, "width": 5},
        "one_pixel": {"height": 1, "width": 1, "scale": 1.0},
        "no_rois": {"rois": 0},
        "strange": {"strange": True},
        "strange_score_maps": {"strange": True, "classes": 0, "channels": 4, "group": 3},
        "chunks": {"pooled": 8, "samples": 1024, "rois": 20, "channels": 1, "images": 1, "part": 2},
    }
    for seed, (name, settings) in enumerate(sizes.items()):
        yield name, lambda seed=seed, settings=settings: pooling(direction, seed, **settings)


def large_pooling(direction):
    head = {"channels": 256, "pooled": 7, "samples": 4, "rois": 300, "scale": 1 / 16}
    chips = {"images": 16, "height": 32, "width": 32}
    yield "chip", lambda: pooling(direction, 1, **head, **{**chips, "images": 1})
    yield "chips_16", lambda: pooling(direction, 2, **{**head, "rois": 4800}, **chips)
    yield "coco", lambda: pooling(direction, 3, **head, images=2, height=88, width=125)
    maps = {**head, "classes": 0, "group": 7, "rois": 4800, **chips}
    yield "score_maps", lambda: pooling(direction, 4, **{**maps, "channels": 2})


def roi_maxima(direction, seed, *, strange=False, **sizes):
    (data, rois, head), attributes = cases.random_roi_maxima(seed, **sizes)
    if strange:
        rois[:4, 0] = [-1, 2, np.nan, np.inf]
        rois[4, 1:] = [-np.inf, -np.inf, np.inf, np.inf]
        data.flat[::7] = np.nan
    if direction == "forward":
        return call_of("roi_max_mean_forward", data, rois, attributes)
    return call_of("roi_max_mean_backward", data, rois, head, attributes)


def small_roi_maxima(direction):
    sizes = {
        "plain": {},
        "bins": {"pooled": 3, "images": 3, "rois": 40},
        "channel_blocks": {"channels": 100, "height": 30, "width": 30, "rois": 4},
        "one_pixel": {"height": 1, "width": 1, "channels": 1},
        "no_rois": {"rois": 0},
        "strange": {"strange": True},
    }
    for seed, (name, settings) in enumerate(sizes.items()):
        yield name, lambda seed=seed, settings=settings: roi_maxima(direction, seed, **settings)


def large_roi_maxima(direction):
    chips = {"images": 6, "height": 32, "width": 32, "rois": 1800, "scale": 1 / 16}
    yield "classes_120", lambda: roi_maxima(direction, 1, **chips, channels=120)
    yield "classes_3130", lambda: roi_maxima(
        direction, 2, **{**chips, "images": 2, "rois": 300}, channels=3130
    )  # fmt: skip


# ---- ReLU6 ---------------------------------------------------------------------------------------


def relu6(operator, seed, size):
    rng = np.random.default_rng(seed)
    data, head = rng.normal(3, 4, (2, size)).astype(F)
    strange = F([0, -0.0, 6, np.nextafter(F(6), F(7)), np.nan, np.inf, -np.inf, 1e-45, -1e-45])
    data[: size // 3] = rng.choice(strange, size // 3)
    head[::50] = np.nan
    return call_of(operator, data, *([head] if operator == "relu6_backward" else []))


def small_relu6(operator):
    for size in (0, 1, 255, 256, 257, 10_000):
        yield f"{size}", lambda size=size: relu6(operator, size, size)


def large_relu6(operator):
    yield "16_chips", lambda: relu6(operator, 1, 16 * 96 * 64 * 64)


# ---- All of them ---------------------------------------------------------------------------------

SMALL_ONES = {
    "multi_proposal": small_proposals,
    "multi_proposal_target": partial(small_targets, "multi_proposal_target"),
    "multi_proposal_target_mask": partial(small_targets, "multi_proposal_target_mask"),
    "anchor_mining_target": small_mining,
    "mask_rcnn_target": small_masks,
    "chip_generator": small_chips,
    "multi_scale_nms": small_detections,
    "psroi_forward": partial(small_pooling, "forward"),
    "psroi_backward": partial(small_pooling, "backward"),
    "roi_max_mean_forward": partial(small_roi_maxima, "forward"),
    "roi_max_mean_backward": partial(small_roi_maxima, "backward"),
    "relu6_forward": partial(small_relu6, "relu6_forward"),
    "relu6_backward": partial(small_relu6, "relu6_backward"),
}
LARGE_ONES = {
    "multi_proposal": large_proposals,
    "multi_proposal_target": partial(large_targets, "multi_proposal_target"),
    "multi_proposal_target_mask": partial(large_targets, "multi_proposal_target_mask"),
    "anchor_mining_target": large_mining,
    "mask_rcnn_target": large_masks,
    "chip_generator": large_chips,
    "multi_scale_nms": large_detections,
    "psroi_forward": partial(large_pooling, "forward"),
    "psroi_backward": partial(large_pooling, "backward"),
    "roi_max_mean_forward": partial(large_roi_maxima, "forward"),
    "roi_max_mean_backward": partial(large_roi_maxima, "backward"),
    "relu6_forward": partial(large_relu6, "relu6_forward"),
    "relu6_backward": partial(large_relu6, "relu6_backward"),
}


def random_one(operator, seed):
    """A scenario with sizes and settings by seed."""
    rng = np.random.default_rng([seed, OPERATORS.index(operator)])
    number = lambda low, high: int(rng.integers(low, high + 1))  # noqa: E731
    if operator.startswith("multi_proposal"):
        settings = {
            "pre_nms_top_n": int(rng.choice([-1, number(1, 900)])),
            "post_nms_top_n": number(1, 400),
            "nms_thresh": float(rng.choice([0.0, 0.3, 0.5, 0.7, 0.9, 1.0])),
            "min_size": number(0, 40),
            **SMALL,
        }
        shape = number(1, 20), number(1, 24), number(1, 24)
        if operator == "multi_proposal":
            maps = (cases.random_maps, cases.tied_maps, cases.strange_maps)[seed % 3]
            return call_of(operator, *maps(seed, shape[0], 9, *shape[1:]), **settings)
        max_gt = number(1, 60)
        batch = cases.random_batch(seed, *shape, number(0, max_gt), max_gt)
        settings.update({f"legacy_{rule}": bool(rng.integers(2))
                         for rule in ("gt_centre", "areas", "min_size")})  # fmt: skip
        if operator.endswith("mask"):
            settings["legacy_cap"] = bool(rng.integers(2))
            settings["super_of"] = [None, [1] * 3130, [2, 1, 3]][int(rng.integers(3))]
        return call_of(operator, *batch, **settings)
    if operator == "anchor_mining_target":
        return random_mining_call(seed, number)
    if operator == "mask_rcnn_target":
        arrays = cases.random_masks(seed, number(1, 60), number(1, 5), number(1, 9))
        return call_of(operator, *arrays, size=number(1, 80))
    if operator == "chip_generator":
        chip = number(40, 600)
        level = float(rng.uniform(0.2, 3.5)), number(30, 1500), number(30, 1500), chip
        return chips(
            seed, number(1, 300), number(10, 400), *level, number(max(chip // 12, 1), chip)
        )
    if operator == "multi_scale_nms":
        return detections(
            seed, number(40, 3000), strange=seed % 2 == 1, groups=(3, number(1, 9), number(1, 9)),
            sigma=float(rng.uniform(0.05, 2)), limit=int(rng.choice([-1, number(1, 50)])),
            threshold=float(rng.choice([-1, rng.uniform(0.1, 1)])),
        )  # fmt: skip
    if operator.startswith("roi_max_mean"):
        return roi_maxima(
            operator.removeprefix("roi_max_mean_"), seed, images=number(1, 4),
            channels=number(1, 200), pooled=number(1, 9), rois=number(0, 40),
            height=number(1, 40), width=number(1, 40), scale=float(rng.choice([1, 1 / 4, 1 / 16])),
        )  # fmt: skip
    if operator.startswith("relu6"):
        return relu6(operator, seed, number(1, 100_000))
    sizes = {
        "images": number(1, 4), "channels": number(1, 70), "classes": number(0, 3),
        "group": number(1, 3), "pooled": number(1, 9), "part": number(0, 7),
        "samples": number(1, 5), "rois": number(0, 40), "height": number(1, 40),
        "width": number(1, 70), "scale": float(rng.choice([1, 1 / 4, 1 / 16])),
    }  # fmt: skip
    return pooling(operator.removeprefix("psroi_"), seed, **sizes)
