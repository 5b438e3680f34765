"""The evaluators against each other and against pycocotools as everybody calls it."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sniper.data.coco import load_coco
from sniper.data.dataset import Dataset
from sniper.data.detections import ImageDetections, table_of
from sniper.data.record import Record
from sniper.errors import ConfigError
from sniper.evaluation import (
    coco,
    coco_truth,
    evaluate_coco,
    evaluators,
    write_coco_results,
)
from sniper.evaluation.report import STATISTICS

SIZE = 300
CATEGORIES = (30, 2, 17, 5)


def random_case(tmp_path, seed, images=14):
    """A set with crowds, all sizes, polygons and run lengths, and detections near its objects."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(1, images + 1)).tolist()
    truth, found = [], []
    for image_id in ids:
        boxes = random_boxes(rng, int(rng.integers(0, 8)))
        # The last category has no objects.
        classes = rng.integers(1, len(CATEGORIES), len(boxes))
        for box, klass in zip(boxes, classes):
            truth.append(annotation(image_id, CATEGORIES[klass - 1], box, rng.random() < 0.15))
        found.append(random_detections(rng, boxes, classes, crowded=image_id == 1))
    path = tmp_path / "instances_x.json"
    names = [f"c{i}" for i in CATEGORIES]
    content = {
        "images": [{"id": i, "width": SIZE, "height": SIZE} for i in ids],
        "categories": [{"id": i, "name": name} for i, name in zip(CATEGORIES, names)],
        "annotations": [{**entry, "id": i} for i, entry in enumerate(truth, start=1)],
    }
    path.write_text(json.dumps(content))
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
    records = tuple(Record(f"{i}.jpg", i, SIZE, SIZE, False, *nothing) for i in ids)
    dataset = Dataset(
        *("COCO_x", "x", ("__background__", *names), (0, *CATEGORIES), records, str(path), True)
    )
    return dataset, table_of(found, with_masks=True)


def random_boxes(rng, count):
    """(count, 4) x y width height, small ones and large ones."""
    sides = np.exp(rng.uniform(np.log(6), np.log(180), (count, 2)))
    return np.hstack([rng.uniform(0, SIZE - sides), sides]).round(2)


def annotation(image_id, category_id, box, crowd):
    x, y, width, height = box.tolist()
    polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
    segmentation = coco_mask.merge(coco_mask.frPyObjects([polygon], SIZE, SIZE))
    runs = {"size": segmentation["size"], "counts": segmentation["counts"].decode()}
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [x, y, width, height],
        "area": 0.9 * width * height,
        "iscrowd": int(crowd),
        "segmentation": runs if crowd else [polygon],
    }


def random_detections(rng, boxes, classes, *, crowded):
    count = 130 if crowded else int(rng.integers(10, 30))
    own = random_boxes(rng, count)
    kinds = rng.integers(1, len(CATEGORIES) + 1, count)
    if crowded:
        kinds[:] = 1
    if len(boxes):
        near = rng.random(count) < 0.8
        chosen = rng.integers(0, len(boxes), count)
        own[near] = (boxes[chosen] * rng.normal(1, 0.03, (count, 4)))[near]
        kinds[near] = classes[chosen][near]
    order = np.argsort(kinds, kind="stable")
    own, kinds = own[order], kinds[order]
    corners = np.hstack([own[:, :2], own[:, :2] + own[:, 2:] - 1])
    # Few different scores: equal ones keep their order.
    scores = rng.integers(1, 12, (count, 1)) / 12
    masks = [encoded(box) for box in own]
    return ImageDetections(np.float32(np.hstack([corners, scores])), kinds.astype(np.int32), masks)


def encoded(box):
    return coco_mask.frPyObjects(np.ascontiguousarray(box[None]), SIZE, SIZE)[0]["counts"]


def plain_statistics(dataset, table, folder, kind):
    """The twelve numbers of pycocotools on the files."""
    path = folder / "plain_results.json"
    write_coco_results(path, dataset, table)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(dataset.annotation_path)
        results = json.loads(path.read_text())
        # A result of both kinds would have the area of its box, for masks as well.
        for result in results:
            result.pop("segmentation" if kind == "bbox" else "bbox", None)
        evaluator = COCOeval(truth, truth.loadRes(results), iouType=kind)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def numbers(report):
    values = np.array([getattr(report, name) for name in STATISTICS])
    return np.where(np.isnan(values), -1, values)


