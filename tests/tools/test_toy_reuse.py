"""Sets that take their images from another: the same bytes, one copy, and what is refused."""

from __future__ import annotations

import dataclasses
import os

import pytest

from sniper.errors import ConfigError, DataError
from sniper.tools.make_toy_data import main
from sniper.tools.toy.scene import SceneSettings
from sniper.tools.toy.settings import ToySettings
from sniper.tools.toy.writer import make_toy_data

SCENE = SceneSettings(classes=2, long_side_px=160, min_objects=2, max_objects=4, max_size_px=40)
PLAIN = ToySettings(train=4, val=1, test=0, test_dev=1, seed=2, scene=SCENE)


def make(folder, settings, **more):
    return make_toy_data(folder, settings, workers=1, progress=lambda text: None, **more)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture()
def plain(tmp_path):
    make(tmp_path / "plain", PLAIN)
    return tmp_path / "plain"


@pytest.mark.parametrize("fine", [False, True])
def test_the_set_is_the_one_that_is_made_without_it(tmp_path, fine):
    whole = PLAIN
    if fine:
        scene = dataclasses.replace(SCENE, fine=True, min_size_px=32.0, max_size_px=50.0)
        whole = dataclasses.replace(PLAIN, scene=scene, held_out=1, novel=1, shots=2)
    less = dataclasses.replace(whole, openimages=True, drop_labels=0.25)
    make(tmp_path / "whole", whole)
    make(tmp_path / "alone", less)
    assert make(tmp_path / "linked", less, images_from=tmp_path / "whole")
    assert contents(tmp_path / "linked") == contents(tmp_path / "alone")
    images = [p for p in (tmp_path / "linked").rglob("*.jpg")]
    assert len(images) == (9 if fine else 6)
    for image in images:
        assert image.samefile(tmp_path / "whole" / image.relative_to(tmp_path / "linked"))
    assert not make(tmp_path / "linked", less, images_from=tmp_path / "whole")
    # Replacing one set takes nothing from the other.
    before = contents(tmp_path / "whole")
    make(tmp_path / "linked", whole, images_from=tmp_path / "whole", force=True)
    make(tmp_path / "linked", dataclasses.replace(PLAIN, train=1, seed=3), force=True)
    assert contents(tmp_path / "whole") == before


@pytest.mark.parametrize(
    "changes", [{"seed": 3}, {"train": 5}, {"scene": dataclasses.replace(SCENE, classes=3)}]
)
def test_images_of_other_settings_are_refused(plain, tmp_path, changes):
    with pytest.raises(DataError, match="are others"):
        make(tmp_path / "out", dataclasses.replace(PLAIN, **changes), images_from=plain)
    assert not (tmp_path / "out").exists()


def test_sources_that_lost_something_are_refused(plain, tmp_path):
    make(tmp_path / "less", dataclasses.replace(PLAIN, drop_labels=0.25), images_from=plain)
    with pytest.raises(DataError, match="lost annotations itself"):
        make(tmp_path / "out", PLAIN, images_from=tmp_path / "less")
    with pytest.raises(DataError, match="no data set to take images from"):
        make(tmp_path / "out", PLAIN, images_from=tmp_path / "nothing")
    with pytest.raises(ConfigError, match="itself"):
        make(plain, dataclasses.replace(PLAIN, openimages=True), images_from=plain, force=True)
    (plain / "images" / "train" / "train_000001.jpg").unlink()
    with pytest.raises(DataError, match="incomplete or was changed"):
        make(tmp_path / "out", PLAIN, images_from=plain)
    assert not (tmp_path / "out").exists()


def test_a_disk_without_links_is_told(plain, tmp_path, monkeypatch, capsys):
    def fail(*paths):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", fail)
    flags = "--train 4 --val 1 --test 0 --test-dev 1 --seed 2 --classes 2 --long-side 160"
    more = "--objects 2 4 --sizes 12 40 --openimages --images-from"
    assert main([str(tmp_path / "out"), *flags.split(), *more.split(), str(plain)]) == 3
    assert "on one disk" in capsys.readouterr().err
    monkeypatch.undo()
    assert main([str(tmp_path / "out"), *flags.split(), *more.split(), str(plain)]) == 0
    assert "writing it again" in capsys.readouterr().out
