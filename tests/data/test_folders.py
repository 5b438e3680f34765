from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sniper.data import load_dataset
from sniper.data.folders import find_images, image_records, natural_key
from sniper.data.ids import stable_ids
from sniper.errors import DataError


def put(path, width=12, height=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode(path.suffix, np.zeros((height, width, 3), np.uint8))[1].tofile(path)
    return path


@pytest.fixture
def holiday(tmp_path):
    root = tmp_path / "data" / "holiday"
    for name in ("10.jpg", "9.jpg", "b/2.png", "b/11.JPG", "a/x.bmp", "Ünder 1.jpeg"):
        put(root / name)
    put(root / "b" / "deep" / "9.jpg", 30, 20)
    put(root / ".thumbs" / "9.jpg")
    (root / "._10.jpg").write_bytes(b"resource fork")
    (root / "notes.txt").write_text("not an image")
    return root


def names(dataset, root):
    return [os.path.relpath(record.image_path, root) for record in dataset.records]


def test_a_folder_in_natural_order(holiday):
    dataset = load_dataset("folder", holiday.parent, "holiday")
    assert dataset.name == "IMAGES_holiday" and not dataset.has_annotations
    assert names(dataset, holiday) == [
        "9.jpg",
        "10.jpg",
        "a/x.bmp",
        "b/2.png",
        "b/11.JPG",
        "b/deep/9.jpg",
        "Ünder 1.jpeg",
    ]
    deep = dataset.records[5]
    assert (deep.width, deep.height, deep.num_gt, deep.flipped) == (30, 20, 0, False)
    assert dataset.class_names == ("__background__",)


def test_ids_do_not_change_when_images_come_and_go(holiday):
    def ids():
        records = load_dataset("folder", holiday.parent, "holiday").records
        return {record.image_path: record.image_id for record in records}

    before = ids()
    assert len(set(before.values())) == 7
    put(holiday / "0.jpg")
    (holiday / "9.jpg").unlink()
    after = ids()
    shared = set(before) & set(after)
    assert len(shared) == 6 and all(before[path] == after[path] for path in shared)


def test_ids_do_not_depend_on_the_place(holiday, tmp_path):
    ids = [r.image_id for r in load_dataset("folder", holiday.parent, "holiday").records]
    holiday.rename(tmp_path / "images")
    again = load_dataset("folder", tmp_path, "images")
    assert [r.image_id for r in again.records] == ids


@given(st.lists(st.text(max_size=8), unique=True, max_size=30))
def test_ids_are_distinct_and_fit_into_json(texts):
    ids = stable_ids(texts)
    assert ids.dtype == np.int64 and len(set(ids.tolist())) == len(texts)
    assert all(int(float(i)) == i >= 0 for i in ids.tolist())
    assert stable_ids(texts[::-1]).tolist()[::-1] == ids.tolist()


def test_known_ids():
    assert stable_ids(["a.jpg", "b/2.png"]).tolist() == [2836059931555064, 6268954951394953]


def test_colliding_ids_stay_distinct(monkeypatch):
    monkeypatch.setattr("sniper.data.ids._hash", len)
    # The number of the attempt is appended: two characters more.
    assert stable_ids(["aa", "bb", "cccc", "d"]).tolist() == [2, 4, 6, 1]


@given(st.lists(st.text("a1B2/é0", max_size=6), max_size=12))
def test_natural_order_does_not_depend_on_the_order_before(paths):
    orders = [sorted(paths, key=natural_key), sorted(reversed(paths), key=natural_key)]
    assert [[Path(path) for path in order] for order in orders] == [list(map(Path, orders[0]))] * 2


def test_natural_order():
    paths = ["img10.jpg", "img9.jpg", "IMG1.jpg", "a/10/1.jpg", "a/9/2.jpg", "1.jpg", "x.jpg"]
    assert sorted(paths, key=natural_key) == [
        "1.jpg",
        "a/9/2.jpg",
        "a/10/1.jpg",
        "IMG1.jpg",
        "img9.jpg",
        "img10.jpg",
        "x.jpg",
    ]


def test_lists(holiday):
    path = holiday.parent / "some.txt"
    path.write_text(f"# mine\nholiday/b/2.png\n\nholiday/Ünder 1.jpeg\n{holiday / '9.jpg'}\n")
    dataset = load_dataset("folder", holiday.parent, "some")
    assert names(dataset, holiday) == ["b/2.png", "Ünder 1.jpeg", "9.jpg"]
    path.write_text("holiday/9.jpg\nholiday/none.jpg\nholiday/./9.jpg\nholiday/nope.jpg")
    with pytest.raises(DataError, match="2 of 4 images of the list are missing") as error:
        load_dataset("folder", holiday.parent, "some")
    assert "none.jpg" in str(error.value) and "nope.jpg" in str(error.value)
    path.write_text("holiday/9.jpg\nholiday/./9.jpg")
    assert len(load_dataset("folder", holiday.parent, "some").records) == 1


def test_all_unreadable_files_are_named_at_once(holiday):
    (holiday / "10.jpg").write_bytes(b"")
    (holiday / "b" / "2.png").write_bytes((holiday / "b" / "2.png").read_bytes()[:-30])
    (holiday / "a" / "x.bmp").write_bytes(b"BMnothing")
    with pytest.raises(DataError, match="3 of 7 images cannot be read") as error:
        load_dataset("folder", holiday.parent, "holiday")
    text = str(error.value)
    assert all(name in text for name in ("10.jpg", "2.png (an image file is cut off", "x.bmp"))


def test_files_folders_patterns_and_lists_together(holiday):
    (holiday.parent / "list.txt").write_text("holiday/9.jpg\n")
    found = find_images(
        [holiday / "10.jpg", holiday / "b", holiday / "*.jp*g", holiday.parent / "list.txt"]
    )
    relative = [os.path.relpath(path, holiday) for path in found]
    assert relative == [
        "10.jpg",
        "b/2.png",
        "b/11.JPG",
        "b/deep/9.jpg",
        "9.jpg",
        "Ünder 1.jpeg",
    ]
    with pytest.raises(DataError, match="no such file"):
        find_images([holiday / "99.jpg"])
    with pytest.raises(DataError, match="there are no images"):
        find_images([holiday / "*.gif"])


def test_links_in_circles_end(holiday):
    (holiday / "b" / "loop").symlink_to(holiday, target_is_directory=True)
    assert len(find_images([holiday])) == 7


def test_the_set_is_looked_up_in_three_places(holiday):
    root = holiday.parent
    put(root / "images" / "holiday" / "1.jpg")
    assert len(load_dataset("folder", root, "holiday").records) == 1
    with pytest.raises(DataError, match="neither a folder nor a list") as error:
        load_dataset("folder", root, "none")
    assert str(root / "none.txt") in str(error.value)
    with pytest.raises(DataError, match="set's name may hold"):
        load_dataset("folder", root, "../holiday")


def test_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there are no images"):
        load_dataset("folder", tmp_path, "empty")


def test_classes_of_a_folder(holiday):
    (holiday.parent / "classes.txt").write_text("kite\nant\n")
    dataset = load_dataset("folder", holiday.parent, "holiday")
    assert dataset.class_names == ("__background__", "kite", "ant")
    assert dataset.category_ids == (0, 1, 2)


def test_no_images_at_all():
    assert image_records([], []) == ()
