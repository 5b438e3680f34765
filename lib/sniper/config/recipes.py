"""Finding a recipe (a yml file) by path or by name."""

from __future__ import annotations

from pathlib import Path

from sniper.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKOUT_FOLDER = Path("configs") / "faster"
_SUFFIXES = (".yml", ".yaml")


def recipe_folders(package: Path = _PACKAGE) -> list[Path]:
    """Existing folders with recipes: inside the installed package, then of the checkout."""
    candidates = [package / "recipes"]
    # lib/sniper lies two levels below the root of a checkout.
    candidates += [parent / _CHECKOUT_FOLDER for parent in list(package.parents)[:3]]
    return [folder for folder in candidates if folder.is_dir()]


def recipe_names(package: Path = _PACKAGE) -> list[str]:
    """Names of all recipes, sorted."""
    folders = recipe_folders(package)
    return sorted({file.stem for folder in folders for file in folder.glob("*.yml")})


def find_recipe(name: str | Path, package: Path = _PACKAGE) -> Path:
    """The file of a recipe.

    Args:
        name: a path, or the name of a recipe with or without `.yml`. The 2018 form
            `configs/faster/<name>.yml` also works away from a checkout.
        package: folder of the installed package.

    Raises:
        ConfigError: there is no such file; the message lists the known recipes.
    """
    given = Path(name)
    options = _with_suffixes(given)
    if given.parent in (Path(), _CHECKOUT_FOLDER):
        for folder in recipe_folders(package):
            options += [folder / option.name for option in _with_suffixes(given)]
    for option in options:
        if option.is_file():
            return option
    raise ConfigError(
        "there is no such config file or recipe",
        got=str(name) or "an empty name",
        expected="a path, or one of: " + (", ".join(recipe_names(package)) or "(none installed)"),
        fix="--cfg takes the path of a yml file or the name of a recipe",
    )


def _with_suffixes(path: Path) -> list[Path]:
    if path.suffix in _SUFFIXES or not path.name:
        return [path]
    return [path, *(path.with_name(path.name + suffix) for suffix in _SUFFIXES)]
