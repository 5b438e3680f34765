from __future__ import annotations

import json
import math

import numpy as np
import pytest

from sniper.data.coco import load_coco
from sniper.data.dataset import Dataset
from sniper.data.detections import ImageDetections, table_of
from sniper.data.record import Record
from sniper.errors import DataError
from sniper.evaluation import evaluate_coco

# pycocotools adds an epsilon to the denominator of a precision.
ONE = pytest.approx(1, abs=1e-12)
ONES = pytest.approx([1] * 4, abs=1e-12)


def make_dataset(
    tmp_path, annotations, *, categories=((1, "cat"),), image_ids=(1,), size=(400, 300), **changes
):
    """A data set of blank records; only ids, classes and the annotation file matter here."""
    path = tmp_path / "instances_x.json"
    content = {
        "images": [{"id": i, "width": size[0], "height": size[1]} for i in image_ids],
        "categories": [{"id": i, "name": name} for i, name in categories],
        "annotations": annotations,
    }
    path.write_text(json.dumps(content))
    records = tuple(
        Record(
            image_path=f"{i}.jpg",
            image_id=i,
            width=size[0],
            height=size[1],
            flipped=False,
            boxes=np.zeros((0, 4), np.float32),
            classes=np.zeros(0, np.int32),
            is_gt=np.zeros(0, np.bool_),
        )
        for i in image_ids
    )
    fields = {
        "name": "COCO_x",
        "image_set": "x",
        "class_names": ("__background__", *(name for _, name in categories)),
        "category_ids": (0, *(i for i, _ in categories)),
        "records": records,
        "annotation_path": str(path),
        "has_annotations": True,
    }
    return Dataset(**{**fields, **changes})


def truth(number, bbox, image_id=1, category_id=1, **more):
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": bbox,
        "area": bbox[2] * bbox[3],
        "iscrowd": 0,
        **more,
    }


def detections(dataset, rows):
    """[(image position, class index, x1, y1, x2, y2, score)] -> table"""
    images = []
    for index in range(len(dataset.records)):
        own = sorted((row for row in rows if row[0] == index), key=lambda row: row[1])
        numbers = np.float32([row[2:] for row in own]).reshape(-1, 5)
        images.append(ImageDetections(numbers, np.int32([row[1] for row in own])))
    return table_of(images)


@pytest.fixture(params=["pycocotools", "faster-coco-eval"])
def evaluate(request):
    if request.param == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")

    def function(dataset, rows):
        return evaluate_coco(dataset, detections(dataset, rows), evaluator=request.param)

    return function


def test_detections_of_another_shape_are_refused(tmp_path):
    dataset = make_dataset(tmp_path, [], image_ids=(1, 2))
    one = make_dataset(tmp_path, [], image_ids=(1,))
    with pytest.raises(DataError, match="detections for 1 images"):
        evaluate_coco(dataset, detections(one, []))
    with pytest.raises(DataError, match="a class 2"):
        evaluate_coco(dataset, detections(dataset, [(0, 1, 0, 0, 9, 9, 1), (1, 2, 0, 0, 9, 9, 1)]))


def test_a_detection_that_is_not_finite_is_refused(tmp_path):
    dataset = make_dataset(tmp_path, [], image_ids=(7, 9))
    rows = [(0, 1, 0, 0, 9, 9, 0.5), (1, 1, 0, np.nan, 9, 9, 0.5)]
    with pytest.raises(DataError, match="of image 9"):
        evaluate_coco(dataset, detections(dataset, rows))


@pytest.mark.parametrize("image_set", ["train2017", "val2017"])
def test_perfect_detections_on_real_annotations(coco_mini, image_set, capsys, evaluate):
    dataset = load_coco(coco_mini, image_set)
    rows = [
        (i, int(c), *map(float, box), 0.9)
        for i, record in enumerate(dataset.records)
        for box, c in zip(record.boxes, record.classes)
    ]
    report = evaluate(dataset, rows)
    assert [report.ap, report.ap50, report.ap_small, report.ap_large] == ONES
    present = {dataset.class_names[c] for record in dataset.records for c in record.classes}
    assert {name for name, ap in report.per_class.items() if ap == ONE} == present
    assert all(math.isnan(ap) for name, ap in report.per_class.items() if name not in present)
    assert capsys.readouterr().out == ""


def test_ap_by_hand(tmp_path, evaluate):
    # Sorted by score: hit, miss, hit. Precision is 1 up to recall 0.5 and 2/3 up to recall 1.
    dataset = make_dataset(tmp_path, [truth(1, [10, 10, 50, 40]), truth(2, [200, 100, 100, 120])])
    report = evaluate(
        dataset,
        [
            (0, 1, 10, 10, 59, 49, 0.9),
            (0, 1, 300, 10, 340, 40, 0.8),
            (0, 1, 200, 100, 299, 219, 0.7),
        ],
    )
    assert report.ap == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert report.ap50 == report.ap75 == pytest.approx(report.ap)
    assert (report.ar_1, report.ar_10, report.ar_100) == (0.5, 1, 1)
    assert math.isnan(report.ap_small)
    assert report.ar_medium == report.ar_large == 1


