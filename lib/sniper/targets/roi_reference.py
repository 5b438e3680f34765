"""How proposals are made and labelled, one box at a time: the slow reference of the operators.

`ops/proposals.py` and `ops/proposal_targets.py` call the compiled code (`native/multi_proposal`,
`native/multi_proposal_target`, `native/multi_proposal_target_mask`) that the tests compare with
this file. A network never runs it. It is here to be read:

**Proposals.** The region proposal network gives a score and four numbers for every anchor.
`decode` turns the numbers into a box, cut off at the border of the image. The best boxes are
proposals, without those that overlap a better one too much (`nms`).

**Targets.** SNIPER (section 3.4) trains a chip only on boxes of the sizes that its level is
responsible for: proposals outside of the valid range are dropped before NMS. Ground truth joins the
list, so that there is something to learn from the first update on. A proposal takes the class of
the ground truth with the highest IoU above 0.5, and is background without one. All that remain are
trained: their number is fixed, and nothing is sampled.

Everything is computed in float32. The switches `legacy_*` are defects of 2018 that its weights
have been trained with: centres of ground truth half a pixel off, areas without the last row and
column beside intersections with them, and thin boxes that pass the test of the smallest side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

F = np.float32
LEGACY = {"legacy_gt_centre": True, "legacy_areas": True, "legacy_min_size": True}
# A proposal takes the class of a box that it overlaps by more.
FG_OVERLAP = 0.5
SOFT_SAMPLING = (0.25, 50.0, 20.0)  # a, b, c of the paper


def multi_proposal(
    cls_prob: np.ndarray,
    bbox_pred: np.ndarray,
    im_info: np.ndarray,
    pre: int,
    post: int,
    threshold: float,
    min_size: float,
    *,
    scales: Sequence[float],
    ratios: Sequence[float],
    feature_stride: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Proposals of a batch at test: rois (N*post, 5) with the image's number, scores (N*post,).

    Args:
        cls_prob: (N, 2A, h, w): background, then foreground of every shape.
        bbox_pred: (N, 4A, h, w).
        im_info: (N, 3): height, width and factor.
        pre: candidates before NMS; not positive: all.
        post: proposals per image; empty slots are zero boxes with score 0.
        threshold: IoU above which the worse box goes.
        min_size: shortest side, px.
        scales, ratios, feature_stride: see `make_anchors`.
    """
    anchors = make_anchors(scales, ratios, feature_stride)
    rois: list[list[float]] = []
    scores: list[float] = []
    for n in range(len(im_info)):
        boxes = decode(bbox_pred[n], im_info[n], anchors, feature_stride)
        score = cls_prob[n, len(anchors) :].ravel()
        sides = boxes[:, 2:] - boxes[:, :2] + F(1)
        usable = (sides >= min_size).all(1)
        kept = nms(boxes, score, usable, pre, post, threshold, 1)
        for i in range(post):
            rois.append([n, *boxes[kept[i]]] if i < len(kept) else [n, 0, 0, 0, 0])
            scores.append(score[kept[i]] if i < len(kept) else 0)
    return np.array(rois, F), np.array(scores, F)


