from __future__ import annotations

import logging
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import sniper.data.voc as voc_module
from sniper.data import load_dataset
from sniper.data.image import check_size, read_image
from sniper.data.voc import load_voc
from sniper.data.voc_annotation import MAX_XML_BYTES, read_annotation
from sniper.data.voc_layout import VOC_CLASSES, parse_set, read_image_list
from sniper.errors import DataError

CLASS_INDEX = {name: index for index, name in enumerate(VOC_CLASSES, start=1)}


def test_records_of_a_small_set(voc_set):
    dataset = load_dataset("PascalVOC", voc_set.root, "2007_trainval")
    assert (dataset.name, dataset.image_set) == ("PASCALVOC_2007_trainval", "2007_trainval")
    assert dataset.class_names == ("__background__", *VOC_CLASSES)
    assert (len(VOC_CLASSES), VOC_CLASSES[0], VOC_CLASSES[-1]) == (20, "aeroplane", "tvmonitor")
    assert dataset.has_annotations
    first, second, third = dataset.records
    assert [r.image_id for r in dataset.records] == [12, 7, 100]
    assert first.image_path.endswith("VOC2007/JPEGImages/000012.jpg")
    assert (first.width, first.height) == (50, 40)
    # Counted from 1 in the file, from 0 here.
    np.testing.assert_array_equal(first.boxes, [[4, 5, 19, 29], [0, 0, 49, 39]])
    np.testing.assert_array_equal(first.classes, [12, 15])
    np.testing.assert_array_equal(second.boxes, [[1, 2, 3, 4]])  # the cat is difficult
    assert third.boxes.shape == (0, 4) and third.polygons is None
    for record in dataset.records:
        check_size(read_image(record.image_path), record)


def test_the_evaluation_keeps_difficult_objects(voc_set):
    truth = load_voc(voc_set.root, "07_trainval").truth
    assert truth.image_ids.tolist() == [12, 12, 7, 7]
    assert truth.difficult.tolist() == [False, False, True, False]
    np.testing.assert_array_equal(truth.boxes[2], [9, 9, 18, 18])
    assert truth.image_names == {12: "000012", 7: "000007", 100: "000100"}
    assert truth.eleven_points


@pytest.mark.parametrize(
    ("name", "expected", "eleven_points"),
    [
        ("2007_test", ("2007", "test"), True),
        ("07_trainval", ("2007", "trainval"), True),
        ("2012_val", ("2012", "val"), False),
        ("12_trainval", ("2012", "trainval"), False),
        ("2010_val", ("2010", "val"), False),
        ("2009_val", ("2009", "val"), True),
        ("SDS_val", ("SDS", "val"), True),
        ("Mine_my_set", ("Mine", "my_set"), False),
    ],
)
def test_set_names(name, expected, eleven_points):
    assert parse_set(name) == expected
    truth = voc_module.VocTruth(*expected, {}, *[np.zeros(0)] * 4)
    assert truth.eleven_points == eleven_points


@pytest.mark.parametrize("name", ["trainval", "", "2007_", "_test", "2007_../x", "20/07_test"])
def test_other_set_names_are_refused(name, tmp_path):
    with pytest.raises(DataError, match="named by its year"):
        load_voc(tmp_path, name)


def slow_box(corners, width, height):
    """Boxes as they are read, a number at a time; in 2018 they were truncated."""
    zero_based = [max(0.0, corner - 1) for corner in corners]
    return [min(c, (width, height)[i % 2] - 1) for i, c in enumerate(zero_based)]


corner = st.floats(0, 120).map(lambda value: round(value, 2))


@example([(0.0, 0.0, 0.0, 0.0)] * 2)
@given(st.lists(st.tuples(corner, corner, corner, corner), max_size=6))
def test_boxes_follow_the_rule(tmp_path_factory, boxes):
    boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in boxes]
    exact, truncated = read_boxes(tmp_path_factory.mktemp("voc"), boxes)
    expected = [slow_box(box, 100, 90) for box in boxes if box[0] < 101 and box[1] < 91]
    expected = np.array(expected, np.float32).reshape(-1, 4)
    np.testing.assert_array_equal(exact, expected)
    np.testing.assert_array_equal(truncated, np.trunc(expected))


