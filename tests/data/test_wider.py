"""WIDER FACE: the annotation text in all its forms, bad boxes, lists of the evaluation."""

from __future__ import annotations

import itertools
import json
import logging
import sys

import cv2
import h5py
import numpy as np
import pytest
from scipy import io as scipy_io

from sniper.data import load_dataset
from sniper.data.matlab import read_matlab_arrays
from sniper.data.wider import read_wider_truth
from sniper.data.wider_text import ATTRIBUTES, read_annotations
from sniper.data.wider_truth import LEVELS, find_lists
from sniper.errors import ConfigError, DataError

ZEROS = "0 0 0 0 0 0 0 0 0 0 "
# Two faces, then the three ways to say that there is none, then a face without attributes.
TEXT = f"""\
0--Parade/a.jpg
2
10 5 20 30 2 1 0 0 1 0
40 8 6 7 0 0 1 1 2 1
0--Parade/none.jpg
0
1--Handshaking/zeros.jpg
0
{ZEROS}
1--Handshaking/one.jpg
1
{ZEROS}
1--Handshaking/b.jpg
1
3 4 5 6
"""


def write_set(root, text, image_set="train", size=(60, 40)):
    folder = root / "wider_face_split"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"wider_face_{image_set}_bbx_gt.txt").write_text(text)
    for line in text.splitlines():
        if line.endswith(".jpg"):
            path = root / f"WIDER_{image_set}" / "images" / line
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imencode(".jpg", np.zeros((size[1], size[0], 3), np.uint8))[1].tofile(path)


@pytest.fixture
def root(tmp_path):
    write_set(tmp_path, TEXT)
    return tmp_path


def load(root, image_set="train", **more):
    return load_dataset("wider", root, image_set, **more)


def test_all_forms_of_images_without_faces(root, caplog):
    caplog.set_level(logging.INFO)
    dataset = load(root)
    assert dataset.class_names == ("__background__", "face") and dataset.category_ids == (0, 1)
    assert [r.original_id for r in dataset.records] == [
        "0--Parade/a.jpg", "0--Parade/none.jpg", "1--Handshaking/zeros.jpg",
        "1--Handshaking/one.jpg", "1--Handshaking/b.jpg",
    ]  # fmt: skip
    assert [r.boxes.tolist() for r in dataset.records] == [
        [[10, 5, 29, 34]], [], [], [], [[3, 4, 7, 9]],
    ]  # fmt: skip
    first = dataset.records[0]
    assert (first.width, first.height) == (60, 40) and first.classes.tolist() == [1]
    assert first.crowd_boxes.tolist() == [[40, 8, 45, 14]] and dataset.num_ignored == 1
    assert dataset.protocol == "wider" and dataset.truth.counted["all"].tolist() == [1, 0, 1]
    assert (
        "5 images, 3 without faces; 3 boxes: 2 faces, 1 invalid (ignored regions); left out: 0 "
        "without extent (zero or inverted), 0 outside their image" in caplog.text
    )
    table = read_annotations(root / "wider_face_split" / "wider_face_train_bbx_gt.txt")
    assert dict(zip(ATTRIBUTES, table.attributes[1])) == {
        "blur": 0, "expression": 0, "illumination": 1, "invalid": 1, "occlusion": 2, "pose": 1,
    }  # fmt: skip


