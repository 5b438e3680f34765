"""Which files below a folder count: one rule for `sniper detect` and for data sets."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

from sniper.data.folder_walk import walk_images
from sniper.data.folders import find_images
from sniper.data.sources import open_source
from sniper.errors import DataError


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target, target_is_directory=True)


def found(folder):
    """What detection finds, which must be what a data set finds."""
    names = [
        os.path.relpath(part.path, folder) for part in open_source(folder, recursive=True).parts
    ]
    assert sorted(os.path.relpath(path, folder) for path in find_images([folder])) == sorted(names)
    return names


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "all" / "photos"
    for name in ("a.png", "b/c.png", ".hidden.png", ".cache/d.png"):
        write(folder / name)
    return folder


def test_hidden_files_and_folders_are_left_out(photos):
    assert found(photos) == ["a.png", "b/c.png"]


def test_links_to_folders_are_followed_once_after_all_real_folders(photos, tmp_path):
    write(tmp_path / "elsewhere" / "sub" / "e.png")
    link(photos / "a_link", tmp_path / "elsewhere")
    link(photos / "another", tmp_path / "elsewhere")
    link(photos / "a_second_b", photos / "b")
    link(photos / "b" / "deep", tmp_path / "elsewhere" / "sub")
    assert found(photos) == ["a.png", "b/c.png", "a_link/sub/e.png"]


@pytest.mark.parametrize("target", [".", "..", "../..", "/"])
def test_links_to_the_folder_itself_and_above_it_are_left_out(photos, target):
    write(photos.parent / "sibling" / "not_ours.png")
    link(photos / "b" / "loop", (photos / target).resolve())
    assert found(photos) == ["a.png", "b/c.png"]


def test_two_folders_that_link_to_each_other(photos, tmp_path):
    write(tmp_path / "x" / "x.png")
    link(photos / "x", tmp_path / "x")
    link(tmp_path / "x" / "back", photos / "b")
    assert found(photos) == ["a.png", "b/c.png", "x/x.png"]


def test_drawings_of_an_earlier_run_are_no_pictures(photos):
    write(photos / "found" / "drawings" / "b" / "c.png")
    write(photos / "drawings" / "mine.png")
    (photos / "found" / "detections.json").write_text("{}")
    assert found(photos) == ["a.png", "b/c.png", "drawings/mine.png"]
    (photos / "detections.json").write_text("{}")
    assert found(photos) == ["a.png", "b/c.png"]
    by_pattern = open_source(str(photos / "**" / "*.png")).parts
    assert [part.name for part in by_pattern] == ["a.png", "b/c.png"]
    # Whoever names the folder itself means it.
    assert len(open_source(photos / "drawings").parts) == 1


def test_without_recursion_links_do_not_count(photos, tmp_path):
    write(tmp_path / "x" / "x.png")
    link(photos / "x", tmp_path / "x")
    assert [part.name for part in open_source(photos).parts] == ["a.png"]
    with pytest.raises(DataError, match="no images"):
        open_source(tmp_path / "all")


def test_a_searched_folder_may_be_a_link(photos, tmp_path):
    link(tmp_path / "way", photos)
    assert found(tmp_path / "way") == ["a.png", "b/c.png"]


def test_pictures_and_videos_that_are_left_out_are_told(tmp_path, caplog):
    for name in ("a.png", "b.HEIC", "c.heic", "d.mp4", "e.txt", ".f.gif"):
        (tmp_path / name).write_bytes(b"")
    assert list(walk_images(str(tmp_path), recursive=False)) == [str(tmp_path / "a.png")]
    assert f"left out of {tmp_path}: 2 .heic, 1 .mp4 (" in caplog.text
