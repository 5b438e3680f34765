"""Segm AP: hand-made cases, real annotations, and what happens without polygons."""

from __future__ import annotations

import contextlib
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sniper.data.coco import load_coco
from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable, ImageDetections, table_of
from sniper.data.record import Record
from sniper.errors import DataError
from sniper.evaluation import (
    encode_mask,
    evaluate_coco,
    write_coco_results,
    write_report,
)

# pycocotools adds an epsilon to the denominator of a precision.
ONE = pytest.approx(1, abs=1e-12)
HEIGHT, WIDTH = 120, 160
SQUARE = [20.0, 20.0, 60.0, 20.0, 60.0, 60.0, 20.0, 60.0]


def make_dataset(tmp_path, annotations, num_images=2):
    path = tmp_path / "instances_x.json"
    ids = range(1, num_images + 1)
    content = {
        "images": [{"id": i, "width": WIDTH, "height": HEIGHT} for i in ids],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": annotations,
    }
    path.write_text(json.dumps(content))
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
    return Dataset(
        name="COCO_x",
        image_set="x",
        class_names=("__background__", "cat", "dog"),
        category_ids=(0, 7, 3),
        records=tuple(Record(f"{i}.jpg", i, WIDTH, HEIGHT, False, *nothing) for i in ids),
        annotation_path=str(path),
        has_annotations=True,
    )


def truth(number, segmentation, bbox=(20, 20, 40, 40), image_id=1, category_id=7, **more):
    entry = {"id": number, "image_id": image_id, "category_id": category_id, "bbox": list(bbox)}
    return {**entry, "segmentation": segmentation, "iscrowd": 0, **more}


