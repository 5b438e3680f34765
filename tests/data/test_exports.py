"""What common tools write beside the standard: categories, encodings, lists, endings."""

from __future__ import annotations

import gzip
import json
import logging

import cv2
import numpy as np
import pytest

from sniper.data import json_text, load_dataset
from sniper.data.image_endings import IMAGE_ENDINGS, has_image_ending
from sniper.data.listings import read_lines
from sniper.data.voc_annotation import read_annotation
from sniper.data.voc_layout import read_image_list
from sniper.errors import DataError


def with_root(small_set, name, supercategory):
    categories = small_set.content["categories"]
    for category in categories:
        category["supercategory"] = supercategory
    root = {"id": 999, "name": name, "supercategory": "none"}
    small_set.content["categories"] = [root, *categories]
    small_set.write()


@pytest.mark.parametrize("twin", [True, False])
def test_the_root_above_the_classes_is_none(small_set, caplog, twin):
    plain = load_dataset("coco", small_set.root, small_set.image_set)
    name = plain.class_names[1] if twin else "my-project"
    with_root(small_set, name, name)
    with caplog.at_level(logging.WARNING):
        dataset = load_dataset("coco", small_set.root, small_set.image_set)
    assert dataset.class_names == plain.class_names
    assert "1 categories above all classes" in caplog.text


def test_a_root_with_objects_is_a_class(small_set):
    with_root(small_set, "my-project", "my-project")
    small_set.content["annotations"][0]["category_id"] = 999
    small_set.write()
    assert "my-project" in load_dataset("coco", small_set.root, small_set.image_set).class_names


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("packed", [False, True])
def test_json_in_any_of_its_encodings(small_set, encoding, packed):
    small_set.content["categories"][0]["name"] = "café"
    raw = json.dumps(small_set.content, ensure_ascii=False).encode(encoding)
    small_set.path.write_bytes(gzip.compress(raw) if packed else raw)
    assert "café" in load_dataset("coco", small_set.root, small_set.image_set).class_names
    if packed:
        small_set.path.rename(small_set.path.with_name(small_set.path.name + ".gz"))
        assert load_dataset("coco", small_set.root, small_set.image_set).records


@pytest.mark.parametrize("cut", [3, 100])
def test_a_broken_gzip_file_is_told(small_set, cut):
    raw = gzip.compress(json.dumps(small_set.content).encode())
    small_set.path.write_bytes(raw[:cut])
    with pytest.raises(DataError, match="cannot be read"):
        load_dataset("coco", small_set.root, small_set.image_set)


def test_a_gzip_file_that_stands_for_too_much_is_refused(small_set, monkeypatch):
    monkeypatch.setattr(json_text, "_ALWAYS_BYTES", 1 << 20)
    text = json.dumps(small_set.content)
    small_set.path.write_bytes(gzip.compress((text + " " * (1 << 19)).encode()))
    assert load_dataset("coco", small_set.root, small_set.image_set).records
    small_set.path.write_bytes(gzip.compress((text + " " * (8 << 20)).encode()))
    with pytest.raises(DataError, match="far more than it should") as error:
        load_dataset("coco", small_set.root, small_set.image_set)
    assert "gunzip" in str(error.value) and str(small_set.path) in str(error.value)


def test_code_pages_are_named_with_the_cure(small_set):
    small_set.content["categories"][0]["name"] = "café"
    raw = json.dumps(small_set.content, ensure_ascii=False).encode("latin-1")
    small_set.path.write_bytes(raw)
    with pytest.raises(DataError, match="not encoded in utf-8") as error:
        load_dataset("coco", small_set.root, small_set.image_set)
    assert "iconv" in str(error.value) and "cut off" not in str(error.value)


@pytest.mark.parametrize(
    ("word", "difficult"),
    [("true", True), ("Yes", True), ("1", True), ("false", False), ("no", False), ("", False)],
)
def test_words_for_difficult(voc_set, word, difficult):
    voc_set.add("000012", (50, 40), [("dog", (5, 6, 20, 30), word)])
    dataset = load_dataset("voc", voc_set.root, "2007_trainval")
    assert dataset.truth.difficult[0] == difficult
    assert dataset.records[0].num_gt == (not difficult)


