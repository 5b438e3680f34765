"""What fractions of a px are worth on small objects: the boxes of 2018 beside exact ones.

    python scripts/bench/legacy_boxes.py                 # both arms, seeds 0 and 1

The set is made of toy pictures reduced to a quarter, so that objects have 6 to 14 px and boxes that
begin and end on quarters of a px. All objects are of one class: what is asked is where they are.
Both arms train the same network from scratch with as many
updates, on chips of 128 px cut at three times the size of the images, and test on whole images at
that scale; they differ in `TRAIN.LEGACY_BOXES` alone. With it corners are truncated to whole px and
the picture of a chip lies up to one px beside its boxes, as in 2018.

Every finished run is kept under `--out`; a second call goes on with what is missing.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.training_runs import program, schedule, tool

RECIPE = "sniper_mobilenetv2_toy"
REDUCTION = 4
SPLITS = {"train": 160, "val": 60}
MEASURES = {"AP": "ap", "AP50": "ap50", "AP75": "ap75", "AR": "ar_100"}
ARMS = {"exact": False, "as in 2018": True}


def main() -> int:
    """Makes the set, trains and tests what is missing, prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--updates", type=int, default=800, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("output/legacy_boxes"))
    args = parser.parse_args()
    data = make_small_objects(args.out)
    results: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for seed in args.seeds:
        for arm in ARMS:
            results[arm].append(run(args, data, arm, seed))
            print(table(results), flush=True)
    return 0


def make_small_objects(out: Path) -> Path:
    """A toy set at a quarter of its size: pictures as PNG, boxes with their fractions."""
    small = out / "small"
    if (small / "annotations" / "instances_val.json").exists():
        return small
    large = out / "large"
    counts = [word for split, count in SPLITS.items() for word in (f"--{split}", str(count))]
    sizes = ["--sizes", str(6 * REDUCTION), str(14 * REDUCTION), "--long-side", "1280"]
    objects = ["--classes", "3", "--objects", "8", "16", "--test", "0", "--test-dev", "0"]
    tool("make-toy-data", large.absolute(), *counts, *sizes, *objects)
    for split in SPLITS:
        _reduce(large, small, split)
    return small


def _reduce(large: Path, small: Path, split: str) -> None:
    path = Path("annotations") / f"instances_{split}.json"
    content = json.loads((large / path).read_text(encoding="utf-8"))
    (small / "images" / split).mkdir(parents=True, exist_ok=True)
    for entry in content["images"]:
        image = cv2.imread(str(large / "images" / split / entry["file_name"]))
        # Only whole blocks of px: a box divided by the reduction is then exact.
        height, width = (side // REDUCTION for side in image.shape[:2])
        blocks = image[: height * REDUCTION, : width * REDUCTION]
        reduced = cv2.resize(blocks, (width, height), interpolation=cv2.INTER_AREA)
        name = f"{Path(entry['file_name']).stem}.png"
        cv2.imwrite(str(small / "images" / split / name), reduced)
        entry.update(file_name=name, width=width, height=height)
    for entry in content["annotations"]:
        entry["bbox"] = [side / REDUCTION for side in entry["bbox"]]
        entry["area"] = entry["bbox"][2] * entry["bbox"][3]
        entry["category_id"] = 1
        entry.pop("segmentation", None)
    content["categories"] = [{"id": 1, "name": "shape"}]
    (small / "annotations").mkdir(parents=True, exist_ok=True)
    (small / path).write_text(json.dumps(content), encoding="utf-8")


def run(args: argparse.Namespace, data: Path, arm: str, seed: int) -> dict[str, float]:
    """Result of one arm and seed, in points."""
    folder = args.out / f"{arm.replace(' ', '_')}-{seed}"
    report = folder / "results" / "detections_val_report.json"
    if not report.exists():
        keys = _keys(args, data, folder, seed) | {"TRAIN.LEGACY_BOXES": ARMS[arm]}
        program("main_train.py", RECIPE, keys)
        program("main_test.py", RECIPE, keys)
    measured = json.loads(report.read_text(encoding="utf-8"))
    return {name: 100 * measured[key] for name, key in MEASURES.items()}


def _keys(args: argparse.Namespace, data: Path, folder: Path, seed: int) -> dict:
    updates = args.updates
    return {
        "output_path": str(folder),
        "dataset.dataset_path": str(data),
        "dataset.root_path": str(folder),
        "dataset.NUM_CLASSES": 2,
        "seed": seed,
        "network.ANCHOR_SCALES": [1.5, 2.1, 3, 4],
        "network.NUM_ANCHORS": 12,
        "TRAIN.SCALES": [960.0],
        "TRAIN.VALID_RANGES": [[-1, -1]],
        "TRAIN.BATCH_IMAGES": 8,
        "TRAIN.bbox_loss_divisor": 250.0,
        "TRAIN.lr": 0.06,
        **schedule(updates),
        "TRAIN.NUM_PROCESS": 0,
        "TEST.SCALES": [[720, 960]],
        "TEST.VALID_RANGES": [[-1, -1]],
        "TEST.BATCH_IMAGES": [1],
    }


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """One line per arm: mean over the seeds, and each seed's figure."""
    lines = ["| boxes | " + " | ".join(MEASURES) + " |", "|---" * (len(MEASURES) + 1) + "|"]
    for arm, runs in results.items():
        cells = []
        for name in MEASURES if runs else ():
            values = [run[name] for run in runs]
            single = ", ".join(f"{value:.1f}" for value in values)
            cells.append(f"{np.mean(values):.1f} ({single})")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
