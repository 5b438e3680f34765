"""The schema: every configuration key with its type, default, one line of doc and status."""

from __future__ import annotations

import difflib
from typing import Any

from sniper.config.kinds import Key
from sniper.config.schema_general import DATASET_KEYS, NETWORK_KEYS, RUN_KEYS
from sniper.config.schema_test import TEST_KEYS
from sniper.config.schema_train import TRAIN_KEYS

SCHEMA: dict[str, Key] = {
    key.path: key for key in RUN_KEYS + NETWORK_KEYS + DATASET_KEYS + TRAIN_KEYS + TEST_KEYS
}
SECTIONS: frozenset[str] = frozenset(key.section for key in SCHEMA.values() if key.section)

# A beginning of this many letters is a hint: `nms` for `nms_thresh`.
_SHORTEST_BEGINNING = 3


def defaults() -> dict[str, Any]:
    """Default of every key by dotted path, in schema order and in the declared type."""
    return {path: key.coerce(key.default) for path, key in SCHEMA.items()}


def nearest(path: str) -> str | None:
    """The known key or section that `path` was probably meant to be.

    Names of the same section come first, then the same name in any other section.
    """
    section, _, name = path.rpartition(".")
    known = [*SCHEMA, *SECTIONS]
    siblings = {item.rpartition(".")[2]: item for item in known if _section(item) == section}
    everywhere = {item.rpartition(".")[2]: item for item in reversed(known)}
    return _closest(path, known, 0.9) or _closest(name, siblings) or _closest(name, everywhere)


def _section(path: str) -> str:
    return path.rpartition(".")[0]


def _closest(name: str, known: Any, cutoff: float = 0.7) -> str | None:
    targets = known if isinstance(known, dict) else {item: item for item in known}
    folded: dict[str, str] = {}
    for item, target in targets.items():
        folded.setdefault(item.lower(), target)
    found = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=cutoff)
    if not found and len(name) >= _SHORTEST_BEGINNING:
        found = [item for item in folded if item.startswith(name.lower())]
    return folded[found[0]] if found else None
