"""Pretrained weights: found from any folder, and missed before the data are read."""

from __future__ import annotations

import pytest

from sniper.errors import DataError
from sniper.runs import backbone_file as module
from sniper.runs.backbone_file import backbone_file, check_backbone
from sniper.tools.train import main as train

NAME = "data/pretrained_model/mobilenetv2"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with a backbone; the working folder is another one."""
    recipes = tmp_path / "checkout" / "configs" / "faster"
    weights = tmp_path / "checkout" / f"{NAME}-0000.params"
    for folder in (recipes, weights.parent, tmp_path / "work"):
        folder.mkdir(parents=True)
    weights.touch()
    monkeypatch.setattr(module, "recipe_folders", lambda: [recipes])
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "checkout"


def test_a_backbone_is_found_from_any_folder(checkout, tmp_path):
    assert backbone_file(f"./{NAME}", 0) == checkout / f"{NAME}-0000.params"
    near = tmp_path / "work" / f"{NAME}-0000.params"
    near.parent.mkdir(parents=True)
    near.touch()
    assert backbone_file(f"./{NAME}", 0).resolve() == near
    assert backbone_file("", 0) is None


def test_a_whole_file_in_place_of_a_prefix_is_told(tmp_path):
    for name in ("toy.zip", "toy-0003.params"):
        (tmp_path / name).touch()
        with pytest.raises(DataError, match="wants the begin of a name"):
            check_backbone(backbone_file(str(tmp_path / name), 0))


def test_a_missing_one_names_the_command_that_fetches_it(tmp_path):
    (tmp_path / "other.params").touch()
    with pytest.raises(DataError, match="download_pretrained_models.sh resnet50;") as caught:
        check_backbone(tmp_path / "resnet50_gluon-0000.params")
    assert "got: other.params" in str(caught.value)
    with pytest.raises(DataError, match="train it, or put a copy there"):
        check_backbone(tmp_path / "mine-0003.params")


def test_it_is_missed_before_the_data_are_read(tmp_path, capfd):
    keys = ["gpus", "cpu", "output_path", tmp_path, "dataset.dataset_path", tmp_path / "no_data"]
    keys += ["network.pretrained", tmp_path / "mobilenetv2"]
    assert train(["--cfg", "sniper_mobilenetv2_toy", "--set", *map(str, keys)]) == 3
    printed = capfd.readouterr().err
    assert "bash scripts/download_pretrained_models.sh mobilenetv2" in printed
    assert "no_data" not in printed