def rectangle(x1, y1, x2, y2):
    """Run lengths of the pixels x1 ... x2 - 1, y1 ... y2 - 1."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y1:y2, x1:x2] = 1
    return encode_mask(mask)


def table(dataset, found):
    """[(image position, class index, box with score, mask)] -> table with masks"""
    images = []
    for index in range(len(dataset.records)):
        own = sorted((entry for entry in found if entry[0] == index), key=lambda entry: entry[1])
        rows = np.float32([entry[2] for entry in own]).reshape(-1, 5)
        classes = np.int32([entry[1] for entry in own])
        images.append(ImageDetections(rows, classes, [entry[3] for entry in own]))
    return table_of(images, with_masks=True)


def without_masks(detections):
    return DetectionTable(detections.offsets, detections.rows, detections.classes)


@pytest.fixture(params=["pycocotools", "faster-coco-eval"])
def evaluate(request):
    if request.param == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")

    def function(dataset, found):
        return evaluate_coco(dataset, table(dataset, found), evaluator=request.param)

    return function


def test_results_carry_masks_that_pycocotools_loads(tmp_path, evaluate):
    dataset = make_dataset(tmp_path, [truth(1, [SQUARE], area=1600)])
    mask = rectangle(20, 20, 60, 60)
    found = table(dataset, [(0, 1, (20, 20, 59, 59, 0.9), mask)])
    path = tmp_path / "results.json"
    write_coco_results(path, dataset, found)
    results = json.loads(path.read_text())
    assert results[0]["segmentation"] == {"size": [HEIGHT, WIDTH], "counts": mask.decode()}
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO(dataset.annotation_path)
        loaded = index.loadRes(str(path))
        np.testing.assert_array_equal(
            loaded.annToMask(loaded.anns[1]), coco_mask.decode(results[0]["segmentation"])
        )
        evaluator = COCOeval(index, loaded, iouType="segm")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    assert evaluator.stats[0] == ONE
    report = evaluate_coco(dataset, found)
    assert report.masks.ap == pytest.approx(evaluator.stats[0], abs=1e-12)


def test_boxes_and_masks_have_their_own_numbers(tmp_path, evaluate):
    dataset = make_dataset(
        tmp_path, [truth(1, [SQUARE]), truth(2, [SQUARE], image_id=2, category_id=3)]
    )
    # 60 % of the mask: a hit at three of ten thresholds; the box is right.
    report = evaluate(
        dataset,
        [
            (0, 1, (20, 20, 59, 59, 0.9), rectangle(20, 20, 60, 44)),
            (1, 2, (20, 20, 59, 59, 0.9), rectangle(20, 20, 60, 60)),
        ],
    )
    assert (report.ap, report.per_class) == (ONE, {"cat": ONE, "dog": ONE})
    assert report.masks.per_class["cat"] == pytest.approx(0.3)
    assert report.masks.per_class["dog"] == ONE
    assert report.masks.ap == pytest.approx(0.65)
    assert (report.masks.ap50, report.masks.ap75) == (ONE, pytest.approx(0.5))


def test_a_right_mask_in_a_wrong_box_counts_as_mask(tmp_path, evaluate):
    dataset = make_dataset(tmp_path, [truth(1, [SQUARE])])
    report = evaluate(dataset, [(0, 1, (90, 90, 110, 110, 0.9), rectangle(20, 20, 60, 60))])
    assert (report.ap, report.masks.ap) == (0, ONE)


def test_the_size_of_a_mask_is_that_of_its_pixels(tmp_path, evaluate):
    # A false alarm with a large box and a small mask does not count against medium objects.
    dataset = make_dataset(tmp_path, [truth(1, [SQUARE])])
    hit = (0, 1, (20, 20, 59, 59, 0.8), rectangle(20, 20, 60, 60))
    alarm = (0, 1, (70, 10, 130, 70, 0.9), rectangle(70, 10, 80, 20))
    report = evaluate(dataset, [hit, alarm])
    assert report.masks.ap == pytest.approx(0.5)
    assert report.masks.ap_medium == ONE
    assert math.isnan(report.masks.ap_small)
    assert report.ap_medium == pytest.approx(0.5)


def test_empty_masks_are_misses(tmp_path, evaluate):
    dataset = make_dataset(tmp_path, [truth(1, [SQUARE])])
    report = evaluate(dataset, [(0, 1, (20, 20, 59, 59, 0.9), rectangle(0, 0, 0, 0))])
    assert (report.ap, report.masks.ap) == (ONE, 0)


def test_no_detections_give_zeros(tmp_path, evaluate):
    report = evaluate(make_dataset(tmp_path, [truth(1, [SQUARE])]), [])
    assert (report.ap, report.masks.ap, report.masks.per_class["cat"]) == (0, 0, 0)


def test_every_form_of_ground_truth(tmp_path, evaluate):
    column = {"size": [HEIGHT, WIDTH], "counts": [20 * HEIGHT, 40 * HEIGHT, 100 * HEIGHT]}
    packed = coco_mask.encode(np.asfortranarray(np.eye(HEIGHT, WIDTH, dtype=np.uint8)))
    packed = {"size": packed["size"], "counts": packed["counts"].decode()}
    halves = [[20, 20, 40, 20, 40, 60, 20, 60], [40, 20, 60, 20, 60, 60, 40, 60], [1, 1, 5, 5]]
    dataset = make_dataset(
        tmp_path,
        [
            truth(1, column, (20, 0, 40, HEIGHT)),
            truth(2, halves, image_id=2),
            truth(3, packed, (0, 0, HEIGHT, HEIGHT), category_id=3),
        ],
    )
    report = evaluate(
        dataset,
        [
            (0, 1, (20, 0, 59, HEIGHT - 1, 0.9), rectangle(20, 0, 60, HEIGHT)),
            (1, 1, (20, 20, 59, 59, 0.8), rectangle(20, 20, 60, 60)),
            (0, 2, (0, 0, 119, 119, 0.7), packed["counts"].encode()),
        ],
    )
    assert report.masks.ap == ONE
    # Without an `area` the masks' own sizes count: 120 px are small, whatever the box.
    assert report.masks.ap_small == ONE and math.isnan(report.ap_small)


def test_masks_in_crowd_regions_are_not_counted(tmp_path, evaluate):
    crowd = {"size": [HEIGHT, WIDTH], "counts": [80 * HEIGHT, 80 * HEIGHT]}
    dataset = make_dataset(
        tmp_path, [truth(1, [SQUARE]), truth(2, crowd, (80, 0, 80, HEIGHT), iscrowd=1)]
    )
    hit = (0, 1, (20, 20, 59, 59, 0.8), rectangle(20, 20, 60, 60))
    in_crowd = (0, 1, (90, 20, 129, 59, 0.9), rectangle(90, 20, 130, 60))
    beside = (0, 1, (90, 20, 129, 59, 0.9), rectangle(10, 80, 30, 110))
    assert evaluate(dataset, [hit, in_crowd]).masks.ap == ONE
    assert evaluate(dataset, [hit, beside]).masks.ap == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("annotations", "sentence"),
    [
        ([truth(1, []), truth(2, None)], "no object has a segmentation"),
        ([truth(1, [SQUARE]), truth(2, [])], "1 of 2 objects have no segmentation"),
    ],
)
def test_without_polygons_only_boxes_are_evaluated(
    tmp_path, annotations, sentence, caplog, evaluate
):
    dataset = make_dataset(tmp_path, annotations)
    found = [(0, 1, (20, 20, 59, 59, 0.9), rectangle(20, 20, 60, 60))]
    with caplog.at_level("INFO"):
        report = evaluate(dataset, found)
    sentence = f"masks on COCO_x are not evaluated: {sentence}"
    assert sentence in caplog.text and sentence in report.table()
    assert report.masks is None and report.ap > 0
    assert report.as_dict()["masks_not_evaluated"] == sentence
    plain = evaluate_coco(dataset, without_masks(table(dataset, [])))
    assert {"masks", "masks_not_evaluated"}.isdisjoint(plain.as_dict())


def test_table_and_json_show_both(tmp_path, evaluate):
    dataset = make_dataset(tmp_path, [truth(1, [SQUARE])])
    report = evaluate(dataset, [(0, 1, (20, 20, 59, 59, 0.9), rectangle(20, 20, 60, 44))])
    lines = report.table().splitlines()
    titles = [line for line in lines if "AP in percent" in line]
    assert titles == [f"COCO_x: 2 images, {kind} AP in percent" for kind in ("box", "mask")]
    numbers = [lines[lines.index(title) + 2].split()[0] for title in titles]
    assert numbers == ["100.0", "30.0"]
    path = tmp_path / "report.json"
    write_report(path, dataset, report)
    content = json.loads(path.read_text())
    assert (content["ap"], content["masks"]["ap"]) == (ONE, pytest.approx(0.3))
    assert content["masks"]["per_class"] == {"cat": pytest.approx(0.3), "dog": None}
    assert set(content) - set(content["masks"]) == {
        *("dataset", "num_images", "num_detections", "num_objects", "evaluator", "masks")
    }


@pytest.mark.parametrize(
    ("segmentation", "problem"),
    [
        ([[20, 20, 60, 20, 60]], "odd number"),
        ([[20, 20, 60, float("nan"), 60, 60]], "not finite"),
        ({"size": [10, 10], "counts": [100]}, "its mask is 10x10"),
        ({"size": [HEIGHT, WIDTH], "counts": [5, 5]}, "cover 10 px"),
        ({"size": [HEIGHT, WIDTH]}, "counts"),
        ("polygons", "broken"),
        ([[20, 20, "a", 20, 60, 60]], "broken"),
    ],
)
def test_broken_segmentations_are_explained(tmp_path, segmentation, problem, evaluate):
    dataset = make_dataset(tmp_path, [truth(5, segmentation)])
    with pytest.raises(DataError, match="segmentation of annotation 5 is broken") as caught:
        evaluate(dataset, [])
    assert problem in str(caught.value)


@pytest.mark.parametrize("image_set", ["val2017", "train2017"])
def test_perfect_masks_on_real_annotations(coco_mini, image_set, evaluate):
    dataset = load_coco(coco_mini, image_set, with_masks=True)
    found = []
    for index, record in enumerate(dataset.records):
        for box, klass, polygons in zip(record.boxes, record.classes, record.polygons):
            runs = coco_mask.frPyObjects(
                [p.astype(float).tolist() for p in polygons], record.height, record.width
            )
            found.append((index, int(klass), (*box, 0.9), coco_mask.merge(runs)["counts"]))
    report = evaluate(dataset, found)
    assert report.masks.ap == pytest.approx(1, abs=2e-3)
    for record in dataset.records:
        assert record.polygons is not None
    # Only the images of the set count.
    part = replace(dataset, records=dataset.records[:3])
    assert evaluate(part, [entry for entry in found if entry[0] < 3]).masks.num_images == 3
