"""The proposal kernels without MXNet: golden vectors, a slow reference, properties, threads."""

import ctypes
import math
import multiprocessing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sniper.native import _native

RESNET = {"scales": (2, 4, 7, 10, 13, 16, 24), "ratios": (0.5, 1, 2), "feature_stride": 16}
MOBILENET = {"scales": (1, 2, 4, 8, 12), "ratios": (0.5, 1, 2), "feature_stride": 32}
SMALL = {"scales": (1, 2), "ratios": (0.5, 1.5), "feature_stride": 16}
F = np.float32


# ---- A slow reference, one box at a time, in float32 -------------------------------------------


def reference_anchors(scales, ratios, feature_stride):
    centre = (feature_stride - 1) / 2
    anchors = []
    for ratio in ratios:
        width = math.floor(math.sqrt(math.floor(feature_stride**2 / ratio)) + 0.5)
        height = math.floor(width * ratio + 0.5)
        for scale in scales:
            half_w, half_h = (width * scale - 1) / 2, (height * scale - 1) / 2
            anchors.append([centre - half_w, centre - half_h, centre + half_w, centre + half_h])
    return np.array(anchors, F)


def reference_boxes(deltas, im_info, anchors, feature_stride):
    """Decoded, clipped boxes of one image in the order of the linear anchor index."""
    count, (height, width) = len(anchors), deltas.shape[1:]
    boxes = []
    for a in range(count):
        for y in range(height):
            for x in range(width):
                shift = np.array([x, y, x, y], F) * F(feature_stride)
                x1, y1, x2, y2 = anchors[a] + shift
                dx, dy, dw, dh = deltas[4 * a : 4 * a + 4, y, x]
                w, h = x2 - x1 + F(1), y2 - y1 + F(1)
                cx = dx * w + (x1 + F(0.5) * (w - F(1)))
                cy = dy * h + (y1 + F(0.5) * (h - F(1)))
                half_w = F(0.5) * (F(math.exp(dw)) * w - F(1))
                half_h = F(0.5) * (F(math.exp(dh)) * h - F(1))
                box = np.array([cx - half_w, cy - half_h, cx + half_w, cy + half_h], F)
                limit = np.array([im_info[1], im_info[0]] * 2, F) - F(1)
                boxes.append(np.maximum(np.minimum(box, limit), F(0)))
    return np.array(boxes, F)


def reference_overlap(a, b, plus):
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + F(1), F(0))
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + F(1), F(0))
    inter = width * height
    area_a = (a[2] - a[0] + F(plus)) * (a[3] - a[1] + F(plus))
    area_b = (b[2] - b[0] + F(plus)) * (b[3] - b[1] + F(plus))
    union = area_a + area_b - inter
    if union == 0:
        return math.inf if inter > 0 else 0.0
    return inter / union


def reference_nms(boxes, scores, usable, pre, post, threshold, plus):
    order = [i for i in np.argsort(-scores, kind="stable") if usable[i]]
    order = order if pre <= 0 else order[:pre]
    kept = []
    for i in order:
        if all(reference_overlap(boxes[j], boxes[i], plus) <= threshold for j in kept):
            kept.append(i)
        if len(kept) == post:
            break
    return kept


def reference_multi_proposal(cls_prob, bbox_pred, im_info, pre, post, threshold, min_size, **kw):
    anchors = reference_anchors(**kw)
    rois, scores = [], []
    for n in range(len(im_info)):
        boxes = reference_boxes(bbox_pred[n], im_info[n], anchors, kw["feature_stride"])
        score = cls_prob[n, len(anchors) :].ravel()
        sides = boxes[:, 2:] - boxes[:, :2] + F(1)
        usable = (sides >= min_size).all(1)
        kept = reference_nms(boxes, score, usable, pre, post, threshold, 1)
        for i in range(post):
            rois.append([n, *boxes[kept[i]]] if i < len(kept) else [n, 0, 0, 0, 0])
            scores.append(score[kept[i]] if i < len(kept) else 0)
    return np.array(rois, F), np.array(scores, F)


