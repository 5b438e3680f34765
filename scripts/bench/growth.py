"""Runs jobs at doubling sizes and fails when one grows faster than its work.

    python scripts/bench/growth.py --list
    python scripts/bench/growth.py                        # all jobs, about four minutes
    python scripts/bench/growth.py chips check-data       # jobs with one of these texts in the name

A job costs the median of the processor time of some runs, on one thread, at four sizes, each twice
the one before. The exponent is fitted to the three largest: 1 is linear, 2 quadratic. Times are
shown but never judged, so that the verdict holds on any machine; what is slow is a matter of
ops.py. A further job is an entry in JOBS of a file in growth_jobs/.
Exit code: 0 no job is too steep, 1 one is or could not run, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import pkgutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Optional

if not __package__:  # run as a script; its own folder has too common module names
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.growth_fit import Growth, GrowthJob, markdown, measure

JOBS_PACKAGE = "bench.growth_jobs"
# Threads that wait for each other spend processor time.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Shorter runs are repeated until they have taken so long.
TURN_S = 0.05


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    for name in ONE_THREAD:
        os.environ[name] = "1"
    jobs = chosen(load_jobs(arguments.package), arguments.job)
    if not jobs:
        parser.error("no job has one of these texts in its name; --list shows the jobs")
    if arguments.list:
        for job in jobs:
            print(f"{job.name}: {job.sizes[0]:,} to {job.sizes[-1]:,} {job.unit}, {job.bound:g}")
        return 0
    growths, failed = run_jobs(jobs, arguments.repeats)
    print(f"\n{markdown(growths)}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(as_json(growths), indent=1), encoding="utf-8")
    return int(failed or any(growth.is_too_steep for growth in growths))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("job", nargs="*", metavar="TEXT", help="only jobs with one of these texts in their name")
    add("--list", action="store_true", help="show the jobs with sizes and bounds; run none")
    add("--repeats", type=int, default=3, help="runs of a job at each size (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write sizes, times and exponents")
    add("--package", default=JOBS_PACKAGE, help="package of the jobs (default: %(default)s)")
    return parser


def load_jobs(package: str) -> list[GrowthJob]:
    """The entries of JOBS of all modules of a package.

    Raises:
        ValueError: two jobs have the same name.
    """
    path = importlib.import_module(package).__path__
    modules = sorted(module.name for module in pkgutil.iter_modules(path))
    jobs = [job for name in modules for job in importlib.import_module(f"{package}.{name}").JOBS]
    names = [job.name for job in jobs]
    if len(set(names)) < len(names):
        raise ValueError(f"{package}: two jobs of one name among {', '.join(names)}")
    return jobs


def chosen(jobs: Sequence[GrowthJob], texts: Sequence[str]) -> list[GrowthJob]:
    return [job for job in jobs if not texts or any(text in job.name for text in texts)]


def run_jobs(jobs: Sequence[GrowthJob], repeats: int) -> tuple[list[Growth], bool]:
    """What was measured, and whether a job could not run."""
    growths, failed = [], False
    for job in jobs:
        try:
            growth = measure(job, lambda call: processor_time(call, repeats))
        except Exception as error:  # noqa: BLE001 (the other jobs go on, and the exit code tells)
            print(f"{job.name}: FAILED: {error}", file=sys.stderr, flush=True)
            failed = True
            continue
        growths.append(growth)
        print(f"{job.name}: exponent {growth.exponent:.2f}", flush=True)
    return growths, failed


def processor_time(call: Callable[[], object], repeats: int) -> float:
    """Median of the processor seconds of a run, after one run for warming up."""
    call()
    gc.collect()
    return statistics.median(one_turn(call) for _ in range(repeats))


def one_turn(call: Callable[[], object]) -> float:
    started_s, runs = time.process_time(), 0
    while True:
        call()
        runs += 1
        took_s = time.process_time() - started_s
        if took_s >= TURN_S:
            return took_s / runs


def as_json(growths: Sequence[Growth]) -> list[dict[str, object]]:
    return [
        {
            "job": growth.job.name,
            "unit": growth.job.unit,
            "sizes": list(growth.sizes),
            "cpu_s": list(growth.costs),
            "exponent": growth.exponent,
            "bound": growth.job.bound,
            "too_steep": growth.is_too_steep,
        }
        for growth in growths
    ]


if __name__ == "__main__":
    sys.exit(main())
