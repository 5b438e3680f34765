"""AutoFocus beside the full pyramid, uniform windows and one scale: same weights, in turns.

    sniper make-toy-data data/toy
    python main_train.py --cfg sniper_res18_toy_autofocus
    python scripts/bench/autofocus.py --out autofocus.json
    python scripts/bench/autofocus.py --cfg my.yml --modes pyramid focus --images 100

Modes (TEST.MODE), all with the recipe's weights, NMS and caps:

* pyramid: every level on whole images.
* focus: coarse to fine; the finer levels see the FocusChips of the level before them.
* slice: uniform windows as in SAHI, with the whole image at the middle scale beside them. Windows
  of 288 image px at twice the image's size, 20 % overlap: the toy recipe's finest level, cut into
  few windows; other recipes want other `TEST.SLICE_...` keys (--set).
* single: whole images at the middle scale.

First every mode runs once: its results are evaluated, and it binds the shapes that it needs ("first
s"). Then all modes run in turn, --rounds times; a round's ratio is its time relative to the full
pyramid's of the same round. Times are of the whole set: reading, resizing, network, merging; images
are decoded anew in every run. A mode whose results change from round to round is refused.
Exit code: 0 measured (goals met or not), 1 results differ, 2 wrong usage, 3 data are missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

if not __package__:  # run as a script; its own folder has too common module names
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.report import load_warning, machine, machine_line

if TYPE_CHECKING:
    from sniper.data import Dataset
    from sniper.data.detections import DetectionTable
    from sniper.inference.detector import Detector
    from sniper.inference.run_stats import RunStats

MODES = ("pyramid", "focus", "slice", "single")
# Uniform windows that see objects as large as the toy recipe's finest level; --set comes later.
SLICES = {
    "TEST.SLICE_SIZE": "288",
    "TEST.SLICE_FACTOR": "2.0",
    "TEST.SLICE_OVERLAP": "0.2",
    "TEST.SLICE_BATCH_IMAGES": "4",
}
MEASURES = {
    "AP": "ap",
    "AP50": "ap50",
    "APs": "ap_small",
    "APm": "ap_medium",
    "APl": "ap_large",
}
MOST_PIXELS, MOST_AP_LOST = 0.40, 0.01


@dataclass
class ModeResult:
    """One mode.

    Attributes:
        accuracy: measures of COCO, fractions of 1.
        detections: how many there are.
        first_s: time of the first run, binding included.
        times_s: one per round.
        stats: of all rounds together.
    """

    accuracy: dict[str, float]
    detections: int
    first_s: float
    times_s: list[float]
    stats: RunStats


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line."""
    args = _parser().parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # before MXNet is imported
    from sniper.errors import SniperError

    try:
        return run(args)
    except SniperError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cfg", default="sniper_res18_toy_autofocus", help="recipe (default: %(default)s)")
    add("--modes", nargs="+", choices=MODES, default=list(MODES), help="(default: all)")
    add("--rounds", type=positive_int, default=5, help="turns of each mode (default: %(default)s)")
    add("--images", type=positive_int, help="that many of the set, evenly spread (default: all)")
    add(
        "--threads", type=positive_int, default=len(os.sched_getaffinity(0)), help="OMP_NUM_THREADS"
    )
    add("--save_prefix", default="SNIPER", help="of the weights (default: %(default)s)")
    add("--out", type=Path, metavar="FILE", help="also write everything as JSON")
    add("--set", nargs="+", default=[], metavar="KEY VALUE", help="configuration keys")
    return parser


def positive_int(text: str) -> int:
    """A flag's value."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Measures, prints, writes; the exit code."""
    from sniper.config import load_config
    from sniper.runs.datasets import open_dataset
    from sniper.runs.resolve import data_source

    slices = [item for pair in SLICES.items() for item in pair]
    cfg = load_config(args.cfg, [*slices, *args.set])
    dataset = open_dataset(data_source(cfg), cfg.dataset.test_image_set)
    if args.images:
        chosen = np.linspace(0, len(dataset.records) - 1, args.images).round().astype(int)
        records = [dataset.records[index] for index in np.unique(chosen).tolist()]
        dataset = dataclasses.replace(dataset, records=records)
    facts = {**machine(), "threads": args.threads}
    print(f"{machine_line(facts)}; {args.threads} threads")
    if load_warning(facts):
        print(load_warning(facts))
    detectors = make_detectors(cfg, dataset, args.modes, args.save_prefix)
    results, same = measure(detectors, dataset, args.rounds)
    print(table(results))
    for sentence in goals(results):
        print(sentence)
    if args.out:
        content = {"machine": facts, "cfg": args.cfg, "set": args.set, "set_name": dataset.name}
        content |= {"images": len(dataset.records), "modes": as_json(results)}
        args.out.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return 0 if same else 1