def reference_target(cls_prob, bbox_pred, im_info, gt, ranges, post, legacy, min_size=3, **kw):
    anchors = reference_anchors(**kw)
    rois, labels, targets, weights = [], [], [], []
    for n in range(len(im_info)):
        boxes = reference_boxes(bbox_pred[n], im_info[n], anchors, kw["feature_stride"])
        side = boxes[:, 2:] - boxes[:, :2]
        area = side[:, 0] * side[:, 1]
        low, high = ranges[n] * ranges[n]
        usable = ~(side < min_size).all(1) & (area >= low) & (area < high)
        kept = reference_nms(boxes, cls_prob[n, 1].ravel(), usable, -1, post, 0.7, 0)
        slots = [boxes[i] for i in kept]
        for slot in range(len(kept), post):
            p = (n * len(boxes) + slot) % 100
            slots.append(np.array([p, p, p + 200, p + 200], F))
        used = [row for row in gt[n] if row[4] != -1]
        for j, row in enumerate(used):
            gt_area = (row[2] - row[0]) * (row[3] - row[1])
            slot = post - len(used) + j
            if slot >= 0 and low <= gt_area <= high:
                slots[slot] = row[:4]
        for box in slots:
            best, match = 0.5, None
            for row in used:
                overlap = reference_overlap(row, box, 0)
                if overlap > best:
                    best, match = overlap, row
            rois.append([n, *box])
            labels.append([0 if match is None else match[4]])
            weights.append([float(match is not None)] * 4)
            targets.append([1] * 4 if match is None else reference_encode(match, box, legacy))
    return tuple(np.array(values, F) for values in (rois, labels, targets, weights))


def reference_encode(gt, box, legacy):
    size, gt_size = box[2:] - box[:2] + 1, gt[2:4] - gt[:2] + 1
    gt_centre = gt[:2] + (gt_size - (0 if legacy else 1)) / 2
    centre = box[:2] + (size - 1) / 2
    return [*(10 * (gt_centre - centre) / size), *(5 * np.log(gt_size / size))]


def random_maps(rng, n, anchors, height, width, spread=0.3):
    """Foreground plane, deltas and image sizes with cells outside some images."""
    scores = rng.random((n, 2 * anchors, height, width)).astype(F)
    deltas = rng.normal(0, spread, (n, 4 * anchors, height, width)).astype(F)
    image_heights = rng.integers(8 * height, 16 * height + 1, n)
    image_widths = rng.integers(8 * width, 16 * width + 1, n)
    return scores, deltas, np.stack([image_heights, image_widths, np.ones(n)], 1).astype(F)


# ---- Tests ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "kw"),
    [("golden_multi_proposal_exact", RESNET), ("golden_multi_proposal_exact_mobilenet", MOBILENET)],
)
def test_golden_multi_proposal(golden, file, kw):
    data = np.load(golden / f"{file}.npz")
    rois, scores = _native.multi_proposal(
        data["cls_prob"], data["bbox_pred"], data["im_info"], **kw
    )
    for n, kept in enumerate(data["num_kept"]):
        rows = slice(300 * n, 300 * n + kept)
        np.testing.assert_allclose(rois[rows], data["rois"][rows], atol=1e-4)
        np.testing.assert_array_equal(scores[rows], data["score"][rows])


@pytest.mark.parametrize("suffix", ["", "_padding"])
def test_golden_multi_proposal_target(golden, suffix):
    data = np.load(golden / f"golden_multi_proposal_target{suffix}.npz")
    inputs = ("cls_prob", "bbox_pred", "im_info", "gt_boxes", "valid_ranges")
    outputs = _native.multi_proposal_target(*(data[name] for name in inputs), **RESNET)
    for name, output in zip(("rois", "label", "bbox_target", "bbox_weight"), outputs):
        np.testing.assert_allclose(output, data[name], atol=1e-4, err_msg=name)


def test_anchor_rounding_is_half_up():
    boxes = _native.operator_anchors(32, (1,), (0.5, 1, 2))
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    np.testing.assert_array_equal(sides, [[45, 23], [32, 32], [23, 46]])
    np.testing.assert_array_equal(boxes, reference_anchors((1,), (0.5, 1, 2), 32))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("pre", "post", "threshold", "min_size"),
                         [(-1, 30, 0.7, 3), (25, 40, 0.3, 20), (100, 7, 0.5, 0)])  # fmt: skip
