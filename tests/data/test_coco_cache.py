from __future__ import annotations

import logging
import os
import shutil

import numpy as np
import pytest

import sniper.data.coco as coco_module
from sniper.data.coco import load_coco


@pytest.fixture
def load(small_set, tmp_path, caplog):
    """Loads the small set with a cache; gives records and what the log said about the cache."""

    def loader(**options):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            dataset = load_coco(
                small_set.root, small_set.image_set, cache_dir=tmp_path / "cache", **options
            )
        said = [m for m in caplog.messages if "cache" in m]
        assert len(said) == 1
        return dataset, said[0]

    return loader


def same(a, b):
    assert a.class_names == b.class_names and a.category_ids == b.category_ids
    assert a.has_annotations == b.has_annotations
    for x, y in zip(a.records, b.records):
        np.testing.assert_array_equal(x.boxes, y.boxes)
        np.testing.assert_array_equal(x.classes, y.classes)
        np.testing.assert_array_equal(x.crowd_boxes, y.crowd_boxes)
        assert (x.image_path, x.image_id, x.width) == (y.image_path, y.image_id, y.width)
        assert x.boxes.dtype == y.boxes.dtype and x.classes.dtype == y.classes.dtype
        assert (x.polygons is None) == (y.polygons is None)
        for ours, theirs in zip(x.polygons or (), y.polygons or ()):
            assert [p.tolist() for p in ours] == [p.tolist() for p in theirs]


@pytest.mark.parametrize("with_masks", [False, True])
def test_second_load_comes_from_the_cache_and_is_the_same(load, with_masks, monkeypatch, small_set):
    small_set.content["annotations"][1]["segmentation"] = [[1, 1, 5, 1, 5, 5], [2, 2, 3, 2, 3, 3]]
    small_set.write()
    fresh, said = load(with_masks=with_masks)
    assert said.startswith("annotations are read (for the first time")

    def must_not_parse(*args, **kwargs):
        raise AssertionError("the annotation file was parsed again")

    monkeypatch.setattr(coco_module, "parse_coco", must_not_parse)
    again, said = load(with_masks=with_masks)
    assert said.startswith("annotations as they were read before")
    same(fresh, again)


def test_changed_annotations_rebuild(load, small_set):
    load()
    small_set.content["annotations"].pop(1)
    small_set.write()
    dataset, said = load()
    assert said.startswith("annotations are read (again, since annotation file changed (")
    assert " -> " in said
    assert len(dataset.records[0].boxes) == 1


def test_a_change_that_the_file_system_does_not_tell_rebuilds(load, small_set):
    """Same size, same inode, times set back: what `stat` says of the file is the same."""
    load()
    before, content = small_set.path.stat(), small_set.path.read_bytes()
    assert content.count(b"kite") == 1
    with open(small_set.path, "r+b") as stream:
        stream.seek(content.index(b"kite"))
        stream.write(b"bike")
    os.utime(small_set.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = small_set.path.stat()
    assert (after.st_size, after.st_ino, after.st_mtime_ns) == (
        *(before.st_size, before.st_ino, before.st_mtime_ns),
    )
    dataset, said = load()
    assert said.startswith("annotations are read (again, since annotation file changed (")
    assert "bike" in dataset.class_names and "kite" not in dataset.class_names


def test_changed_masks_switch_rebuilds(load):
    load()
    dataset, said = load(with_masks=True)
    assert said.startswith(
        "annotations are read (again, since masks switch changed (False -> True)"
    )
    assert dataset.records[0].polygons == ((), ())


def test_a_cache_with_masks_serves_without_them(load):
    with_masks, _ = load(with_masks=True)
    without, said = load()
    assert said.startswith("annotations as they were read before")
    assert without.records[0].polygons is None
    np.testing.assert_array_equal(without.records[0].boxes, with_masks.records[0].boxes)
    assert load(with_masks=True)[1].startswith("annotations as they were read before")


def test_sets_of_one_name_in_two_places_do_not_replace_each_other(load, small_set, tmp_path):
    load()
    place = small_set.root
    shutil.copytree(place, tmp_path / "other")
    small_set.root = tmp_path / "other"
    assert load()[1].startswith("annotations are read (for the first time")
    small_set.root = place
    assert load()[1].startswith("annotations as they were read before")


def test_changed_format_rebuilds(load, monkeypatch):
    load()
    old, new = coco_module.CACHE_FORMAT, coco_module.CACHE_FORMAT + 1
    monkeypatch.setattr(coco_module, "CACHE_FORMAT", new)
    assert load()[1].startswith(
        f"annotations are read (again, since format version changed ({old} -> {new})"
    )


def _cut(content):
    return content[: len(content) // 2]


def _flip_a_byte(content):
    # The class names are stored as UTF-32: "kite" becomes "jite".
    position = content.index("kite".encode("utf-32-le"))
    return content[:position] + b"j" + content[position + 1 :]


@pytest.mark.parametrize("damage", [_cut, _flip_a_byte, lambda content: b"", lambda content: b"x"])
def test_broken_cache_is_rebuilt(load, tmp_path, damage):
    fresh, _ = load()
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(damage(path.read_bytes()))
    again, said = load()
    assert said.startswith("annotations are read (again, since what was kept could not be read")
    same(fresh, again)
    assert load()[1].startswith("annotations as they were read before")


def test_foreign_npz_is_rebuilt_and_pickles_are_not_read(load, tmp_path):
    load()
    (path,) = (tmp_path / "cache").iterdir()
    np.savez(path, cache_key=np.array([{"a": 1}], dtype=object))
    assert "could not be read" in load()[1]


def test_unwritable_cache_is_no_error(small_set, tmp_path, caplog):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    dataset = load_coco(small_set.root, small_set.image_set, cache_dir=blocker / "cache")
    assert len(dataset.records) == 5
    assert "going on without keeping the annotations" in caplog.text


def test_moved_images_are_found_though_annotations_are_cached(load, small_set):
    load()
    flat = small_set.root / small_set.image_set / "street north.png"
    flat.parent.mkdir()
    small_set.image_path("street north.png").rename(flat)
    assert load()[0].records[0].image_path == str(flat)
