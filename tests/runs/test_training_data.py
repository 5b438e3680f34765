"""From a configuration to training records: joined sets, proposals, sets without classes."""

from __future__ import annotations

import json
import logging

import cv2
import numpy as np
import pytest

from sniper.config import load_config
from sniper.data import ProposalSet, save_proposals
from sniper.data.classes import Classes
from sniper.data.proposals import load_proposals
from sniper.errors import ConfigError, DataError
from sniper.runs import datasets
from sniper.runs.datasets import proposal_file
from sniper.runs.folders import model_folder
from sniper.runs.resolve import data_source, training_data, training_sets
from sniper.runs.train import train
from sniper.tools.convert_proposals import main as convert
from sniper.training.run_state import RunState

CATEGORIES = [{"id": 3, "name": "ant"}, {"id": 9, "name": "bee"}]


def open_dataset(cfg, image_set):
    return datasets.open_dataset(data_source(cfg), image_set)


def training_records(cfg):
    return datasets.training_records(training_data(cfg))


class Project:
    """Small COCO sets on disk and a recipe for them."""

    def __init__(self, root):
        self.root = root
        self.cfg_path = root / "own.yml"
        self.cfg_path.write_text(
            "_BASE_: sniper_mobilenetv2_toy\n"
            f"output_path: {root}/output\nproposal_path: {root}/proposals\n"
            f"dataset: {{root_path: {root}, dataset_path: {root}/data, NUM_CLASSES: 3,\n"
            "  image_set: a, test_image_set: a}\n"
            "TRAIN: {USE_NEG_CHIPS: false, FLIP: false}\n"
        )

    def add(self, name, first_id, boxes, categories=CATEGORIES, **more):
        """boxes: one list of (category, x, y, w, h) per image"""
        folder = self.root / "data" / "images" / name
        folder.mkdir(parents=True, exist_ok=True)
        content = {"images": [], "annotations": [], "categories": categories}
        for i, rows in enumerate(boxes):
            image_id = first_id + i
            path = folder / f"{name}_{i}.png"
            if not path.exists():
                cv2.imencode(".png", np.zeros((60, 80, 3), np.uint8))[1].tofile(path)
            content["images"].append(
                {"id": image_id, "file_name": path.name, "width": 80, "height": 60}
            )
            for category, *bbox in rows:
                number = len(content["annotations"]) + 1
                content["annotations"].append(
                    {
                        "id": number,
                        "image_id": image_id,
                        "category_id": category,
                        "bbox": bbox,
                        **more,
                    }
                )
        path = self.root / "data" / "annotations" / f"instances_{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))

    def cfg(self, *overrides):
        return load_config(self.cfg_path, list(overrides))

    def proposals(self, name, rows):
        """rows: {image id: (n, 5)}"""
        arrays = [np.asarray(r, np.float32).reshape(-1, 5) for r in rows.values()]
        table = np.concatenate(arrays)
        offsets = np.cumsum([0, *map(len, arrays)]).astype(np.int64)
        ids = np.array(list(rows), np.int64)
        save_proposals(
            proposal_file(self.root / "proposals", f"COCO_{name}"),
            ProposalSet(f"COCO_{name}", ids, offsets, table[:, :4], table[:, 4]),
        )


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path)
    project.add("a", 1, [[(3, 1, 1, 20, 20), (9, 5, 5, 30, 30)], [(9, 2, 2, 9, 9)], []])
    project.add("b", 11, [[(3, 1, 1, 20, 20)], []])
    return project


def test_joined_sets_in_order_with_flips(project):
    cfg = project.cfg("dataset.image_set", "a+b", "TRAIN.FLIP", "True")
    records, class_names = training_records(cfg)
    assert class_names == ("__background__", "ant", "bee")
    assert [(r.image_id, r.flipped) for r in records] == [
        (1, False), (2, False), (1, True), (2, True), (11, False), (11, True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"),
    [("a+a", "'a' twice"), ("a++b", "a set without a name"), ("a+", "a set without a name")],
)
def test_bad_joins_are_refused(project, text, problem):
    with pytest.raises(ConfigError, match=problem):
        training_sets(project.cfg("dataset.image_set", text))


def test_joined_sets_are_joined_by_name(project, caplog):
    project.add("b", 11, [[(9, 1, 1, 9, 9), (3, 2, 2, 9, 9)]], CATEGORIES[::-1])
    records, names = training_records(project.cfg("dataset.image_set", "a+b"))
    assert names[1:] == ("ant", "bee") and records[-1].classes.tolist() == [2, 1]
    assert "unlike other sets" not in caplog.text


def test_joined_sets_may_lack_classes(project, caplog):
    few, more = [{"id": 4, "name": "bee"}], [{"id": 1, "name": "cow"}, {"id": 2, "name": "ant"}]
    project.add("b", 11, [[(4, 1, 1, 9, 9)]], few)
    project.add("c", 21, [[(1, 1, 1, 9, 9), (2, 2, 2, 9, 9)]], more)
    cfg = project.cfg("dataset.image_set", "a+b+c", "dataset.NUM_CLASSES", "4")
    records, names = training_records(cfg)
    assert names[1:] == ("ant", "bee", "cow")
    assert [record.classes.tolist() for record in records] == [[1, 2], [2], [2], [3, 1]]
    assert "COCO_b has no class ant, cow, unlike other sets" in caplog.text
    # The number to set is that of all sets together.
    with pytest.raises(ConfigError, match="NUM_CLASSES does not fit") as error:
        training_records(project.cfg("dataset.image_set", "a+b+c"))
    assert "--set dataset.NUM_CLASSES 4" in str(error.value) and "ant, bee, cow" in str(error.value)


def test_ids_may_differ_between_joined_sets(project):
    project.add("b", 1, [[(1, 1, 1, 9, 9)]], [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}])
    records, _ = training_records(project.cfg("dataset.image_set", "a+b"))
    assert [record.image_id for record in records] == [1, 2, 1]
    assert [record.classes.tolist() for record in records] == [[1, 2], [2], [1]]


