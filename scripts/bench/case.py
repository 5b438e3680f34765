"""What a benchmark case is made of, and where the cases are found.

A case is one file in `cases/` that ends in `CASE = Case(...)`. It may import NumPy at the top and
everything else only inside its sides, because each side runs in its own process and perhaps under
its own interpreter.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

import numpy as np

CASES = "bench.cases"
OURS = "ours"

Arrays = Mapping[str, np.ndarray]


class BenchError(Exception):
    """A case cannot run; the text says why."""


class OutputsDifferError(BenchError):
    """Two sides do not compute the same; the text has the numbers."""


class PeerMissingError(BenchError):
    """A peer is not installed here; the text says how to get it."""


@dataclass(frozen=True)
class Prepared:
    """A side that is ready to be timed.

    Attributes:
        run: does the whole job once and returns its raw result; this is what is timed. It must not
            return before the result is there.
        outputs: turns a raw result into named arrays for the comparison; not timed.
    """

    run: Callable[[], Any]
    outputs: Callable[[Any], Arrays]


@dataclass(frozen=True)
class Side:
    """One competitor.

    Attributes:
        setup: (inputs, params, threads) -> Prepared; raises PeerMissingError. Not timed.
        foreign: needs neither MXNet nor this package, so `--peer-python` applies to it.
    """

    setup: Callable[[Arrays, Mapping[str, Any], int], Prepared]
    foreign: bool = False


@dataclass(frozen=True)
class Job:
    """One size of a case.

    Attributes:
        name: unique in the case.
        inputs: (generator) -> named arrays, the same for all sides.
        params: what the sides need to know beside the arrays; plain JSON values.
        peers: names of the sides that take part beside the first; None means all.
        goal: by peer; see `Case.goal`.
    """

    name: str
    inputs: Callable[[np.random.Generator], Arrays]
    params: Mapping[str, Any] = field(default_factory=dict)
    peers: Optional[Sequence[str]] = None
    goal: Optional[Mapping[str, float]] = None


@dataclass(frozen=True)
class Case:
    """A kind of work, its sizes and its competitors.

    Attributes:
        name: as on the command line.
        summary: one line.
        jobs: the sizes.
        sides: the first is ours; all others are peers.
        compare: (ours, peer, job, name of the peer) -> one sentence about the agreement; raises
            OutputsDifferError. Runs before anything is timed.
        goal: by peer. The least "peer's time / our time"; or, when `share` is set, the largest
            "our time / peer's time".
        share: the ratio is our time / the peer's time, for work that cannot be faster.
        threads: thread counts that make sense when the command line names none.
    """

    name: str
    summary: str
    jobs: Sequence[Job]
    sides: Mapping[str, Side]
    compare: Callable[[Arrays, Arrays, Job, str], str]
    goal: Mapping[str, float] = field(default_factory=dict)
    share: bool = False
    threads: Sequence[int] = (1, 2)

    @property
    def reference(self) -> str:
        """Name of our side."""
        return next(iter(self.sides))

    def peers(self, job: Job) -> list[str]:
        """Names of the other sides of a job."""
        wanted = self.sides if job.peers is None else job.peers
        return [name for name in self.sides if name != self.reference and name in wanted]

    def goal_of(self, job: Job, peer: str) -> Optional[float]:
        """The goal of a job against a peer; None where there is none."""
        return (self.goal if job.goal is None else job.goal).get(peer)


def load_case(module: str) -> Case:
    """The `CASE` of a module.

    Raises:
        BenchError: there is none.
    """
    case = getattr(importlib.import_module(module), "CASE", None)
    if not isinstance(case, Case):
        raise BenchError(f"{module} defines no `CASE = Case(...)`.")
    return case


def case_modules(package: str = CASES) -> dict[str, str]:
    """Modules of the cases by name; a case is called like its module."""
    folders = importlib.import_module(package).__path__
    return {name: f"{package}.{name}" for _, name, _ in pkgutil.iter_modules(folders)}
