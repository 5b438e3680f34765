"""What thousands of classes cost in testing: time and memory of results, by classes and detections.

    python scripts/bench/many_classes.py                            # both tables, 1000 images
    python scripts/bench/many_classes.py --images 50 --classes 80 1000 --caps 50

No network: a few windows are made up as R-FCN-3K puts them out (objectness (R, 2), fine
probabilities (R, C)), and every image gets one of them, moved, with other classes. Then everything
that a test does with them: the scores above the floor, soft-NMS over the classes of each image and
the cap, blocks of 64 images on disk, the result file, COCO evaluation, the error analysis.

The first table has more and more classes and as many detections, the second one class count and
more and more detections: what grows in the second alone grows with detections. Every row is a
process of its own; its memory is the peak beyond what it held with the made-up windows and the
annotations in hand (Linux only), its times are those of the processor. `cells` are classes x
images, which 2018 kept a list for. Look at the parts of the time: only `scores` reads all R x C
numbers of a window, as they come out of the network.
Exit code: 0 measured, 1 a row failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

if not __package__:  # run as a script; its own folder has too common module names
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import sniper  # noqa: F401  (first of all: prepares the process)

import numpy as np  # isort: skip

from bench.report import machine, machine_line
from sniper.data.dataset import Dataset
from sniper.data.detections import DetectionTable, join_blocks, load_detections
from sniper.data.record import Record
from sniper.evaluation import evaluate_coco, write_coco_results
from sniper.inference.block_store import BlockStore
from sniper.inference.decode import ChipDetections
from sniper.inference.merge_levels import (
    LevelDetections,
    MergeSettings,
    keep_confident,
    merge_levels,
)
from sniper.inference.run_stats import RunStats
from sniper.models.class_scores import ClassScores, two_factor_scores

SIZE_PX = 1000
BLOCK = 64
WINDOWS = 4  # that are made up; at 3130 classes and 300 RoIs one has 4 MB
OBJECTS = 5  # in an image
NEAR = 10  # RoIs around each object
LIKELY = 12  # classes that a RoI may have: e.g. sorts of dogs
STAGES = ("scores", "merge", "blocks", "file", "evaluation", "analysis")
ROW_LIMIT_S = 3600


@dataclass(frozen=True)
class Size:
    """One row: what is tested. `cap` are the most detections of an image."""

    classes: int
    images: int
    rois: int
    cap: int


@dataclass(frozen=True, eq=False)
class MadeUp:
    """A window as a network puts it out, and the objects that are in it."""

    boxes: np.ndarray  # (R, 4)
    supers: np.ndarray  # (R, 2)
    fine: np.ndarray  # (R, C)
    objects: np.ndarray  # (OBJECTS, 4)
    classes: np.ndarray  # (OBJECTS,) 0 ... C-1


def make_up(size: Size, seed: int) -> MadeUp:
    """Some RoIs lie around each object and mostly have its class; the others are noise."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 700, (OBJECTS, 2))
    objects = np.hstack([corners, corners + rng.uniform(30, 250, (OBJECTS, 2))])
    classes = rng.integers(0, size.classes, OBJECTS)
    owner = np.repeat(np.arange(OBJECTS), NEAR)[: size.rois]
    noise = rng.uniform(0, 900, (size.rois - len(owner), 2))
    noise = np.hstack([noise, noise + rng.uniform(10, 100, noise.shape)])
    boxes = np.vstack([objects[owner] + rng.normal(0, 6, (len(owner), 4)), noise])
    objectness = np.full(size.rois, 0.0, np.float32)
    objectness[: len(owner)] = rng.uniform(0.5, 1, len(owner))
    objectness[len(owner) :] = rng.uniform(0, 0.2, len(noise))
    fine = np.full((size.rois, size.classes), 1e-5, np.float32)
    best = rng.integers(0, size.classes, size.rois)
    best[: len(owner)] = classes[owner]
    for place in range(min(LIKELY, size.classes)):
        likely = (best + place * rng.integers(1, 5, size.rois)) % size.classes
        fine[np.arange(size.rois), likely] = 0.6**place * rng.uniform(0.3, 0.6, size.rois)
    fine /= fine.sum(axis=1, keepdims=True)
    supers = np.stack([1 - objectness, objectness], axis=1)
    return MadeUp(boxes.astype(np.float32), supers, fine, objects, classes)


def move_of(image: int, size: Size) -> tuple[int, float]:
    """By how much the classes and the boxes of an image differ from those of its window."""
    return image * 37 % size.classes, float(image * 11 % 50)


def scores_of(window: MadeUp, shift: int, size: Size) -> ClassScores:
    """Its scores above the floor, with other classes."""
    scores = two_factor_scores(window.supers, window.fine, np.ones(size.classes, np.int64))
    classes = ((scores.classes - 1 + shift) % size.classes + 1).astype(np.int32)
    return ClassScores(scores.boxes, classes, scores.scores, scores.objectness)


def make_dataset(folder: Path, size: Size, windows: Sequence[MadeUp]) -> Dataset:
    """The images with their objects."""
    path = folder / "instances_x.json"
    entries = []
    for image in range(size.images):
        window, (shift, offset) = windows[image % WINDOWS], move_of(image, size)
        for box, klass in zip(window.objects + offset, window.classes):
            x1, y1, x2, y2 = box.tolist()
            entry = {"id": len(entries) + 1, "image_id": image, "iscrowd": 0}
            entry["category_id"] = int((klass + shift) % size.classes) + 1
            entry["bbox"] = [x1, y1, x2 - x1 + 1, y2 - y1 + 1]
            entries.append({**entry, "area": (x2 - x1 + 1) * (y2 - y1 + 1)})
    path.write_text(json.dumps({"annotations": entries, "images": [], "categories": []}))
    names = ("__background__", *(f"class {index}" for index in range(1, size.classes + 1)))
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool)
    records = tuple(
        Record(f"{image}.jpg", image, SIZE_PX, SIZE_PX, False, *nothing)
        for image in range(size.images)
    )
    ids = tuple(range(size.classes + 1))
    return Dataset("COCO_x", "x", names, ids, records, str(path), True)