def test_images_that_are_in_two_sets_are_counted(project, caplog):
    folder = project.root / "data"
    content = json.loads((folder / "annotations" / "instances_a.json").read_text())
    for image in content["images"]:
        image["file_name"] = f"images/a/{image['file_name']}"
    (folder / "annotations" / "instances_c.json").write_text(json.dumps(content))
    training_records(project.cfg("dataset.image_set", "a+b"))
    assert "belong to more than one" not in caplog.text
    (folder / "c").symlink_to(folder)
    training_records(project.cfg("dataset.image_set", "a+c"))
    assert "3 images belong to more than one" in caplog.text


def test_images_without_objects_give_negative_chips_when_asked(project):
    row = [[10, 10, 30, 30, 0.9]]
    project.proposals("a", {1: row, 2: [], 3: row})
    negatives = ("TRAIN.USE_NEG_CHIPS", "True")
    records, _ = training_records(project.cfg(*negatives))
    assert [record.image_id for record in records] == [1, 2]
    key = ("TRAIN.NEG_CHIPS_WITHOUT_OBJECTS", "True")
    records, _ = training_records(project.cfg(*negatives, *key))
    assert [(r.image_id, r.num_gt, len(r.boxes)) for r in records] == [
        (1, 2, 3), (2, 1, 1), (3, 0, 1),
    ]  # fmt: skip
    # Without negative chips the key changes nothing.
    assert len(training_records(project.cfg(*key))[0]) == 2


def test_masks_are_loaded_for_training_only(project):
    project.add("a", 1, [[(3, 1, 1, 20, 20)]], segmentation=[[1, 1, 9, 1, 9, 9]])
    masks = ("TRAIN.WITH_MASK", "True", "symbol", "resnet_mx_101_e2e_mask")
    (record,), _ = training_records(project.cfg(*masks))
    np.testing.assert_array_equal(record.polygons[0][0], [1, 1, 9, 1, 9, 9])
    assert open_dataset(project.cfg(*masks), "a").records[0].polygons is None
    (record,), _ = training_records(project.cfg(*masks, "TRAIN.ONLY_PROPOSAL", "True"))
    assert record.polygons is None


def test_nothing_to_train_on(project):
    project.add("a", 1, [[], []])
    with pytest.raises(DataError, match="no training image has a ground-truth object"):
        training_records(project.cfg())


def test_wrong_number_of_classes(project):
    with pytest.raises(ConfigError, match="NUM_CLASSES does not fit") as error:
        training_records(project.cfg("dataset.NUM_CLASSES", "7"))
    assert "--set dataset.NUM_CLASSES 3" in str(error.value)


def write_legacy(project, name="COCO_a_rpn.pkl", rows=None):
    """The list of a 2018 program; small ids keep their order in a Python 2 dict."""
    boxes = [[[1, 1, 20, 20, 0.9], [5, 5, 34, 34, 0.8]], [[2, 2, 10, 10, 0.9]], [[4, 4, 9, 9, 0.3]]]
    arrays = [np.array(r, np.float32) for r in (rows or boxes)]
    items = b""
    for array in arrays:
        sides = b"".join(b"K" + bytes([side]) for side in array.shape)
        raw = array.tobytes()
        items += (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01("
            + sides + b"tcnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNK\x00K\x00K\x00tb\x89U"
            + bytes([len(raw)]) + raw + b"tba"
        )  # fmt: skip
    path = project.root / "proposals" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\x80\x02]" + items + b".")
    return path


def test_2018_proposals_are_used_where_there_are_no_others(project, caplog):
    caplog.set_level(logging.INFO)
    write_legacy(project)
    cfg = project.cfg("TRAIN.USE_NEG_CHIPS", "True")
    records, _ = training_records(cfg)
    assert "no COCO_a_rpn.npz: reading the 2018 file" in caplog.text
    assert [len(record.boxes) - record.num_gt for record in records] == [2, 1]
    project.proposals("a", {1: [], 2: [], 3: []})
    assert [len(r.boxes) for r in training_records(cfg)[0]] == [2, 1]  # the NPZ file wins


