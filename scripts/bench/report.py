"""Results as lines, as a Markdown table and as JSON; and the machine by its processor."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import sys
from pathlib import Path
from typing import Any, Optional

from bench.harness import JobResult, PeerResult

FLAGS = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "amx_tile",
)
PACKAGES = (
    *("numpy", "mxnet", "openvino", "onnxruntime", "pycocotools", "faster-coco-eval"),
    "torchvision",
)
BUSY = 0.5  # load average of the last minute
TABLE_HEAD = (
    "| case | job | threads | peer | ours ms | peer ms | ratio (min-max) | goal | outputs |",
    "|---|---|---|---|---|---|---|---|---|",
)


def machine() -> dict[str, Any]:
    """The processor, its instruction sets, and the versions of everything that is timed."""
    model, flags = platform.processor() or platform.machine(), ""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() == "flags":
                flags = value
    known = set(flags.split())
    return {
        "processor": model,
        "instruction_sets": [flag for flag in FLAGS if flag in known],
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := installed(name))},
    }


def installed(package: str) -> Optional[str]:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine_line(facts: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    return (
        f"{facts['processor']}, {facts['cores']} cores, {' '.join(facts['instruction_sets'])}; "
        f"Python {facts['python']}, {packages}"
    )


def load_warning(facts: dict[str, Any]) -> str:
    """A sentence when something else runs on the machine; else nothing."""
    if facts["load"] <= BUSY:
        return ""
    return (
        f"The machine is busy (load {facts['load']}): wait until it is idle. With as many threads "
        "as cores, every barrier then waits for a core, and the ratios mean nothing."
    )


def milliseconds(seconds: list[float]) -> str:
    value = statistics.median(seconds) * 1e3
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def spread(ratios: list[float]) -> str:
    median, low, high = statistics.median(ratios), min(ratios), max(ratios)
    return f"{median:.2f}x ({low:.2f}-{high:.2f})"


def goal_text(result: JobResult, peer: str) -> str:
    goal = result.case.goal_of(result.job, peer)
    if goal is None:
        return ""
    sign = "at most" if result.case.share else "at least"
    met = result.meets_goal(peer)
    return f"{sign} {goal:g}x" + ("" if met is None else ": met" if met else ": missed")


def lines(result: JobResult) -> list[str]:
    """What a person reads while the cases run."""
    text = [f"{result.case.name}: {result.job.name}, {threads_text(result.threads)}"]
    for name, peer in result.peers.items():
        text.append(f"  {name}: {peer_line(result, name, peer)}")
    return text


def peer_line(result: JobResult, name: str, peer: PeerResult) -> str:
    if peer.skipped:
        return f"skipped: {peer.skipped}"
    if peer.refused:
        return f"REFUSED, the outputs differ: {peer.refused}"
    measured = (
        f"{result.case.reference} {milliseconds(peer.ours_s)} ms, "
        f"{name} {milliseconds(peer.peer_s)} ms, ratio {spread(peer.ratios(result.case.share))}"
    )
    goal = goal_text(result, name)
    return f"{measured}{f'; {goal}' if goal else ''}; {peer.agreement}"


def threads_text(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def markdown(results: list[JobResult]) -> str:
    """One table row for each job and peer, and below it what was not run."""
    rows = list(TABLE_HEAD)
    not_run = []
    for result in results:
        for name, peer in result.peers.items():
            start = f"| {result.case.name} | {result.job.name} | {result.threads} | {name} |"
            if peer.skipped:
                not_run.append(f"Not run: {result.case.name} against {name}: {peer.skipped}")
            elif peer.refused:
                rows.append(f"{start} | | | {goal_text(result, name)} | REFUSED: {peer.refused} |")
            else:
                rows.append(
                    f"{start} {milliseconds(peer.ours_s)} | {milliseconds(peer.peer_s)} "
                    f"| {spread(peer.ratios(result.case.share))} | {goal_text(result, name)} "
                    f"| {peer.agreement} |"
                )
    return "\n".join([*rows, "", *dict.fromkeys(not_run)])


def as_json(results: list[JobResult], facts: dict[str, Any]) -> dict[str, Any]:
    """Everything, every round included."""
    return {
        "machine": facts,
        "command": sys.argv,
        "results": [
            {
                "case": result.case.name,
                "job": result.job.name,
                "threads": result.threads,
                "ours": result.case.reference,
                "peer": name,
                "goal": result.case.goal_of(result.job, name),
                "ratio_is": "ours / peer" if result.case.share else "peer / ours",
                "meets_goal": result.meets_goal(name),
                "agreement": peer.agreement,
                "skipped": peer.skipped,
                "refused": peer.refused,
                "ours_s": peer.ours_s,
                "peer_s": peer.peer_s,
            }
            for result in results
            for name, peer in result.peers.items()
        ],
    }