class Clock:
    """Seconds that the processor works on each stage, so that a busy machine does no harm."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Times what is inside."""
        began = time.process_time()
        yield
        self.seconds[stage] += time.process_time() - began


def measure(size: Size, folder: Path) -> dict[str, Any]:
    """Everything that a test does with the outputs of a network, in this process."""
    _go_through(Size(3, 2, size.rois, 10), folder)  # imports and first calls are not timed
    windows = [make_up(size, seed) for seed in range(WINDOWS)]
    dataset = make_dataset(folder, size, windows)
    held_mb = resident_mb()
    figures = _go_through(size, folder, windows, dataset)
    return {**asdict(size), **figures, "memory_mb": peak_mb() - held_mb}


def _go_through(
    size: Size, folder: Path, windows: Sequence[MadeUp] = (), dataset: Optional[Dataset] = None
) -> dict[str, Any]:
    """All stages; what is not there is made up first."""
    from sniper.tools.explain.error_study import study, summary

    windows = windows or [make_up(size, seed) for seed in range(WINDOWS)]
    dataset = dataset or make_dataset(folder, size, windows)
    clock = Clock()
    blocks = [
        list(range(start, min(start + BLOCK, size.images)))
        for start in range(0, size.images, BLOCK)
    ]
    store = BlockStore(folder / "partial_x", "key", load_detections)
    pairs = 0
    for number, block in enumerate(blocks):
        table, count = _detect(block, size, windows, clock)
        pairs += count
        with clock("blocks"):
            store.save(number, table.arrays(), RunStats(images=len(block)))
    with clock("blocks"):
        stored = [store.load(number) for number in range(len(blocks))]
        table = join_blocks([found[0] for found in stored if found is not None], blocks)
    with clock("file"):
        write_coco_results(folder / "results.json", dataset, table)
    with clock("evaluation"):
        report = evaluate_coco(dataset, table)
    with clock("analysis"):
        result = study(dataset, table, 0.3, 10)
        summary(result)
        json.dumps(result.as_dict())
    return {
        "cells": size.classes * size.images,
        "pairs": pairs,
        "detections": table.num_detections,
        "ap": None if report is None else report.ap,
        "seconds": clock.seconds,
    }


def _detect(
    block: Sequence[int], size: Size, windows: Sequence[MadeUp], clock: Clock
) -> tuple[DetectionTable, int]:
    """Detections of a block of images, and how many scores were above the floor."""
    parts: list[list[LevelDetections]] = []
    with clock("scores"):
        for image in block:
            window, (shift, offset) = windows[image % WINDOWS], move_of(image, size)
            boxes = window.boxes + np.float32(offset)
            found = ChipDetections(image, 0, boxes, scores_of(window, shift, size))
            parts.append([keep_confident(found, 0)])
    with clock("merge"):
        table, _ = merge_levels(parts, [(-1, -1)], MergeSettings(max_per_image=size.cap))
    return table, sum(len(part.rows) for of_image in parts for part in of_image)


def peak_mb() -> float:
    """Largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_mb() -> float:
    """Resident set of this process at the moment."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def in_own_process(size: Size) -> dict[str, Any]:
    """A row, measured without what other rows have left in memory.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, str(Path(__file__).resolve()), "--row", json.dumps(asdict(size))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ROW_LIMIT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{size}: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


def table_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A table in Markdown."""
    head = ["classes", "images", "cells", "above floor", "detections"]
    head += [f"{stage} s" for stage in STAGES] + ["all s", "memory MB", "AP"]
    lines = [f"| {' | '.join(head)} |", "|" + "---:|" * len(head)]
    for row in rows:
        counts = [row[name] for name in ("classes", "images", "cells", "pairs", "detections")]
        seconds = [row["seconds"][stage] for stage in STAGES]
        cells = [f"{count:,}" for count in counts]
        cells += [f"{second:.2f}" for second in [*seconds, sum(seconds)]]
        cells += [f"{row['memory_mb']:.0f}", f"{100 * row['ap']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000, help="images (default: %(default)s)")
    parser.add_argument("--rois", type=int, default=300, help="RoIs of each (default: %(default)s)")
    parser.add_argument(
        "--classes",
        type=int,
        nargs="+",
        default=[80, 300, 1000, 3130],
        help="of the first table; the second has the last one (default: 80 300 1000 3130)",
    )
    parser.add_argument(
        "--caps",
        type=int,
        nargs="+",
        default=[25, 50, 100, 200],
        help="most detections of an image in the second table; the first has the last one "
        "(default: 25 50 100 200)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line."""
    args = _parser().parse_args(argv)
    if args.row:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(Size(**json.loads(args.row)), Path(folder))))
        return 0
    print(machine_line(machine()))
    tables = {
        "more classes": [
            Size(count, args.images, args.rois, args.caps[-1]) for count in args.classes
        ],
        "more detections": [
            Size(args.classes[-1], args.images, args.rois, cap) for cap in args.caps
        ],
    }
    results = {}
    for name, sizes in tables.items():
        try:
            results[name] = [in_own_process(size) for size in sizes]
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(error, file=sys.stderr)
            return 1
        print("", name, "", *table_lines(results[name]), sep="\n")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
