"""Sets in the layout of ImageNet: folders alone, lists of 2018, names, DET classes."""

from __future__ import annotations

import json
import pickle

import cv2
import numpy as np
import pytest

from sniper.data import load_dataset
from sniper.data.account import join_intakes
from sniper.data.detections import ImageDetections, table_of
from sniper.data.ilsvrc import read_kit
from sniper.data.imagenet_tables import ImagenetFolder, class_names, det_places
from sniper.data.one_class import as_one_class
from sniper.data.wordnet import read_wordnet
from sniper.errors import DataError
from sniper.evaluation import protocol_of
from sniper.tools.evaluate import main as evaluate
from tests.evaluation.det_kit import annotation, write_kit

DOG, CAT, COW = "n02084071", "n02121620", "n01887787"
OBJECTS = {
    f"{DOG}/1": [(DOG, 0, 0, 49, 39), (CAT, 10, 10, 19, 19)],
    f"{CAT}/2": [(CAT, 5, 6, 60, 7)],  # beyond the right border
    f"{CAT}/3": [(COW, 5, 5, 5, 5), ("cow", 1, 1, 9, 9)],  # one px; a name that is no id
}


def write_image(path, width=50, height=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1].tobytes())


@pytest.fixture
def root(tmp_path):
    """A set `photos` of three images, and nothing else."""
    for key, objects in OBJECTS.items():
        write_image(tmp_path / "data" / "photos" / f"{key}.JPEG")
        path = tmp_path / "data" / "photos_bbox" / f"{key}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(annotation(objects, size=(50, 40)))
    return tmp_path / "data"


def test_images_and_annotations_alone_are_a_set(root, tmp_path):
    dataset = load_dataset("imagenet", root, "photos", cache_dir=tmp_path / "cache")
    assert dataset.category_ids == (0, "cow", COW, DOG, CAT)  # names in order
    assert dataset.class_names == ("__background__", "cow", COW, DOG, CAT)  # nobody named them
    one, two, three = dataset.records  # by their keys
    assert one.image_path.endswith(f"{DOG}/1.JPEG") and one.original_id == f"{DOG}/1"
    np.testing.assert_array_equal(one.boxes, [[0, 0, 49, 39], [10, 10, 19, 19]])  # from 0
    np.testing.assert_array_equal(two.boxes, [[5, 6, 49, 7]])  # cut
    np.testing.assert_array_equal(three.boxes, [[5, 5, 5, 5], [1, 1, 9, 9]])
    assert dataset.intake.kept == dataset.num_objects == 5 and dataset.intake.remarks == {"cut": 1}
    # A further image leaves the others' ids alone, and the cache knows what has changed.
    write_image(root / "photos" / "0.jpg")
    (root / "photos_bbox" / "0.xml").write_text(annotation([(DOG, 1, 1, 9, 9)], size=None))
    again = load_dataset("imagenet", root, "photos", cache_dir=tmp_path / "cache")
    assert [r.image_id for r in again.records[1:]] == [r.image_id for r in dataset.records]
    assert again.records[0].width == 50  # of the file


def test_the_rules_of_2018(root):
    dataset = load_dataset("imagenet", root, "photos", legacy_boxes=True)
    assert dataset.category_ids == (0, COW, DOG, CAT)
    assert [len(r.boxes) for r in dataset.records] == [2, 0, 0]
    assert dataset.intake.left_out == {"unlisted": 1, "outside": 1, "no_extent": 1}
    assert dataset.truth.first_px == 1


def test_lists_of_2018_are_read_once(root, tmp_path):
    lists = root / "ILSVRC2014_devkit" / "data"
    write_kit(root / "ILSVRC2014_devkit", {"9": None})
    clusters = lists / "3kcls_cluster_result1.txt"
    clusters.write_bytes(pickle.dumps({1: [DOG], 0: [CAT]}, protocol=2))
    (lists / "wnid_name_dict.txt").write_bytes(
        pickle.dumps({DOG: "dog, Canis", CAT: "cat, puss"}, protocol=0)
    )
    (root / "photos").rename(root / "fall11_whole")
    (root / "photos_bbox").rename(root / "fall11_whole_bbox")
    (lists / "3kcls_index.txt").write_text(f"{CAT}/3 {DOG}/1\n")
    for _ in range(2):
        dataset = load_dataset("imagenet", root, "fall11_whole")
        assert dataset.class_names == ("__background__", "cat", "dog")
        assert [r.num_gt for r in dataset.records] == [0, 2]
        assert dataset.records[1].classes.tolist() == [2, 1]
        assert dataset.intake.left_out == {"unlisted": 2}
        assert join_intakes([dataset.intake] * 2).left_out == {"unlisted": 4}
        clusters.write_bytes(b"nobody reads it again")
    assert json.loads(clusters.with_suffix(".json").read_text()) == {"1": [DOG], "0": [CAT]}


