"""Merging over levels and chips against loops over single boxes."""

import numpy as np
import pytest

from sniper.inference.decode import ChipDetections
from sniper.inference.merge_levels import MergeSettings, keep_confident, merge_levels

RANGES = ((-1, 90), (32, 180), (75, -1))
SETTINGS = MergeSettings(nms_threshold=-1, sigma=0.55)


def _found(rng, image=0, chip=0, rois=30, classes=4):
    corners = rng.uniform(0, 300, (rois, 2))
    sizes = rng.uniform(5, 250, (rois, 2))
    boxes = np.concatenate([corners, corners + sizes], axis=1).astype(np.float32)
    scores = rng.dirichlet([0.3] * classes, rois).astype(np.float32)
    return ChipDetections(image, chip, boxes, scores)


def merged_lists(parts, num_classes, settings, ranges=RANGES):
    """Per image and class the rows of the merged table."""
    table, _ = merge_levels(parts, ranges, settings)
    return [[own.rows[own.classes == k] for k in range(num_classes)] for own in table]


def _slow_merge(parts, num_classes, settings):
    """One image: valid range, then Gaussian soft-NMS, class by class."""
    result = []
    for klass in range(num_classes):
        rows = []
        for part in sorted(parts, key=lambda p: (p.level, p.chip_index)):
            low, high = RANGES[part.level]
            for row in part.rows[part.classes == klass].astype(np.float64):
                area = (row[2] - row[0]) * (row[3] - row[1])
                if (low <= 0 or area > low**2) and (high <= 0 or area <= high**2):
                    rows.append(row)
        kept = []
        while rows:
            best = max(range(len(rows)), key=lambda k: rows[k][4])
            top = rows.pop(best)
            kept.append(top)
            for row in rows:
                w = min(top[2], row[2]) - max(top[0], row[0]) + 1
                h = min(top[3], row[3]) - max(top[1], row[1]) + 1
                if w > 0 and h > 0:
                    areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (top, row)]
                    iou = w * h / (sum(areas) - w * h)
                    row[4] *= np.exp(-(iou**2) / settings.sigma)
            rows = [row for row in rows if row[4] >= 0.001]
        result.append(np.array(kept).reshape(-1, 5))
    return result


def test_merge_equals_the_slow_rules():
    rng = np.random.default_rng(0)
    parts = [[keep_confident(_found(rng), level) for level in range(3)] for _ in range(2)]
    merged = merged_lists(parts, 4, MergeSettings(max_per_image=-1))
    for image_parts, per_class in zip(parts, merged):
        for fast, slow in zip(per_class, _slow_merge(image_parts, 4, SETTINGS)):
            assert fast.shape == slow.shape
            np.testing.assert_allclose(fast, slow, atol=1e-4)
    assert merged[0][0].shape == (0, 5), "the background has no detections"


def test_order_of_chips_and_company_do_not_matter():
    rng = np.random.default_rng(1)
    one = [keep_confident(_found(rng, chip=chip), level) for level in (0, 1) for chip in (0, 1)]
    other = [keep_confident(_found(rng), 0)]
    alone = merged_lists([one], 4, SETTINGS)[0]
    together = merged_lists([other, one[::-1]], 4, SETTINGS)[1]
    for a, b in zip(alone, together):
        np.testing.assert_array_equal(a, b)


def test_limit_keeps_the_best_of_all_classes():
    rng = np.random.default_rng(2)
    parts = [[keep_confident(_found(rng, rois=200), 1)]]
    everything = merged_lists(parts, 4, MergeSettings(max_per_image=0))[0]
    limited = merged_lists(parts, 4, MergeSettings(max_per_image=20))[0]
    scores = np.sort(np.concatenate([rows[:, 4] for rows in everything]))[::-1]
    kept = np.sort(np.concatenate([rows[:, 4] for rows in limited]))[::-1]
    np.testing.assert_array_equal(kept, scores[:20])


def test_background_and_unlikely_classes_are_dropped():
    boxes = np.float32([[0, 0, 50, 50], [5, 5, 60, 60]])
    scores = np.float32([[0.9, 0.1, 0.0005], [0.2, 0.3, 0.5]])
    kept = keep_confident(ChipDetections(0, 3, boxes, scores), level=2, origin=(100, 10))
    assert kept.classes.tolist() == [1, 1, 2]
    assert (kept.level, kept.chip_index) == (2, 3)
    np.testing.assert_allclose(kept.rows[0], [100, 10, 150, 60, 0.1])


@pytest.mark.parametrize("images", [0, 2])
def test_nothing_found(images):
    merged = merged_lists([[] for _ in range(images)], 3, SETTINGS)
    assert len(merged) == images
    for per_class in merged:
        assert [rows.shape for rows in per_class] == [(0, 5)] * 3


def test_hard_nms_as_the_configuration_gives_it():
    """The rule of the configuration sets the sigma to -1 where hard NMS is asked for."""
    rng = np.random.default_rng(3)
    part = keep_confident(_found(rng, rois=60), 0)
    settings = MergeSettings(nms_threshold=0.5, sigma=-1)
    (merged,) = merged_lists([[part]], 4, settings, [(-1, -1)])
    for klass in range(1, 4):
        rows = part.rows[part.classes == klass]
        best = rows[rows[:, 4].argmax()]
        np.testing.assert_array_equal(merged[klass][0], best)
        assert 0 < len(merged[klass]) < len(rows)
        assert set(map(tuple, merged[klass])) <= set(map(tuple, rows)), "scores stay"