def read_boxes(root, boxes):
    """With their fractions, and by the rules of 2018."""
    folder = root / "VOCx"
    for name in ("ImageSets/Main", "JPEGImages", "Annotations"):
        (folder / name).mkdir(parents=True)
    objects = "".join(
        "<object><name>dog</name><bndbox><ymin>{1}</ymin><xmin>{0}</xmin><xmax>{2}</xmax>"
        "<ymax>{3}</ymax></bndbox></object>".format(*box)
        for box in boxes
    )
    size = "<size><width>100</width><height>90.0</height></size>"
    (folder / "Annotations" / "a.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    (folder / "JPEGImages" / "a.jpg").touch()
    (folder / "ImageSets" / "Main" / "s.txt").write_text("a")
    return [load_voc(root, "x_s", legacy_boxes=legacy).records[0].boxes for legacy in (False, True)]


def test_zero_coordinates_do_not_wrap(voc_set):
    voc_set.add("000012", (50, 40), [("dog", (0, 0, 0, 7)), ("dog", (0, 1, 50, 40))])
    boxes = load_voc(voc_set.root, "2007_trainval").records[0].boxes
    np.testing.assert_array_equal(boxes, [[0, 0, 0, 6], [0, 0, 49, 39]])


def test_fractions_are_kept_but_for_the_rules_of_2018(voc_set):
    voc_set.add("000012", (50, 40), [("dog", (3.5, 4.25, 9.75, 12)), ("dog", (-4, 2, 50.5, 8.5))])
    boxes = load_voc(voc_set.root, "2007_trainval").records[0].boxes
    np.testing.assert_array_equal(boxes, [[2.5, 3.25, 8.75, 11], [0, 1, 49, 7.5]])
    boxes = load_voc(voc_set.root, "2007_trainval", legacy_boxes=True).records[0].boxes
    np.testing.assert_array_equal(boxes, [[2, 3, 8, 11], [0, 1, 49, 7]])


def test_boxes_beyond_the_image_are_cut_and_counted(voc_set, caplog):
    voc_set.add("000012", (50, 40), [("dog", (10, 10, 60, 20)), ("dog", (51, 1, 60, 9))])
    boxes = load_voc(voc_set.root, "2007_trainval").records[0].boxes
    np.testing.assert_array_equal(boxes, [[9, 9, 49, 19]])
    assert "1 boxes that reach beyond their image (they are cut" in caplog.text
    assert "1 boxes outside their image (they are left out" in caplog.text


def test_missing_sizes_come_from_the_images(voc_set, caplog):
    box = "<object><name>dog</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
    rest = f"{box}</bndbox></object>"
    zeros = "<size><width>0</width><height>0</height></size>"
    voc_set.annotate("000012", f"<annotation>{rest}</annotation>")
    voc_set.annotate("000007", f"<annotation>{zeros}{rest}</annotation>")
    with caplog.at_level(logging.INFO):
        records = load_voc(voc_set.root, "2007_trainval").records
    assert [(r.width, r.height) for r in records] == [(50, 40), (60, 30), (20, 20)]
    assert "2 annotations give no size" in caplog.text


def test_own_sets_classes_and_names(tmp_path, voc_set):
    voc_set.folder.rename(voc_set.root / "VOCMine")
    voc_set.folder = voc_set.root / "VOCMine"
    voc_set.add("street north", (30, 20), [("Red Kite", (1, 1, 9, 9)), ("DOG", (2, 2, 8, 8))])
    voc_set.list("own", "street north\n000100\n")
    with pytest.raises(DataError, match=r"object 1 \(red kite\) is of no known class"):
        load_voc(voc_set.root, "Mine_own")
    (voc_set.root / "classes.txt").write_text("# mine\nred kite\nDog\n")
    dataset = load_voc(voc_set.root, "Mine_own")
    assert dataset.class_names == ("__background__", "red kite", "Dog")
    assert dataset.records[0].classes.tolist() == [1, 2]
    ids = [r.image_id for r in dataset.records]
    voc_set.add("north 2", (9, 9), [])
    voc_set.list("other", "000100\nnorth 2\nstreet north")
    others = load_voc(voc_set.root, "Mine_other").records
    assert [others[2].image_id, others[0].image_id] == ids  # the same in every set
    assert len({r.image_id for r in others}) == 3
    assert not dataset.truth.eleven_points
    (voc_set.folder / "classes.txt").write_text("dog\ndog")
    with pytest.raises(DataError, match="dog more than once"):
        load_voc(voc_set.root, "Mine_own")


def test_other_image_formats(voc_set):
    old = voc_set.folder / "JPEGImages" / "000007.jpg"
    old.rename(old.with_suffix(".png"))
    assert load_voc(voc_set.root, "2007_trainval").records[1].image_path.endswith("000007.png")


def test_missing_files_are_counted_and_named(voc_set):
    (voc_set.folder / "JPEGImages" / "000007.jpg").unlink()
    (voc_set.folder / "JPEGImages" / "000100.jpg").unlink()
    with pytest.raises(DataError, match="2 of 3 images are missing") as error:
        load_voc(voc_set.root, "2007_trainval")
    assert "000007.jpg, 000100.jpg" in str(error.value)
    voc_set.xml("000012").unlink()
    with pytest.raises(DataError, match="1 of 3 annotation files are missing"):
        load_voc(voc_set.root, "2007_trainval")
    with pytest.raises(DataError, match="cannot be read") as error:
        load_voc(voc_set.root, "2007_nothing")
    assert "nothing.txt" in str(error.value)


def test_sets_without_annotations(voc_set):
    for path in (voc_set.folder / "Annotations").iterdir():
        path.unlink()
    dataset = load_voc(voc_set.root, "2007_trainval")
    assert not dataset.has_annotations
    assert [(r.width, r.height) for r in dataset.records] == [(50, 40), (60, 30), (20, 20)]
    assert not any(len(r.boxes) for r in dataset.records)


def test_masks_are_refused(voc_set):
    with pytest.raises(DataError, match="has no masks"):
        load_voc(voc_set.root, "2007_trainval", with_masks=True)


def test_lists(tmp_path):
    path = tmp_path / "dog_train.txt"
    path.write_text("000005 -1\n000007  1\n000009  0\n")
    assert read_image_list(path) == ("000005", "000007", "000009")
    path.write_text("street 1\nstreet\n")  # no flags, since the second line has none
    assert read_image_list(path) == ("street 1", "street")
    for text, problem in (
        ("", "no name"),
        ("\n\n", "no name"),
        ("a\nb\na\n", "1 names that stood there before"),
        ("../../secret\n", "leaves the folder"),
        ("/etc/passwd\n", "leaves the folder"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=problem):
            read_image_list(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        read_image_list(path)


GOOD = (
    "<annotation><size><width>50</width><height>40</height></size><object><name>dog</name>"
    "<difficult>0</difficult><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>20</xmax><ymax>30</ymax>"
    "</bndbox></object></annotation>"
)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</annotation>", "", "no valid XML: no element found"),
        ("annotation>", "html>", "root is <html>"),
        ("<xmin>5</xmin>", "", r"object 1 \(dog\) has no <xmin> in its <bndbox>"),
        ("bndbox>", "box>", r"object 1 \(dog\) has no <xmin> in its <bndbox>"),
        ("<xmin>5", "<xmin>five", r"<xmin> of object 1 \(dog\) is 'five'"),
        ("<xmin>5", "<xmin>", r"<xmin> of object 1 \(dog\) is ''"),
        ("<xmax>20", "<xmax>nan", r"<xmax> of object 1 \(dog\) is 'nan'"),
        ("<xmax>20", "<xmax>1e999", r"<xmax> of object 1 \(dog\) is '1e999'"),
        ("<name>dog</name>", "", "object 1 has no <name>"),
        ("<name>dog</name>", "<name> </name>", "object 1 has no <name>"),
        ("dog", "zebra", r"object 1 \(zebra\) is of no known class"),
        ("<difficult>0", "<difficult>a bit", r"<difficult> of object 1 \(dog\) is 'a bit'"),
        ("<width>50", "<width>-50", "size/width is '-50'"),
        ("<width>50", "<width>49.5", "size/width is '49.5'"),
        ("<width>50", "<width>wide", "size/width is 'wide'"),
    ],
)
def test_broken_annotations_name_the_file_and_the_element(tmp_path, old, new, message):
    path = tmp_path / "000001.xml"
    path.write_text(GOOD)
    assert read_annotation(path, CLASS_INDEX).objects == [(4, 5, 19, 29, 12, False)]
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(DataError, match=message) as error:
        read_annotation(path, CLASS_INDEX)
    assert str(path) in str(error.value)


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    "head", [BOMB, '<!DOCTYPE a SYSTEM "file:///etc/passwd">', "<!DOCTYPE annotation>"]
)
def test_entities_are_refused_in_any_encoding(tmp_path, head, encoding):
    path = tmp_path / "000001.xml"
    text = f'<?xml version="1.0" encoding="{encoding}"?>{head}{GOOD}'.replace("dog", "&b;")
    path.write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match="declares the document type"):
        read_annotation(path, CLASS_INDEX)


