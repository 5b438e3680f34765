"""Finding recipes by path and by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from sniper.config.yaml_files import find_recipe, recipe_folders, recipe_names
from sniper.errors import ConfigError


@pytest.fixture
def package(tmp_path) -> Path:
    """A made-up checkout: root/lib/sniper and root/configs/faster."""
    package = tmp_path / "root" / "lib" / "sniper"
    recipes = tmp_path / "root" / "configs" / "faster"
    package.mkdir(parents=True)
    recipes.mkdir(parents=True)
    for name in ("a.yml", "b.v2.yml"):
        (recipes / name).write_text("")
    return package


def test_names_with_and_without_suffix(package):
    folder = package.parents[1] / "configs" / "faster"
    assert find_recipe("a", package) == find_recipe("a.yml", package) == folder / "a.yml"
    assert find_recipe("b.v2", package) == folder / "b.v2.yml"
    assert find_recipe("configs/faster/a.yml", package) == folder / "a.yml"
    assert recipe_names(package) == ["a", "b.v2"]


def test_package_data_comes_before_the_checkout(package):
    (package / "recipes").mkdir()
    (package / "recipes" / "a.yml").write_text("")
    assert find_recipe("a", package) == package / "recipes" / "a.yml"
    assert len(recipe_folders(package)) == 2


def test_a_path_comes_before_a_recipe(package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.yml").write_text("")
    assert find_recipe("a.yml", package) == Path("a.yml")
    assert find_recipe(tmp_path / "a", package) == tmp_path / "a.yml"


@pytest.mark.parametrize("name", ["", "zzz", "other/folder/a.yml", "/configs/a.yml"])
def test_unknown_names_list_the_recipes(package, name):
    with pytest.raises(ConfigError, match=r"a, b\.v2"):
        find_recipe(name, package)


def test_the_real_recipes_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe("configs/faster/sniper_res101_e2e.yml").is_file()
    assert "sniper_mobilenetv2_e2e" in recipe_names()


def test_an_unknown_recipe_names_a_similar_one(tmp_path):
    (tmp_path / "photos_long.yml").write_text("seed: 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"did you mean sniper_mobilenetv2_toy"):
        find_recipe("sniper_mobilnetv2_toy")
    with pytest.raises(ConfigError, match=rf"did you mean {tmp_path / 'photos_long.yml'}\?"):
        find_recipe(tmp_path / "photo_long.yml")
    with pytest.raises(ConfigError) as caught:
        find_recipe("nothing like it")
    assert "did you mean" not in str(caught.value)