def test_bad_boxes_are_counted_by_their_kind(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    boxes = ["5 5 0 9", "5 5 9 0", "20 5 -8 9", "70 5 9 9", "50 30 20 20", "-4 -4 9 9",
             "5 5 0 9 0 0 0 1 0 0", "1 1 9 9 0 0 0 1 0 0"]  # fmt: skip
    write_set(tmp_path, "\n".join(["e/a.jpg", str(len(boxes)), *boxes, ""]))
    heard = []
    dataset = load(tmp_path, on_problem=heard.append)
    assert {p.kind.name: p.count for p in heard} == {
        "box_degenerate": 4, "box_outside": 1, "box_cut": 2, "invalid_face": 1,
    }  # fmt: skip
    assert "e/a.jpg, line 5" in list(heard[0].texts)[2]
    (record,) = dataset.records
    assert record.boxes.tolist() == [[50, 30, 59, 39], [0, 0, 4, 4]]
    assert record.crowd_boxes.tolist() == [[1, 1, 9, 9]]
    left_out = {"ignored": 1, "no_extent": 4, "outside": 1}
    assert dict(dataset.intake.left_out) == left_out and dataset.intake.kept == 2
    assert "left out: 4 without extent (zero or inverted), 1 outside" in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("40 8 6 7 0 0 1 1 2 1\n", "", 4, "face 2 of 2 of 0--Parade/a.jpg"),
        ("40 8 6 7 0", "40 8 x 7 0", 4, "40 8 x 7 0 0 1 1 2 1"),
        ("40 8 6 7 0", "40 8 nan 7 0", 4, "40 8 nan 7 0 0 1 1 2 1"),
        ("40 8 6 7 0", "40 8 6 7", 4, "x y width height"),
        ("a.jpg\n2\n", "a.jpg\n", 2, "the number of faces"),
        ("a.jpg\n2\n", "a.jpg\n-2\n", 2, "the number of faces"),
        ("a.jpg\n2\n", "a.jpg\n1\n", 4, "the name of an image"),
        ("3 4 5 6\n", "", 15, "the end of the file"),
        ("1--Handshaking/b.jpg", "0--Parade/a.png", 13, "it is in line 1 too"),
        ("1--Handshaking/b.jpg", "../b.jpg", 13, "the name of an image"),
    ],
)
def test_the_first_unreadable_line_stops_training(tmp_path, old, new, line, said):
    assert old in TEXT
    path = tmp_path / "wider_face_train_bbx_gt.txt"
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(DataError) as caught:
        read_annotations(path)
    assert f"{path}, line {line}" in str(caught.value) and said in str(caught.value)
    heard = []
    table = read_annotations(path, heard.append)
    assert len(heard) == 1 and heard[0].kind.severity == "error"
    # All other images are read as they are.
    assert {"0--Parade/none.jpg", "1--Handshaking/zeros.jpg"} <= set(table.names)


def test_check_data_shows_every_problem(root, capsys):
    from sniper.tools.check_data import main

    text = TEXT.replace("40 8 6 7 0", "40 8 x 7 0").replace("3 4 5 6", "3 4 0 6")
    write_set(root, text)
    (root / "WIDER_train" / "images" / "0--Parade" / "none.jpg").unlink()
    names = ["--cfg", "sniper_mobilenetv2_toy", "--set", "dataset.dataset", "wider",
             "dataset.dataset_path", str(root), "dataset.image_set", "train",
             "dataset.NUM_CLASSES", "2"]  # fmt: skip
    assert main(names) == 3
    shown = capsys.readouterr().out
    assert "bbx_gt.txt, line 4" in shown or "'40 8 x 7 0 0 1 1 2 1'" in shown
    assert "missing images: 1" in shown and "boxes without extent: 1" in shown


def test_the_cache_gives_the_same_and_tells_bad_boxes_again(root, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    first, second = (load(root, cache_dir=tmp_path / "cache") for _ in range(2))
    assert "annotations as they were read before" in caplog.text
    assert caplog.text.count("1 faces flagged invalid") == 2
    for a, b in zip(first.records, second.records):
        assert (a.image_path, a.image_id, a.width) == (b.image_path, b.image_id, b.width)
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.crowd_boxes, b.crowd_boxes)
    text = root / "wider_face_split" / "wider_face_train_bbx_gt.txt"
    text.write_text(TEXT.replace("3 4 5 6", "3 4 5 9"))
    assert load(root, cache_dir=tmp_path / "cache").records[-1].boxes[0, 3] == 12


