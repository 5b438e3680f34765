"""Numbers that callers of `sniper.chips` hand over: zero and NaN are refused by name."""

from __future__ import annotations

import math
from collections.abc import Iterable

from sniper.errors import ConfigError


def check_positive(where: str, **numbers: float) -> None:
    """Raises ConfigError for the first of the numbers that is not positive and finite.

    Args:
        where: the function, class or key that they belong to.
        numbers: by the name that the caller knows them by.
    """
    for name, number in numbers.items():
        if not 0 < number < math.inf:  # NaN is not
            raise ConfigError(
                f"{name} is not a positive number", where=where, got=number, expected="> 0, finite"
            )


def check_finite(where: str, name: str, numbers: Iterable[float]) -> None:
    """Raises ConfigError if one of the numbers is infinite or NaN."""
    numbers = list(numbers)
    if not all(map(math.isfinite, numbers)):
        raise ConfigError(f"{name} has numbers that are not finite", where=where, got=numbers)