def test_an_unspecified_difficult_is_told(voc_set, caplog):
    voc_set.add("000012", (50, 40), [("dog", (5, 6, 20, 30), "Unspecified")])
    with caplog.at_level(logging.WARNING):
        dataset = load_dataset("voc", voc_set.root, "2007_trainval")
    assert dataset.records[0].num_gt == 1
    assert "1 objects whose <difficult> says neither yes nor no" in caplog.text


LISTS = {
    "files": "000012.jpg\n000007.png\n000100.JPG\n",
    "with flags": "000012  1\n000007 -1\n000100  +1\n",
    "windows": "\ufeff000012\r\n\r\n000007\r\n000100 \r\n",
    "paths": "VOC2007/JPEGImages/000012.jpg\nJPEGImages\\000007.jpg\n/data/JPEGImages/000100.jpg\n",
    "annotations": "Annotations/000012.xml\n000007.xml\n000100.xml\n",
}


@pytest.mark.parametrize("form", LISTS)
def test_lists_of_all_forms(voc_set, form):
    path = voc_set.folder / "ImageSets" / "Main" / "mine.txt"
    path.write_bytes(LISTS[form].encode())
    assert read_image_list(path) == ("000012", "000007", "000100")


@pytest.mark.parametrize("ending", [".tif", ".webp", ".BMP", ".jfif", ".Png"])
def test_one_list_of_endings_for_all_formats(voc_set, ending):
    images = voc_set.folder / "JPEGImages"
    encoded = ".jpg" if ending == ".jfif" else ending.lower()
    (images / "000012.jpg").unlink()
    cv2.imencode(encoded, np.zeros((40, 50, 3), np.uint8))[1].tofile(images / f"000012{ending}")
    voc = load_dataset("voc", voc_set.root, "2007_trainval")
    assert voc.records[0].image_path.endswith(f"000012{ending}")
    folder = load_dataset("folder", voc_set.folder, "JPEGImages")
    assert any(record.image_path.endswith(ending) for record in folder.records)


def test_endings_are_lower_case_and_hidden_files_are_no_images():
    assert all(ending == ending.lower() for ending in IMAGE_ENDINGS)
    assert has_image_ending("a/b.TIFF") and not has_image_ending("a/.b.tiff")
    assert not has_image_ending("jpg")


@pytest.mark.parametrize(
    "encoding", ["windows-1251", "gb2312", "shift_jis", "iso-8859-1", "utf-16", "utf-8"]
)
def test_xml_in_the_encoding_that_it_declares(tmp_path, encoding):
    name = {"windows-1251": "кот", "gb2312": "猫", "shift_jis": "ねこ"}.get(encoding, "café")
    path = tmp_path / "a.xml"
    path.write_bytes(
        (
            f'<?xml version="1.0" encoding="{encoding}"?>\n<annotation><object><name>{name}</name>'
            "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object>"
            "</annotation>"
        ).encode(encoding)
    )
    assert read_annotation(path, {name: 1}).objects[0].class_index == 1


def test_an_encoding_that_nobody_knows_is_told(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text('<?xml version="1.0" encoding="klingon"?><annotation/>')
    with pytest.raises(DataError, match="klingon"):
        read_annotation(path, {})


def test_an_xml_that_calls_itself_utf_16_may_be_utf_8(tmp_path):
    """What some programs write to a file in another encoding than to their text."""
    path = tmp_path / "a.xml"
    head = '<?xml version="1.0" encoding="utf-16"?>'
    path.write_text(f"{head}<annotation><folder>caf\u00e9</folder></annotation>", encoding="utf-8")
    assert read_annotation(path, {}).objects == []


def test_an_image_with_two_other_endings_is_refused(voc_set):
    folder = voc_set.folder / "JPEGImages"
    (folder / "000007.png").write_bytes(b"another picture")
    load_dataset("voc", voc_set.root, "2007_trainval")  # VOC's own ending decides
    (folder / "000007.jpg").rename(folder / "000007.tif")
    with pytest.raises(DataError, match="several files"):
        load_dataset("voc", voc_set.root, "2007_trainval")


def test_lists_in_utf_16(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("a\r\n\r\nb.c\r\n".encode("utf-16"))
    assert read_lines(path, "list") == ["a", "b.c"]