def test_missing_proposals_say_how_to_get_them(project):
    with pytest.raises(DataError, match="there is no proposal file") as error:
        training_records(project.cfg("TRAIN.USE_NEG_CHIPS", "True"))
    assert "--set TRAIN.USE_NEG_CHIPS mine" in str(error.value)


def test_proposals_of_another_set_fail_in_one_sentence(project):
    project.proposals("b", {11: [], 12: []})
    folder = project.root / "proposals"
    (folder / "COCO_b_rpn.npz").rename(folder / "COCO_a_rpn.npz")
    with pytest.raises(DataError, match="'COCO_b', the records those of 'COCO_a': 0 of 3 image"):
        training_records(project.cfg("TRAIN.USE_NEG_CHIPS", "True"))


def test_convert_proposals(project, capsys):
    path = write_legacy(project)
    arguments = [str(path), "--cfg", str(project.cfg_path)]
    assert convert(arguments) == 0
    assert "COCO_a_rpn.npz: 4 proposals of 3 images" in capsys.readouterr().out
    cfg = project.cfg("TRAIN.USE_NEG_CHIPS", "True")
    assert [len(r.boxes) - r.num_gt for r in training_records(cfg)[0]] == [2, 1]
    out = project.root / "x.npz"
    assert convert([str(path), "--out", str(out), "--order", "file", *arguments[1:]]) == 0
    assert out.exists()


def test_detections_become_proposals(project, capsys):
    rows = [(1, 9, 0.1), (1, 3, 0.4), (1, 9, 0.9), (2, 9, 0.5)]
    results = project.root / "detections_a_results.json"
    results.write_text(
        json.dumps(
            [
                {"image_id": image, "category_id": kind, "bbox": [2, 3, 9, 8], "score": score}
                for image, kind, score in rows
            ]
        )
    )
    assert convert([str(results), "--cfg", str(project.cfg_path)]) == 0
    assert "COCO_a_rpn.npz: 3 proposals of 3 images" in capsys.readouterr().out
    found = load_proposals(project.root / "COCO_a_rpn.npz")
    boxes, scores = found.for_image(1)
    assert scores.tolist() == pytest.approx([0.9, 0.4])
    assert boxes[0].tolist() == [2, 3, 10, 10]
    assert [len(found.for_image(image)[0]) for image in (2, 3)] == [1, 0]
    flags = ["--cfg", str(project.cfg_path), "--order", "file"]
    assert convert([str(results), *flags]) == 2
    assert "--order is not for such a file" in capsys.readouterr().err


def test_convert_proposals_refuses(project, capsys):
    rows = [[[1, 1, 20, 20, 0.9]]]
    path = write_legacy(project, rows=rows)
    cfg = ["--cfg", str(project.cfg_path)]
    assert convert([str(path), *cfg]) == 3
    assert "it has 1 entries for 3 images" in capsys.readouterr().err
    assert convert([str(path), *cfg, "--image_set", "none"]) == 3
    other = write_legacy(project, "mine.pkl")
    assert convert([str(other), *cfg, "--set", "dataset.image_set", "a+b"]) == 2
    assert "--image_set SET" in capsys.readouterr().err
    other.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert convert([str(other), *cfg]) == 3
    assert "os.system" in capsys.readouterr().err
    assert not (project.root / "proposals" / "COCO_a_rpn.npz").exists()


def test_a_resumed_run_maps_the_classes(project):
    run = Classes(("__background__", "bee", "ant"), (0, 1, 2), "classes.json")
    sets = datasets.read_training_sets(training_data(project.cfg()), run)
    records, classes = sets.records, sets.classes
    assert [record.classes.tolist() for record in records] == [[2, 1], [1]]
    # The ids are those of the annotations of today.
    assert (classes.names, classes.ids) == (run.names, (0, 9, 3))
    other = Classes(("__background__", "bee", "cow"), (0, 1, 2), "classes.json")
    with pytest.raises(DataError, match="not those of the run") as error:
        datasets.read_training_sets(training_data(project.cfg()), other)
    assert "the data alone has ant; the run alone has cow" in str(error.value)


@pytest.mark.parametrize("resume", [False, True])
def test_runs_in_one_folder_have_the_same_classes(project, resume):
    cfg = project.cfg("gpus", "cpu", "network.pretrained", "")
    folder = model_folder(cfg)
    folder.mkdir(parents=True)
    state = RunState(1, 0, 10, 1, 0).to_json()
    for ending, text in ((".json", state), (".params", ""), (".states", "")):
        (folder / f"SNIPER-0001{ending}").write_text(text)
    names = '["__background__", "bee", "cow"]'
    (folder / "classes.json").write_text(names)
    with pytest.raises(DataError, match="the data alone has ant; the (earlier )?run alone has cow"):
        train(cfg, resume=resume)
    assert (folder / "classes.json").read_text() == names
