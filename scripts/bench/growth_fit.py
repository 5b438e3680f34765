"""How work grows with size: the exponent that fits measurements at doubling sizes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Only the largest sizes are fitted: at small ones a constant part hides what comes later.
FITTED = 3
BOUND = 1.25


@dataclass(frozen=True)
class GrowthJob:
    """Work whose size can be doubled.

    Attributes:
        name: what it does.
        unit: what a size counts.
        smallest: the smallest size; the others are twice, four times, ... as large.
        make: size -> the call that is measured; it is ready to run, and may run several times.
        bound: the largest exponent that is no fault. Linear work comes out at up to about 1.2 where
            its data grow out of a cache, n log n at 1.1, quadratic work at 1.5 to 2.
        doublings: how often the size is doubled.
    """

    name: str
    unit: str
    smallest: int
    make: Callable[[int], Callable[[], object]]
    bound: float = BOUND
    doublings: int = 3

    def __post_init__(self) -> None:
        if self.doublings + 1 < FITTED:
            raise ValueError(f"{self.name}: {self.doublings} doublings, at least {FITTED - 1} fit")

    @property
    def sizes(self) -> list[int]:
        """Rising."""
        return [self.smallest * 2**power for power in range(self.doublings + 1)]


@dataclass(frozen=True)
class Growth:
    """What was measured of a job: `costs` (s of processor time) at `sizes`."""

    job: GrowthJob
    sizes: Sequence[int]
    costs: Sequence[float]

    @property
    def exponent(self) -> float:
        """See `fit_exponent`."""
        return fit_exponent(self.sizes, self.costs)

    @property
    def is_too_steep(self) -> bool:
        """Whether the job grows faster than it may."""
        return not self.exponent <= self.job.bound


def fit_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """e of cost = c * size**e, by least squares of the logarithms of the largest sizes.

    Raises:
        ValueError: there are fewer sizes than are fitted, or a number is not positive.
    """
    if len(sizes) != len(costs) or len(sizes) < FITTED or min(*sizes, *costs) <= 0:
        raise ValueError(f"no exponent fits sizes {list(sizes)} and costs {list(costs)}")
    pairs = sorted(zip(sizes, costs))[-FITTED:]
    across = [math.log(size) for size, _ in pairs]
    up = [math.log(cost) for _, cost in pairs]
    middle, height = statistics.fmean(across), statistics.fmean(up)
    slope = sum((x - middle) * (y - height) for x, y in zip(across, up))
    return slope / sum((x - middle) ** 2 for x in across)


def measure(
    job: GrowthJob, cost_of: Callable[[Callable[[], object]], float], attempts: int = 2
) -> Growth:
    """The growth of a job; one that looks too steep is measured again, and the best one counts.

    Args:
        job: the work.
        cost_of: what a call costs, such as the median of the processor time of some runs.
        attempts: most measurements.
    """
    best = None
    for _ in range(attempts):
        growth = Growth(job, job.sizes, [cost_of(job.make(size)) for size in job.sizes])
        if best is None or growth.exponent < best.exponent:
            best = growth
        if not best.is_too_steep:
            break
    assert best is not None
    return best


def markdown(growths: Sequence[Growth]) -> str:
    """A table with a row for each job."""
    lines = [
        "| job | sizes | CPU ms | exponent | bound | |",
        "|---|---|---|---|---|---|",
    ]
    for growth in growths:
        sizes = ", ".join(f"{size:,}" for size in growth.sizes)
        costs = ", ".join(f"{1000 * cost:.3g}" for cost in growth.costs)
        verdict = "too steep" if growth.is_too_steep else "ok"
        lines.append(
            f"| {growth.job.name} | {sizes} {growth.job.unit} | {costs} "
            f"| {growth.exponent:.2f} | {growth.job.bound:g} | {verdict} |"
        )
    return "\n".join(lines)