def target(
    cls_prob: np.ndarray,
    bbox_pred: np.ndarray,
    im_info: np.ndarray,
    gt: np.ndarray,
    ranges: np.ndarray,
    post: int,
    *,
    mask: bool,
    pre: int = -1,
    threshold: float = 0.7,
    min_size: float = 3,
    rules: Mapping[str, bool] = LEGACY,
    super_of: Sequence[int] = (),
    crowd: np.ndarray | None = None,
    crowd_ioa: float = 0.9,
    soft: tuple[float, float, float] = SOFT_SAMPLING,
    scales: Sequence[float],
    ratios: Sequence[float],
    feature_stride: int,
) -> tuple[np.ndarray, ...]:
    """RoIs of a training batch with their targets.

    Args:
        cls_prob: (N, 2, A*h, w).
        bbox_pred, im_info, pre, post, threshold, min_size: see `multi_proposal`.
        gt: (N, G, 5) x1 y1 x2 y2 class, chip px; class -1 ends the list.
        ranges: (N, 2) valid range, chip px.
        mask: of MultiProposalTargetMask, which differs in how the list is filled.
        rules: the switches `legacy_*`.
        super_of: super-classes of the classes 1, 2, ..., which are the labels then; none: classes
            are.
        crowd: (N, M, 5) like `gt`: regions of many objects; what lies there is no background.
        crowd_ioa: a RoI lies there with more than this share of its area.
        soft: a, b, c of `label_weight`.
        scales, ratios, feature_stride: see `make_anchors`.

    Returns:
        rois (N*post, 5), label (N*post, 1), box target and weight (N*post, 4), the matched row
        of `gt` (N*post,), -1 for none, and how much each label counts (N*post, 1).
    """
    anchors = make_anchors(scales, ratios, feature_stride)
    plus = 0 if rules["legacy_areas"] else 1
    rois, labels, targets, weights, matches, label_weights = [], [], [], [], [], []
    for n in range(len(im_info)):
        decoded = decode(bbox_pred[n], im_info[n], anchors, feature_stride)
        side = decoded[:, 2:] - decoded[:, :2]
        area = side[:, 0] * side[:, 1]
        low, high = ranges[n] * ranges[n]
        small = (side < min_size).all(1)
        if not rules["legacy_min_size"]:
            small = (side + F(1) < min_size).any(1)
        usable = ~small & (area >= low) & (area < high)
        kept = nms(decoded, cls_prob[n, 1].ravel(), usable, pre, post, threshold, plus)
        slots = [decoded[i] for i in kept]
        for slot in range(len(kept), post):  # fillers, of no meaning
            p = (slot if mask else n * len(decoded) + slot) % 100
            slots.append(np.array([p, p, p + 200, p + 200], F))
        used = [row for row in range(gt.shape[1]) if gt[n, row, 4] != -1]
        if super_of:
            used = [row for row in used if 1 <= gt[n, row, 4] <= len(super_of)]
        for j, row in enumerate(used):  # ground truth takes the last slots
            gt_area = (gt[n, row, 2] - gt[n, row, 0]) * (gt[n, row, 3] - gt[n, row, 1])
            slot = post - 1 - j if mask else post - len(used) + j
            joins = low <= gt_area < high if mask else low <= gt_area <= high
            if slot >= 0 and joins:
                slots[slot] = gt[n, row, :4]
        for box in slots:
            match, most = best_match(box, gt[n], used, plus)
            label_weights.append([label_weight(most, *soft)])
            rois.append([n, *box])
            matches.append(match)
            label = 0 if match < 0 else gt[n, match, 4]
            if match < 0 and crowd is not None and is_in_crowd(box, crowd[n], crowd_ioa, plus):
                label = -1
            labels.append([super_of[int(label) - 1] if super_of and label > 0 else label])
            weights.append([float(match >= 0)] * 4)
            centre = rules["legacy_gt_centre"]
            targets.append([1] * 4 if match < 0 else encode(gt[n, match], box, centre))
    arrays = (np.array(values, F) for values in (rois, labels, targets, weights))
    return (*arrays, np.array(matches), np.array(label_weights, F))


def best_match(
    box: np.ndarray, gt: np.ndarray, used: Sequence[int], plus: int
) -> tuple[int, float]:
    """The row of `gt`, among those used, that a box overlaps most, and how much.

    The row is -1 where that is not more than half.
    """
    best, match = 0.0, -1
    for row in used:
        common = overlap(gt[row], box, plus)
        if common > best:
            best, match = common, row
    return (match if best > FG_OVERLAP else -1), best


def is_in_crowd(box: np.ndarray, crowd: np.ndarray, share: float, plus: int) -> bool:
    """Whether more than a share of a box lies in one of the regions (M, 5) that are used."""
    # Areas without +1 got one here in 2018.
    area = (box[2] - box[0] + F(plus)) * (box[3] - box[1] + F(plus)) + F(1 - plus)
    regions = crowd[crowd[:, 4] != -1]
    return any(intersection(region, box) / area > F(share) for region in regions)


def label_weight(most: float, a: float, b: float, c: float) -> float:
    """How much a RoI counts whose largest IoU with an object is `most` (Soft Sampling, 2019)."""
    return 1.0 if most >= FG_OVERLAP else a + (1 - a) * math.exp(-b * math.exp(-c * most))


def masks(
    rois: np.ndarray, labels: np.ndarray, matches: np.ndarray, num_images: int, max_masks: int
) -> tuple[np.ndarray, np.ndarray]:
    """RoIs (N*max_masks, 5) that masks are trained on, and (N*max_masks, 1) their rows of `gt`.

    The first positive RoIs of the whole batch; the rest are fillers with row -1.
    """
    positive = [i for i in range(len(rois)) if labels[i, 0] > 0][: num_images * max_masks]
    mask_rois = [rois[i] for i in positive]
    ids = [matches[i] for i in positive]
    for i in range(len(positive), num_images * max_masks):
        mask_rois.append([i % num_images, i % 200, i % 200, i % 200 + 100, i % 200 + 100])
        ids.append(-1)
    return np.array(mask_rois, F), np.array(ids, F)[:, None]