class Evil:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("content", [Evil(), {0: Evil()}, {0: {1: 2}}, [1, 2], {(1, 2): 3}])
def test_a_pickle_that_is_no_table_is_refused(root, content, capsys):
    (root / "cluster_1C.txt").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(DataError, match="2018 pickle is refused"):
        load_dataset("imagenet", root, "photos")
    assert capsys.readouterr().out == "" and not (root / "cluster_1C.json").exists()


def test_images_are_found_by_name_elsewhere(root):
    (root / "photos").rename(root / "elsewhere")
    (root / "elsewhere" / DOG / "1.JPEG").rename(root / "elsewhere" / "1.png")
    dataset = load_dataset("imagenet", root, "photos", image_folder="elsewhere")
    assert dataset.records[0].image_path.endswith("elsewhere/1.png")
    write_image(root / "elsewhere" / "x" / "1.jpg")
    with pytest.raises(DataError, match=r"several files(.|\n)*1\.png"):
        load_dataset("imagenet", root, "photos", image_folder="elsewhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "photos" / CAT / "2.JPEG").unlink(), "1 of 3 images are missing"),
        (lambda root: (root / "photos.txt").write_text(f"{DOG}/1\n{DOG}/8"), "1 of 2 annotation"),
        (lambda root: (root / "photos.txt").write_text("../1"), "leaves the folder"),
        (lambda root: (root / "photos.txt").write_text("a 1\nb 1"), "a number twice"),
        (lambda root: (root / "cluster_1C.json").write_text(f'{{"0": ["{DOG}"] }}x'), "read"),
        (lambda root: (root / "cluster_1C.json").write_text('{"a": [1, 1]}'), "clusters"),
        (lambda root: (root / "photos_bbox").rename(root / "bbox"), "is empty|no annotations"),
    ],
)
def test_what_is_missing_or_broken_is_named(root, change, message):
    change(root)
    if "no annotations" in message:  # annotations may stand beside the images: there are none
        assert not load_dataset("imagenet", root, "photos").has_annotations
        return
    with pytest.raises(DataError, match=message):
        load_dataset("imagenet", root, "photos")


NOUNS = """\
  1 This software is WordNet 3.0 Copyright 2006
00001740 03 n 01 entity 0 000 | what is
02083346 05 n 02 canine 0 canid 0 001 @ 00001740 n 0000 | a kind of animal
02084071 05 n 03 dog 0 domestic_dog 0 Canis_familiaris 0 002 @ 02083346 n 0000 ~ 1 n 0000 | barks
02085620 05 n 01 Chihuahua 0 001 @ 02084071 n 0000 | small
02012849 05 n 01 crane 0 001 @ 00001740 n 0000 | a bird
03126707 06 n 01 crane 0 001 @i 00001740 n 0000 | a machine
03710637 06 n 01 maillot 0 001 @ 00001740 n 0000 | worn
03710721 06 n 02 maillot 0 tank_suit 0 001 @ 00001740 n 0000 | worn
"""


def test_names_and_kinds_come_from_wordnet(tmp_path):
    (tmp_path / "dict").mkdir()
    path = tmp_path / "dict" / "data.noun"
    path.write_text(NOUNS)
    folder = ImagenetFolder(tmp_path, None)
    wnids = ["n02085620", "n02084071", "n02012849", "n03126707", "n03710721", "n09"]
    names = class_names(folder, wnids, is_complete=True)[1:]
    assert names == ("Chihuahua", "dog", "crane (n02012849)", "crane (n03126707)", "maillot", "n09")
    # Where sets may have different classes, a name must not depend on the others.
    assert class_names(folder, wnids[4:5], is_complete=False)[1] == "maillot, tank suit"
    assert read_wordnet(path).ancestors("n02085620") == {
        *("n02085620", "n02084071", "n02083346", "n00001740")
    }
    path.write_text(NOUNS.replace("3.0", "3.1"))
    with pytest.raises(DataError, match=r"not the nouns of WordNet 3\.0"):
        class_names(folder, wnids, is_complete=True)


def test_classes_are_matched_with_those_of_the_challenge(tmp_path):
    kit = read_kit(write_kit(tmp_path / "kit", {"a": []}))  # n01 ant; n02 dog: n03 n04 n05 below
    folder = ImagenetFolder(tmp_path, kit)
    wnids = ["n05", "n77", "n01"]
    assert det_places(folder, kit, wnids).tolist() == [0, 2, 0, 1]
    table = tmp_path / "kit" / "evaluation" / "3k_1C_matching.txt"
    table.parent.mkdir()
    for start in (0, 1):
        content = {start: 201, start + 1: 1, start + 2: 2}
        table.write_bytes(pickle.dumps(content, protocol=2))
        assert det_places(folder, kit, wnids).tolist() == [0, 0, 1, 2]
        table.with_suffix(".json").unlink()
    table.with_suffix(".json").write_text(json.dumps({"n00000077": 2}))
    assert det_places(folder, kit, ["n00000077", "n01"]).tolist() == [0, 2, 0]
    table.with_suffix(".json").write_text(json.dumps({"5": 2}))
    with pytest.raises(DataError, match="does not fit the classes"):
        det_places(folder, kit, wnids)