def test_a_list_alone_has_no_annotations_and_places_can_be_named(root):
    (root / "wider_face_split" / "wider_face_test_filelist.txt").write_text("0--Parade/a.jpg\n")
    (root / "WIDER_train").rename(root / "WIDER_test")
    dataset = load(root, "test")
    assert not dataset.has_annotations and len(dataset.records) == 1
    (root / "own").mkdir()
    (root / "own" / "faces_mine.txt").write_text(TEXT)
    places = {"annotation_file": "own/faces_{set}.txt", "image_folder": "WIDER_test/images"}
    assert load(root, "mine", **places).num_objects == 2
    with pytest.raises(DataError, match="the set 'val' is missing"):
        load(root, "val")
    with pytest.raises(DataError, match="boxes only"):
        load(root, "test", with_masks=True)


def cell(values):
    array = np.empty((len(values), 1), object)
    array[:, 0] = values
    return array


def lists_of(boxes, rows):
    """The variables of a list: the images `0--Parade/a` and `1--Handshaking/b`, with one box."""
    columns = [
        np.array(boxes, np.int32),
        np.array(rows, np.uint8).reshape(-1, 1),
        np.zeros((len(boxes), 1), np.uint8),
    ]
    own, other = columns, [np.array([[3, 4, 5, 6]]), np.ones((1, 1)), np.zeros((1, 1))]
    names = ("face_bbx_list", "gt_list", "invalid_label_list")
    variables = {name: cell([cell([a]), cell([b])]) for name, a, b in zip(names, own, other)}
    variables["event_list"] = cell(["0--Parade", "1--Handshaking"])
    variables["file_list"] = cell([cell(["a"]), cell(["b"])])
    return variables