def fine(
    rois: np.ndarray, matches: np.ndarray, gt: np.ndarray, max_fine: int, legacy_cap: bool
) -> tuple[np.ndarray, np.ndarray]:
    """RoIs (N*max_fine, 5) that classes are told apart on, and (N*max_fine, 1) those, from 0.

    The first positive RoIs of every image, or with `legacy_cap` of the whole batch; the rest are
    fillers with the label -1.
    """
    images = len(gt)
    groups = [list(range(len(rois)))] if legacy_cap else np.split(np.arange(len(rois)), images)
    rows = images * max_fine // len(groups)
    fine_rois, labels = [], []
    for group in groups:
        positive = [i for i in group if matches[i] >= 0][:rows]
        fine_rois += [rois[i] for i in positive]
        labels += [gt[int(rois[i, 0]), matches[i], 4] - 1 for i in positive]
        for _ in range(rows - len(positive)):
            i = len(fine_rois)
            image = i % images if legacy_cap else i // max_fine
            fine_rois.append([image, i % 200, i % 200, i % 200 + 100, i % 200 + 100])
            labels.append(-1)
    return np.array(fine_rois, F), np.array(labels, F)[:, None]


def make_anchors(
    scales: Sequence[float], ratios: Sequence[float], feature_stride: int
) -> np.ndarray:
    """(A, 4) float32 anchors of the first cell, ratio by ratio; sides are rounded half up.

    Args:
        scales: sides in units of the stride.
        ratios: height / width.
        feature_stride: px of the input per cell.
    """
    centre = (feature_stride - 1) / 2
    anchors = []
    for ratio in ratios:
        width = math.floor(math.sqrt(math.floor(feature_stride**2 / ratio)) + 0.5)
        height = math.floor(width * ratio + 0.5)
        for scale in scales:
            half_w, half_h = (width * scale - 1) / 2, (height * scale - 1) / 2
            anchors.append([centre - half_w, centre - half_h, centre + half_w, centre + half_h])
    return np.array(anchors, F)


def decode(
    deltas: np.ndarray, im_info: np.ndarray, anchors: np.ndarray, feature_stride: int
) -> np.ndarray:
    """Boxes (A*h*w, 4) of one image, shape by shape and row by row, cut off at its border.

    Args:
        deltas: (4A, h, w): shift of the centre in units of the anchor's sides, logs of the growth.
        im_info: (3,): height, width and factor.
        anchors: (A, 4) of the first cell.
        feature_stride: px of the input per cell.
    """
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


def encode(gt: np.ndarray, box: np.ndarray, legacy_gt_centre: bool) -> list[float]:
    """What turns a RoI into its ground truth, in units of 0.1 (centre) and 0.2 (log sides)."""
    size, gt_size = box[2:] - box[:2] + 1, gt[2:4] - gt[:2] + 1
    gt_centre = gt[:2] + (gt_size - (0 if legacy_gt_centre else 1)) / 2
    centre = box[:2] + (size - 1) / 2
    return [*(10 * (gt_centre - centre) / size), *(5 * np.log(gt_size / size))]


def nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    usable: np.ndarray,
    pre: int,
    post: int,
    threshold: float,
    plus: int,
) -> list[int]:
    """Rows of at most `post` usable boxes, best first, none of which overlaps a better one."""
    order = [i for i in np.argsort(-scores, kind="stable") if usable[i]]
    order = order if pre <= 0 else order[:pre]
    kept: list[int] = []
    for i in order:
        if all(overlap(boxes[j], boxes[i], plus) <= threshold for j in kept):
            kept.append(i)
        if len(kept) == post:
            break
    return kept


def overlap(a: np.ndarray, b: np.ndarray, plus: int) -> float:
    """IoU of two boxes; `plus` 0 leaves the last row and column out of their areas (2018)."""
    inter = intersection(a, b)
    area_a = (a[2] - a[0] + F(plus)) * (a[3] - a[1] + F(plus))
    area_b = (b[2] - b[0] + F(plus)) * (b[3] - b[1] + F(plus))
    union = area_a + area_b - inter
    if union == 0:
        return math.inf if inter > 0 else 0.0
    return inter / union


def intersection(a: np.ndarray, b: np.ndarray) -> np.float32:
    """Area that two boxes have in common."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + F(1), F(0))
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + F(1), F(0))
    return width * height