def test_validation_images_are_evaluated_on_the_challenge(tmp_path):
    root = tmp_path / "data"
    images = {"a": [("n02", 0, 0, 29, 29), ("n01", 30, 0, 49, 19)], "b": [("n01", 0, 0, 9, 9)]}
    write_kit(root / "ILSVRC2014_devkit", images, blacklist=[(2, "n01")])
    for name in images:
        write_image(root / "ILSVRC2013_DET_val" / f"{name}.JPEG", 200, 100)
    (root / "lists").mkdir()
    (root / "lists" / "cluster_1C.json").write_text(json.dumps({"0": ["n05", "n03", "n99"]}))
    dataset = load_dataset("imagenet", root, "ILSVRC2013_DET_val")
    assert dataset.category_ids == (0, "n05", "n03", "n99")
    assert [r.image_id for r in dataset.records] == [1, 2] and dataset.num_objects == 0
    # Two fine classes are the dog: the second one finds it again.
    rows = np.array([[0, 0, 29, 29, 0.8], [0, 0, 29, 29, 0.9], [0, 0, 9, 9, 0.9]], np.float32)
    found = ImageDetections(rows, np.array([1, 2, 3], np.int32))
    empty = ImageDetections(rows[:0], np.zeros(0, np.int32))
    report = protocol_of(dataset).evaluate(dataset, table_of([found, empty]))
    assert report.classes["dog"].ap == 1 and report.classes["ant"].ap == 0
    assert (report.mean_ap, report.mean_ap_known, report.num_objects) == (0.5, 1, 2)
    # Numbers of images are those of val.txt in other lists, too.
    (root / "part.txt").write_text("b 1\n")
    part = load_dataset(
        *("imagenet", root, "part"),
        annotation_file="ILSVRC2013_DET_val_bbox",
        image_folder="ILSVRC2013_DET_val",
    )
    assert part.records[0].image_id == 2 and part.truth.class_names == ("ant", "dog")


def test_result_files_of_own_classes_are_evaluated_without_a_kit(root, tmp_path, capsys):
    dataset = load_dataset("imagenet", root, "photos")  # cow, n01887787, dog, cat
    rows = np.array([[0, 0, 49, 39, 0.9], [10, 10, 19, 19, 0.8]], np.float32)
    found = ImageDetections(rows, np.array([3, 4], np.int32))
    empty = ImageDetections(rows[:0], np.zeros(0, np.int32))
    protocol, table = protocol_of(dataset), table_of([found, empty, empty])
    protocol.write(tmp_path, dataset, table)
    flags = ["--protocol", "ilsvrc", "--truth", str(root), "--out", str(tmp_path / "x.json")]
    (root / "photos").rename(tmp_path / "gone")  # nobody looks for images
    assert evaluate(["--results", str(protocol.results_path(tmp_path, dataset)), *flags]) == 0
    numbers = json.loads((tmp_path / "x.json").read_text())
    assert numbers["mAP"] == protocol.evaluate(dataset, table).mean_ap == (1 + 0.5) / 4
    (root / "more_bbox").mkdir()
    assert evaluate(["--results", "x", *flags]) == 2
    assert "--image_set NAME" in capsys.readouterr().err
    one = as_one_class(dataset)
    ones = table_of([ImageDetections(rows, np.ones(2, np.int32)), empty, empty])
    assert protocol_of(one).evaluate(one, ones).mean_ap == 2 / 5


def test_real_photos_in_this_layout(imagenet_layout_coco):
    counts = {}
    for name in ("fall11_whole", "ILSVRC2013_DET_val"):
        dataset = load_dataset(
            "imagenet", imagenet_layout_coco, name, image_folder="../coco_mini/images"
        )
        counts[name] = (len(dataset.records), dataset.num_objects, len(dataset.class_names))
    assert counts == {"fall11_whole": (98, 740, 81), "ILSVRC2013_DET_val": (50, 360, 81)}
    # What is annotated has full marks, in the frame of the annotations.
    rows = [np.hstack([r.boxes, np.ones((r.num_gt, 1), np.float32)]) for r in dataset.records]
    order = [np.argsort(r.classes, kind="stable") for r in dataset.records]
    table = table_of(
        [
            ImageDetections(of_image[o], r.classes[o])
            for of_image, r, o in zip(rows, dataset.records, order)
        ]
    )
    report = protocol_of(dataset).evaluate(dataset, table)
    assert report.mean_ap == report.mean_ap50 == 1 and report.num_objects == 360