def test_other_encodings_and_unknown_ones(tmp_path):
    path = tmp_path / "000001.xml"
    path.write_bytes(f'<?xml version="1.0" encoding="utf-16"?>{GOOD}'.encode("utf-16"))
    assert len(read_annotation(path, CLASS_INDEX).objects) == 1
    path.write_text(f'<?xml version="1.0" encoding="klingon"?>{GOOD}')
    with pytest.raises(DataError, match="no valid XML"):
        read_annotation(path, CLASS_INDEX)
    path.write_bytes(b"\x00" * 64)
    with pytest.raises(DataError, match="no valid XML"):
        read_annotation(path, CLASS_INDEX)


def test_an_undeclared_code_page_is_told_with_the_cure(tmp_path):
    path = tmp_path / "000001.xml"
    accents = GOOD.replace("<object>", "<folder>été</folder><object>", 1)
    path.write_bytes(accents.encode("cp1252"))
    with pytest.raises(DataError, match="not in UTF-8") as error:
        read_annotation(path, CLASS_INDEX)
    assert str(path) in str(error.value) and "iconv" in str(error.value)
    path.write_bytes(b'<?xml version="1.0" encoding="cp1252"?>' + accents.encode("cp1252"))
    assert len(read_annotation(path, CLASS_INDEX).objects) == 1
    for unicode in ("utf-8", "utf-16"):
        path.write_bytes(accents.replace("</annotation>", "").encode(unicode))
        with pytest.raises(DataError, match="no valid XML"):
            read_annotation(path, CLASS_INDEX)


