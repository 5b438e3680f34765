"""Runs one job of a case: the same inputs for all sides, outputs compared, then turns A B A B."""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np

from bench.case import Case, Job, OutputsDifferError, PeerMissingError
from bench.process import SideProcess


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes:
        rounds: turns of each side.
        turn_s: about how long a side repeats its job in one turn.
        seed: of the inputs.
        timeout_s: no answer of a side may take longer.
        pythons: interpreter by side; "" for foreign peers that are not named.
        clock: "wall", or "cpu" for the CPU time of all threads of a side.
    """

    rounds: int = 9
    turn_s: float = 0.2
    seed: int = 0
    timeout_s: float = 300.0
    pythons: Mapping[str, str] = field(default_factory=dict)
    clock: str = "wall"


@dataclass
class PeerResult:
    """What one peer came to beside ours.

    Attributes:
        agreement: what was compared, with the numbers.
        ours_s: seconds per call of our side, by round.
        peer_s: seconds per call of the peer, by round.
        skipped: why it was not run.
        refused: why it was not timed: the outputs differ.
    """

    agreement: str = ""
    ours_s: list[float] = field(default_factory=list)
    peer_s: list[float] = field(default_factory=list)
    skipped: str = ""
    refused: str = ""

    def ratios(self, share: bool) -> list[float]:
        """By round: peer / ours, or ours / peer for a share."""
        pairs = zip(self.ours_s, self.peer_s)
        return [ours / peer if share else peer / ours for ours, peer in pairs]


@dataclass
class JobResult:
    """One job at one thread count."""

    case: Case
    job: Job
    threads: int
    peers: dict[str, PeerResult]

    def meets_goal(self, peer: str) -> Optional[bool]:
        """Whether the median ratio reaches the goal; None without a goal or a measurement."""
        goal = self.case.goal_of(self.job, peer)
        ratios = self.peers[peer].ratios(self.case.share)
        if goal is None or not ratios:
            return None
        median = statistics.median(ratios)
        return median <= goal if self.case.share else median >= goal


def run_job(
    case: Case,
    module: str,
    job: Job,
    threads: int,
    options: Options,
    only_peers: Optional[Sequence[str]] = None,
) -> JobResult:
    """Compares, then measures.

    Args:
        case: that of `module`.
        module: the case's, which every side imports for itself.
        job: of the case.
        threads: of every side.
        options: how to measure.
        only_peers: leave out all others.

    Raises:
        BenchError: a side failed, died or does not answer. Outputs that differ and peers that are
            missing are part of the result instead.
    """
    peers = [name for name in case.peers(job) if only_peers is None or name in only_peers]
    result = JobResult(case, job, threads, {name: PeerResult() for name in peers})
    with tempfile.TemporaryDirectory(prefix="sniper-bench-") as temporary:
        folder = Path(temporary)
        inputs = folder / "inputs.npz"
        np.savez(inputs, **job.inputs(generator(options.seed, job.name)))
        task = {
            "case": module,
            "inputs": str(inputs),
            "params": dict(job.params),
            "threads": threads,
        }
        with running_sides(case, task, folder, options, result) as sides:
            if len(sides) > 1:
                compare_outputs(case, job, sides, folder, result)
                measure(case, sides, options, result)
    return result


def generator(seed: int, name: str) -> np.random.Generator:
    """Every job has its own stream, whatever else is run."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


@contextlib.contextmanager
def running_sides(
    case: Case, task: Mapping[str, object], folder: Path, options: Options, result: JobResult
) -> Iterator[dict[str, SideProcess]]:
    """All sides of a job that are installed, prepared; one after the other."""
    sides: dict[str, SideProcess] = {}
    try:
        for name in [case.reference, *result.peers]:
            python = python_of(case, name, options)
            sides[name] = SideProcess(name, python, task, folder, options.timeout_s)
            try:
                sides[name].wait_ready()
            except PeerMissingError as error:
                sides.pop(name).close()
                for skipped in result.peers if name == case.reference else [name]:
                    result.peers[skipped].skipped = str(error)
                if name == case.reference:
                    break
        yield sides
    finally:
        for side in sides.values():
            side.close()


def python_of(case: Case, name: str, options: Options) -> str:
    """Interpreter of a side."""
    if name in options.pythons:
        return options.pythons[name]
    return (case.sides[name].foreign and options.pythons.get("")) or sys.executable


def compare_outputs(
    case: Case, job: Job, sides: dict[str, SideProcess], folder: Path, result: JobResult
) -> None:
    """Fills in the agreements; a side whose outputs differ takes no further part."""
    ours = outputs_of(sides[case.reference], folder)
    for name in [name for name in sides if name != case.reference]:
        try:
            result.peers[name].agreement = case.compare(
                ours, outputs_of(sides[name], folder), job, name
            )
        except OutputsDifferError as error:
            result.peers[name].refused = str(error)
            sides.pop(name).close()


def outputs_of(side: SideProcess, folder: Path) -> dict[str, np.ndarray]:
    path = folder / f"{side.name}.npz"
    side.outputs(path)
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def measure(case: Case, sides: dict[str, SideProcess], options: Options, result: JobResult) -> None:
    """The turns: in every round each side has one, ours first."""
    peers = [name for name in sides if name != case.reference]
    for _ in range(options.rounds if peers else 0):
        ours = sides[case.reference].turn(options.turn_s, options.clock)
        for name in peers:
            result.peers[name].ours_s.append(ours)
            result.peers[name].peer_s.append(sides[name].turn(options.turn_s, options.clock))