@pytest.mark.parametrize("seed", range(4))
def test_pycocotools_by_blocks_is_pycocotools(tmp_path, monkeypatch, seed):
    dataset, table = random_case(tmp_path, seed)
    limits = replace(evaluators.LIMITS["pycocotools"], detections=30)
    monkeypatch.setitem(evaluators.LIMITS, "pycocotools", limits)
    report = evaluate_coco(dataset, table, evaluator="pycocotools")
    for kind, ours in (("bbox", report), ("segm", report.masks)):
        plain = plain_statistics(dataset, table, tmp_path, kind)
        np.testing.assert_array_equal(numbers(ours), plain.stats)
        precision = plain.eval["precision"][:, :, :, 0, 2]
        by_id = {category: precision[:, :, k] for k, category in enumerate(sorted(CATEGORIES))}
        for name, category in zip(dataset.class_names[1:], CATEGORIES):
            ap, ap50 = by_id[category].mean(), by_id[category][0].mean()
            found = ours.classes[name]
            expected = (np.nan, np.nan) if ap < 0 else (ap, ap50)
            np.testing.assert_array_equal((found.ap, found.ap50), expected)
        np.testing.assert_allclose(
            ours.curves.mean[0], precision[0][:, precision[0, 0] > -1].mean(axis=1)
        )
    assert 0.05 < report.ap < 0.9 and 0.05 < report.masks.ap < 0.9


FAST = {"hotcoco": "hotcoco", "faster-coco-eval": "faster_coco_eval"}


@pytest.fixture(params=FAST)
def fast(request):
    """An evaluator that is to count as pycocotools does."""
    pytest.importorskip(FAST[request.param])
    return request.param


@pytest.mark.parametrize("seed", range(6))
def test_all_evaluators_give_the_same_numbers(tmp_path, fast, seed):
    dataset, table = random_case(tmp_path, seed)
    if seed == 5:
        table = table_of([empty() for _ in dataset.records], with_masks=True)
    slow, other = (evaluate_coco(dataset, table, evaluator=one) for one in ("pycocotools", fast))
    assert (slow.evaluator.split()[0], other.evaluator.split()[0]) == ("pycocotools", fast)
    assert_same(slow, other)
    assert_same(slow.masks, other.masks)


def assert_same(slow, fast):
    """Numbers, curves and classes; faster-coco-eval lacks an epsilon in precisions."""
    np.testing.assert_allclose(numbers(slow), numbers(fast), rtol=0, atol=1e-12)
    np.testing.assert_allclose(slow.curves.precision, fast.curves.precision, rtol=0, atol=1e-12)
    assert slow.num_objects == fast.num_objects and list(slow.classes) == list(fast.classes)
    for name, own in slow.classes.items():
        other = fast.classes[name]
        np.testing.assert_allclose(
            [own.ap, own.ap50, own.ar, own.objects],
            [other.ap, other.ap50, other.ar, other.objects],
            rtol=0,
            atol=1e-12,
        )


@pytest.mark.parametrize("seed", range(2))
def test_hotcoco_by_blocks_counts_the_same(tmp_path, monkeypatch, seed):
    pytest.importorskip("hotcoco")
    dataset, table = random_case(tmp_path, seed)
    whole = evaluate_coco(dataset, table, evaluator="hotcoco")
    few = evaluators.BlockLimits(detections=1000, cells=1000, categories=1)
    monkeypatch.setitem(evaluators.LIMITS, "hotcoco", few)
    parts = evaluate_coco(dataset, table, evaluator="hotcoco")
    for a, b in ((whole, parts), (whole.masks, parts.masks)):
        np.testing.assert_array_equal(numbers(a), numbers(b))
        np.testing.assert_array_equal(a.curves.precision, b.curves.precision)