def test_multi_proposal_equals_the_slow_reference(seed, pre, post, threshold, min_size):
    maps = random_maps(np.random.default_rng(seed), 2, 4, 5, 7)
    rois, scores = _native.multi_proposal(
        *maps, pre_nms_top_n=pre, post_nms_top_n=post, nms_thresh=threshold, min_size=min_size,
        **SMALL
    )  # fmt: skip
    expected = reference_multi_proposal(*maps, pre, post, threshold, min_size, **SMALL)
    np.testing.assert_allclose(rois, expected[0], atol=1e-4)
    np.testing.assert_array_equal(scores, expected[1])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("legacy", [True, False])
def test_multi_proposal_target_equals_the_slow_reference(seed, legacy):
    rng = np.random.default_rng(seed)
    scores, deltas, sizes = random_maps(rng, 2, 4, 5, 7)
    scores = scores.reshape(2, 2, 20, 7)
    gt = np.full((2, 6, 5), -1, F)
    for n in range(2):
        corner = rng.integers(0, 50, (4, 2))
        gt[n, :4] = np.hstack([corner, corner + rng.integers(1, 50, (4, 2)), [[3], [1], [2], [5]]])
    ranges = np.array([[0, 30], [12, 512]], F)
    outputs = _native.multi_proposal_target(
        scores, deltas, sizes, gt, ranges, post_nms_top_n=50, legacy_gt_centre=legacy, **SMALL
    )
    expected = reference_target(scores, deltas, sizes, gt, ranges, 50, legacy, **SMALL)
    assert (expected[1] > 0).any()
    for output, wanted in zip(outputs, expected):
        np.testing.assert_allclose(output, wanted, atol=1e-4)


def test_more_candidates_than_one_chunk_and_equal_scores():
    """Ties go to the lower anchor index, also when thousands of scores are equal."""
    rng = np.random.default_rng(3)
    scores, deltas, sizes = random_maps(rng, 1, 4, 40, 40, spread=0.05)
    scores = np.round(scores, 1)  # eleven different values
    deltas[:, 2::4] = deltas[:, 3::4] = 0  # exp(0) is exact, so the boxes can be looked up
    sizes[:] = (640, 640, 1)
    rois, got = _native.multi_proposal(scores, deltas, sizes, nms_thresh=0.9,
                                       post_nms_top_n=3000, **SMALL)  # fmt: skip
    boxes = reference_boxes(deltas[0], sizes[0], reference_anchors(**SMALL), 16)
    order = np.argsort(-scores[0, 4:].ravel(), kind="stable")
    rank = {tuple(boxes[i]): position for position, i in reversed(list(enumerate(order)))}
    positions = [rank[tuple(row[1:])] for row in rois[got > 0]]
    assert len(positions) > 1500
    assert positions == sorted(positions)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    hnp.arrays(F, 12, elements=st.sampled_from([np.nan, np.inf, -np.inf, 2.0**120, 200.0, -1.0])),
)
def test_non_finite_inputs_give_finite_boxes_inside_the_image(seed, poison):
    rng = np.random.default_rng(seed)
    scores, deltas, sizes = random_maps(rng, 2, 4, 3, 5)
    for target in (scores, deltas):
        flat = target.reshape(-1)
        flat[rng.integers(0, flat.size, poison.size)] = poison
    rois, got = _native.multi_proposal(scores, deltas, sizes, post_nms_top_n=40, **SMALL)
    assert np.isfinite(rois).all() and np.isfinite(got).all()
    for n in range(2):
        rows = rois[40 * n : 40 * n + 40]
        assert (rows[:, 0] == n).all()
        assert (rows[:, 1:] >= 0).all()
        assert (rows[:, 3] <= sizes[n, 1] - 1).all() and (rows[:, 4] <= sizes[n, 0] - 1).all()
        kept = rows[got[40 * n : 40 * n + 40] > 0, 1:]
        overlaps = [reference_overlap(a, b, 1) for i, a in enumerate(kept) for b in kept[:i]]
        assert max(overlaps, default=0) <= 0.7 + 1e-5
    outputs = _native.multi_proposal_target(
        scores.reshape(2, 2, 12, 5), deltas, sizes, np.full((2, 3, 5), np.nan, F),
        np.array([[0, 512], [0, 512]], F), post_nms_top_n=40, **SMALL
    )  # fmt: skip
    assert all(np.isfinite(output).all() for output in outputs)


