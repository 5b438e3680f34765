"""A slow reference of the proposal operators: one box at a time, in float32."""

from __future__ import annotations

import math

import numpy as np

F = np.float32
RESNET = {"scales": (2, 4, 7, 10, 13, 16, 24), "ratios": (0.5, 1, 2), "feature_stride": 16}
SMALL = {"scales": (1, 2), "ratios": (0.5, 1.5), "feature_stride": 16}
RULES = {"legacy_gt_centre": True, "legacy_areas": True, "legacy_min_size": True}


def make_anchors(scales, ratios, feature_stride):
    centre = (feature_stride - 1) / 2
    anchors = []
    for ratio in ratios:
        width = math.floor(math.sqrt(math.floor(feature_stride**2 / ratio)) + 0.5)
        height = math.floor(width * ratio + 0.5)
        for scale in scales:
            half_w, half_h = (width * scale - 1) / 2, (height * scale - 1) / 2
            anchors.append([centre - half_w, centre - half_h, centre + half_w, centre + half_h])
    return np.array(anchors, F)


def decode(deltas, im_info, anchors, feature_stride):
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


def overlap(a, b, plus):
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + F(1), F(0))
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + F(1), F(0))
    inter = width * height
    area_a = (a[2] - a[0] + F(plus)) * (a[3] - a[1] + F(plus))
    area_b = (b[2] - b[0] + F(plus)) * (b[3] - b[1] + F(plus))
    union = area_a + area_b - inter
    if union == 0:
        return math.inf if inter > 0 else 0.0
    return inter / union


def nms(boxes, scores, usable, pre, post, threshold, plus):
    order = [i for i in np.argsort(-scores, kind="stable") if usable[i]]
    order = order if pre <= 0 else order[:pre]
    kept = []
    for i in order:
        if all(overlap(boxes[j], boxes[i], plus) <= threshold for j in kept):
            kept.append(i)
        if len(kept) == post:
            break
    return kept


def multi_proposal(cls_prob, bbox_pred, im_info, pre, post, threshold, min_size, **kw):
    anchors = make_anchors(**kw)
    rois, scores = [], []
    for n in range(len(im_info)):
        boxes = decode(bbox_pred[n], im_info[n], anchors, kw["feature_stride"])
        score = cls_prob[n, len(anchors) :].ravel()
        sides = boxes[:, 2:] - boxes[:, :2] + F(1)
        usable = (sides >= min_size).all(1)
        kept = nms(boxes, score, usable, pre, post, threshold, 1)
        for i in range(post):
            rois.append([n, *boxes[kept[i]]] if i < len(kept) else [n, 0, 0, 0, 0])
            scores.append(score[kept[i]] if i < len(kept) else 0)
    return np.array(rois, F), np.array(scores, F)


def random_maps(rng, n, anchors, height, width, spread=0.3):
    """Foreground plane, deltas and image sizes with cells outside some images."""
    scores = rng.random((n, 2 * anchors, height, width)).astype(F)
    deltas = rng.normal(0, spread, (n, 4 * anchors, height, width)).astype(F)
    image_heights = rng.integers(8 * height, 16 * height + 1, n)
    image_widths = rng.integers(8 * width, 16 * width + 1, n)
    return scores, deltas, np.stack([image_heights, image_widths, np.ones(n)], 1).astype(F)


def target(cls_prob, bbox_pred, im_info, gt, ranges, post, *, mask, pre=-1, threshold=0.7,
           min_size=3, rules=RULES, **kw):  # fmt: skip
    """MultiProposalTarget, or what both target operators share, and the matched rows of `gt`."""
    anchors = make_anchors(**kw)
    plus = 0 if rules["legacy_areas"] else 1
    rois, labels, targets, weights, matches = [], [], [], [], []
    for n in range(len(im_info)):
        decoded = decode(bbox_pred[n], im_info[n], anchors, kw["feature_stride"])
        side = decoded[:, 2:] - decoded[:, :2]
        area = side[:, 0] * side[:, 1]
        low, high = ranges[n] * ranges[n]
        small = (side < min_size).all(1)
        if not rules["legacy_min_size"]:
            small = (side + F(1) < min_size).any(1)
        usable = ~small & (area >= low) & (area < high)
        kept = nms(decoded, cls_prob[n, 1].ravel(), usable, pre, post, threshold, plus)
        slots = [decoded[i] for i in kept]
        for slot in range(len(kept), post):
            p = (slot if mask else n * len(decoded) + slot) % 100
            slots.append(np.array([p, p, p + 200, p + 200], F))
        used = [row for row in range(gt.shape[1]) if gt[n, row, 4] != -1]
        for j, row in enumerate(used):
            gt_area = (gt[n, row, 2] - gt[n, row, 0]) * (gt[n, row, 3] - gt[n, row, 1])
            slot = post - 1 - j if mask else post - len(used) + j
            joins = low <= gt_area < high if mask else low <= gt_area <= high
            if slot >= 0 and joins:
                slots[slot] = gt[n, row, :4]
        for box in slots:
            best, match = 0.5, -1
            for row in used:
                common = overlap(gt[n, row], box, plus)
                if common > best:
                    best, match = common, row
            rois.append([n, *box])
            matches.append(match)
            labels.append([0 if match < 0 else gt[n, match, 4]])
            weights.append([float(match >= 0)] * 4)
            centre = rules["legacy_gt_centre"]
            targets.append([1] * 4 if match < 0 else encode(gt[n, match], box, centre))
    arrays = (np.array(values, F) for values in (rois, labels, targets, weights))
    return (*arrays, np.array(matches))


def encode(gt, box, legacy_gt_centre):
    size, gt_size = box[2:] - box[:2] + 1, gt[2:4] - gt[:2] + 1
    gt_centre = gt[:2] + (gt_size - (0 if legacy_gt_centre else 1)) / 2
    centre = box[:2] + (size - 1) / 2
    return [*(10 * (gt_centre - centre) / size), *(5 * np.log(gt_size / size))]


def masks(rois, labels, matches, num_images, max_masks):
    """mask_rois and mask_ids from the rois of the whole batch."""
    positive = [i for i in range(len(rois)) if labels[i, 0] > 0][: num_images * max_masks]
    mask_rois = [rois[i] for i in positive]
    ids = [matches[i] for i in positive]
    for i in range(len(positive), num_images * max_masks):
        mask_rois.append([i % num_images, i % 200, i % 200, i % 200 + 100, i % 200 + 100])
        ids.append(-1)
    return np.array(mask_rois, F), np.array(ids, F)[:, None]


def random_targets(rng, n=2, gt_rows=6):
    """Inputs of the target operators for SMALL on a 5 x 7 map."""
    scores, deltas, sizes = random_maps(rng, n, 4, 5, 7)
    gt = np.full((n, gt_rows, 5), -1, F)
    for image in range(n):
        count = int(rng.integers(0, gt_rows + 1))
        corner = rng.integers(0, 50, (count, 2))
        far = corner + rng.integers(0, 50, (count, 2))
        gt[image, :count] = np.hstack([corner, far, rng.integers(1, 9, (count, 1))])
    ranges = np.array([[0, 30], [12, 512]], F)[rng.integers(0, 2, n)]
    return scores.reshape(n, 2, 20, 7), deltas, sizes, gt, ranges
