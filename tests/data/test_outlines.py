"""Run lengths and lists of points become polygons that give the same mask targets."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from sniper.data.coco import load_coco
from sniper.data.coco_masks import polygons_of
from sniper.data.outlines import outlines, shortened
from sniper.data.problems import MASK_ELSEWHERE, NO_MASK
from sniper.native._native import mask_rcnn_target

# What `TRAIN.MAX_POLYGON_LEN` 500 leaves for the polygons of an object.
ROOM = 498


def rasterised(polygons, height, width):
    """What the mask head is taught, for a roi that is the whole image: (height, width)."""
    side = max(height, width)
    row = [0, len(polygons), *(len(np.ravel(p)) for p in polygons)]
    row = np.concatenate([row, *(np.ravel(p) for p in polygons)]).astype(np.float32)
    roi = np.array([[0, 0, 0, side, side]], np.float32)
    target, _ = mask_rcnn_target(roi, row[None, None], np.zeros((1, 1), np.float32), side)
    return target[0, :height, :width] > 0


def iou(one, other):
    return (one & other).sum() / max((one | other).sum(), 1)


@settings(deadline=None)
@given(
    arrays(
        np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1])
    )
)
def test_outlines_of_any_mask_are_exact_where_there_is_room(mask):
    polygons = outlines(mask, room=10_000)
    if not mask.any():
        assert polygons == []
        return
    height, width = mask.shape
    np.testing.assert_array_equal(rasterised(polygons, height, width), mask > 0)
    # So they are for COCO's own rasteriser.
    runs = coco_mask.frPyObjects([p.reshape(-1).tolist() for p in polygons], height, width)
    np.testing.assert_array_equal(coco_mask.decode(coco_mask.merge(runs)), mask)


@pytest.mark.parametrize("radius", [20, 60, 200, 480])
def test_long_outlines_are_simplified_until_they_fit(radius):
    side = 1000
    y, x = np.mgrid[:side, :side]
    angle = np.arctan2(y - 500, x - 500)
    ring = np.hypot(x - 500, y - 500) / (1 + 0.15 * np.sin(7 * angle))
    mask = ((ring < radius * 0.85) & (ring > radius * 0.4)).astype(np.uint8)
    polygons = outlines(mask, ROOM)
    assert sum(1 + p.size for p in polygons) <= ROOM
    assert iou(rasterised(polygons, side, side), mask > 0) > (0.9 if radius < 30 else 0.97)


def test_polygons_that_are_too_long_are_simplified():
    y, x = np.mgrid[:400, :400]
    mask = (np.hypot(x - 200, (y - 200) * 1.3) < 150).astype(np.uint8)
    stairs = outlines(mask)
    assert sum(1 + p.size for p in stairs) > ROOM
    assert iou(rasterised(shortened(stairs, ROOM), 400, 400), mask > 0) > 0.98
    few = [np.float32([[0, 0], [9, 0], [0, 9]])]
    assert shortened(few, ROOM)[0] is few[0]


def test_of_many_parts_the_largest_fit():
    mask = np.zeros((200, 200), np.uint8)
    mask[::4, ::4] = 1
    mask[96:154, 16:124] = 0
    mask[100:150, 20:120] = 1
    polygons = outlines(mask, ROOM)
    assert sum(1 + p.size for p in polygons) <= ROOM
    assert (cv2.contourArea(polygons[0]), len(polygons)) == (50 * 100, ROOM // 9)


def star():
    """A mask with a hole, and the same as a polygon without one."""
    points = np.array(
        [[30, 2], [36, 22], [56, 22], [40, 32], [46, 38], [30, 34], [4, 36], [20, 20]]
    )
    mask = coco_mask.decode(coco_mask.frPyObjects([points.reshape(-1).tolist()], 40, 60))[:, :, 0]
    return points, np.asfortranarray(mask)


def segmentations():
    points, mask = star()
    compressed = coco_mask.encode(mask)["counts"]
    flat = mask.reshape(-1, order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    assert flat[0] == 0
    return {
        "compressed": {"size": [40, 60], "counts": compressed.decode()},
        "runs": {"size": [40, 60], "counts": runs},
        "points": [points.tolist()],
        "one polygon of points": points.tolist(),
        "one flat polygon": points.reshape(-1).tolist(),
    }


@pytest.mark.parametrize("kind", segmentations())
def test_masks_of_every_form_are_trained(small_set, kind):
    small_set.content["annotations"] = [
        {"id": 1, "image_id": 70, "category_id": 4, "bbox": [4, 2, 52, 36]}
        | {"segmentation": segmentations()[kind]},
    ]
    small_set.write()
    told = []
    dataset = load_coco(
        small_set.root, small_set.image_set, with_masks=True, on_problem=told.append
    )
    assert told == [] and dataset.intake.remarks == {}
    (polygons,) = dataset.records[0].polygons
    _, mask = star()
    assert iou(rasterised(polygons, 40, 60), mask > 0) > 0.99


@pytest.mark.parametrize(
    ("polygons", "is_told"),
    [
        ([[30, 20, 40, 20, 40, 30]], True),
        ([[8, 4, 8, 20, 8, 30]], True),  # a line
        ([[30, 20, 40, 20, 40, 30], [9, 9, 12, 9, 12, 12]], False),  # hidden in its middle
        ([[-9, 2, 5, 2, 5, 9]], False),
    ],
)
def test_masks_beside_their_boxes_are_told(small_set, polygons, is_told):
    small_set.content["annotations"] = [
        {"id": 5, "image_id": 70, "category_id": 4, "bbox": [4, 2, 20, 36], "segmentation": of}
        for of in ([[4, 2, 9, 2, 9, 9]], polygons)
    ]
    small_set.content["annotations"][1]["id"] = 6
    small_set.write()
    told = []
    load_coco(small_set.root, small_set.image_set, with_masks=True, on_problem=told.append)
    texts = [text for p in told if p.kind is MASK_ELSEWHERE for text in p.texts]
    assert texts == ["annotation 6"] * is_told


def test_objects_without_a_mask_are_counted(small_set, tmp_path):
    empty = {"size": [40, 60], "counts": [2400]}
    small_set.content["annotations"] = [
        {"id": i, "image_id": 70, "category_id": 4, "bbox": [4, 2, 20 + i, 36]} | more
        for i, more in enumerate(
            [
                {},
                {"segmentation": []},
                {"segmentation": empty},
                {"segmentation": [[1, 1, 9, 9, 1, 9]]},
            ]
        )
    ]
    small_set.write()
    told = []
    options = {"with_masks": True, "on_problem": told.append}
    assert load_coco(small_set.root, small_set.image_set, **options).intake.remarks == {
        "no_mask": 3
    }
    assert [(problem.kind, problem.count) for problem in told] == [(NO_MASK, 3)]
    # A cache with masks serves a run without them, which does not ask for any.
    for with_masks, remarks in ((True, {"no_mask": 3}), (False, {})):
        dataset = load_coco(
            small_set.root, small_set.image_set, with_masks=with_masks, cache_dir=tmp_path
        )
        assert dataset.intake.remarks == remarks


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (
            {"size": [60, 40], "counts": [2400]},
            "its mask is 60x40 .height x width., its image 40x60",
        ),
        ({"size": [40, 60], "counts": [1, 2]}, "its runs cover 3 px of 2400"),
        ({"size": [40, 60], "counts": [2401, -1]}, "no whole numbers from 0 on"),
        ({"size": [40, 60], "counts": "a"}, "no compressed run lengths"),
        ([[[1, 2], [3, 4], [5, 6, 7, 8]], "no"], "no list of x, y pairs"),
    ],
)
def test_broken_masks_say_what_is_wrong(segmentation, message):
    with pytest.raises((TypeError, ValueError), match=message):
        polygons_of(segmentation, 40, 60)
