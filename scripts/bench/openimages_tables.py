"""Reading a set as large as Open Images V4: time and memory, first from the tables, then the cache.

    python scripts/bench/openimages_tables.py                   # 1,743,042 images, 14,610,229 boxes
    python scripts/bench/openimages_tables.py --share 0.01      # a hundredth of both
    python scripts/bench/openimages_tables.py --evaluate        # the metric, 20 detections an image

Tables in the official format are generated in a folder (`--folder`; kept there when named): boxes
of 600 classes in random images, three verified labels an image, sizes of images, and an empty file
for each image, since readers look whether it is there. Every reading is a process of its own; its
memory is the largest resident size (Linux). Exit code: 0 measured, 1 a reading failed.

`--evaluate` adds a hierarchy and detections, half of them near boxes, instead of the files of the
images, and tells of each step how much is resident before it and at most during it.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

if not __package__:  # run as a script; its own folder has too common module names
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.readings import print_readings

IMAGES, BOXES, CLASSES = 1_743_042, 14_610_229, 600
LABELS_PER_IMAGE = 3
DETECTIONS_PER_IMAGE = 20
TOP_CLASSES, BELOW_EACH = 50, 5  # a class has 1.4 classes above it, an official one 1.5
ROWS_AT_ONCE = 1 << 20
SET = "train"
RESULTS = "detections.csv"


def main() -> int:
    """Generates the set where it is not there, and reads it twice."""
    args = _parser().parse_args()
    if args.read is not None:
        print(json.dumps(_evaluate(args.read) if args.evaluate else _read(args.read)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not (folder / f"{SET}-annotations-bbox.csv").exists():
            generate(folder, args.share)
        if not args.evaluate:
            write_images(folder)
        elif not (folder / RESULTS).exists():
            write_detections(folder)
        arguments = ["--read", str(folder), *(["--evaluate"] if args.evaluate else [])]
        readings = ("metric",) if args.evaluate else ("tables", "cache")
        return print_readings(__file__, dict.fromkeys(readings, arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--share", type=float, default=1.0, help="of all images and boxes")
    parser.add_argument("--folder", type=Path, help="where the tables stay")
    parser.add_argument("--evaluate", action="store_true", help="measure the metric")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    return parser


def generate(folder: Path, share: float) -> None:
    """Writes the tables."""
    import pandas as pd

    rng = np.random.default_rng(0)
    images, boxes = max(1, round(IMAGES * share)), max(1, round(BOXES * share))
    folder.mkdir(parents=True, exist_ok=True)
    ids = np.array([f"{number * 10_000_019:016x}" for number in range(images)])
    classes = np.array([f"/m/{number:05d}" for number in range(CLASSES)])
    names = "".join(f"{name},class {name[3:]}\n" for name in classes)
    (folder / "class-descriptions-boxable.csv").write_text(names)
    sides = {"Width": 1024, "Height": rng.integers(500, 1025, images)}
    pd.DataFrame({"ImageID": ids, **sides}).to_csv(folder / f"{SET}-images.csv", index=False)

    def write(name: str, count: int, columns: Callable[[int, int], dict]) -> None:
        for start in range(0, count, ROWS_AT_ONCE):
            rows = min(ROWS_AT_ONCE, count - start)
            table = pd.DataFrame(columns(rows, start))
            first = start == 0
            table.to_csv(folder / name, mode="w" if first else "a", header=first, index=False)

    def of_boxes(rows: int, start: int) -> dict:
        near, side = rng.uniform(0, 0.7, (2, rows)), rng.uniform(0.05, 0.3, (2, rows))
        corners = {
            "XMin": near[0],
            "XMax": near[0] + side[0],
            "YMin": near[1],
            "YMax": near[1] + side[1],
        }
        flags = dict.fromkeys(("IsOccluded", "IsTruncated"), 0)
        # Official tables stand by image.
        first, end = start * images // boxes, -(-(start + rows) * images // boxes)
        owners = ids[np.sort(rng.integers(first, end, rows))]
        return {
            "ImageID": owners,
            "Source": "xclick",
            "LabelName": classes[rng.integers(0, CLASSES, rows)],
            "Confidence": 1,
            **{name: values.round(6) for name, values in corners.items()},
            **flags,
            "IsGroupOf": (rng.random(rows) < 0.05).astype(int),
            "IsDepiction": 0,
            "IsInside": 0,
        }

    def of_labels(rows: int, start: int) -> dict:
        return {
            "ImageID": ids[(start + np.arange(rows)) // LABELS_PER_IMAGE],
            "Source": "verification",
            "LabelName": classes[rng.integers(0, CLASSES, rows)],
            "Confidence": rng.integers(0, 2, rows),
        }

    write(f"{SET}-annotations-bbox.csv", boxes, of_boxes)
    labels = f"{SET}-annotations-human-imagelabels-boxable.csv"
    write(labels, images * LABELS_PER_IMAGE, of_labels)


def write_images(folder: Path) -> None:
    """An empty file for each image."""
    import pandas as pd

    pictures = folder / "images" / SET
    pictures.mkdir(parents=True, exist_ok=True)
    for name in pd.read_csv(folder / f"{SET}-images.csv", dtype=str)["ImageID"]:
        (pictures / f"{name}.jpg").touch()


def write_detections(folder: Path) -> None:
    """A hierarchy, and detections as they are submitted: every second one is near a box."""
    import pandas as pd

    def node(label: int) -> dict:
        first = TOP_CLASSES + BELOW_EACH * label
        below = range(first, min(first + BELOW_EACH, CLASSES))
        return {"LabelName": f"/m/{label:05d}", "Subcategory": [node(child) for child in below]}

    tops = [node(label) for label in range(TOP_CLASSES)]
    tree = {"LabelName": "/m/0bl9f", "Subcategory": tops}
    (folder / "bbox_labels_600_hierarchy.json").write_text(json.dumps(tree))
    rng = np.random.default_rng(1)
    ids = pd.read_csv(folder / f"{SET}-images.csv", dtype=str)["ImageID"].tolist()
    names = ["XMin", "YMin", "XMax", "YMax"]
    table = pd.read_csv(
        folder / f"{SET}-annotations-bbox.csv",
        usecols=["ImageID", "LabelName", *names],
        dtype={"ImageID": "category", "LabelName": "category", **dict.fromkeys(names, np.float32)},
    )
    place = {name: index for index, name in enumerate(ids)}
    of_category = np.array([place[name] for name in table["ImageID"].cat.categories])
    owners = of_category[table["ImageID"].cat.codes.to_numpy()]
    labels, boxes = table["LabelName"].cat.codes.to_numpy(), table[names].to_numpy()
    ends = np.searchsorted(owners, np.arange(len(ids) + 1))
    with open(folder / RESULTS, "w", encoding="utf-8") as stream:
        stream.write("ImageId,PredictionString\n")
        for image, name in enumerate(ids):
            kinds = rng.integers(0, CLASSES, DETECTIONS_PER_IMAGE)
            found = np.tile(rng.uniform(0, 0.7, (DETECTIONS_PER_IMAGE, 2)), 2)
            found[:, 2:] += rng.uniform(0.05, 0.3, (DETECTIONS_PER_IMAGE, 2))
            if ends[image + 1] > ends[image]:
                near = rng.integers(ends[image], ends[image + 1], DETECTIONS_PER_IMAGE // 2)
                kinds[::2] = labels[near]
                found[::2] = boxes[near] + rng.normal(0, 0.01, (len(near), 4))
            scores = rng.random(DETECTIONS_PER_IMAGE).tolist()
            words = [
                f"/m/{kind:05d} {score:.6f} {b[0]:.6f} {b[1]:.6f} {b[2]:.6f} {b[3]:.6f}"
                for kind, score, b in zip(kinds.tolist(), scores, found.tolist())
            ]
            stream.write(f"{name},{' '.join(words)}\n")


def _evaluate(folder: Path) -> dict[str, object]:
    from sniper.data.openimages_truth import read_openimages_truth
    from sniper.evaluation.openimages_files import read_results
    from sniper.evaluation.openimages_protocol import evaluate_open_images

    steps: dict[str, object] = {}

    def measured(name: str, step: Callable[[], Any]) -> Any:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
        before, started, busy = _resident("VmRSS"), time.perf_counter(), time.process_time()
        result = step()
        spent = {"seconds": time.perf_counter() - started, "CPU s": time.process_time() - busy}
        rounded = {key: round(value, 1) for key, value in spent.items()}
        steps[name] = {**rounded, "GB before": before, "peak GB": _resident("VmHWM")}
        return result

    truth = measured("truth", lambda: read_openimages_truth(folder, SET))
    found = measured("results", lambda: read_results(folder / RESULTS, truth).found)
    report = measured("metric", lambda: evaluate_open_images(truth, found))
    means = {key: value for key, value in report.as_dict().items() if key.startswith("mAP_")}
    return {"boxes": report.num_boxes, "detections": len(found.scores), **steps, **means}


def _resident(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1e6, 2)


def _read(folder: Path) -> dict[str, object]:
    from sniper.data import load_dataset

    started, cpu = time.perf_counter(), time.process_time()
    dataset = load_dataset("openimages", folder, SET, cache_dir=folder / "cache")
    took = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "images": len(dataset.records),
        "objects": dataset.num_objects,
        "groups": dataset.num_ignored,
        "seconds": round(took, 1),
        "cpu seconds": round(time.process_time() - cpu, 1),
        "peak GB": round(peak / 1e6, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
