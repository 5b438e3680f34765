"""Types of configuration values: how text and yaml values become the declared type.

The same coercion serves yaml files and `--set`. Sequences become tuples at every depth, whether
they were written as lists, tuples or with the 2018 tuple tag; arrays become float64 arrays.
"""

from __future__ import annotations

import ast
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from sniper.safe_yaml import load_yaml

_BOOL_TEXT = {"true": True, "false": False}


class Kind(ABC):
    """A declared type. `coerce` returns the value in that type or raises ValueError.

    The text of the ValueError says why the value does not fit, or is empty when "expected
    `describe()`" already says it all.
    """

    @abstractmethod
    def describe(self) -> str:
        """The type in words, for messages and for the documented schema."""

    @abstractmethod
    def coerce(self, value: Any) -> Any:
        """Turns a parsed value into this type."""

    def coerce_text(self, text: str) -> Any:
        """Turns the text of a `--set` pair into this type."""
        return self.coerce(parse_literal(text))


def parse_literal(text: str) -> Any:
    """A Python literal, a case-insensitive true/false, or else the text itself."""
    stripped = text.strip()
    if stripped.lower() in _BOOL_TEXT:
        return _BOOL_TEXT[stripped.lower()]
    try:
        return ast.literal_eval(stripped)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


@dataclass(frozen=True)
class Text(Kind):
    """A string; `choices` limits it."""

    choices: tuple[str, ...] = ()

    def describe(self) -> str:
        """The type in words."""
        return "one of " + ", ".join(map(repr, self.choices)) if self.choices else "text"

    def coerce(self, value: Any) -> str:
        """Keeps text; numbers, which yaml makes of an unquoted `gpus: 0`, become text again."""
        if isinstance(value, dict) and len(value) == 1 and None in value.values():
            name = next(iter(value))
            raise ValueError(f"in yaml, braces need quotes to be text: '{{{name}}}'")
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError
        text = str(value)
        if self.choices and text not in self.choices:
            raise ValueError
        return text

    def coerce_text(self, text: str) -> str:
        """Keeps the raw text; one pair of quotes around it, which 2018 scripts needed, goes."""
        if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
            text = text[1:-1]
        return self.coerce(text)


@dataclass(frozen=True)
class Name(Text):
    """A name whose case does not matter: known ones get one spelling, others lower case.

    Attributes:
        spellings: pairs of a name in lower case and its spelling; several may be of one spelling.
    """

    spellings: tuple[tuple[str, str], ...] = ()

    def coerce(self, value: Any) -> str:
        """The one spelling of a name."""
        folded = super().coerce(value).strip().lower()
        return dict(self.spellings).get(folded, folded)


@dataclass(frozen=True)
class Bool(Kind):
    """True or False; numbers are refused."""

    def describe(self) -> str:
        """The type in words."""
        return "true or false"

    def coerce(self, value: Any) -> bool:
        """Accepts booleans and their names in any case."""
        value = parse_literal(value) if isinstance(value, str) else value
        if not isinstance(value, bool):
            raise ValueError
        return value


@dataclass(frozen=True)
class BoolOr(Kind):
    """True, False, or one of some words."""

    words: tuple[str, ...] = ()

    def describe(self) -> str:
        """The type in words."""
        return ", ".join(("true", "false", *self.words[:-1])) + f" or {self.words[-1]}"

    def coerce(self, value: Any) -> bool | str:
        """Accepts booleans and the words, in any case."""
        if isinstance(value, str) and value.strip().lower() in self.words:
            return value.strip().lower()
        return Bool().coerce(value)


def _number(value: Any) -> int | float:
    value = parse_literal(value) if isinstance(value, str) else value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("it is not finite")
    return value


def _check_bounds(value: float, minimum: float | None, maximum: float | None) -> None:
    if minimum is not None and value < minimum:
        raise ValueError(f"it is below {minimum:g}")
    if maximum is not None and value > maximum:
        raise ValueError(f"it is above {maximum:g}")


@dataclass(frozen=True)
class Int(Kind):
    """A whole number, optionally within bounds (inclusive)."""

    minimum: int | None = None
    maximum: int | None = None

    def describe(self) -> str:
        """The type in words."""
        return "int" + _bounds_text(self.minimum, self.maximum)

    def coerce(self, value: Any) -> int:
        """Accepts ints and floats without a fraction; refuses booleans."""
        number = _number(value)
        if number != int(number):
            raise ValueError
        _check_bounds(number, self.minimum, self.maximum)
        return int(number)


