"""A model and sets whose classes have other places, other ids, or are only some of the model's."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from sniper.config import load_config
from sniper.data.class_names import write_classes
from sniper.data.classes import Classes
from sniper.errors import DataError
from sniper.runs.compare_models import compare
from sniper.runs.export import export_model
from sniper.runs.int8 import calibration_records
from sniper.runs.load_model import load_archive_model, load_model
from sniper.runs.plan import test_plan
from sniper.runs.predictor import Predictor
from sniper.runs.resolve import training_data
from sniper.runs.test import test as run_test
from sniper.runs.validation import Validation, ValidationPlan
from tests.runs.random_run import NAMES, random_run

IDS = [3, 90, 7, 12, 55, 4, 8, 61, 77, 20]


def write_set(root, name, pairs):
    """pairs: (id, name) of the categories; every class has an object"""
    folder = root / "data" / "images" / "shared"
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for number in (1, 2):
        path = folder / f"{number}.png"
        if not path.exists():
            pixels = np.random.default_rng(number).integers(0, 256, (64, 96, 3), np.uint8)
            cv2.imencode(".png", cv2.resize(pixels, (96, 64)))[1].tofile(path)
        images.append({"id": number, "file_name": path.name, "width": 96, "height": 64})
    objects = [
        {"id": place, "image_id": 1, "category_id": identity, "bbox": [5 * place, 5, 20, 20]}
        for place, (identity, _) in enumerate(pairs, start=1)
    ]
    content = {"images": images, "annotations": [{**o, "area": 400, "iscrowd": 0} for o in objects]}
    content["categories"] = [{"id": identity, "name": text} for identity, text in pairs]
    (folder.parent / name).symlink_to(folder)
    path = root / "data" / "annotations" / f"instances_{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    run = random_run(root)
    pairs = list(zip(IDS, NAMES[1:]))
    write_set(root, "plain", pairs)
    write_set(root, "turned", [(index, name) for index, (_, name) in enumerate(pairs[::-1], 1)])
    write_set(root, "few", [(1, NAMES[9]), (2, NAMES[2])])
    write_set(root, "foreign", [(1, NAMES[9]), (2, "another thing")])
    run.root = root
    return run


def config(world, name, *more):
    keys = ["dataset.test_image_set", name, "dataset.root_path", str(world.root)]
    keys += ["dataset.dataset_path", str(world.root / "data"), "TEST.MODE", "single"]
    return load_config(world.recipe, [*keys, "output_path", str(world.root / name), *more])


def results(world, name):
    """{(image, class name, box, score)} of main_test.py, and the set's names by id."""
    report = run_test(config(world, name), weights=world.weights)
    rows = json.loads(
        (world.root / name / "results" / f"detections_{name}_results.json").read_text()
    )
    content = json.loads(
        (world.root / "data" / "annotations" / f"instances_{name}.json").read_text()
    )
    names = {c["id"]: c["name"] for c in content["categories"]}
    found = {(r["image_id"], names[r["category_id"]], *r["bbox"], r["score"]) for r in rows}
    return report, found, set(names.values())


def test_order_ids_and_number_of_the_classes_do_not_matter(world):
    plain, detections, _ = results(world, "plain")
    assert len({name for _, name, *_ in detections}) > 3
    turned, same_detections, _ = results(world, "turned")
    assert same_detections == detections
    assert turned.per_class == plain.per_class and turned.ap50 == plain.ap50
    few, some, names = results(world, "few")
    assert some == {row for row in detections if row[1] in names} and some
    assert few.per_class == {name: plain.per_class[name] for name in few.per_class}
    assert set(few.per_class) == names
    report = json.loads((world.root / "few" / "results" / "detections_few_report.json").read_text())
    left_out = report["left_out_of_other_classes"]
    assert sum(left_out.values()) == len(detections) - len(some)
    with pytest.raises(DataError, match="classes that the model does not have"):
        results(world, "foreign")


def test_validation_calibration_and_comparison_match_by_name(world, tmp_path):
    model = load_model(test_plan(world.cfg).detector, world.weights)
    for name in ("turned", "few", "foreign"):
        cfg = config(world, name, "dataset.image_set", name)
        plan = test_plan(cfg)
        calls = [
            lambda plan=plan: Validation(ValidationPlan(plan, 1), tmp_path, model.classes),
            lambda cfg=cfg: calibration_records(training_data(cfg), 1, model.classes),
            lambda plan=plan: compare(plan, {"fp32": model, "INT8": model}, 2),
        ]
        for call in calls:
            if name == "foreign":
                with pytest.raises(DataError, match="another thing"):
                    call()
            else:
                call()
    with pytest.raises(DataError):
        Validation(ValidationPlan(plan, 1), tmp_path, Classes(tuple(NAMES[:3])))


def category_ids(predictor, world):
    (prediction,) = predictor(world.root / "data" / "images" / "shared" / "1.png")
    objects = prediction.as_dict()["detections"]
    assert objects
    for found in objects:
        assert found["category"] == NAMES[found["class_index"]]
    return {found["category"]: found["category_id"] for found in objects}


def test_all_results_have_the_ids_of_the_annotations(world, tmp_path):
    ids = dict(zip(NAMES[1:], IDS))
    # A model of an older version: the sets of the recipe know the ids.
    cfg = config(world, "plain")
    found = category_ids(Predictor(cfg, world.weights), world)
    assert found == {name: ids[name] for name in found}
    export_model(test_plan(cfg), world.weights, tmp_path / "model.zip")
    _, model = load_archive_model(tmp_path / "model.zip")
    assert model.category_ids == (0, *IDS)
    # No set has all names: the index takes the place of the id.
    found = category_ids(Predictor(config(world, "few"), world.weights), world)
    assert found == {name: NAMES.index(name) for name in found}
    try:
        # Of this version: the ids stand beside the weights, whatever the sets say.
        write_classes(world.weights.parent, Classes(tuple(NAMES), (0, *range(101, 111))))
        predictor = Predictor(config(world, "plain"), world.weights)
        assert predictor.category_ids == (0, *range(101, 111))
        found = category_ids(predictor, world)
        assert found == {name: 100 + NAMES.index(name) for name in found}
        # A folder of images has no ids of its own.
        cfg = config(world, "shared", "dataset.dataset", "folder")
        run_test(cfg, weights=world.weights)
        path = world.root / "shared" / "results" / "detections_shared_results.json"
        assert {row["category_id"] for row in json.loads(path.read_text())} <= set(range(101, 111))
    finally:
        (world.weights.parent / "categories.json").unlink()


@pytest.mark.parametrize("names", [NAMES[:4], [*NAMES, "more"], ["ant", *NAMES[1:]]])
def test_names_that_do_not_fit_the_network_are_refused_at_load(world, names, tmp_path):
    cfg = config(world, "plain")
    (tmp_path / "classes.json").write_text(json.dumps(names))
    weights = tmp_path / world.weights.name
    weights.write_bytes(world.weights.read_bytes())
    for use in (
        lambda: load_model(test_plan(cfg).detector, weights),
        lambda: run_test(cfg, weights=weights),
        lambda: Predictor(cfg, weights),
        lambda: export_model(test_plan(cfg), weights, tmp_path / "a.zip"),
    ):
        with pytest.raises(DataError, match="class names are not those of the network"):
            use()
