"""Super-classes: groups of classes that R-FCN-3K detects alike, before it tells them apart.

A table is a JSON object, `{"animal": ["cat", "dog"], "vehicle": ["car"]}`: lists of class names, or
of category ids. Every class of the data stands in exactly one of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from sniper.data.classes import Classes
from sniper.errors import ConfigError, DataError

SHOWN = 5

# Members by the name of the super-class; number 1 is the first.
SuperClasses = Mapping[str, tuple[str, ...]]


def read_super_classes(value: str) -> SuperClasses:
    """A table.

    Args:
        value: path of a JSON file, or the JSON itself.

    Raises:
        ConfigError: the file is missing, is no such table, or names a class twice.
    """
    is_text = value.lstrip().startswith("{")
    where = "network.SUPER_CLASSES" if is_text else value
    try:
        content = json.loads(value if is_text else Path(value).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError("the super-classes cannot be read", where=where, got=error) from error
    if not (isinstance(content, dict) and content and all(map(_is_list, content.values()))):
        raise ConfigError(
            "this is no table of super-classes",
            where=where,
            got=repr(content)[:200],
            expected='a JSON object of lists of class names, such as {"animal": ["cat", "dog"]}',
        )
    table = {name: tuple(map(str, members)) for name, members in content.items()}
    members = [member for group in table.values() for member in group]
    twice = sorted({member for member in members if members.count(member) > 1})
    if twice:
        raise ConfigError(
            "classes belong to one super-class each",
            where=where,
            got=f"more than one place for {', '.join(twice[:SHOWN])}",
        )
    return table


def _is_list(members: object) -> bool:
    if not isinstance(members, list) or not members:
        return False
    return all(isinstance(m, (str, int)) and not isinstance(m, bool) for m in members)


def super_classes_text(table: SuperClasses) -> str:
    """The JSON of a table."""
    return json.dumps({name: list(members) for name, members in table.items()}, ensure_ascii=False)


def super_of(table: SuperClasses, classes: Classes) -> tuple[int, ...]:
    """The super-class, 1 ... K, of every class 1 ... C.

    Names decide, or category ids where the members are these. Where nobody named the classes, as
    for weights of 2018, they are those of the table in its order.

    Raises:
        DataError: the table has not the same classes.
    """
    number = {member: index for index, group in enumerate(table.values(), 1) for member in group}
    names = [*classes.names[1:]]
    ids = [] if classes.ids is None else [str(identity) for identity in classes.ids[1:]]
    # Some names may be ids, too: WordNet ids stay where nobody knows a name.
    by_name = set(names) & set(number)
    if ids and (not by_name or (by_name != set(names) and set(ids) == set(number))):
        names = ids
    elif not classes.are_named and len(names) == len(number):
        names = list(number)
    lacking = [name for name in names if name not in number]
    foreign = sorted(set(number) - set(names))
    if lacking or foreign:
        sides = (("no super-class for", lacking), ("unknown", foreign))
        parts = [f"{text} {_listed(some)}" for text, some in sides if some]
        raise DataError(
            "the super-classes are not made of the classes of the data",
            where="network.SUPER_CLASSES",
            got="; ".join(parts),
            expected=f"every class of {classes.where} once, and no others",
            fix="make the table for these classes, or leave it out: all classes are one then",
        )
    return tuple(number[name] for name in names)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
