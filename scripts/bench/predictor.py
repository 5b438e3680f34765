"""Whether `Predictor` stays as it is over many calls: memory, threads, open files, latency.

    python scripts/bench/predictor.py --cfg sniper_mobilenetv2_toy --image data/demo/demo.jpg

One process, one model, the same image in every call. Memory is the resident set after each call;
its mean over the last 20 calls must lie within 2 % of that over calls 21-40, when all is warm, and
the numbers of threads and of open file descriptors must be the same. Exit code 1 otherwise. Reads
/proc: Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Optional

if not __package__:  # run as a script; its own folder has too common module names
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.report import load_warning, machine, machine_line

BLOCK = 20
LARGEST_GROWTH = 0.02


def measure(predictor: Any, image: Any, calls: int) -> list[dict[str, float]]:
    """Seconds of every call, and what the process holds after it."""
    rows = []
    for _ in range(calls):
        began = time.perf_counter()
        predictor(image)
        took = time.perf_counter() - began
        rows.append({"seconds": took, **process_figures()})
    return rows


def process_figures() -> dict[str, int]:
    """Resident bytes, threads and open descriptors of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "rss": pages * os.sysconf("SC_PAGE_SIZE"),
        "threads": len(os.listdir("/proc/self/task")),
        "files": len(os.listdir("/proc/self/fd")),
    }


def judge(
    rows: list[dict[str, float]], block: int = BLOCK, largest_growth: float = LARGEST_GROWTH
) -> dict[str, Any]:
    """Compares the last block of calls with the second.

    Args:
        rows: of `measure`, at least three blocks.
        block: calls in a block.
        largest_growth: of the resident set, as a share.
    """
    early, late = rows[block : 2 * block], rows[-block:]
    before, after = (statistics.mean(row["rss"] for row in part) for part in (early, late))
    growth = after / before - 1
    # The least of a block: a thread that was joined may still be on its way out of the kernel.
    counts = {
        name: [min(row[name] for row in part) for part in (early, late)]
        for name in ("threads", "files")
    }
    return {
        "calls": len(rows),
        "rss_mb": [before / 2**20, after / 2**20],
        "growth": growth,
        **counts,
        "latency_ms": [latency(part) for part in (early, late)],
        "passed": abs(growth) <= largest_growth
        and all(first == last for first, last in counts.values()),
    }


def latency(rows: list[dict[str, float]]) -> dict[str, float]:
    """Median and 95th percentile of the calls, ms."""
    times = sorted(1000 * row["seconds"] for row in rows)
    place = min(len(times) - 1, round(0.95 * (len(times) - 1)))
    return {"median": statistics.median(times), "p95": times[place]}


def lines(result: dict[str, Any], block: int = BLOCK) -> list[str]:
    """What a person reads."""
    names = [
        f"calls {block + 1}-{2 * block}",
        f"calls {result['calls'] - block + 1}-{result['calls']}",
    ]
    text = [
        f"{name:>15}: {rss:8.1f} MiB resident, {threads} threads, {files} open files, "
        f"latency median {times['median']:.1f} ms, p95 {times['p95']:.1f} ms"
        for name, rss, threads, files, times in zip(
            names, result["rss_mb"], result["threads"], result["files"], result["latency_ms"]
        )
    ]
    verdict = "passed" if result["passed"] else "FAILED"
    goal = f"goal: within {LARGEST_GROWTH:.0%}, threads and files equal"
    return [*text, f"memory {result['growth']:+.2%} ({goal}): {verdict}"]


def main(argv: Optional[list[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cfg", default="sniper_mobilenetv2_toy", help="recipe or .zip archive")
    parser.add_argument("--weights", help="a .params file (default: the recipe's)")
    parser.add_argument("--mode", help="single, pyramid, focus or slice (default: the recipe's)")
    parser.add_argument("--image", default="data/demo/demo.jpg")
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--json", type=Path, help="writes every call to this file")
    args = parser.parse_args(argv)
    if args.calls < 3 * BLOCK:
        parser.error(f"--calls must be at least {3 * BLOCK}")
    from sniper import Predictor

    facts = machine()
    print(machine_line(facts))
    if load_warning(facts):
        print(load_warning(facts))
    predictor = Predictor(args.cfg, args.weights, mode=args.mode)
    gc.collect()
    rows = measure(predictor, args.image, args.calls)
    result = judge(rows)
    print("\n".join(lines(result)))
    print(predictor.take_stats().table())
    if args.json is not None:
        args.json.write_text(json.dumps({"machine": facts, **result, "rows": rows}, indent=1))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