def test_files_without_measure_are_not_read(tmp_path):
    path = tmp_path / "000001.xml"
    with open(path, "wb") as stream:
        stream.truncate(MAX_XML_BYTES + 1)
    with pytest.raises(DataError, match="too large"):
        read_annotation(path, CLASS_INDEX)


@pytest.fixture
def load(voc_set, tmp_path, caplog):
    def loader():
        caplog.clear()
        with caplog.at_level(logging.INFO):
            dataset = load_voc(voc_set.root, "2007_trainval", cache_dir=tmp_path / "cache")
        (said,) = [m for m in caplog.messages if "cache" in m]
        return dataset, said

    return loader


def test_cache(load, voc_set, monkeypatch):
    fresh, said = load()
    assert said.startswith("annotations are read (for the first time")
    with monkeypatch.context() as patch:
        patch.setattr(voc_module, "read_table", None)
        again, said = load()
    assert said.startswith("annotations as they were read before")
    for a, b in zip(fresh.records, again.records):
        np.testing.assert_array_equal(a.boxes, b.boxes)
        assert (a.image_path, a.width, a.height) == (b.image_path, b.width, b.height)
    np.testing.assert_array_equal(fresh.truth.difficult, again.truth.difficult)
    text = voc_set.xml("000007").read_text()
    voc_set.xml("000007").write_text(re.sub("<difficult>1", "<difficult>0", text))
    changed, said = load()
    assert said.startswith("annotations are read (again, since annotation files changed")
    assert changed.records[1].num_gt == 2
    voc_set.list("trainval", "000012\n000100\n")
    assert load()[1].startswith("annotations are read (again, since annotation files changed")
    (voc_set.folder / "classes.txt").write_text("\n".join(reversed(VOC_CLASSES)))
    dataset, said = load()
    assert said.startswith("annotations are read (again, since list of classes changed")
    assert dataset.records[0].classes.tolist() == [9, 6]
    monkeypatch.setattr(voc_module, "CACHE_FORMAT", 99)
    assert load()[1].startswith(
        "annotations are read (again, since format version changed (1 -> 99)"
    )
