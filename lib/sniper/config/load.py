"""Loading, showing and saving configurations.

`load_config` returns an EasyDict with every key of the schema. Sequences are tuples at every depth,
arrays are float64 arrays, texts are str, and values that depend on other keys are filled in (see
`sniper.config.rules`). Two configurations are equal exactly when `dump_config` gives the same text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from easydict import EasyDict

from sniper.config.checks import find_problems
from sniper.config.kinds import LIVE, Key
from sniper.config.merge import (
    Merged,
    merge_file,
    merge_overrides,
    merge_values,
    override_paths,
    raise_problems,
)
from sniper.config.rules import apply_rules, note_file_values
from sniper.config.schema import SCHEMA
from sniper.config.yaml_files import find_recipe
from sniper.files import atomic_write_text


def load_config(path_or_recipe: str | Path, overrides: Sequence[str] = ()) -> EasyDict:
    """Reads, merges and checks a configuration.

    Precedence: defaults < `_BASE_` file < the file < `--set` pairs < run-time rules.

    Args:
        path_or_recipe: path of a yml file, or the name of a recipe with or without `.yml`.
        overrides: the items of `--set`: KEY VALUE KEY VALUE ...

    Returns:
        The resolved configuration; `name` is the file's name up to the first dot unless it is set.

    Raises:
        ConfigError: a file is missing or broken, or keys or values are wrong; lists all problems.
    """
    path = find_recipe(path_or_recipe)
    merged = Merged()
    merge_file(merged, path)
    note_file_values(merged)
    merge_overrides(merged, overrides)
    raise_problems(merged.problems, path)
    merged.values["name"] = merged.values["name"] or path.name.split(".")[0]
    return _resolved(merged, path)


def config_of(values: Mapping[str, Any], where: str) -> EasyDict:
    """A configuration from plain values, such as those of `dump_config`, merged and checked.

    Args:
        values: keys and sections as a yml file has them, without `_BASE_`.
        where: names their place in messages.

    Raises:
        ConfigError: keys or values are wrong; lists all problems.
    """
    merged = Merged()
    merge_values(merged, values, where)
    raise_problems(merged.problems, where)
    return _resolved(merged, where)


def _resolved(merged: Merged, where: object) -> EasyDict:
    apply_rules(merged)
    raise_problems(find_problems(merged.values), where)
    return EasyDict(_nest(merged.values))


def dump_config(cfg: Mapping[str, Any]) -> str:
    """The configuration as plain yaml (lists, no tags) in schema order."""
    values = {path: plain(_lookup(cfg, path)) for path in SCHEMA}
    return dump_values(_nest(values))


def dump_values(values: Mapping[str, Any]) -> str:
    """Nested plain values in the form of a recipe."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=100)


class _Dumper(yaml.SafeDumper):
    """Sections as blocks, sequences in one line."""

    def represent_list(self, data: Iterable[Any]) -> yaml.SequenceNode:
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


_Dumper.add_representer(list, _Dumper.represent_list)


def save_config(cfg: Mapping[str, Any], path: str | Path) -> None:
    """Writes `dump_config` so that `load_config` of the file gives the same configuration.

    Raises:
        TrainingError: the file could not be written.
    """
    write_config(dump_config(cfg), path)


def write_config(text: str, path: str | Path) -> None:
    """Writes the text of `dump_config`; see `save_config`."""
    header = "# Resolved configuration of a run: all defaults and --set values are in it.\n"
    atomic_write_text(path, header + text)


def overridden(cfg: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The keys of `--set` items with what a configuration has for them, as yaml would nest them."""
    return _nest({path: plain(_lookup(cfg, path)) for path in override_paths(overrides)})


def _nest(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *sections, name = path.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    return tree


def _lookup(cfg: Mapping[str, Any], path: str) -> Any:
    node: Any = cfg
    for part in path.split("."):
        node = node[part]
    return node


def plain(value: Any) -> Any:
    """Arrays and tuples as lists, at every depth."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value


def describe_keys(pattern: str = "") -> str:
    """Name, type, default, status and doc of every key whose path contains `pattern`.

    The comparison ignores case; no match gives an empty text.
    """
    found = [key for path, key in SCHEMA.items() if pattern.lower() in path.lower()]
    return "\n".join(_describe(key) for key in found)


def _describe(key: Key) -> str:
    status = "" if key.status == LIVE else f" [{key.status}]"
    default = plain(key.default)
    return f"{key.path}: {key.describe()} = {default!r}{status}\n    {key.doc}"
