"""Merging defaults, `_BASE_` files, the recipe and `--set` pairs into one checked tree."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sniper.config.kinds import LIVE, NO_EFFECT
from sniper.config.schema import SCHEMA, SECTIONS, defaults, nearest
from sniper.config.yaml_files import find_recipe, read_yaml
from sniper.errors import ConfigError

logger = logging.getLogger(__name__)

BASE_KEY = "_BASE_"
FROM_DEFAULT = 0
FROM_SET = sys.maxsize

_MAX_SHOWN = 80
_MOST_PROBLEMS = 50
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*)=(.*)", re.DOTALL)


@dataclass
class Merged:
    """Values by dotted path and where they came from.

    Attributes:
        values: value of every key, in schema order.
        source: strongest place that set a key: FROM_DEFAULT, then 1 for the first base file, 2
            for the file that extends it and so on, FROM_SET for the command line.
        explicit: keys that were set on the command line, or by a file that extends another one.
        problems: what is wrong, one sentence each.
    """

    values: dict[str, Any] = field(default_factory=defaults)
    source: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SCHEMA, FROM_DEFAULT))
    explicit: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Layer:
    """One file of the chain; `number` is its place from the first base on, starting with 1."""

    file: Path | str
    number: int
    extends: bool


def merge_file(merged: Merged, path: Path) -> None:
    """Merges a recipe and, before it, the files that its `_BASE_` names.

    Raises:
        ConfigError: a file is missing or not valid, or the bases run in a circle.
    """
    for number, (file, document) in enumerate(_base_chain(path), 1):
        # The name of a run belongs to the recipe itself.
        if file != path:
            document.pop("name", None)
        extends = document.pop(BASE_KEY, None) is not None
        _merge_section(merged, document, "", _Layer(file, number, extends))


def merge_values(merged: Merged, values: Mapping[str, Any], where: str) -> None:
    """Merges what a file without `_BASE_` would hold; `where` names it in messages."""
    _merge_section(merged, values, "", _Layer(where, 1, False))


def _base_chain(path: Path) -> list[tuple[Path, dict]]:
    """The files to merge, base first."""
    chain: list[tuple[Path, dict]] = []
    seen: list[Path] = []
    current: Path | None = path
    while current is not None:
        if current.resolve() in seen:
            circle = " -> ".join(file.name for file in [*seen, current])
            raise ConfigError(f"the {BASE_KEY} files run in a circle", where=path, got=circle)
        seen.append(current.resolve())
        document = read_yaml(current)
        chain.append((current, document))
        current = _base_of(document, current)
    return chain[::-1]


def check_is_no_base(path: Path, path_or_recipe: str | Path) -> None:
    """Refuses to write a file that extends a recipe over that recipe, or over what it extends.

    Args:
        path: the new file.
        path_or_recipe: what it will extend.

    Raises:
        ConfigError: it is one of these files, or they cannot be read.
    """
    for file, _ in _base_chain(find_recipe(path_or_recipe)):
        if path.resolve() == file.resolve():
            raise ConfigError(
                "the new file would replace a recipe that it extends",
                where="--out",
                got=path,
                fix="give it another name",
            )


def override_paths(overrides: Sequence[str]) -> list[str]:
    """The keys of `--set` items."""
    return list(dict(_pairs(overrides)))


def _base_of(document: dict, path: Path) -> Path | None:
    base = document.get(BASE_KEY)
    if base is None:
        return None
    if not isinstance(base, str) or not base:
        raise ConfigError(f"{BASE_KEY} must name one file", where=path, got=repr(base))
    beside = path.parent / base
    if beside.is_file():
        return beside
    try:
        return find_recipe(base)
    except ConfigError as error:
        raise ConfigError(f"{BASE_KEY} of {path} was not found:\n{error}") from error


def _merge_section(merged: Merged, section: Mapping[str, Any], prefix: str, layer: _Layer) -> None:
    for name, value in section.items():
        path = f"{prefix}{name}"
        if path in SECTIONS:
            if isinstance(value, dict):
                _merge_section(merged, value, f"{path}.", layer)
            elif value is not None:  # a section whose keys are all commented out is empty
                merged.problems.append(f"{path} ({layer.file}): is a section, got {_short(value)}")
        elif path not in SCHEMA:
            # Hints cost time; a file with so many wrong keys is no config file.
            hint = _hint(path) if len(merged.problems) < _MOST_PROBLEMS else ""
            merged.problems.append(f"{path} ({layer.file}): unknown key{hint}")
        else:
            _store(merged, path, value, layer.number, str(layer.file))
            _tell_no_effect(merged, path, layer.file)
            if layer.extends:
                merged.explicit.add(path)


def _tell_no_effect(merged: Merged, path: str, file: object) -> None:
    """Somebody who changes such a value expects something of it; 2018 files repeat the default."""
    key = SCHEMA[path]
    if key.status == NO_EFFECT and merged.values.get(path) != key.default:
        logger.warning("%s: %s has no effect: %s", file, path, key.doc)


def merge_overrides(merged: Merged, overrides: Sequence[str]) -> None:
    """Merges `--set` items: KEY VALUE KEY VALUE ..., also KEY=VALUE; the last one wins.

    Raises:
        ConfigError: the last key has no value.
    """
    for path, text in _pairs(overrides):
        if path not in SCHEMA:
            reason = "is a section; name one of its keys" if path in SECTIONS else "unknown key"
            merged.problems.append(f"--set {path}: {reason}{_hint(path)}")
            continue
        if SCHEMA[path].status != LIVE:
            logger.warning("--set %s has no effect: %s", path, SCHEMA[path].doc)
        _store(merged, path, text, FROM_SET, "--set")
        merged.explicit.add(path)


def _pairs(overrides: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    items = [str(item) for item in overrides]
    while items:
        key = items.pop(0)
        assignment = _ASSIGNMENT.fullmatch(key)
        if assignment:
            pairs.append((assignment[1], assignment[2]))
        elif items:
            pairs.append((key, items.pop(0)))
        else:
            raise ConfigError(
                "--set takes pairs of a key and a value, and the last key has no value",
                got=" ".join(str(item) for item in overrides),
                expected="--set KEY VALUE [KEY VALUE ...]",
                fix="put quotes around values with blanks; --set must be the last flag",
            )
    return pairs


def _store(merged: Merged, path: str, value: Any, source: int, where: str) -> None:
    key = SCHEMA[path]
    coerce = key.coerce_text if source == FROM_SET else key.coerce
    try:
        merged.values[path] = coerce(value)
    except (ValueError, RecursionError) as error:
        reason = f" ({error})" if str(error) else ""
        merged.problems.append(
            f"{path} ({where}): expected {key.describe()}, got {_short(value)}{reason}"
        )
        return
    merged.source[path] = source


def _hint(path: str) -> str:
    if path.startswith("-"):
        return "; --set must be the last flag, write others before it"
    guess = nearest(path)
    return f"; did you mean {guess}?" if guess and guess != path else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def raise_problems(problems: Sequence[str], where: object) -> None:
    """Raises one ConfigError that lists all problems; does nothing when there are none."""
    if not problems:
        return
    count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
    shown = problems[:_MOST_PROBLEMS]
    listing = "".join(f"\n  {number}. {text}" for number, text in enumerate(shown, 1))
    if len(problems) > len(shown):
        listing += f"\n  and {len(problems) - len(shown)} more"
    raise ConfigError(f"the configuration has {count}:{listing}", where=where)