def make_detectors(
    cfg: Any, dataset: Dataset, modes: Sequence[str], save_prefix: str
) -> dict[str, Detector]:
    """One detector for each mode, all with the same weights."""
    from sniper.runs.find_weights import weights_path
    from sniper.runs.load_model import load_model, make_detector
    from sniper.runs.plan import test_plan

    plans = {mode: test_plan(cfg, mode=mode) for mode in modes}
    plan = next(iter(plans.values()))
    weights = weights_path(plan.model_dir, plan.epoch, save_prefix)
    model = load_model(plan.detector, weights, dataset.class_names)
    return {mode: make_detector(plan, model) for mode, plan in plans.items()}


def measure(
    detectors: dict[str, Detector], dataset: Dataset, rounds: int
) -> tuple[dict[str, ModeResult], bool]:
    """Evaluates each mode, then runs all in turn.

    Returns:
        The results by mode, and whether every round gave the detections that were evaluated.
    """
    from sniper.evaluation import evaluate_coco

    results, tables = {}, {}
    for mode, detector in detectors.items():
        tables[mode], first_s, stats = detect(detector, dataset)
        report = evaluate_coco(dataset, tables[mode])
        accuracy = {name: float(getattr(report, key)) for name, key in MEASURES.items()}
        results[mode] = ModeResult(accuracy, tables[mode].num_detections, first_s, [], stats)
        print(f"{mode}: {first_s:.1f} s, AP {100 * accuracy['AP']:.2f}", file=sys.stderr)
    same = True
    for number in range(rounds):
        for mode, detector in detectors.items():
            found, took_s, stats = detect(detector, dataset)
            results[mode].times_s.append(took_s)
            results[mode].stats = stats if not number else results[mode].stats + stats
            if not equal(found, tables[mode]):
                print(f"REFUSED: {mode} found something else in round {number + 1}")
                same = False
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return results, same


def detect(detector: Detector, dataset: Dataset) -> tuple[DetectionTable, float, RunStats]:
    """The detections of the set, seconds, and what they consist of."""
    from sniper.runs.detect_set import detect_in_memory

    started_s = time.perf_counter()
    found, speed = detect_in_memory(detector, dataset, "benchmark")
    return found, time.perf_counter() - started_s, speed.stats


def equal(found: DetectionTable, expected: DetectionTable) -> bool:
    """Whether two tables have the same detections, bit for bit."""
    return all(
        np.array_equal(getattr(found, name), getattr(expected, name))
        for name in ("offsets", "rows", "classes")
    )


def ratios(results: dict[str, ModeResult], mode: str) -> np.ndarray:
    """Time relative to the full pyramid's, round by round; empty without it."""
    if "pyramid" not in results:
        return np.zeros(0)
    return np.array(results[mode].times_s) / np.array(results["pyramid"].times_s)


def table(results: dict[str, ModeResult]) -> str:
    """All modes as Markdown."""
    from sniper.inference.run_stats import STAGES

    heads = ["mode", *MEASURES, "pixels", "first s", "time s", "of the pyramid's (min-max)"]
    heads += ["images/s", *(f"{stage} ms" for stage in STAGES)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for mode, result in results.items():
        cells = [mode, *(f"{100 * value:.1f}" for value in result.accuracy.values())]
        cells += _time_cells(result, ratios(results, mode))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _time_cells(result: ModeResult, relative: np.ndarray) -> list[str]:
    from sniper.inference.run_stats import STAGES

    stats, median_s = result.stats, float(np.median(result.times_s))
    images = stats.images / len(result.times_s)
    ratio = "-"
    if len(relative):
        ratio = f"{np.median(relative):.2f} ({relative.min():.2f}-{relative.max():.2f})"
    return [
        f"{100 * stats.pixel_share:.1f} %",
        f"{result.first_s:.2f}",
        f"{median_s:.2f}",
        ratio,
        f"{images / median_s:.2f}",
        *(f"{1000 * stats.seconds.get(stage, 0.0) / stats.images:.1f}" for stage in STAGES),
    ]


def goals(results: dict[str, ModeResult]) -> list[str]:
    """What AutoFocus is to reach, a sentence each; none unless it ran beside the pyramid."""
    if not {"pyramid", "focus"} <= set(results):
        return []
    share = results["focus"].stats.pixel_share
    lost = results["pyramid"].accuracy["AP"] - results["focus"].accuracy["AP"]
    ratio = float(np.median(ratios(results, "focus")))
    sentences = {
        f"pixels {100 * share:.1f} %, at most {100 * MOST_PIXELS:.0f} %": share <= MOST_PIXELS,
        f"AP lost {100 * lost:.2f} points, at most {100 * MOST_AP_LOST:g}": lost <= MOST_AP_LOST,
        f"time {ratio:.2f} of the full pyramid's, below 1": ratio < 1,
    }
    return [f"focus: {text}: {'met' if met else 'missed'}" for text, met in sentences.items()]


def as_json(results: dict[str, ModeResult]) -> dict[str, dict[str, Any]]:
    """Everything that was measured."""
    return {
        mode: {
            "accuracy": result.accuracy,
            "detections": result.detections,
            "first_s": result.first_s,
            "times_s": result.times_s,
            "ratios": ratios(results, mode).tolist(),
            "stats": result.stats.as_dict(),
            "pixel_share": result.stats.pixel_share,
        }
        for mode, result in results.items()
    }


if __name__ == "__main__":
    raise SystemExit(main())
