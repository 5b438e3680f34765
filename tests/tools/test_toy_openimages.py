"""Generated sets as Open Images: the objects of the COCO files, groups, labels, dropping."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sniper.data import load_dataset
from sniper.errors import ConfigError
from sniper.tools.make_toy_data import main
from sniper.tools.toy.scene import SceneSettings
from sniper.tools.toy.settings import ToySettings
from sniper.tools.toy.writer import make_toy_data

SCENE = SceneSettings(classes=3, long_side_px=256, min_objects=4, max_objects=7, max_size_px=70)


def make(folder, **more):
    settings = ToySettings(train=24, val=3, test=0, test_dev=0, scene=SCENE, **more)
    make_toy_data(folder, settings, workers=1, progress=lambda text: None)
    return folder


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return make(tmp_path_factory.mktemp("open") / "toy", openimages=True)


def by_file(dataset):
    return {record.image_path.rpartition("/")[2]: record for record in dataset.records}


def test_objects_are_those_of_the_coco_files_but_for_groups(toy):
    plain = by_file(load_dataset("coco", toy, "train"))
    found = load_dataset("openimages", toy, "train")
    assert found.class_names[1:] == ("ring", "triangle", "star", "round-shape", "angular-shape")
    groups = 0
    for name, record in by_file(found).items():
        other = plain[name]
        assert (record.width, record.height) == (other.width, other.height)
        rows = {tuple(box) for box in other.boxes.round(2).tolist()}
        assert {tuple(box) for box in record.boxes.round(2).tolist()} <= rows
        groups += len(record.crowd_boxes)
        for box in record.crowd_boxes:
            inside = (other.boxes[:, :2] >= box[:2] - 0.01) & (other.boxes[:, 2:] <= box[2:] + 0.01)
            assert inside.all(axis=1).sum() >= 2
        missing = len(other.boxes) - len(record.boxes)
        assert missing >= 2 * len(record.crowd_boxes)
    assert groups == found.num_ignored > 0


def test_labels_and_hierarchy_tell_the_truth(toy):
    dataset = load_dataset("openimages", toy, "train")
    truth, coco = dataset.truth, by_file(load_dataset("coco", toy, "train"))
    above = {i: truth.tree.above[slice(*truth.tree.offsets[i : i + 2])].tolist() for i in range(5)}
    assert above == {0: [0, 3], 1: [1, 4], 2: [2, 4], 3: [3], 4: [4]}
    marks = truth.verified
    for image, label, present in zip(marks.images, marks.labels, marks.present):
        record = coco[dataset.records[image].image_path.rpartition("/")[2]]
        assert (label + 1 in record.classes) == present
    assert 0 < np.mean(~marks.present) < 0.8


def test_labels_are_dropped_from_training_alone(toy, tmp_path):
    folder = make(tmp_path / "less", openimages=True, drop_labels=0.5, drop_seed=3)
    for kind in ("coco", "openimages"):
        whole, less = (load_dataset(kind, root, "train") for root in (toy, folder))
        assert 0.35 < less.num_objects / whole.num_objects < 0.65
        assert all(len(a.boxes) + len(a.crowd_boxes) for a in less.records)
    same = [(root / "annotations" / "instances_val.json").read_bytes() for root in (toy, folder)]
    assert same[0] == same[1]
    pictures = [
        (root / "images" / "train" / "train_000001.jpg").read_bytes() for root in (toy, folder)
    ]
    assert pictures[0] == pictures[1]
    # What nobody annotated is still in the picture.
    marks, whole = less.truth.verified, by_file(load_dataset("coco", toy, "train"))
    for image, label, present in zip(marks.images, marks.labels, marks.present):
        record = whole[less.records[image].image_path.rpartition("/")[2]]
        assert (label + 1 in record.classes) == present
    again = make(tmp_path / "again", openimages=True, drop_labels=0.5, drop_seed=3)
    other = make(tmp_path / "other", openimages=True, drop_labels=0.5, drop_seed=4)
    texts = [
        (root / "annotations" / "train-annotations-bbox.csv").read_text()
        for root in (folder, again, other)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_sets_of_before_are_still_recognised(tmp_path):
    folder = make(tmp_path / "plain")
    stamp = json.loads((folder / "toy_data.json").read_text())
    assert not [key for key in stamp["settings"] if "drop" in key or key == "openimages"]
    assert not list((folder / "annotations").glob("*.csv"))


def test_shares_that_leave_nothing_are_refused(tmp_path, capsys):
    with pytest.raises(ConfigError, match="share of dropped labels"):
        ToySettings(drop_labels=1.0)
    assert main([str(tmp_path / "x"), "--drop-labels", "1.5"]) == 2
    assert "--drop-labels" in capsys.readouterr().err