@pytest.mark.parametrize(
    "change", [{}, {"area": None}, {"ignore": 1}, {"id": "x"}, {"iscrowd": "0"}]
)
def test_objects_by_columns_are_those_of_the_entries(tmp_path, change):
    """The short way through an annotation file, where it is plain, and the long one."""
    dataset, _ = random_case(tmp_path, 2)
    path = tmp_path / "instances_x.json"
    content = json.loads(path.read_text())
    content["annotations"][3].update(change)
    path.write_text(json.dumps(content))
    dataset = replace(dataset, records=dataset.records[2:], category_ids=(0, 30, 2, 17, 99))
    short = coco_truth.plain_truth(dataset)
    long = coco_truth.truth_of(dataset, coco_truth.annotations_of(dataset, with_masks=False))
    assert (short is None) == ("id" in change)
    if short is not None:
        for name, values in vars(short).items():
            np.testing.assert_array_equal(values, getattr(long, name))
        assert 0 < len(short.images) < len(content["annotations"]) and short.crowd.any()


def test_a_set_of_crowds_alone_has_no_numbers(tmp_path, fast):
    dataset, table = random_case(tmp_path, 3)
    path = tmp_path / "instances_x.json"
    content = json.loads(path.read_text())
    for entry in content["annotations"]:
        entry["iscrowd"] = 1
    path.write_text(json.dumps(content))
    report = evaluate_coco(dataset, table, evaluator=fast)
    assert np.isnan([getattr(report, name) for name in STATISTICS]).all()
    assert sum(report.num_objects.values()) == 0


def test_long_ids_areas_without_boxes_and_texts_count_the_same(tmp_path, fast):
    """Ids of 63 bits, image 0, areas that differ from the boxes, numbers that are texts."""
    dataset, table = random_case(tmp_path, 4)
    path = tmp_path / "instances_x.json"
    content = json.loads(path.read_text())
    longest = {record.image_id: 2**63 - 1 - record.image_id for record in dataset.records}
    longest[dataset.records[0].image_id] = 0
    for entry in content["images"]:
        entry["id"] = longest[entry["id"]]
    for number, entry in enumerate(content["annotations"]):
        entry["image_id"] = longest[entry["image_id"]]
        if number % 3 == 0:
            entry.update(area=20.0 + 50 * number, bbox=list(map(str, entry["bbox"])))
        elif number % 3 == 1:
            del entry["area"]
    path.write_text(json.dumps(content))
    records = tuple(replace(one, image_id=longest[one.image_id]) for one in dataset.records)
    dataset = replace(dataset, records=records)
    slow, other = (evaluate_coco(dataset, table, evaluator=one) for one in ("pycocotools", fast))
    assert_same(slow, other)
    assert_same(slow.masks, other.masks)
    assert slow.ap > 0.05


def empty():
    return ImageDetections(np.zeros((0, 5), np.float32), np.zeros(0, np.int32), [])


def test_all_evaluators_on_real_annotations(coco_mini, fast):
    dataset = load_coco(coco_mini, "val2017")
    dataset = replace(dataset, records=dataset.records[::-1])
    rng = np.random.default_rng(2)
    images = []
    for record in dataset.records:
        boxes = np.repeat(record.gt_boxes, 3, axis=0)
        boxes += rng.normal(0, 0.08, boxes.shape) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        scores = rng.random((len(boxes), 1))
        classes = np.repeat(record.gt_classes, 3)
        order = np.argsort(classes, kind="stable")
        rows = np.float32(np.hstack([boxes, scores]))[order]
        images.append(ImageDetections(rows, classes[order]))
    slow, other = (
        evaluate_coco(dataset, table_of(images), evaluator=name) for name in ("pycocotools", fast)
    )
    assert 0.2 < slow.ap < 0.99
    assert_same(slow, other)


