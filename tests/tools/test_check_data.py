"""`sniper check-data`: every kind of problem is put into a good set, and found."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest

from sniper.data import ProposalSet, load_dataset, problems, save_proposals
from sniper.data.problems import ERROR, WARNING, ProblemKind
from sniper.errors import DataError
from sniper.loader.train import TrainLoader
from sniper.runs.datasets import read_training_sets, training_account, training_records
from sniper.runs.resolve import batch_settings, chip_settings, training_data
from sniper.tools.check.findings import KINDS, Findings
from sniper.tools.check_data import check, main, text_lines


def counts(report):
    return report.findings.counts


def checked(tiny_set, *overrides, **options):
    tiny_set.write()
    return check(tiny_set.config(*overrides), **options)


def texts(report, kind):
    return [f"{item.where}: {item.text}" for item in report.findings.examples[kind]]


def test_a_good_set_has_no_problems(tiny_set, capsys):
    assert main(["--cfg", str(tiny_set.recipe)]) == 0
    shown = capsys.readouterr().out
    assert "4 images (1 without objects), 6 objects of 3 classes" in shown
    assert "No problems found. (--decode looks closer.)" in shown
    assert main(["--cfg", str(tiny_set.recipe), "--decode", "--strict"]) == 0
    assert "--decode" not in capsys.readouterr().out


def test_all_problems_are_reported_at_once(tiny_set, capsys):
    tiny_set.image(8).unlink()
    tiny_set.image(9).write_bytes(tiny_set.image(9).read_bytes()[:900])
    tiny_set.content["images"][0]["width"] = 210
    tiny_set.add(7, [1, 1, 0, 5])
    tiny_set.add(7, [1, 1, 5, 5], category=3)
    del tiny_set.content["annotations"][2]
    tiny_set.write()
    assert main(["--cfg", str(tiny_set.recipe), "--set", "dataset.NUM_CLASSES", "9"]) == 3
    shown = capsys.readouterr().out
    for text in (
        "missing images: 1", "unreadable images: 1", "than their annotations say: 1",
        "entries of the annotations: 1", "classes that do not fit: 1", "boxes without extent: 1",
        "5 errors, 1 warning",
    ):  # fmt: skip
        assert text in shown, text


# How to spoil the set, and what is to be found: kind, number, a part of the text.
def missing_image(tiny_set):
    tiny_set.image(8).unlink()
    tiny_set.image(12).unlink()
    return "missing_file", 2, "image 8: no file "


def link_that_leads_nowhere(tiny_set):
    tiny_set.image(8).unlink()
    tiny_set.image(8).symlink_to(tiny_set.root / "moved away.jpg")
    return "missing_file", 1, "moved away.jpg, which is not there"


def folder_for_a_file(tiny_set):
    tiny_set.image(8).unlink()
    tiny_set.image(8).mkdir()
    return "missing_file", 1, "(it is a folder)"


def empty_file(tiny_set):
    tiny_set.image(8).write_bytes(b"")
    return "unreadable_file", 1, "image 8, "


def cut_off_jpeg(tiny_set):
    content = tiny_set.image(9).read_bytes()
    tiny_set.image(9).write_bytes(content[: len(content) * 2 // 3])
    return "unreadable_file", 1, "cut off"


def no_image(tiny_set):
    tiny_set.image(9).write_text("<html>not found</html>")
    return "unreadable_file", 1, "cannot be decoded"


def other_size(tiny_set):
    tiny_set.content["images"][2]["height"] = 241
    return "size_mismatch", 1, "320x240 px, annotated 320x241"


def exchanged_sides(tiny_set):
    tiny_set.content["images"][0] |= {"width": 150, "height": 200}
    return "size_mismatch", 1, "EXIF"


def image_without_width(tiny_set):
    del tiny_set.content["images"][3]["width"]
    return "broken_entry", 1, "image 12: it has no 'width'"


def image_is_a_number(tiny_set):
    tiny_set.content["images"].append(5)
    return "broken_entry", 1, "image number 5 (no id)"


def category_without_name(tiny_set):
    tiny_set.content["categories"].append({"id": 3, "name": None})
    return "broken_entry", 1, "category 3: its name is None"


def box_with_three_numbers(tiny_set):
    tiny_set.add(7, [1, 2, 3])
    return "broken_entry", 1, "annotation 106: its bbox has 3 numbers"


def box_not_finite(tiny_set):
    tiny_set.add(7, [1, 2, float("nan"), 4])
    return "broken_entry", 1, "not finite"


def unknown_category(tiny_set):
    tiny_set.add(7, [1, 2, 3, 4], category=77)
    tiny_set.add(7, [1, 2, 3, 4], category=[1])
    return "broken_entry", 2, "category_id 77 is not in the categories"


def duplicate_image_id(tiny_set):
    tiny_set.content["images"].append(tiny_set.content["images"][0] | {"file_name": "x.jpg"})
    return "duplicate_id", 1, "image 7 (x.jpg): the id is used before"


def duplicate_category_id(tiny_set):
    tiny_set.content["categories"].append({"id": 5, "name": "dragon"})
    return "duplicate_category", 1, "category 5 (dragon)"


def duplicate_category_name(tiny_set):
    tiny_set.content["categories"].append({"id": 6, "name": "kite"})
    tiny_set.add(7, [20, 20, 100, 100], 6)  # without an object it would be no class
    return "duplicate_category", 1, "the name 'kite' is used before"


def duplicate_file(tiny_set):
    tiny_set.content["images"].append(tiny_set.content["images"][0] | {"id": 70})
    return "repeated_image", 1, "image 70: the file bild 7.jpg is that of image 7"


def no_objects_at_all(tiny_set):
    tiny_set.content["annotations"] = []
    return "annotations", 1, "no object to train on"


def no_image_at_all(tiny_set):
    tiny_set.content["images"] = []
    return "annotations", 1, "it lists no usable image"


def duplicate_annotation_id(tiny_set):
    tiny_set.add(7, [1, 1, 20, 20])["id"] = 100
    return "duplicate_annotation", 1, "annotation 100"


def orphan(tiny_set):
    tiny_set.add(4711, [1, 2, 30, 40])
    return "orphan", 1, "image_id 4711 is not listed"


def box_without_extent(tiny_set):
    tiny_set.add(7, [5, 5, 0, 10])
    tiny_set.add(7, [5, 5, 10, -1])
    return "box_degenerate", 2, "x 5 to 5, y 5 to 15 in 200x150 px"


def area_zero(tiny_set):
    tiny_set.content["annotations"][0]["area"] = 0
    return "area_from_box", 1, "annotation 100 of bild 7.jpg"


def crowds(tiny_set):
    tiny_set.add(7, [5, 5, 30, 30], iscrowd=1)
    tiny_set.add(7, [5, 5, 40, 40], iscrowd="1")
    return "crowd", 2, "annotation 106 of bild 7.jpg (2 of 8 annotations: 25%)"


def ignore_flags(tiny_set):
    tiny_set.add(7, [5, 5, 30, 30], ignore=True)
    return "ignored", 1, "annotation 106 of bild 7.jpg (1 of 7 annotations: 14%)"


def same_object_again(tiny_set):
    for entry in tiny_set.content["annotations"][:3]:
        tiny_set.content["annotations"].append(entry | {"id": entry["id"] + 50})
    # The same box of another class is another object.
    entry = tiny_set.content["annotations"][0]
    other = next(c["id"] for c in tiny_set.content["categories"] if c["id"] != entry["category_id"])
    tiny_set.content["annotations"].append(entry | {"id": 170, "category_id": other})
    return "repeated_object", 3, "annotation 150 of "


def fractions_of_the_image(tiny_set):
    sizes = {image["id"]: (image["width"], image["height"]) for image in tiny_set.content["images"]}
    for entry in tiny_set.content["annotations"]:
        width, height = sizes[entry["image_id"]]
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [x / width, y / height, w / width, h / height]
    return "fractions", 6, "annotation 100 of bild 7.jpg: [0."


def corners_for_sides(tiny_set):
    for entry in tiny_set.content["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [x, y, x + w, y + h]
        entry["area"] = w * h
    return "corners", 6, "annotation 100 of bild 7.jpg: ["


def box_is_null(tiny_set):
    tiny_set.add(7, [1, 2, 3, 4])["bbox"] = None
    return "broken_entry", 1, "annotation 106: its bbox is null"


def box_is_an_object(tiny_set):
    tiny_set.add(7, [1, 2, 3, 4])["bbox"] = {"x": 1, "y": 2, "width": 3, "height": 4}
    return "broken_entry", 1, "its bbox is an object, not [x, y, width, height]"


def box_of_words(tiny_set):
    tiny_set.add(7, [1, 2, "wide", 4])
    return "broken_entry", 1, 'its width is "wide", not a number'


def odd_flag(tiny_set):
    tiny_set.add(7, [1, 2, 30, 40], iscrowd="perhaps")
    return "broken_entry", 1, "its iscrowd is 'perhaps', not 0 or 1"


def box_outside(tiny_set):
    tiny_set.add(7, [200, 5, 10, 10])
    tiny_set.add(7, [5, -20, 10, 20])
    return "box_outside", 2, "x 200 to 210"


def box_beyond_the_border(tiny_set):
    tiny_set.add(7, [190, 5, 12, 10])
    tiny_set.add(7, [-1.5, 5, 12, 10])
    tiny_set.add(7, [190, 5, 10.9, 10])  # less than a px: as in COCO itself
    return "box_cut", 2, "x 190 to 202, y 5 to 15 in 200x150 px"


def class_without_objects(tiny_set):
    tiny_set.content["annotations"][2]["category_id"] = 5
    tiny_set.content["annotations"][5]["category_id"] = 5
    return "empty_class", 1, "bee"


def box_longer_than_a_chip(tiny_set):
    tiny_set.add(9, [5, 5, 90, 10])
    return "untrainable", 1, "box at (5, 5), 90x10 px: longer than a chip"


def tiny_box(tiny_set):
    tiny_set.add(9, [105, 105, 5, 5])
    return "untrainable", 1, "below 10 px in every chip"


SPOILERS = [
    link_that_leads_nowhere, folder_for_a_file,
    missing_image, empty_file, cut_off_jpeg, no_image, other_size, exchanged_sides,
    image_without_width, image_is_a_number, category_without_name, box_with_three_numbers,
    box_not_finite, unknown_category, duplicate_image_id, duplicate_category_id,
    duplicate_category_name, duplicate_file, no_objects_at_all, no_image_at_all,
    duplicate_annotation_id, orphan, box_without_extent, box_outside, box_beyond_the_border,
    class_without_objects, box_longer_than_a_chip, tiny_box, area_zero, crowds, ignore_flags,
    same_object_again, fractions_of_the_image, corners_for_sides, box_is_null, box_is_an_object,
    box_of_words, odd_flag,
]  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_each_problem_is_found_alone(tiny_set, spoil):
    kind, number, part = spoil(tiny_set)
    report = checked(tiny_set)
    # Entries that are left out may leave others behind without their owner.
    allowed = {kind: number}
    if spoil is no_objects_at_all:
        allowed["empty_class"] = 3
    if spoil is duplicate_category_name:
        allowed["broken_entry"] = 1
    assert counts(report) == allowed
    assert any(part in text for text in texts(report, kind)), texts(report, kind)
    is_error = KINDS[kind].severity == ERROR
    assert main(["--cfg", str(tiny_set.recipe)]) == (3 if is_error else 0)


def test_strict_makes_errors_of_warnings(tiny_set):
    class_without_objects(tiny_set)
    tiny_set.write()
    assert main(["--cfg", str(tiny_set.recipe), "--strict"]) == 3


def test_what_the_reader_calls_an_error_the_loader_refuses(tiny_set):
    """Checks and training must agree: no error passes silently, and none is invented."""
    silent = {"unreadable_file", "size_mismatch"}  # found when the image is read
    for spoil in SPOILERS:
        shutil.rmtree(tiny_set.root)
        tiny_set.root.mkdir()
        fresh = type(tiny_set)(tiny_set.root)
        kind, _, _ = spoil(fresh)
        fresh.write()
        try:
            training_records(training_data(fresh.config()))
            refused = False
        except DataError:
            refused = True
        if kind not in silent:
            assert refused == (KINDS[kind].severity == ERROR), spoil.__name__


def test_decoding_sees_what_headers_cannot(tiny_set):
    image = tiny_set.content["images"][2]
    path = tiny_set.image(9).with_suffix(".png")
    cv2.imwrite(str(path), cv2.imread(str(tiny_set.image(9))))
    image["file_name"] = path.name
    content = bytearray(path.read_bytes())
    start = content.find(b"IDAT") + 8
    content[start:-40] = bytes(len(content) - 40 - start)  # header and end stay in order
    path.write_bytes(content)
    # Nobody looked closer, but training would stop at it in its first batch.
    report = checked(tiny_set)
    assert counts(report) == {"loader": 1} and path.name in texts(report, "loader")[0]
    report = checked(tiny_set, decode=True, workers=2)
    assert counts(report) == {"unreadable_file": 1}
    assert report.decoded


def test_the_damaged_one_of_many_is_named(tiny_set, capfd):
    content = tiny_set.image(9).read_bytes()
    middle = len(content) * 3 // 4
    tiny_set.image(9).write_bytes(content[:middle] + content[middle + 150 :])
    report = checked(tiny_set, decode=True, workers=2)
    assert counts(report) == {"unreadable_file": 1}
    (text,) = texts(report, "unreadable_file")
    assert tiny_set.image(9).name in text and "damaged: Corrupt JPEG data" in text
    assert "Corrupt" not in capfd.readouterr().err
    # A block of zeros shows without decoding.
    tiny_set.image(9).write_bytes(content[:middle] + bytes(150) + content[middle + 150 :])
    (text,) = texts(checked(tiny_set), "unreadable_file")
    assert tiny_set.image(9).name in text and "zeros from byte" in text


def test_png_and_other_formats(tiny_set):
    pixels = cv2.imread(str(tiny_set.image(9)))
    for ending in (".png", ".bmp"):
        image = tiny_set.content["images"][2]
        path = tiny_set.image(9).with_suffix(ending)
        cv2.imwrite(str(path), pixels)
        image["file_name"] = path.name
        assert counts(checked(tiny_set)) == {}
        path.write_bytes(path.read_bytes()[:500])
        assert counts(checked(tiny_set)) == {"unreadable_file": 1}


def test_class_count(tiny_set):
    report = checked(tiny_set, "dataset.NUM_CLASSES", "3")
    assert counts(report) == {"classes": 1}
    assert "NUM_CLASSES is 3, there are 3 categories + 1 = 4" in texts(report, "classes")[0]


def test_super_classes_must_be_made_of_the_classes(tiny_set, tmp_path):
    table = tmp_path / "table.json"
    key = ("symbol", "mobilenetv2_3k", "network.SUPER_CLASSES", str(table))
    table.write_text('{"0": ["kite"], "1": ["ant", "bee"]}')
    assert counts(checked(tiny_set, *key)) == {}
    table.write_text('{"0": ["kite"], "1": ["ant", "wasp"]}')
    report = checked(tiny_set, *key)
    assert counts(report) == {"classes": 1}
    assert "wasp" in texts(report, "classes")[0] and "bee" in texts(report, "classes")[0]


def test_joined_sets_are_matched_by_name(tiny_set):
    tiny_set.write()
    shutil.copytree(tiny_set.image(7).parent, tiny_set.image(7, "winter").parent)
    good = dict(tiny_set.content)
    tiny_set.write("winter")
    assert counts(check(tiny_set.config(), "herbst+winter")) == {}
    tiny_set.content = good | {"categories": good["categories"][::-1]}
    tiny_set.write("winter")
    assert counts(check(tiny_set.config(), "herbst+winter")) == {}
    tiny_set.content = good | {"categories": [*good["categories"][:2], {"id": 90, "name": "wasp"}]}
    tiny_set.write("winter")
    report = check(tiny_set.config("dataset.NUM_CLASSES", "5"), "herbst+winter")
    assert counts(report)["partial_classes"] == 2 and "classes" not in counts(report)
    assert "COCO_winter: it lacks bee" in texts(report, "partial_classes")
    report = check(tiny_set.config(), "herbst+winter")
    assert "4 categories + 1 = 5: kite, ant, bee, wasp" in texts(report, "classes")[0]
    tiny_set.content = good | {"categories": [{"id": 9, "name": "BEE"}]}
    tiny_set.write("winter")
    report = check(tiny_set.config(), "herbst+winter")
    assert "one class in two ways" in texts(report, "classes")[0]


def test_test_sets_may_have_some_of_the_classes(tiny_set):
    tiny_set.write()
    shutil.copytree(tiny_set.image(7).parent, tiny_set.image(7, "winter").parent)
    good = dict(tiny_set.content)
    keys = ("dataset.test_image_set", "winter")
    for names, number in ((["bee", "kite"], 0), (["bee", "wasp"], 1)):
        categories = [{"id": index, "name": name} for index, name in enumerate(names)]
        tiny_set.content = good | {"categories": categories, "annotations": []}
        tiny_set.write("winter")
        report = check(tiny_set.config(*keys), with_test=True)
        assert counts(report).get("classes", 0) == number
    assert "alone has wasp" in texts(report, "classes")[0]


def test_shared_images(tiny_set):
    tiny_set.content["images"] = [
        image | {"file_name": f"../herbst/{image['file_name']}"}
        for image in tiny_set.content["images"]
    ]
    tiny_set.image(7, "winter").parent.mkdir(parents=True)
    tiny_set.write("winter")
    report = check(tiny_set.config(), "herbst+winter")
    assert counts(report) == {"shared_image": 4}
    assert "COCO_winter: " in texts(report, "shared_image")[0]
    assert "is in COCO_herbst too" in texts(report, "shared_image")[0]
    # Naming a set twice is no reason to read it twice.
    assert len(check(tiny_set.config(), "herbst+herbst").sets) == 1


def test_crowded_chips(tiny_set):
    for x in range(0, 60, 6):
        tiny_set.add(9, [100 + x, 100, 15, 15])
    report = checked(tiny_set, "TRAIN.MAX_GT", "5")
    assert set(counts(report)) == {"crowded_chip"}
    assert "boxes in a chip at x1.5" in texts(report, "crowded_chip")[0]
    assert counts(checked(tiny_set, "TRAIN.MAX_GT", "50")) == {}


def write_proposals(tiny_set, ids, name="COCO_herbst"):
    count = len(ids)
    save_proposals(
        tiny_set.root / "proposals" / "COCO_herbst_rpn.npz",
        ProposalSet(
            name,
            np.array(ids, np.int64),
            np.arange(count + 1, dtype=np.int64),
            np.tile(np.array([[0, 0, 20, 20]], np.float32), (count, 1)),
            np.ones(count, np.float32),
        ),
    )


def test_proposals(tiny_set):
    on = ("TRAIN.USE_NEG_CHIPS", "True")
    report = checked(tiny_set, *on)
    assert counts(report) == {"proposals": 1}
    assert "there is no file" in texts(report, "proposals")[0]
    write_proposals(tiny_set, [7, 8, 9, 12])
    assert counts(checked(tiny_set, *on)) == {}
    write_proposals(tiny_set, [7, 9, 13])
    report = checked(tiny_set, *on)
    assert counts(report) == {"proposals": 1}
    assert "lacks 2 of 4 images, such as 8, 12" in texts(report, "proposals")[0]
    write_proposals(tiny_set, [7, 8, 9, 12], name="COCO_other")
    assert "is for the set COCO_other" in texts(checked(tiny_set, *on), "proposals")[0]
    (tiny_set.root / "proposals" / "COCO_herbst_rpn.npz").write_bytes(b"PK")
    assert counts(checked(tiny_set, *on)) == {"proposals": 1}
    assert counts(checked(tiny_set)) == {}


def test_legacy_proposals_are_checked_too(tiny_set):
    folder = tiny_set.root / "proposals"
    folder.mkdir()
    (folder / "COCO_herbst_rpn.pkl").write_bytes(b"no pickle")
    assert counts(checked(tiny_set, "TRAIN.USE_NEG_CHIPS", "True")) == {"proposals": 1}


def test_test_set_on_demand(tiny_set):
    assert counts(checked(tiny_set)) == {}
    report = checked(tiny_set, with_test=True)
    assert counts(report) == {"annotations": 1}
    shutil.copytree(tiny_set.image(7).parent, tiny_set.image(7, "test").parent)
    tiny_set.content["annotations"] = []
    tiny_set.write("test")
    tiny_set.image(8, "test").unlink()
    report = check(tiny_set.config(), with_test=True)
    assert counts(report) == {"missing_file": 1}
    assert [raw.name for raw in report.sets] == ["COCO_herbst", "COCO_test"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"images": [], "categories": {}}'])
def test_annotation_files_that_are_none(tiny_set, text, capsys):
    tiny_set.annotations().write_text(text)
    assert main(["--cfg", str(tiny_set.recipe)]) == 3
    assert "annotations that cannot be read" in capsys.readouterr().out


def test_unknown_kinds_of_sets_and_missing_sets(tiny_set, capsys):
    assert main(["--cfg", str(tiny_set.recipe), "--image_set", "sommer"]) == 3
    assert "instances_sommer.json" in capsys.readouterr().out
    assert main(["--cfg", str(tiny_set.recipe), "--set", "dataset.dataset", "folder"]) == 3
    assert main(["--cfg", "no such recipe"]) == 2
    assert main(["--cfg", str(tiny_set.recipe), "--workers", "0"]) == 2


def test_the_loader_has_the_last_word(tiny_set, monkeypatch):
    from sniper.tools.check import training

    def refuse(*args, **kwargs):
        raise DataError("the moon is in the wrong phase", got="new moon")

    monkeypatch.setattr(training, "read_training_sets", refuse)
    report = checked(tiny_set)
    assert counts(report) == {"loader": 1}
    assert "the moon is in the wrong phase; got: new moon" in texts(report, "loader")[0]


def test_the_account_is_that_of_training(tiny_set, capsys):
    tiny_set.add(7, [5, 5, 30, 30], ignore=1)
    tiny_set.add(9, [105, 105, 5, 5])
    tiny_set.add(9, [5, 5, 90, 10])
    tiny_set.add(9, [5, 5, 0, 10])
    tiny_set.add(7, [190, 5, 30, 25])
    tiny_set.write()
    assert main(["--cfg", str(tiny_set.recipe)]) == 0
    shown = capsys.readouterr().out
    for line in (
        "  11 read", "   7 trained", "   1 left out: flagged `ignore` or `invalid`",
        "   1 left out: without extent", "   1 left out: below 10 px in every chip",
        "   1 left out: longer than a chip",
        "   1 of the objects are cut at the border of their image",
    ):  # fmt: skip
        assert f"{line}\n" in shown, line
    cfg = tiny_set.config()
    sets = read_training_sets(training_data(cfg))
    chips = chip_settings(cfg)
    with TrainLoader(
        sets.records, chips, batch_settings(cfg), batch_size=2, num_workers=0, seed=cfg.seed
    ) as loader:
        loader.start_epoch(0)
        account = training_account(sets, loader.epoch, chips, cfg.TRAIN.MAX_POLYGON_LEN)
    assert account.to_json() == check(cfg).account.to_json()
    assert next(account.lines()).startswith("annotations: 11 read, 7 trained (63.6%); 4 left out")


def test_no_chip_at_all_is_an_error(tiny_set):
    report = checked(tiny_set, "TRAIN.VALID_RANGES", "[[-1, 2], [500, -1]]")
    assert set(counts(report)) == {"loader", "untrainable"}
    (text,) = texts(report, "loader")
    assert "no chip can be made" in text and "TRAIN.VALID_RANGES" in text
    assert (report.account.read, report.account.trained) == (6, 0)


def test_too_many_candidates_are_an_error_with_a_cure(tiny_set):
    for image in tiny_set.content["images"]:
        image |= {"width": 200_000, "height": 200_000}
    report = checked(tiny_set)
    (text,) = texts(report, "loader")
    assert "take a larger TRAIN.CHIP_SIZE or smaller TRAIN.SCALES" in text
    assert report.account is None


def test_lines_are_limited_and_counted(tiny_set):
    for _ in range(9):
        tiny_set.add(7, [0, 0, 0, 1])
    report = checked(tiny_set)
    lines = list(text_lines(report, 4))
    assert sum("x 0 to 0" in line for line in lines) == 4
    assert "      ... and 5 more" in lines
    assert any("boxes without extent: 9" in line for line in lines)
    assert not any("x 0 to 0" in line for line in text_lines(report, 0))


def test_every_kind_of_the_readers_has_its_place_in_the_report():
    of_readers = [kind for kind in vars(problems).values() if isinstance(kind, ProblemKind)]
    assert len(of_readers) > 20
    assert all(KINDS[kind.name] is kind for kind in of_readers)


def test_findings_keep_a_bounded_number():
    findings = Findings()
    for number in range(3000):
        findings.add("box_cut", "set", str(number))
    assert findings.counts == {"box_cut": 3000}
    assert len(findings.examples["box_cut"]) == 1000
    assert (findings.count(ERROR), findings.count(WARNING)) == (0, 3000)


def test_json(tiny_set, capsys):
    tiny_set.image(8).unlink()
    tiny_set.add(7, [0, 0, 0, 1])
    tiny_set.write()
    path = tiny_set.root / "out" / "report.json"
    assert main(["--cfg", str(tiny_set.recipe), "--json", str(path)]) == 3
    content = json.loads(path.read_text())
    assert list(content) == [
        "tool", "version", "config", "decoded", "errors", "warnings", "sets", "account",
        "problems",
    ]  # fmt: skip
    assert (content["tool"], content["errors"], content["warnings"]) == ("check-data", 1, 1)
    assert content["sets"] == [
        {
            "name": "COCO_herbst",
            "annotations": str(tiny_set.annotations()),
            "images": 4,
            "images_without_objects": 1,
            "objects": 6,
            "ignored_objects": 0,
            "classes": 3,
            "classes_without_objects": 0,
            "counts": {},
        }
    ]
    assert content["account"] == {
        "read": 7, "objects": 6, "trained": 6, "left_out": {"no_extent": 1}, "remarks": {},
    }  # fmt: skip
    assert [problem["kind"] for problem in content["problems"]] == [
        "missing_file",
        "box_degenerate",
    ]
    assert set(content["problems"][0]) == {
        "kind", "severity", "title", "fix", "count", "examples",
    }  # fmt: skip
    capsys.readouterr()
    assert main(["--cfg", str(tiny_set.recipe), "--json", "-"]) == 3
    assert json.loads(capsys.readouterr().out) == content


def test_help_and_kinds_explain_themselves(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for text in ("--decode", "--strict", "The exit code is 3", "examples:"):
        assert text in shown
    assert all(kind.title and kind.fix for kind in KINDS.values())


VOC_XML = (
    """<annotation><size><width>{w}</width><height>{h}</height></size>{objects}</annotation>"""
)
VOC_OBJECT = """<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{x1}</xmin>
<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"""


class VocSet:
    """Three images in the layout of Pascal VOC."""

    def __init__(self, tiny_set):
        self.root = tiny_set.root / "voc" / "VOC2007"
        self.overrides = (
            *("dataset.dataset", "PascalVOC", "dataset.NUM_CLASSES", "21"),
            *("dataset.dataset_path", str(self.root.parent), "dataset.image_set", "2007_train"),
        )
        self.names = ["000001", "000002", "000003"]
        (self.root / "JPEGImages").mkdir(parents=True)
        for name, image_id in zip(self.names, (7, 8, 9)):
            shutil.copy(tiny_set.image(image_id), self.root / "JPEGImages" / f"{name}.jpg")
        self.write_list()
        self.write("000001", 200, 150, ("dog", 0, 11, 21, 40, 45), ("cat", 1, 1, 1, 30, 30))
        self.write("000002", 150, 200, ("person", 0, 1, 1, 40, 45))
        self.write("000003", 320, 240, ("bus", 0, 11, 21, 240, 215))

    def write_list(self):
        path = self.root / "ImageSets" / "Main" / "train.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(self.names) + "\n")

    def write(self, name, width, height, *objects):
        keys = ("name", "hard", "x1", "y1", "x2", "y2")
        text = "".join(VOC_OBJECT.format(**dict(zip(keys, item))) for item in objects)
        path = self.root / "Annotations" / f"{name}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(VOC_XML.format(w=width, h=height, objects=text))


@pytest.fixture
def voc_set(tiny_set):
    return VocSet(tiny_set)


def test_voc_sets(tiny_set, voc_set):
    report = check(tiny_set.config(*voc_set.overrides))
    assert counts(report) == {"empty_class": 17}
    (raw,) = report.sets
    assert (raw.name, raw.num_objects, raw.num_ignored) == ("PASCALVOC_2007_train", 3, 1)


def test_voc_problems_are_reported_at_once(tiny_set, voc_set):
    voc_set.names += ["000002", "000004"]
    voc_set.write_list()
    voc_set.write("000001", 200, 151, ("dog", 0, 11, 21, 300, 45), ("dog", 0, 300, 1, 310, 9))
    voc_set.write("000002", 150, 200, ("unicorn", 0, 1, 1, 40, 45))
    (voc_set.root / "JPEGImages" / "000003.jpg").unlink()
    report = check(tiny_set.config(*voc_set.overrides))
    found = counts(report)
    assert found.pop("empty_class") == 18
    # The long box is cut at the border, where it is too long for a chip of the fine level.
    found.pop("untrainable", None)
    assert found == {
        "duplicate_name": 1,
        "missing_file": 2,
        "broken_entry": 2,  # an unknown class, and no annotation file
        "size_mismatch": 1,
        "box_cut": 1,
        "box_outside": 1,
    }


def test_voc_sets_without_list_or_annotations(tiny_set, voc_set):
    shutil.rmtree(voc_set.root / "Annotations")
    report = check(tiny_set.config(*voc_set.overrides))
    assert counts(report)["annotations"] == 2
    shutil.rmtree(voc_set.root / "ImageSets")
    assert counts(check(tiny_set.config(*voc_set.overrides))) == {"annotations": 1}


def voc_name_twice(voc_set):
    voc_set.names.append("000002")
    voc_set.write_list()
    return "duplicate_name"


def voc_no_image(voc_set):
    (voc_set.root / "JPEGImages" / "000003.jpg").unlink()
    return "missing_file"


def voc_no_annotation(voc_set):
    (voc_set.root / "Annotations" / "000003.xml").unlink()
    return "broken_entry"


def voc_unknown_class(voc_set):
    voc_set.write("000003", 320, 240, ("unicorn", 0, 11, 21, 240, 215))
    return "broken_entry"


def voc_cut_off_annotation(voc_set):
    path = voc_set.root / "Annotations" / "000003.xml"
    path.write_text(path.read_text()[:-30])
    return "broken_entry"


def voc_box_ends_before_it_starts(voc_set):
    voc_set.write("000003", 320, 240, ("dog", 0, 40, 21, 11, 45))
    return "box_degenerate"


def voc_no_size_anywhere(voc_set):
    voc_set.write("000003", 0, 0, ("dog", 0, 11, 21, 40, 45))
    (voc_set.root / "JPEGImages" / "000003.jpg").write_text("no image")
    return "unreadable_file"


def voc_path_out_of_the_folder(voc_set):
    voc_set.names.append("../000002")
    voc_set.write_list()
    return "annotations"


def voc_no_object(voc_set):
    for name, size in zip(voc_set.names, ((200, 150), (150, 200), (320, 240))):
        voc_set.write(name, *size)
    return "annotations"


def voc_box_beyond_the_border(voc_set):
    voc_set.write("000003", 320, 240, ("dog", 0, 311, 21, 340, 45))
    return "box_cut"


def voc_box_outside(voc_set):
    voc_set.write("000003", 320, 240, ("dog", 0, 330, 21, 340, 45))
    return "box_outside"


VOC_SPOILERS = [
    voc_name_twice, voc_no_image, voc_no_annotation, voc_unknown_class, voc_cut_off_annotation,
    voc_box_ends_before_it_starts, voc_no_size_anywhere, voc_path_out_of_the_folder, voc_no_object,
    voc_box_beyond_the_border, voc_box_outside,
]  # fmt: skip


@pytest.mark.parametrize("spoil", VOC_SPOILERS, ids=lambda spoil: spoil.__name__)
def test_training_raises_at_every_error_of_a_voc_set_and_at_no_warning(tiny_set, voc_set, spoil):
    kind = spoil(voc_set)
    cfg = tiny_set.config(*voc_set.overrides)
    report = check(cfg)
    assert kind in counts(report)
    assert {KINDS[name].severity for name in counts(report)} - {KINDS[kind].severity} <= {WARNING}
    try:
        records, _ = training_records(training_data(cfg))
    except DataError:
        assert KINDS[kind].severity == ERROR
    else:
        assert KINDS[kind].severity == WARNING
        # What is left of the set is what the checks have seen.
        (checked_set,) = report.sets
        boxes = [r.boxes.tolist() for r in checked_set.records if r.num_gt]
        assert boxes == [r.boxes.tolist() for r in records if not r.flipped]


def test_masks_are_checked_where_they_are_trained(tiny_set):
    masks = ("TRAIN.WITH_MASK", "True", "symbol", "resnet_mx_18_e2e_mask")
    for annotation in tiny_set.content["annotations"]:
        annotation["segmentation"] = [[1, 1, 150, 1, 150, 150]]
    tiny_set.content["annotations"][1]["segmentation"] = [[1, 2, 3]]
    tiny_set.content["annotations"][3]["segmentation"] = [[1, 1, float("nan"), 1, 9, 9]]
    assert counts(checked(tiny_set)) == {}
    report = checked(tiny_set, *masks)
    assert counts(report) == {"broken_entry": 2}
    assert "annotation 101: a polygon has an odd number" in texts(report, "broken_entry")[0]
    polygons = [len(own) for r in report.sets[0].records for own in r.polygons]
    assert polygons == [1, 0, 1, 0, 1, 1]


def test_boxes_that_the_rules_of_2018_change_are_said_to_be_trained(tiny_set):
    tiny_set.add(7, [5, -20, 10, 20])
    tiny_set.add(7, [-4, 60, 10, 20])
    tiny_set.add(7, [200, 5, 10, 10])
    tiny_set.add(7, [5, 5, 0, 9], area=4)
    tiny_set.add(7, [40.5, 5, 9, 9.25])
    tiny_set.add(7, [195.5, 5, 12, 9])
    report = checked(tiny_set, "TRAIN.LEGACY_BOXES", "True")
    above, left = texts(report, "box_moved")
    assert above.endswith("in 200x150 px, trained as x 5 to 15, y 0 to 20")
    assert left.endswith("x -4 to 6, y 60 to 80 in 200x150 px, trained as x 0 to 10, y 60 to 80")
    (outside,) = texts(report, "box_outside")
    assert outside.endswith("x 200 to 210, y 5 to 15 in 200x150 px")
    assert texts(report, "box_degenerate")[0].endswith("trained as x 5 to 6, y 5 to 14")
    inside, at_border = texts(report, "box_truncated")
    assert inside.endswith(
        "x 40.5 to 49.5, y 5 to 14.25 in 200x150 px, trained as x 40 to 49, y 5 to 14"
    )
    assert at_border.endswith("trained as x 195 to 200, y 5 to 14")
    assert len(texts(report, "box_cut")) == 1
    assert "TRAIN.LEGACY_BOXES False" in KINDS["box_moved"].fix
    report = checked(tiny_set)
    found = counts(report)
    assert found.pop("untrainable") == 2, "what is left of the two at the border is too small"
    assert found == {"box_outside": 2, "box_degenerate": 1, "box_cut": 2}
    boxes = report.sets[0].records[0].boxes
    assert [0, 60, 5, 79] in boxes.tolist() and [40.5, 5, 48.5, 13.25] in boxes.tolist()


def test_folders_report_every_image(tiny_set, tmp_path):
    folder = tiny_set.image(7).parent
    tiny_set.image(9).write_text("no image")
    (tmp_path / "data" / "some.txt").write_text("images/herbst/bild 7.jpg\nnone.jpg\n")
    findings = Findings()
    dataset = load_dataset("folder", folder.parent, folder.name, on_problem=findings.take)
    assert [record.width for record in dataset.records] == [200, 150, 128]
    dataset = load_dataset("folder", tmp_path / "data", "some", on_problem=findings.take)
    assert len(dataset.records) == 1
    assert findings.counts == {"unreadable_file": 1, "missing_file": 1}


def test_files_elsewhere_are_checked_where_training_reads_them(tiny_set):
    tiny_set.write()
    folder, elsewhere = tiny_set.image(7).parent, tiny_set.root / "data" / "somewhere"
    tiny_set.annotations().rename(folder / "labels.json")
    folder.rename(elsewhere)
    sets = ("dataset.test_image_set", "herbst", "dataset.image_folder", "somewhere")
    config = tiny_set.config(*sets, "dataset.annotation_file", "somewhere/labels.json")
    assert counts(check(config)) == {}
