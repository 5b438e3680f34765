"""Reading yaml files of 2018 and of today, safely."""

from __future__ import annotations

import difflib
import logging
import os
import re
from pathlib import Path
from typing import Any

import yaml

from sniper.errors import ConfigError
from sniper.safe_yaml import PlainLoader, read_yaml_file

logger = logging.getLogger(__name__)

# In the lines that a message shows; a value with a comma or blank is more than one text.
_BRACES = re.compile(r":\s*(\{\w+\}[^\s,\[\]{}]*)")

TUPLE_TAG = "tag:yaml.org,2002:python/tuple"


class RecipeLoader(PlainLoader):
    """The safe loader plus the tuple tag of the 2018 files; repeated keys must agree."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """A mapping; a key that appears twice must have the same value both times."""
        if isinstance(node, yaml.MappingNode):
            self._check_repeated_keys(node)
        return super().construct_mapping(node, deep=deep)

    def _check_repeated_keys(self, node: yaml.MappingNode) -> None:
        seen: dict[str, yaml.Node] = {}
        for key_node, value_node in node.value:
            name = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or name == "<<":
                continue
            if name not in seen:
                seen[name] = value_node
                continue
            first = self.construct_object(seen[name], deep=True)
            second = self.construct_object(value_node, deep=True)
            if type(first) is not type(second) or first != second:
                raise yaml.constructor.ConstructorError(
                    f"the key '{name}' has two different values, {first!r} and {second!r}",
                    seen[name].start_mark,
                    "the second one is here; remove one of them",
                    value_node.start_mark,
                )
            line = key_node.start_mark.line + 1
            logger.warning("%s, line %d: '%s' appears twice (same value)", self.name, line, name)

    def construct_python_tuple(self, node: yaml.SequenceNode) -> tuple:
        """`!!python/tuple [1, 2]` -> (1, 2); yaml refuses the tag before anything but a list."""
        return tuple(self.construct_sequence(node, deep=True))


RecipeLoader.add_constructor(TUPLE_TAG, RecipeLoader.construct_python_tuple)


def read_yaml(path: Path) -> dict[Any, Any]:
    """The mapping of a yaml file; an empty file gives an empty mapping.

    Raises:
        ConfigError: the file cannot be read, is no yaml, has an unknown tag or conflicting keys,
            or is not one mapping.
    """
    try:
        document = read_yaml_file(path, RecipeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the config file cannot be read", where=path, got=error) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: yaml's own scalars, e.g. the date 2020-13-40.
        raise ConfigError(
            "the config file is not valid", where=path, got=error, fix=_quotes(str(error))
        ) from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(
            "a config file must hold sections and keys",
            where=path,
            got=type(document).__name__,
            expected="a mapping such as 'TRAIN: {lr: 0.015}'",
        )
    return document


def _quotes(message: str) -> str | None:
    """What to do about a text such as `{set}.json`, whose braces yaml takes for a mapping."""
    text = _BRACES.search(message)
    return text and f"put texts with braces in quotes: '{text[1]}'"


_PACKAGE = Path(__file__).resolve().parents[1]
_FAMILIES = ("faster", "rfcn3k", "openimages", "ssh")
_CHECKOUT_FOLDERS = tuple(Path("configs") / name for name in _FAMILIES)
_SUFFIXES = (".yml", ".yaml")
_WEIGHTS = (".params", ".states", ".zip")


def recipe_folders(package: Path = _PACKAGE) -> list[Path]:
    """Existing folders with recipes: inside the installed package, then of the checkout."""
    candidates = [package / "recipes"]
    # lib/sniper lies two levels below the root of a checkout.
    roots = list(package.parents)[:3]
    candidates += [root / folder for root in roots for folder in _CHECKOUT_FOLDERS]
    return [folder for folder in candidates if folder.is_dir()]


def recipe_names(package: Path = _PACKAGE) -> list[str]:
    """Names of all recipes, sorted."""
    folders = recipe_folders(package)
    return sorted({file.stem for folder in folders for file in folder.glob("*.yml")})


def find_recipe(name: str | Path, package: Path = _PACKAGE) -> Path:
    """The file of a recipe.

    Args:
        name: a path, or the name of a recipe with or without `.yml`. The 2018 form
            `configs/faster/<name>.yml` also works away from a checkout, as for other folders there.
        package: folder of the installed package.

    Raises:
        ConfigError: there is no such file; the message lists the known recipes.
    """
    given = Path(name)
    options = _with_suffixes(given)
    if given.parent in (Path(), *_CHECKOUT_FOLDERS):
        for folder in recipe_folders(package):
            options += [folder / option.name for option in _with_suffixes(given)]
    _refuse_weights(given)
    for option in options:
        if option.is_file():
            return option
    known = recipe_names(package)
    raise ConfigError(
        "there is no such config file or recipe",
        got=str(name) or "an empty name",
        expected="the path of a yml file, or one of: " + (", ".join(known) or "(none installed)"),
        fix=_did_you_mean(given, known),
    )


def _did_you_mean(given: Path, known: list[str]) -> str | None:
    """Recipes of a similar name, and yml files of a similar name in the same folder."""
    folder = given.parent
    beside = [file.name for ending in _SUFFIXES for file in folder.glob(f"*{ending}")]
    stems = {name.rsplit(".", 1)[0].lower(): str(folder / name) for name in sorted(beside)}
    candidates = {**{name.lower(): name for name in known}, **stems}
    close = difflib.get_close_matches(given.stem.lower(), candidates, n=2, cutoff=0.7)
    return f"did you mean {' or '.join(candidates[name] for name in close)}?" if close else None


def _refuse_weights(given: Path) -> None:
    """Weights and archives have flags of their own."""
    if given.suffix.lower() in _WEIGHTS:
        raise ConfigError(
            "this is a file of weights, and a config file or the name of a recipe belongs here",
            got=given,
            fix=f"--cfg RECIPE --weights {given}; an archive (.zip) of `sniper export` brings its "
            f"recipe along: sniper detect --model MODEL.zip, Predictor('MODEL.zip')",
        )


def _with_suffixes(path: Path) -> list[Path]:
    if path.suffix in _SUFFIXES or not path.name:
        return [path]
    return [path, *(path.with_name(path.name + suffix) for suffix in _SUFFIXES)]


def base_name(path_or_recipe: str | Path, folder: Path) -> str:
    """What `_BASE_` of a new file says: recipes by their names, other files as seen from it.

    Args:
        path_or_recipe: the file that is extended.
        folder: of the new file.

    Raises:
        ConfigError: there is no such file.
    """
    path = find_recipe(path_or_recipe)
    if path.parent.resolve() in [folder.resolve() for folder in recipe_folders()]:
        return path.name
    return os.path.relpath(path, folder)
