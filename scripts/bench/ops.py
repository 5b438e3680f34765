"""Measures the operators beside their peers, in turns; see scripts/bench/README.md.

    python scripts/bench/ops.py --list
    python scripts/bench/ops.py nms
    python scripts/bench/ops.py multi_proposal --only "50x80, batch 1" --threads 1
    python scripts/bench/ops.py --all --markdown --json results.json

Every side runs in its own process, all of them alive, one at a time: A B A B. Outputs are compared
before anything is timed. The ratio of a round is the peer's time divided by ours.
Exit code: 0 measured (goals met or not), 1 outputs differ or a side failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

if not __package__:  # run as a script; its own folder has too common module names
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.case import CASES, BenchError, Case, Job, case_modules, load_case
from bench.harness import JobResult, Options, run_job
from bench.report import as_json, lines, load_warning, machine, machine_line, markdown


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    modules = case_modules(arguments.cases)
    unknown = [name for name in arguments.case if name not in modules]
    if unknown:
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(modules)}")
    names = list(modules) if arguments.all or arguments.list else arguments.case
    if not names:
        parser.error("name a case, or --all, or --list")
    cases = {modules[name]: load_case(modules[name]) for name in names}
    if arguments.list:
        print("\n".join(line for case in cases.values() for line in describe(case)))
        return 0
    known = {name for case in cases.values() for name in list(case.sides)[1:]}
    if not set(arguments.peers or known) <= known:
        parser.error(f"--peers: these cases have {', '.join(sorted(known))}")
    jobs = chosen_jobs(cases, arguments)
    if not jobs:
        parser.error("no job has these peers and this text in its name; --list shows the jobs")
    return run_jobs(jobs, arguments)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("case", nargs="*", metavar="CASE", help="what to measure; --list shows the names")
    add("--all", action="store_true", help="every case, 15 to 30 minutes")
    add("--list", action="store_true", help="show the cases, their jobs, peers and goals; run none")
    add("--only", metavar="TEXT", default="", help="only jobs with TEXT in their name")
    add("--peers", nargs="+", metavar="PEER", help="only these peers")
    add("--threads", type=positive_int, nargs="+", metavar="N", help="default: the case's, 1 and 2")
    add("--rounds", type=positive_int, default=9, help="turns of each side (default: %(default)s)")
    add("--turn-time", type=positive_float, default=0.2, metavar="SECONDS",
        help="how long a side repeats its job in one turn (default: %(default)s)")  # fmt: skip
    add("--seed", type=int, default=0, help="of the inputs (default: %(default)s)")
    add("--timeout", type=positive_float, default=300.0, metavar="SECONDS",
        help="longest wait for one answer of a side (default: %(default)s)")  # fmt: skip
    add("--peer-python", action="append", default=[], metavar="[PEER=]PATH",
        help="interpreter for a peer, or for all that need no MXNet; may be repeated")  # fmt: skip
    add("--cpu-time", action="store_true",
        help="compare the sides' CPU time, where the machine is not idle")  # fmt: skip
    add("--markdown", action="store_true", help="print the table for README.md at the end")
    add("--json", type=Path, metavar="FILE", help="write every round's times")
    add("--cases", metavar="PACKAGE", default=CASES,
        help="package of the cases (default: %(default)s)")  # fmt: skip
    return parser


def positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def describe(case: Case) -> list[str]:
    """The lines of --list."""
    sign = "at most" if case.share else "at least"
    text = [f"{case.name}: {case.summary}"]
    for job in case.jobs:
        goals = ((name, case.goal_of(job, name)) for name in case.peers(job))
        peers = (f"{name} ({sign} {goal:g}x)" if goal else name for name, goal in goals)
        text.append(f"  {job.name}: {case.reference} against {', '.join(peers)}")
    return text


def run_jobs(jobs: list[tuple[str, Case, Job, int]], arguments: argparse.Namespace) -> int:
    options = Options(
        rounds=arguments.rounds,
        turn_s=arguments.turn_time,
        seed=arguments.seed,
        timeout_s=arguments.timeout,
        pythons=interpreters(arguments.peer_python),
        clock="cpu" if arguments.cpu_time else "wall",
    )
    facts = machine()
    print(machine_line(facts), flush=True)
    if warning := load_warning(facts):
        print(warning, file=sys.stderr, flush=True)
    results: list[JobResult] = []
    failed = False
    for module, case, job, threads in jobs:
        try:
            result = run_job(case, module, job, threads, options, arguments.peers)
        except BenchError as error:
            print(f"{case.name}: {job.name}: FAILED: {error}", file=sys.stderr, flush=True)
            failed = True
            continue
        print("\n".join(lines(result)), flush=True)
        failed |= any(peer.refused for peer in result.peers.values())
        results.append(result)
    if arguments.markdown:
        print(f"\n{markdown(results)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(results, facts), indent=1), encoding="utf-8")
    return int(failed)


def interpreters(texts: Sequence[str]) -> dict[str, str]:
    """`--peer-python` by side; "" is for all foreign peers."""
    split = (text.rpartition("=") for text in texts)
    return {name: path for name, _, path in split}


def chosen_jobs(
    cases: dict[str, Case], arguments: argparse.Namespace
) -> list[tuple[str, Case, Job, int]]:
    return [
        (module, case, job, threads)
        for module, case in cases.items()
        for job in case.jobs
        if arguments.only in job.name
        and (arguments.peers is None or set(arguments.peers) & set(case.peers(job)))
        for threads in arguments.threads or case.threads
    ]


if __name__ == "__main__":
    sys.exit(main())
