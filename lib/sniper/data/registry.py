"""Parts by name: those of the package, and those that others add without editing it."""

from __future__ import annotations

import difflib
import logging
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Generic, TypeVar

from sniper.errors import ConfigError

logger = logging.getLogger(__name__)

Part = TypeVar("Part")


class Registry(Generic[Part]):
    """Parts of one kind by name; case does not matter.

    Beside the package's own there are those of `register`, and those that installed packages
    declare as entry points of a group:

        [project.entry-points."sniper.datasets"]
        csv = "my_package.csv_format:load_csv"

    The entry points are looked up, and imported, when a name is asked for that nobody else has; one
    of a name that the package has itself is not used, and told.
    A part that is registered by a call is known to this process only; processes that a run starts
    find those of entry points.
    """

    def __init__(
        self,
        what: str,
        where: str,
        group: str,
        parts: Mapping[str, Part],
        *,
        is_part: Callable[[object], bool],
        kind: str,
    ) -> None:
        """Starts with the package's own parts.

        Args:
            what: what a part is called in messages.
            where: the key or flag that names one.
            group: of entry points.
            parts: by name in lower case.
            is_part: whether an object can be such a part.
            kind: what such an object is, in words.
        """
        self._what = what
        self._where = where
        self._group = group
        self._parts = dict(parts)
        self._own = set(parts)
        self._is_part = is_part
        self._kind = kind

    def register(self, name: str, part: Part) -> None:
        """Adds a part; the same one may be added again.

        Raises:
            ConfigError: the name is empty or belongs to another part, or this is no such part.
        """
        if not isinstance(name, str) or not _folded(name):
            raise ConfigError(f"a {self._what} needs a name", got=repr(name))
        if not self._is_part(part):
            raise ConfigError(
                f"this can be no {self._what}", where=name, got=repr(part), expected=self._kind
            )
        key = _folded(name)
        known = self._parts.get(key)
        if known is not None and known is not part:
            raise ConfigError(
                f"there is a {self._what} of that name already",
                got=repr(name),
                fix="choose another name",
            )
        self._parts[key] = part

    def get(self, name: str) -> Part:
        """The part of a name.

        Raises:
            ConfigError: there is none, or its entry point cannot be loaded.
        """
        key = _folded(name)
        if key in self._own:
            self._tell_hidden(key)
        elif key not in self._parts:
            entries = self._entry_points()
            if key not in entries:
                raise self._unknown(name)
            self._parts[key] = self._loaded(entries[key])
        return self._parts[key]

    def _tell_hidden(self, key: str) -> None:
        """Warns once of a package whose part has the name of one of ours, and is not used."""
        self._own.discard(key)  # looked at once
        entry = self._entry_points().get(key)
        if entry is not None:
            logger.warning(
                "the %s %r is the package's own; that of the entry point %s (group %s) has the "
                "same name and is not used: give it another one",
                *(self._what, entry.name, entry.value, self._group),
            )

    def names(self) -> list[str]:
        """All known names in order."""
        return sorted({*self._parts, *self._entry_points()})

    def _entry_points(self) -> dict[str, metadata.EntryPoint]:
        if sys.version_info >= (3, 10):
            entries = metadata.entry_points(group=self._group)
        else:
            entries = metadata.entry_points().get(self._group, ())
        return {_folded(entry.name): entry for entry in entries}

    def _loaded(self, entry: metadata.EntryPoint) -> Part:
        where = f"entry point {entry.value} of {self._group}"
        try:
            part = entry.load()
        except Exception as error:
            raise ConfigError(
                f"the {self._what} {entry.name!r} of an installed package cannot be loaded",
                where=where,
                got=f"{type(error).__name__}: {error}",
                fix="mend or remove that package",
            ) from error
        if not self._is_part(part):
            raise ConfigError(
                f"the {self._what} {entry.name!r} of an installed package is none",
                where=where,
                got=repr(part),
                expected=self._kind,
            )
        return part

    def _unknown(self, name: str) -> ConfigError:
        known = self.names()
        near = difflib.get_close_matches(_folded(name), known, n=1)
        return ConfigError(
            f"there is no such {self._what}",
            where=self._where,
            got=repr(name),
            expected=", ".join(known),
            fix=f"did you mean {near[0]!r}?" if near else None,
        )


def _folded(name: str) -> str:
    return name.strip().lower()
