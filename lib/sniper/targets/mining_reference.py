"""How the anchors of a face detector's module are labelled, one at a time: the slow reference.

`ops/anchor_targets.py` calls the compiled code (`native/anchor_mining_target`) that the tests
compare with this file. A network never runs it. It is here to be read:

**Modules.** SSH (Najibi et al. 2017) detects faces with three modules on maps of stride 8, 16 and
32. Each has two sizes of anchors, 16 and 32 px, 64 and 128 px, 256 and 512 px, and is trained on
its own anchors alone. The windows of the cell (0, 0) are centred on (7.5, 7.5) in all three.

**Which anchors.** Those inside the image, or no more than `border` px outside of it (the largest
anchors of a small image would all go otherwise). If there are none, all.

**Matching.** An anchor with an IoU of at least 0.5 with a face is positive, one with less than 0.3
with every face is negative, and what lies between is not trained. A face that no anchor fits has
none: other modules see it, or nobody. Anchors that overlap an *ignored* box by more than 0.3 are
not trained either: on SNIPER's chips faces that belong to another level, in WIDER invalid ones.

**Mining.** A map has tens of thousands of anchors, nearly all of them easy. At most 64 positives
are kept, those that the network takes for faces least, then negatives up to 256, those that it
takes for faces most, by the probabilities of the same forward pass.

**Weights.** The box loss of an image is the sum over its positives divided by all anchors that are
trained, as the mean of the class loss is (the paper divides by the positives, its code does not).

Sides are x2 - x1 + 1; centres x1 + side / 2 for faces and anchors alike, half a pixel beyond the
middle, so that x2 = centre + side / 2 of a perfect prediction is the pixel behind the face.
Released weights are trained so. Everything is computed in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sniper.targets.anchors import base_anchors

F = np.float32


def anchor_mining_target(
    cls_prob: np.ndarray,
    im_info: np.ndarray,
    gt_boxes: np.ndarray,
    ignore_boxes: np.ndarray | None = None,
    *,
    scales: Sequence[float],
    feature_stride: int,
    ratios: Sequence[float] = (1,),
    base_size: int = 16,
    border: float = 0,
    batch_size: int = 256,
    fg_fraction: float = 0.25,
    positive_overlap: float = 0.5,
    negative_overlap: float = 0.3,
    ignore_overlap: float = 0.3,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Targets of a batch for one module.

    Args:
        cls_prob: (N, 2, A*h, w) probabilities of background and face.
        im_info: (N, 3): height, width (px) and factor.
        gt_boxes: (N, G, 5) x1 y1 x2 y2 class, px; class -1: no face.
        ignore_boxes: (N, M, 5) like `gt_boxes`.
        scales: sides of the anchors, `base_size` px each.
        feature_stride: px per cell.
        ratios: height / width of the anchors.
        base_size: see there.
        border: px that anchors may stick out of the image.
        batch_size: anchors that are trained in each image.
        fg_fraction: share of them that may be positive.
        positive_overlap, negative_overlap: IoU from which on an anchor is positive, and below which
            it is negative.
        ignore_overlap: see the top of this file.

    Returns:
        label (N, A*h*w), 1, 0 or -1 for "not trained"; box target and its weight (N, 4A, h, w);
        numbers of positive anchors and of all that are trained (N, 2).
    """
    base = base_anchors(base_size, ratios, scales, rounding="half_up")
    images, _, rows, width = cls_prob.shape
    height = rows // len(base)
    labels = np.full((images, len(base), height, width), -1, F)
    targets = np.zeros((images, len(base), 4, height, width), F)
    weights = np.zeros_like(targets)
    counts = np.zeros((images, 2), F)
    for n in range(images):
        scores = cls_prob[n, 1].reshape(labels[n].shape)
        faces = used_boxes(gt_boxes[n])
        ignored = used_boxes(ignore_boxes[n]) if ignore_boxes is not None else []
        trained = []
        for place in np.ndindex(labels[n].shape):
            a, y, x = place
            anchor = base[a] + np.array([x, y, x, y], F) * F(feature_stride)
            trained.append((place, anchor))
        inside = [item for item in trained if is_inside(item[1], im_info[n], F(border))]
        positives, negatives = [], []
        for place, anchor in inside or trained:
            if any(overlap(box, anchor) > F(ignore_overlap) for box in ignored):
                continue
            overlaps = [overlap(face, anchor) for face in faces]
            most = max(overlaps, default=F(0))
            if most > 0 and most >= F(positive_overlap):
                positives.append((scores[place], place, anchor, faces[overlaps.index(most)]))
            elif most < F(negative_overlap):
                negatives.append((scores[place], place))
        # Sorting is stable: of equal ones the anchor that comes first in the map is taken.
        positives.sort(key=lambda item: item[0])
        negatives.sort(key=lambda item: -item[0])
        del positives[int(batch_size * fg_fraction) :]
        del negatives[batch_size - len(positives) :]
        counts[n] = len(positives), len(positives) + len(negatives)
        for _, place in negatives:
            labels[n][place] = 0
        for _, (a, y, x), anchor, face in positives:
            labels[n, a, y, x] = 1
            targets[n, a, :, y, x] = encode(face, anchor)
            weights[n, a, :, y, x] = F(1) / counts[n, 1]
    planes = (images, 4 * len(base), height, width)
    return labels.reshape(images, -1), targets.reshape(planes), weights.reshape(planes), counts


def used_boxes(rows: np.ndarray) -> list[np.ndarray]:
    """The boxes of rows with a class, without those that have no area."""
    return [row[:4] for row in rows if row[4] >= 0 and (row[2:4] - row[:2] + F(1) > 0).all()]


def is_inside(anchor: np.ndarray, size: np.ndarray, border: np.float32) -> bool:
    """Whether an anchor lies in an image of this height and width, or little outside."""
    height, width = size[:2]
    high = anchor[2] < width + border and anchor[3] < height + border
    return bool(high and (anchor[:2] >= -border).all())


def overlap(face: np.ndarray, anchor: np.ndarray) -> np.float32:
    """Intersection over union."""
    sides = np.minimum(face[2:], anchor[2:]) - np.maximum(face[:2], anchor[:2]) + F(1)
    common = np.prod(np.maximum(sides, F(0)))
    areas = [np.prod(box[2:] - box[:2] + F(1)) for box in (face, anchor)]
    return common / (areas[0] + areas[1] - common)


def encode(face: np.ndarray, anchor: np.ndarray) -> np.ndarray:
    """dx, dy in sides of the anchor and logarithms of the ratios of the sides."""
    sides, anchor_sides = (box[2:] - box[:2] + F(1) for box in (face, anchor))
    centre, anchor_centre = face[:2] + F(0.5) * sides, anchor[:2] + F(0.5) * anchor_sides
    return np.concatenate([(centre - anchor_centre) / anchor_sides, np.log(sides / anchor_sides)])
