"""Warns of metrics that stay zero although they must not: a part of the network learns nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping

logger = logging.getLogger(__name__)

# Long enough for what is rare in a batch, and short beside a run.
PATIENCE = 100


class ZeroWatch:
    """Warns once for each time that a metric stays zero.

    A time ends when the metric is above 0 again. It is long enough for a warning after `PATIENCE`
    updates, or after a whole epoch: then the data hold nothing for this part.

    Args:
        advice: metric -> what is wrong and what to do.
        updates: done when the watch begins; a resumed run begins anew.
    """

    def __init__(self, advice: Mapping[str, str], updates: int) -> None:
        self._advice = advice
        self._not_zero_at = dict.fromkeys(advice, updates)
        self._told: set[str] = set()

    def window(self, values: Mapping[str, float], updates: int) -> None:
        """Takes what the metrics were since the last call.

        Args:
            values: averages over all workers; a metric that is missing was not measured.
            updates: done by now.
        """
        for name in self._advice.keys() & values.keys():
            if values[name]:
                # Some time since the last call: the count begins late rather than early.
                self._not_zero_at[name] = updates
                self._told.discard(name)
            elif (zero_for := updates - self._not_zero_at[name]) >= PATIENCE:
                self._warn(name, f"for {zero_for} updates")

    def epoch(self, values: Mapping[str, float], updates: int) -> None:
        """Takes what the metrics were in a whole epoch; the arguments are those of `window`."""
        for name in self._advice.keys() & values.keys():
            if not values[name]:
                self._warn(name, f"in a whole epoch (up to update {updates})")

    def _warn(self, name: str, how_long: str) -> None:
        if name not in self._told:
            logger.warning("%s was 0 %s: %s", name, how_long, self._advice[name])
            self._told.add(name)