def test_objects_are_counted_without_crowds(tmp_path):
    dataset, table = random_case(tmp_path, 1)
    truth = json.loads((tmp_path / "instances_x.json").read_text())["annotations"]
    real = [entry for entry in truth if not entry["iscrowd"]]
    report = evaluate_coco(dataset, table, evaluator="pycocotools")
    assert len(real) < len(truth)
    assert report.num_objects == {
        "all": len(real),
        "small": sum(entry["area"] <= 32**2 for entry in real),
        "medium": sum(32**2 <= entry["area"] <= 96**2 for entry in real),
        "large": sum(entry["area"] >= 96**2 for entry in real),
    }
    assert [own.objects for own in report.classes.values()] == [
        sum(entry["category_id"] == i for entry in real) for i in CATEGORIES
    ]
    assert report.num_detections == table.num_detections


def test_auto_takes_the_fastest_that_is_there(monkeypatch, tmp_path, caplog):
    for module in FAST.values():
        pytest.importorskip(module)
    dataset, table = random_case(tmp_path, 0)
    with caplog.at_level("INFO"):
        report = evaluate_coco(dataset, table)
    assert report.evaluator.startswith("hotcoco ")
    assert f"evaluation by {report.evaluator}" in caplog.text
    assert report.evaluator in report.table()
    assert report.as_dict()["evaluator"] == report.evaluator
    hide(monkeypatch, "hotcoco")
    assert evaluate_coco(dataset, table).evaluator.startswith("faster-coco-eval ")
    hide(monkeypatch, *FAST.values())
    assert evaluate_coco(dataset, table).evaluator.startswith("pycocotools ")
    for name in FAST:
        with pytest.raises(ConfigError, match=f"pip install {name}"):
            evaluate_coco(dataset, table, evaluator=name)


def hide(monkeypatch, *modules):
    real = importlib.import_module

    def import_module(name):
        if name in modules:
            raise ImportError(f"No module named {name!r}")
        return real(name)

    monkeypatch.setattr(evaluators.importlib, "import_module", import_module)


def test_unknown_evaluators_are_refused(tmp_path):
    dataset, table = random_case(tmp_path, 0)
    with pytest.raises(ConfigError, match="unknown evaluator"):
        evaluate_coco(dataset, table, evaluator="slow")


def test_work_grows_with_detections_not_with_classes_times_images(tmp_path, monkeypatch):
    """Evaluators look at every image of every class that they are given, empty or not."""
    rng = np.random.default_rng(7)
    classes, images = 400, 50
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
    records = tuple(Record(f"{i}.jpg", i, SIZE, SIZE, False, *nothing) for i in range(images))
    truth, found = [], []
    for image in range(images):
        boxes = random_boxes(rng, 6)
        # Half of the classes have objects, the others only detections.
        kinds = np.sort(rng.integers(1, classes // 2 + 1, 6))
        truth += [annotation(image, int(kind), box, False) for box, kind in zip(boxes, kinds)]
        wrong = np.sort(rng.integers(1, classes + 1, 6))
        corners = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:] - 1])
        rows = np.float32(np.hstack([np.tile(corners, (2, 1)), rng.random((12, 1))]))
        order = np.argsort([*kinds, *wrong], kind="stable")
        found.append(ImageDetections(rows[order], np.int32([*kinds, *wrong])[order]))
    path = tmp_path / "instances_x.json"
    entries = [{**entry, "id": i} for i, entry in enumerate(truth, 1)]
    names = [f"c{i}" for i in range(1, classes + 1)]
    path.write_text(
        json.dumps(
            {
                "annotations": entries,
                "images": [{"id": i, "width": SIZE, "height": SIZE} for i in range(images)],
                "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
            }
        )
    )
    names = ("__background__", *names)
    dataset = Dataset("COCO_x", "x", names, tuple(range(classes + 1)), records, str(path), True)
    table, cells = table_of(found), []
    real = coco.accumulate

    def counted(truth, detections, images, categories, name):
        cells.append(images * categories)
        return real(truth, detections, images, categories, name)

    monkeypatch.setattr(coco, "accumulate", counted)
    report = evaluate_coco(dataset, table, evaluator="pycocotools")
    assert sum(cells) <= 1.5 * (len(truth) + table.num_detections) < 0.1 * classes * images
    plain = plain_statistics(dataset, table, tmp_path, "bbox")
    np.testing.assert_array_equal(numbers(report), plain.stats)
    assert report.ap > 0.3
