"""Folders of pictures by class, and which of them are held out."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from sniper.data.picture_folders import HoldOut, class_folders, pictures_of, read_file_list
from sniper.errors import ConfigError, DataError


def touch(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


def test_a_folder_of_folders_has_a_class_in_each(tmp_path, caplog):
    touch(tmp_path / "cat", "b.jpg", "a.PNG", "notes.txt", ".hidden.jpg")
    touch(tmp_path / "ant", "x.jpeg")
    touch(tmp_path / "empty", "notes.txt")
    touch(tmp_path / ".git", "y.jpg")
    touch(tmp_path, "beside.jpg")
    with caplog.at_level(logging.WARNING):
        folders = class_folders(tmp_path)
    assert {name: [f.name for f in files] for name, files in folders.items()} == {
        "ant": ["x.jpeg"],
        "cat": ["a.PNG", "b.jpg"],
    }
    assert list(folders) == ["ant", "cat"]
    assert "empty" in caplog.text and "1 pictures beside" in caplog.text
    assert len(pictures_of(tmp_path)) == 3


def test_a_folder_of_pictures_is_one_class(tmp_path):
    touch(tmp_path / "cat", "a.jpg")
    assert list(class_folders(tmp_path / "cat")) == ["cat"]


@pytest.mark.parametrize("name", ["nowhere", "nothing"])
def test_folders_without_pictures_are_refused(tmp_path, name):
    touch(tmp_path / "nothing", "a.txt")
    with pytest.raises(DataError, match="no pictures|no such folder"):
        class_folders(tmp_path / name)


def test_classes_are_split_one_by_one_whatever_their_sizes():
    files = [Path(f"{k}.jpg") for k in range(10)]
    assert HoldOut().split(files) == (files[4:], files[:4])
    assert HoldOut().split(files[:1]) == (files[:1], []), "one picture teaches"
    assert HoldOut(0).split(files) == (files, [])
    assert HoldOut(learn_from=3).split(files) == (files[7:], files[:7])
    assert HoldOut(learn_from=30).split(files) == (files, [])


def test_a_list_says_what_is_held_out(tmp_path):
    files = touch(tmp_path / "cat", "a.jpg", "b.jpg")
    listed = tmp_path / "list.txt"
    listed.write_text("# mine\ncat/b.jpg\n\n")
    assert HoldOut(files=read_file_list(listed)).split(files) == (files[:1], files[1:])
    listed.write_text("cat/c.jpg\n")
    with pytest.raises(DataError, match="not there"):
        read_file_list(listed)
    listed.write_text("\n")
    with pytest.raises(ConfigError, match="empty"):
        read_file_list(listed)