def test_nothing_usable_gives_fill_rows():
    scores, deltas, sizes = random_maps(np.random.default_rng(0), 2, 4, 3, 3)
    scores[:] = np.nan
    rois, got = _native.multi_proposal(scores, deltas, sizes, post_nms_top_n=5, **SMALL)
    np.testing.assert_array_equal(rois, [[n, 0, 0, 0, 0] for n in (0, 1) for _ in range(5)])
    assert not got.any()


def test_target_without_gt_rows_is_all_background():
    scores, deltas, sizes = random_maps(np.random.default_rng(0), 2, 4, 3, 3)
    ranges = np.array([[0, 512], [0, 512]], F)
    for rows in (0, 4):
        gt = np.full((2, rows, 5), -1, F)
        _, label, target, weight = _native.multi_proposal_target(
            scores.reshape(2, 2, 12, 3), deltas, sizes, gt, ranges, **SMALL
        )
        assert not label.any() and not weight.any() and (target == 1).all()


def test_more_gt_boxes_than_rows_keep_the_last_ones():
    scores, deltas, sizes = random_maps(np.random.default_rng(0), 1, 4, 3, 3)
    gt = np.array([[[i, i, i + 20, i + 20, i + 1] for i in range(9)]], F)
    rois, label, _, _ = _native.multi_proposal_target(
        scores.reshape(1, 2, 12, 3), deltas, sizes, gt, np.array([[0, 512]], F),
        post_nms_top_n=4, **SMALL
    )  # fmt: skip
    np.testing.assert_array_equal(rois[:, 1], [5, 6, 7, 8])
    np.testing.assert_array_equal(label[:, 0], [6, 7, 8, 9])


@pytest.mark.parametrize("images", [1, 3])
def test_result_does_not_depend_on_the_number_of_threads(images):
    maps = random_maps(np.random.default_rng(1), images, 21, 24, 24, spread=0.1)
    omp = ctypes.CDLL("libgomp.so.1")
    before = omp.omp_get_max_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            omp.omp_set_num_threads(threads)
            results.append(_native.multi_proposal(*maps, **RESNET))
    finally:
        omp.omp_set_num_threads(before)
    for rois, scores in results[1:]:
        np.testing.assert_array_equal(rois, results[0][0])
        np.testing.assert_array_equal(scores, results[0][1])


def _child(queue, maps):
    queue.put(_native.multi_proposal(*maps, **RESNET))


def test_a_forked_child_does_not_wait_for_the_threads_of_its_parent():
    maps = random_maps(np.random.default_rng(1), 3, 21, 8, 8)
    omp = ctypes.CDLL("libgomp.so.1")
    before = omp.omp_get_max_threads()
    omp.omp_set_num_threads(3)
    try:
        expected = _native.multi_proposal(*maps, **RESNET)  # starts the parent's threads
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=_child, args=(queue, maps), daemon=True)
        child.start()
        try:
            rois, _ = queue.get(timeout=20)
        finally:
            child.kill()
            child.join(10)
    finally:
        omp.omp_set_num_threads(before)
    np.testing.assert_array_equal(rois, expected[0])


@pytest.mark.parametrize(
    "change",
    [
        {"cls_prob": np.zeros((1, 8, 3, 4), F)},
        {"bbox_pred": np.zeros((1, 12, 3, 3), F)},
        {"im_info": np.zeros((1, 2), F)},
        {"cls_prob": np.zeros((1, 8, 3, 3), np.float64)},
        {"scales": ()},
        {"ratios": (0,)},
        {"post_nms_top_n": 0},
    ],
)
def test_wrong_arguments_are_refused(change):
    arguments = {
        "cls_prob": np.zeros((1, 8, 3, 3), F),
        "bbox_pred": np.zeros((1, 16, 3, 3), F),
        "im_info": np.zeros((1, 3), F),
        **SMALL,
    }
    _native.multi_proposal(**arguments)
    with pytest.raises(ValueError):
        _native.multi_proposal(**{**arguments, **change})
