"""Training and testing on a set in the layout of Pascal VOC, and testing on a plain folder."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copy

import pytest

from sniper.config import load_config
from sniper.data import load_dataset
from sniper.runs.datasets import open_dataset
from sniper.runs.resolve import data_source
from sniper.tools.test import main as run_test
from sniper.tools.train import main as train_main


@pytest.fixture(scope="module")
def voc_cfg(tiny) -> Path:
    """The tiny set once more, as `VOCtiny`, and a recipe for it."""
    folder = tiny.root / "devkit" / "VOCtiny"
    for name in ("ImageSets/Main", "JPEGImages", "Annotations"):
        (folder / name).mkdir(parents=True)
    for subset in ("train", "val"):
        dataset = load_dataset("coco", tiny.root / "toy", subset)
        stems = []
        for record in dataset.records:
            path = Path(record.image_path)
            copy(path, folder / "JPEGImages" / path.name)
            stems.append(path.stem)
            objects = "".join(
                f"<object><name>{dataset.class_names[c]}</name><bndbox><xmin>{x1 + 1}</xmin>"
                f"<ymin>{y1 + 1}</ymin><xmax>{x2 + 1}</xmax><ymax>{y2 + 1}</ymax></bndbox></object>"
                for (x1, y1, x2, y2), c in zip(record.boxes.tolist(), record.classes.tolist())
            )
            size = f"<size><width>{record.width}</width><height>{record.height}</height></size>"
            (folder / "Annotations" / f"{path.stem}.xml").write_text(
                f"<annotation>{size}{objects}</annotation>"
            )
        (folder / "ImageSets" / "Main" / f"{subset}.txt").write_text("\n".join(stems))
        (folder / "classes.txt").write_text("\n".join(dataset.class_names[1:]))
    cfg = tiny.root / "tiny_voc.yml"
    cfg.write_text(
        f"_BASE_: tiny.yml\noutput_path: {tiny.root}/voc_output\n"
        f"dataset: {{dataset: PascalVOC, dataset_path: {tiny.root}/devkit,\n"
        "  image_set: tiny_train, test_image_set: tiny_val}\nTRAIN: {end_epoch: 1}\n"
        "TEST: {TEST_EPOCH: 1}\n"
    )
    return cfg


def test_pascal_voc_trains_and_tests(voc_cfg, tiny):
    ours = open_dataset(data_source(load_config(voc_cfg, [])), "tiny_train")
    coco = load_dataset("coco", tiny.root / "toy", "train")
    assert [r.boxes.tolist() for r in ours.records] == [r.boxes.tolist() for r in coco.records]
    assert train_main(["--cfg", str(voc_cfg)]) == 0
    assert run_test(["--cfg", str(voc_cfg)]) == 0
    results = tiny.root / "voc_output" / "results"
    report = json.loads((results / "detections_tiny_val_report.json").read_text())
    assert report["metric"] == "area" and set(report["per_class"]) == set(ours.class_names[1:])
    assert "NaN" not in json.dumps(report)
    files = list((results / "VOCtiny" / "Main").glob("comp4_det_val_*.txt"))
    assert len(files) == 3 and any(path.read_text() for path in files)


def test_a_folder_of_images_is_tested(tiny, trained):
    folder = tiny.root / "holiday" / "deep"
    folder.mkdir(parents=True)
    for record in load_dataset("coco", tiny.root / "toy", "val").records:
        copy(record.image_path, folder)
    overrides = ("dataset.dataset", "folder", "dataset.dataset_path", str(tiny.root))
    overrides += ("dataset.test_image_set", "holiday")
    assert run_test(["--cfg", str(tiny.cfg), "--set", *overrides]) == 0
    results = tiny.root / "output" / "results"
    report = json.loads((results / "detections_holiday_report.json").read_text())
    assert "has no annotations" in report["not_evaluated"]
    images = json.loads((results / "detections_holiday_images.json").read_text())
    detections = json.loads((results / "detections_holiday_results.json").read_text())
    assert {d["image_id"] for d in detections} <= {image["id"] for image in images["images"]}
    assert [Path(image["file_name"]).parent.name for image in images["images"]] == ["deep"] * 3
    names = [category["name"] for category in images["categories"]]
    assert names == json.loads((trained / "classes.json").read_text())[1:]
