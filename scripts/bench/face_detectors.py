"""SSH beside YuNet and CenterFace on a CPU: images/s at VGA, and what each finds on real photos.

    python scripts/bench/face_detectors.py --peer-python /path/to/bin/python \
        --cfg configs/ssh/my_faces.yml --weights SNIPER-0012.params --data faces_mini --markdown

Every side is its own process with the same threads, and stands still while another is timed; a
round is one turn of each. What is timed: from the pixels of a photo to its boxes behind the NMS,
over photos of exactly the first of --sizes. What is evaluated: all photos of the set, fitted into
each of --sizes (turned for upright photos), by the protocol of WIDER FACE. All detectors see the
same pixels and keep boxes above the same score. A peer that does not find half of the easy faces of
the timed photos is refused.

Without --weights the network has random ones: right for speed, and its accuracy is left out. The
truth of faces_mini is what two reference detectors agree on, checked by eye in part: it favours
detectors that find what those find.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

if not __package__:  # run as a script; its own folder has too common module names
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np

from bench.case import Arrays, BenchError, Case, Job, OutputsDifferError
from bench.harness import JobResult, Options, run_job
from bench.peers.faces import SIDES
from bench.report import load_warning, machine, machine_line, spread

MODULE = "bench.face_detectors"
TIMED_PHOTOS = 8
LEAST_FOUND = 0.5  # of the easy faces of the timed photos
CHECKED = "checked"
OURS = ("ours", "ours-int8")
# Random weights see faces everywhere; a trained network's face scores are low nearly everywhere.
BACKGROUND_BIAS = -6.0


def unjudged(ours: Arrays, peer: Arrays, job: Job, name: str) -> str:
    """Only the parent process has the annotations: see `Judge`."""
    raise OutputsDifferError("there are no annotations to compare with")


CASE = Case(
    name="face_detectors",
    summary="face detectors at VGA: photos to boxes",
    jobs=(),
    sides=SIDES,
    compare=unjudged,
)


class Judge:
    """What each side found, by the protocol of WIDER FACE.

    Args:
        dataset: with annotations.
        timed: the photos whose easy faces have to be found.
        trained: whether our weights are; others are not judged.

    Attributes:
        numbers: (size, side) -> AP by level, share of the easy faces found, engine.
    """

    def __init__(self, dataset: Any, timed: np.ndarray, *, trained: bool) -> None:
        from sniper.evaluation.wider_files import wider_truth

        self._dataset, self._truth, self._trained = dataset, wider_truth(dataset), trained
        self.levels = [level for level in ("easy", "medium", "hard", "all") if self._has(level)]
        owners = np.repeat(np.arange(len(dataset.records)), np.diff(self._truth.offsets))
        checked = self._truth.counted[self.levels[0]] & np.isin(owners, timed)
        self._counted = {**self._truth.counted, CHECKED: checked}
        self.numbers: dict[tuple[str, str], dict[str, Any]] = {}

    def _has(self, level: str) -> bool:
        return level in self._truth.counted and (level != "all" or not self._truth.has_lists)

    def compare(self, ours: Arrays, peer: Arrays, job: Job, name: str) -> str:
        """Judges a side (and ours); see `Case.compare`."""
        first = CASE.reference
        if (job.name, first) not in self.numbers:
            self.numbers[job.name, first] = self._judged(ours, first)
        result = self.numbers[job.name, name] = self._judged(peer, name)
        if result["ap"] is None:
            return "random weights: not judged"
        if not result["found"] >= LEAST_FOUND:
            raise OutputsDifferError(f"it finds {result['found']:.0%} of the easy faces")
        return f"{result['found']:.0%} of the easy faces of the timed photos found"

    def failures(self) -> list[str]:
        """Our sides that do not find what they should; peers are refused before they are timed."""
        return [
            f"{name} at {size} finds {result['found']:.0%} of the easy faces"
            for (size, name), result in self.numbers.items()
            if name == CASE.reference and result["ap"] and not result["found"] >= LEAST_FOUND
        ]

    def _judged(self, arrays: Arrays, name: str) -> dict[str, Any]:
        from sniper.data.detections import DetectionTable
        from sniper.evaluation.wider import evaluate_levels
        from sniper.evaluation.wider_files import found_faces

        engine = str(arrays["engine"])
        if name in OURS and not self._trained:
            return {"engine": engine, "ap": None, "found": None}
        rows = np.array(arrays["rows"], np.float64)
        if not np.isfinite(rows).all():
            raise OutputsDifferError(f"{name} gives boxes that are not finite")
        rows[:, 2:4] += rows[:, :2] - 1
        table = DetectionTable(
            offsets=arrays["offsets"].astype(np.int64),
            rows=rows.astype(np.float32),
            classes=np.ones(len(rows), np.int32),
        )
        found = found_faces(self._dataset, table)
        curves = evaluate_levels(self._truth.boxes, self._truth.offsets, self._counted, found)
        ap = {level: curves[level].ap for level in self.levels}
        return {"engine": engine, "ap": ap, "found": float(curves[CHECKED].recall[-1])}


def fitted(width: int, height: int, size: tuple[int, int]) -> tuple[int, int]:
    """Size (width, height) of a photo that fits into `size`, which is turned for upright photos."""
    longest, shortest = size
    factor = min(longest / max(width, height), shortest / min(width, height))
    return max(round(width * factor), 1), max(round(height * factor), 1)


def job_of(dataset: Any, size: tuple[int, int], timed: np.ndarray, params: Mapping) -> Job:
    """All photos of the set in one size."""
    sizes = [fitted(record.width, record.height, size) for record in dataset.records]
    arrays = {
        "paths": np.array([str(Path(record.image_path).resolve()) for record in dataset.records]),
        "sizes": np.array(sizes),
        "timed": timed,
    }
    return Job(size_text(size), lambda _: arrays, {**params, "size": list(size)})


def timed_photos(dataset: Any, size: tuple[int, int]) -> np.ndarray:
    """Numbers of photos with faces that fill the size, evenly spread.

    Raises:
        BenchError: there are none.
    """
    faces = np.diff(dataset.truth.offsets)
    filling = [
        index
        for index, record in enumerate(dataset.records)
        if fitted(record.width, record.height, size) == size and faces[index]
    ]
    if not filling:
        raise BenchError(f"no photo with faces has the shape of {size_text(size)}")
    picked = np.linspace(0, len(filling) - 1, min(TIMED_PHOTOS, len(filling)))
    return np.array(filling)[picked.round().astype(int)]


def size_text(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def random_weights(cfg: str, overrides: Sequence[str], path: Path) -> None:
    """Writes starting values of the recipe's network that find next to nothing."""
    from sniper.config import load_config
    from sniper.models.weights import write_params
    from sniper.runs.plan import test_plan
    from sniper.runs.speed import random_model

    model = random_model(test_plan(load_config(cfg, overrides), devices="cpu").detector)
    for name, value in model.arg.items():
        if name.startswith("rpn_cls_score") and name.endswith("_bias"):
            value[len(value) // 2 :] = BACKGROUND_BIAS
    write_params(path, model.arg, model.aux)


def table(judge: Judge, results: Sequence[JobResult], sizes: Sequence[str], photos: int) -> str:
    """One row for each side: speed at the first size, AP at all."""
    levels = " / ".join(judge.levels)
    columns = ["detector", "engine", f"images/s at {sizes[0]}", "times ours (min-max)"]
    columns += [f"AP {levels} at {size}" for size in sizes]
    rows = [columns, ["---"] * len(columns)]
    timed = results[0]
    ours_s = next((peer.ours_s for peer in timed.peers.values() if peer.ours_s), [])
    for name in [CASE.reference, *timed.peers]:
        seconds = ours_s if name == CASE.reference else timed.peers[name].peer_s
        if not seconds:
            continue
        beside = spread([own / other for own, other in zip(ours_s, seconds)])
        rate = f"{photos / statistics.median(seconds):.1f}"
        engine = judge.numbers[sizes[0], name]["engine"]
        accuracy = [_accuracy(judge.numbers.get((size, name))) for size in sizes]
        rows.append([name, engine, rate, "1" if seconds is ours_s else beside, *accuracy])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _accuracy(result: Optional[Mapping[str, Any]]) -> str:
    if result is None or result["ap"] is None:
        return "-"
    return " / ".join(f"{100 * ap:.1f}" for ap in result["ap"].values())


def as_json(judge: Judge, results: Sequence[JobResult], facts: Mapping[str, Any]) -> dict:
    """Every round and all numbers."""
    return {
        "machine": facts,
        "command": sys.argv,
        "seconds": {
            f"{result.job.name}, {name}": {"ours": peer.ours_s, "peer": peer.peer_s}
            for result in results
            for name, peer in result.peers.items()
        },
        "found": {f"{size}, {name}": value for (size, name), value in judge.numbers.items()},
    }


def size_argument(text: str) -> tuple[int, int]:
    width, height = (int(side) for side in text.split("x"))
    if not width >= height > 0:
        raise ValueError(text)
    return width, height


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--cfg", default="ssh_vgg16_wider", help="recipe of our network")
    result.add_argument("--weights", help="a .params file or an archive (default: random ones)")
    result.add_argument("--int8", help="archive of `sniper quantize`, as a second side of ours")
    result.add_argument("--data", default="data/faces_mini", help="a set in the layout of WIDER")
    result.add_argument("--image_set", default="val")
    result.add_argument(
        "--sizes",
        nargs="+",
        type=size_argument,
        default=[(640, 480), (1280, 960)],
        metavar="WIDTHxHEIGHT",
        help="lying; the first is timed",
    )
    result.add_argument("--min_score", type=float, default=0.05, help="of a box, for all")
    result.add_argument("--threads", type=int, default=1)
    result.add_argument("--rounds", type=int, default=9)
    result.add_argument("--turn", type=float, default=1.0, help="seconds (default: 1)")
    result.add_argument("--timeout", type=float, default=1800.0, help="seconds of no answer")
    result.add_argument("--peers", nargs="*", help=f"of {', '.join(list(SIDES)[1:])}")
    result.add_argument("--peer-python", default="", help="interpreter that has the peers")
    result.add_argument("--markdown", action="store_true", help="prints the table")
    result.add_argument("--json", type=Path, help="writes every round to this file")
    result.add_argument("--set", nargs=argparse.REMAINDER, default=[], help="must be the last")
    return result


def main(argv: Optional[list[str]] = None) -> int:
    arguments = parser()
    args = arguments.parse_args(argv)
    peers = [name for name in list(SIDES)[1:] if name != "ours-int8" or args.int8]
    if args.peers is not None:
        if unknown := sorted(set(args.peers) - set(peers)):
            arguments.error(f"no peers {', '.join(unknown)}; there are {', '.join(peers)}")
        peers = args.peers
    from sniper.data import load_dataset

    facts = machine()
    print(machine_line(facts), f"threads {args.threads}", sep="; ")
    if load_warning(facts):
        print(load_warning(facts), flush=True)
    dataset = load_dataset("wider", args.data, args.image_set)
    timed = timed_photos(dataset, args.sizes[0])
    judge = Judge(dataset, timed, trained=args.weights is not None)
    case = replace(CASE, compare=judge.compare)
    results = []
    with tempfile.TemporaryDirectory(prefix="sniper-bench-") as folder:
        weights = args.weights or str(Path(folder) / "random-0000.params")
        if args.weights is None:
            random_weights(args.cfg, args.set, Path(weights))
        params = {"cfg": args.cfg, "set": args.set, "min_score": args.min_score}
        params |= {"weights": weights, "int8": args.int8, "trained": args.weights is not None}
        for number, size in enumerate(args.sizes):
            options = Options(
                rounds=0 if number else args.rounds,
                turn_s=args.turn,
                timeout_s=args.timeout,
                pythons={"": args.peer_python} if args.peer_python else {},
            )
            job = job_of(dataset, size, timed, params)
            results.append(run_job(case, MODULE, job, args.threads, options, peers))
            for name, peer in results[-1].peers.items():
                refused = f"REFUSED: {peer.refused}" if peer.refused else ""
                print(f"{job.name}, {name}: {peer.skipped or refused or peer.agreement}")
    print(table(judge, results, [result.job.name for result in results], len(timed)))
    if args.json:
        args.json.write_text(json.dumps(as_json(judge, results, facts), indent=1))
    failures = judge.failures()
    print("\n".join(failures), end="\n" if failures else "")
    refused = any(peer.refused for result in results for peer in result.peers.values())
    return 1 if failures or refused else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"face_detectors: {error}")
