"""Accuracy against cost: which settings are worth their cost, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sniper.errors import ConfigError

# Groups of images that are left out in turn, and how many standard errors are chance.
GROUPS, CHANCE = 10, 2.0


@dataclass(frozen=True)
class Point:
    """A setting as it was measured.

    Attributes:
        name: of the setting.
        cost: seconds of an image.
        accuracy: the deciding number, as a fraction of 1.
        left_out: (GROUPS,) the same without each group of images.
    """

    name: str
    cost: float
    accuracy: float
    left_out: tuple[float, ...]

    @property
    def spread(self) -> float:
        """Standard error of the accuracy, by the jackknife over groups of images."""
        return jackknife_error(np.array(self.left_out))


def jackknife_error(left_out: np.ndarray) -> float:
    """Standard error from the values that are found without each group; 0 for one or none."""
    count = len(left_out)
    if count < 2:
        return 0.0
    return float(np.sqrt((count - 1) / count * ((left_out - left_out.mean()) ** 2).sum()))


def without_groups(count: int, measure: Callable[[np.ndarray], float]) -> tuple[float, ...]:
    """What `measure` finds in the images when each group of them is left out.

    Args:
        count: images.
        measure: a number of some of the images, by their indices.
    """
    images = np.arange(count)
    groups = [images[start::GROUPS] for start in range(min(GROUPS, count))]
    return tuple(measure(np.setdiff1d(images, group)) for group in groups)


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats, cheapest first: more accuracy for their cost."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept


def choose(
    points: Sequence[Point], *, budget_s: float | None = None, loss: float | None = None
) -> Point:
    """The setting for a budget of time, or for a loss of accuracy.

    Args:
        points: all that were measured.
        budget_s: the most accurate one that takes at most so long is chosen.
        loss: the cheapest one that loses at most so much against the most accurate one is chosen.

    Raises:
        ConfigError: no setting is within the budget.
    """
    if budget_s is not None:
        within = [point for point in points if point.cost <= budget_s]
        if not within:
            fastest = min(points, key=lambda point: point.cost)
            raise ConfigError(
                "no setting is within the budget",
                got=f"{1000 * budget_s:g} ms an image",
                expected=f"at least {1000 * fastest.cost:.1f} ms, which {fastest.name} takes",
                fix="a larger budget, smaller TEST.SCALES, or a smaller network",
            )
        return max(within, key=lambda point: (point.accuracy, -point.cost))
    best = max(point.accuracy for point in points)
    enough = [point for point in points if point.accuracy >= best - (loss or 0.0)]
    return min(enough, key=lambda point: (point.cost, -point.accuracy))


@dataclass(frozen=True)
class Confirmation:
    """Whether a chosen setting holds on other images.

    Attributes:
        rival: the cheaper setting that is most accurate there; None: none is cheaper.
        lead: accuracy of the rival over the chosen one, negative where the chosen one is better.
        spread: standard error of the lead.
    """

    rival: str | None
    lead: float
    spread: float

    @property
    def is_on_front(self) -> bool:
        """No cheaper setting is more accurate."""
        return self.rival is None or self.lead <= 0

    @property
    def is_within_chance(self) -> bool:
        """No cheaper setting is more accurate by more than chance."""
        return self.is_on_front or self.lead <= CHANCE * self.spread


def confirm(chosen: Point, points: Sequence[Point]) -> Confirmation:
    """Compares a chosen setting with those that cost no more, on images that did not choose it."""
    cheaper = [point for point in points if point.name != chosen.name and point.cost <= chosen.cost]
    if not cheaper:
        return Confirmation(None, 0.0, 0.0)
    rival = max(cheaper, key=lambda point: point.accuracy)
    difference = np.array(rival.left_out) - np.array(chosen.left_out)
    return Confirmation(rival.name, rival.accuracy - chosen.accuracy, jackknife_error(difference))