def write_hdf5(path, variables):
    """As MATLAB writes version 7.3: cells are references, arrays are transposed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group("#refs#")
        numbers = itertools.count()

        def fill(name, value, where):
            if isinstance(value, np.ndarray) and value.dtype == object:
                references = []
                for inner in value.ravel():
                    own = f"r{next(numbers)}"
                    fill(own, inner, group)
                    references.append(group[own].ref)
                array = np.array(references, h5py.ref_dtype).reshape(1, -1)
                kind = b"cell"
            elif isinstance(value, str):
                array, kind = np.array(list(map(ord, value)), np.uint16).reshape(-1, 1), b"char"
            elif value.size == 0:
                array, kind = np.array(value.shape, np.uint64), b"uint8"
            else:
                array, kind = value.T, str(value.dtype).encode()
            data = where.create_dataset(name, data=array)
            data.attrs["MATLAB_class"] = np.bytes_(kind)
            if isinstance(value, np.ndarray) and value.size == 0:
                data.attrs["MATLAB_empty"] = 1

        for name, value in variables.items():
            fill(name, value, file)


BOXES = [[10, 5, 20, 30], [40, 8, 6, 7]]
ROWS = {"easy": [], "medium": [1], "hard": [1, 2]}


@pytest.fixture(params=["5", "7.3"])
def listed(request, tmp_path):
    """A folder with lists in one of the two formats of MATLAB."""
    for level, rows in ROWS.items():
        path = tmp_path / f"wider_{level}_val.mat"
        variables = lists_of(BOXES, rows)
        if request.param == "5":
            scipy_io.savemat(path, variables)
        else:
            write_hdf5(path, variables)
    return tmp_path


def test_lists_of_both_matlab_formats(listed):
    truth = read_wider_truth(listed, None).truth
    assert truth.names == ("0--Parade/a", "1--Handshaking/b")
    assert truth.boxes.tolist() == [*BOXES, [3, 4, 5, 6]]
    assert {level: flags.tolist() for level, flags in truth.counted.items()} == {
        "all": [True, True, True], "easy": [False, False, True],
        "medium": [True, False, True], "hard": [True, True, True],
    }  # fmt: skip


def test_lists_and_text_must_be_of_the_same_boxes(listed):
    text = "0--Parade/a.jpg\n2\n10 5 20 30\n40 8 6 7\n"
    write_set(listed, text, "val")
    truth = load(listed, "val").truth  # a part of the images
    assert truth.counted["hard"].tolist() == [True, True] and not truth.counted["easy"].any()
    for changed, said in (
        (text.replace("40 8 6 7", "40 8 6 8"), "other boxes, or in another order: 0--Parade/a"),
        (text.replace("0--Parade/a.jpg", "0--Parade/c.jpg"), "do not have: 0--Parade/c"),
    ):
        write_set(listed, changed, "val")
        with pytest.raises(DataError, match=said):
            load(listed, "val")
    (listed / "wider_easy_val.mat").unlink()
    with pytest.raises(DataError, match=r"expected: wider_easy_val\.mat"):
        load(listed, "val")


@pytest.mark.parametrize("listed", ["5"], indirect=True)
def test_images_without_faces_have_a_box_of_zeros_in_the_lists(listed):
    for level in LEVELS:
        scipy_io.savemat(listed / f"wider_{level}_val.mat", lists_of([[0, 0, 0, 0]], []))
    for text in ("0--Parade/a.jpg\n0\n", f"0--Parade/a.jpg\n1\n{ZEROS}\n"):
        write_set(listed, text, "val")
        dataset = load(listed, "val")
        assert dataset.num_objects == 0 and dataset.truth.boxes.tolist() == [[0, 0, 0, 0]]
        assert not dataset.truth.counted["all"].any()


def test_broken_lists_and_missing_libraries(listed, monkeypatch):
    path = listed / "wider_hard_val.mat"
    with pytest.raises(DataError, match="no variable nothing"):
        read_matlab_arrays(path, ["nothing"])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    with pytest.raises(DataError, match="cannot be read"):
        find_lists(listed, "val")
    path.write_bytes(content)
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(ConfigError, match=r"sniper-mxnet\[wider\]"):
        find_lists(listed, "val")


def test_lists_as_json(root):
    path = root / "wider_face_split" / "train_levels.json"
    rows = {level: [2] if level == "hard" else [] for level in LEVELS}
    none = {level: [] for level in LEVELS}
    names = [r.original_id for r in load(root).records]
    lists = {name: rows if name.endswith("a.jpg") else none for name in names}
    path.write_text(json.dumps({"lists": lists}))
    assert load(root).truth.counted["hard"].tolist() == [False, True, False]
    path.write_text(json.dumps({"lists": {**lists, names[0]: {**none, "hard": [3]}}}))
    with pytest.raises(DataError, match="a face beyond the 2 of an image"):
        load(root)
    path.write_text(json.dumps({"lists": {**lists, names[0]: {"hard": [3]}}}))
    with pytest.raises(DataError, match="cannot be read"):
        load(root)


def test_several_sets_must_be_named(root):
    write_set(root, TEXT, "val")
    with pytest.raises(ConfigError, match="sets: train, val"):
        read_wider_truth(root, None)
    assert read_wider_truth(root, "val").image_set == "val"
    with pytest.raises(DataError, match="no annotations of WIDER FACE"):
        read_wider_truth(root, "other")


def test_the_official_lists(wider_lists):
    folder = wider_lists / "wider_face_split"
    dataset = read_wider_truth(wider_lists, None)
    truth = dataset.truth
    events = {name.split("/")[0] for name in truth.names}
    assert (len(events), len(truth.names), len(truth.boxes)) == (61, 3226, 39708)
    owners = np.repeat(np.arange(3226), np.diff(truth.offsets))
    counts = {k: (int(v.sum()), len(set(owners[v]))) for k, v in truth.counted.items()}
    assert {level: counts[level] for level in LEVELS} == {
        "easy": (7211, 2604), "medium": (13319, 3019), "hard": (31958, 3219),
    }  # fmt: skip
    table = read_annotations(folder / "wider_face_train_bbx_gt.from_xml.txt")
    degenerate = int((table.boxes[:, 2:] < 1).any(axis=1).sum())
    # Four of the boxes say that there is no face; the others without extent stay bad boxes.
    assert (len(table.names), len(table.boxes), degenerate) == (12880, 159424 - 4, 31 - 4)


def test_real_photos(faces_mini):
    counted = {name: load(faces_mini, name).num_objects for name in ("train", "val")}
    assert counted == {"train": 406, "val": 857}
    assert load(faces_mini, "val").truth.has_lists
