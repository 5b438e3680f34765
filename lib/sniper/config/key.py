"""One entry of the schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sniper.config.kinds import Kind

LIVE = "live"
NO_EFFECT = "no effect"
LEGACY = "legacy"


@dataclass(frozen=True)
class Key:
    """A configuration key.

    Args:
        path: dotted path, e.g. `TRAIN.lr`.
        kind: the declared type.
        default: the value when no file sets it; None only for optional keys.
        doc: one line for the user.
        status: `live` (used), `no effect` (set the speed of 2018; accepted, not needed here) or
            `legacy` (2018 files have it and nothing read it; checked for type, then ignored).
        optional: None is allowed and means "derived from other keys".
    """

    path: str
    kind: Kind
    default: Any
    doc: str
    status: str = LIVE
    optional: bool = False

    @property
    def section(self) -> str:
        """The dotted path of the section; '' for top-level keys."""
        return self.path.rpartition(".")[0]

    def describe(self) -> str:
        """The type in words."""
        return self.kind.describe() + (", or None" if self.optional else "")

    def coerce(self, value: Any) -> Any:
        """A parsed value in the declared type; ValueError if it does not fit."""
        if self.optional and (value is None or _is_none_text(value)):
            return None
        return self.kind.coerce(value)

    def coerce_text(self, text: str) -> Any:
        """The text of a `--set` pair in the declared type; ValueError if it does not fit."""
        if self.optional and _is_none_text(text):
            return None
        return self.kind.coerce_text(text)


def _is_none_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip().lower() in ("none", "null")
