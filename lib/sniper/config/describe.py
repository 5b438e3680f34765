"""The schema as text for people."""

from __future__ import annotations

from sniper.config.key import LIVE, Key
from sniper.config.load import plain
from sniper.config.schema import SCHEMA


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