def test_a_box_of_iou_0_6_counts_at_three_of_ten_thresholds(tmp_path, evaluate):
    dataset = make_dataset(tmp_path, [truth(1, [0, 0, 100, 100])])
    report = evaluate(dataset, [(0, 1, 0, 0, 99, 59, 0.9)])
    assert (report.ap50, report.ap75) == (ONE, 0)
    assert report.ap == pytest.approx(0.3)


def test_classes_are_matched_by_category_id_not_by_position(tmp_path, evaluate):
    dataset = make_dataset(
        tmp_path,
        [truth(1, [0, 0, 50, 50], category_id=900), truth(2, [0, 0, 50, 50], category_id=4)],
        categories=((900, "kite"), (33, "bee"), (4, "ant")),
    )
    report = evaluate(dataset, [(0, 1, 0, 0, 49, 49, 0.9), (0, 2, 0, 0, 49, 49, 0.9)])
    assert list(report.per_class) == ["kite", "bee", "ant"]
    assert report.per_class["kite"] == ONE and report.per_class["ant"] == 0
    assert math.isnan(report.per_class["bee"])
    assert report.ap == pytest.approx(0.5)


def test_annotation_ids_do_not_matter(tmp_path, evaluate):
    # pycocotools takes a match with annotation 0 for no match, and mixes up equal ids.
    same_id = [truth(0, [0, 0, 50, 50]), truth(0, [100, 100, 50, 50])]
    del same_id[1]["id"]
    dataset = make_dataset(tmp_path, same_id)
    report = evaluate(dataset, [(0, 1, 0, 0, 49, 49, 0.9), (0, 1, 100, 100, 149, 149, 0.8)])
    assert report.ap == ONE


def test_missing_area_iscrowd_and_info_are_filled_in(tmp_path, evaluate):
    dataset = make_dataset(
        tmp_path, [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 30]}]
    )
    report = evaluate(dataset, [(0, 1, 0, 0, 19, 29, 0.9)])
    assert report.ap == report.ap_small == ONE
    assert math.isnan(report.ap_medium)


def test_detections_in_crowd_regions_are_not_counted(tmp_path, evaluate):
    crowd = truth(2, [200, 0, 100, 100], iscrowd=1)
    hit, in_crowd = (0, 1, 0, 0, 49, 49, 0.8), (0, 1, 210, 10, 260, 60, 0.9)
    with_crowd = make_dataset(tmp_path, [truth(1, [0, 0, 50, 50]), crowd])
    assert evaluate(with_crowd, [hit, in_crowd]).ap == ONE
    without = make_dataset(tmp_path, [truth(1, [0, 0, 50, 50])])
    assert evaluate(without, [hit, in_crowd]).ap == pytest.approx(0.5)


def test_only_the_images_of_the_data_set_count(tmp_path, evaluate):
    annotations = [truth(1, [0, 0, 50, 50]), truth(2, [0, 0, 50, 50], image_id=2)]
    whole = make_dataset(tmp_path, annotations, image_ids=(1, 2))
    part = make_dataset(tmp_path, annotations, image_ids=(1, 2), records=whole.records[:1])
    hit = (0, 1, 0, 0, 49, 49, 0.9)
    assert evaluate(whole, [hit]).ar_100 == 0.5
    report = evaluate(part, [hit])
    assert (report.ar_100, report.num_images) == (1, 1)


def test_no_detections_give_zeros(tmp_path, evaluate):
    dataset = make_dataset(tmp_path, [truth(1, [0, 0, 50, 50])])
    report = evaluate(dataset, [])
    assert (report.ap, report.ap50, report.ar_100, report.per_class["cat"]) == (0, 0, 0, 0)


def test_sets_without_annotations_are_not_evaluated_and_say_why(tmp_path, caplog):
    dataset = make_dataset(tmp_path, None, has_annotations=False)
    with caplog.at_level("INFO"):
        assert evaluate_coco(dataset, detections(dataset, [])) is None
    assert f"COCO_x is not evaluated: {dataset.annotation_path} has no annotations" in caplog.text


def test_a_set_called_test_is_evaluated(tmp_path, evaluate):
    dataset = make_dataset(tmp_path, [truth(1, [0, 0, 50, 50])], name="COCO_mytest")
    assert evaluate(dataset, [(0, 1, 0, 0, 49, 49, 0.9)]).ap == ONE