@dataclass(frozen=True)
class Float(Kind):
    """A finite number, optionally within bounds (inclusive)."""

    minimum: float | None = None
    maximum: float | None = None

    def describe(self) -> str:
        """The type in words."""
        return "float" + _bounds_text(self.minimum, self.maximum)

    def coerce(self, value: Any) -> float:
        """Accepts ints and floats; refuses booleans."""
        try:
            number = float(_number(value))
        except OverflowError:
            raise ValueError("it is too large") from None
        _check_bounds(number, self.minimum, self.maximum)
        return number


# Scores, overlaps and shares; 50 (for 50 %) and nan are refused.
RATIO = Float(minimum=0, maximum=1)


def _bounds_text(minimum: float | None, maximum: float | None) -> str:
    parts = []
    if minimum is not None:
        parts.append(f">= {minimum:g}")
    if maximum is not None:
        parts.append(f"<= {maximum:g}")
    return f" ({', '.join(parts)})" if parts else ""


def _as_sequence(value: Any) -> Sequence[Any]:
    if isinstance(value, str):
        value = _parse_sequence(value)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        raise ValueError
    return value


def _parse_sequence(text: str) -> Any:
    """`(1, 2)`, `[true, false]` or `a,b,c`; anything else comes back as it is."""
    value = parse_literal(text)
    if not isinstance(value, str):
        return value
    if text.strip().startswith("["):
        try:
            return load_yaml(text)
        except yaml.YAMLError:
            return text
    return [part.strip() for part in text.split(",")] if "," in text else text


@dataclass(frozen=True)
class Seq(Kind):
    """A tuple of values of one kind; `length` fixes how many, otherwise at least one."""

    item: Kind
    length: int | None = None
    empty_allowed: bool = False

    def describe(self) -> str:
        """The type in words."""
        count = "" if self.length is None else f"{self.length} of "
        return f"sequence of {count}[{self.item.describe()}]"

    def coerce(self, value: Any) -> tuple:
        """Accepts a list or a tuple and coerces each entry; one word is a list of texts."""
        if isinstance(self.item, Text) and isinstance(value, str):
            parsed = _parse_sequence(value)
            value = [parsed] if isinstance(parsed, str) and parsed else parsed
        values = _as_sequence(value)
        if self.length is not None and len(values) != self.length:
            raise ValueError(f"it has {len(values)} entries")
        if not values and not self.empty_allowed:
            raise ValueError("it is empty")
        return tuple(self.item.coerce(entry) for entry in values)


@dataclass(frozen=True)
class Row(Kind):
    """A tuple of fixed length with a kind for each place."""

    items: tuple[Kind, ...]

    def describe(self) -> str:
        """The type in words."""
        return "(" + ", ".join(kind.describe() for kind in self.items) + ")"

    def coerce(self, value: Any) -> tuple:
        """Accepts a list or a tuple of the right length and coerces each entry."""
        values = _as_sequence(value)
        if len(values) != len(self.items):
            raise ValueError(f"{value!r} has {len(values)} entries")
        return tuple(kind.coerce(entry) for kind, entry in zip(self.items, values))


@dataclass(frozen=True)
class OneOrMany(Kind):
    """One value, or a sequence of values of the same kind."""

    item: Kind

    def describe(self) -> str:
        """The type in words."""
        return f"{self.item.describe()}, or a sequence of them"

    def coerce(self, value: Any) -> Any:
        """A single value stays single; a sequence becomes a tuple."""
        if isinstance(value, str):
            value = _parse_sequence(value)
        if isinstance(value, (list, tuple)):
            return Seq(self.item).coerce(value)
        return self.item.coerce(value)


@dataclass(frozen=True)
class Array(Kind):
    """A float64 array with `length` entries."""

    length: int

    def describe(self) -> str:
        """The type in words."""
        return f"array of {self.length} floats"

    def coerce(self, value: Any) -> np.ndarray:
        """Accepts a sequence of numbers."""
        return np.array(Seq(Float(), self.length).coerce(value), dtype=np.float64)


@dataclass(frozen=True)
class TrainScales(Kind):
    """The training pyramid: either (min side, max side) pairs, or factors and a last long side."""

    def describe(self) -> str:
        """The type in words."""
        return "sequence of (int, int) pairs, or of floats"

    def coerce(self, value: Any) -> tuple:
        """Accepts pairs only or numbers only, finest level first."""
        values = _as_sequence(value)
        pairs = [isinstance(entry, (list, tuple)) for entry in values]
        if any(pairs) and not all(pairs):
            raise ValueError("it mixes pairs and numbers")
        return Seq(Row((Int(), Int())) if any(pairs) else Float()).coerce(values)


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
        status: `live` (used), `no effect` (2018 read it, nothing here does: who changes it is told)
            or `legacy` (2018 files have it and nothing read it; checked for type, then ignored).
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
