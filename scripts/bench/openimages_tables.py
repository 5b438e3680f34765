"""Reading a set as large as Open Images V4: time and memory, first from the tables, then the cache.

    python scripts/bench/openimages_tables.py                   # 1,743,042 images, 14,610,229 boxes
    python scripts/bench/openimages_tables.py --share 0.01      # a hundredth of both

Tables in the official format are generated in a folder (`--folder`; kept there when named): boxes
of 600 classes in random images, three verified labels an image, sizes of images, and an empty file
for each image, since readers look whether it is there. Every reading is a process of its own; its
memory is the largest resident size (Linux). Exit code: 0 measured, 1 a reading failed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

IMAGES, BOXES, CLASSES = 1_743_042, 14_610_229, 600
LABELS_PER_IMAGE = 3
ROWS_AT_ONCE = 1 << 20
SET = "train"


def main() -> int:
    """Generates the set where it is not there, and reads it twice."""
    args = _parser().parse_args()
    if args.read is not None:
        print(json.dumps(_read(args.read)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not (folder / f"{SET}-annotations-bbox.csv").exists():
            generate(folder, args.share)
        for what in ("tables", "cache"):
            command = [sys.executable, __file__, "--read", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(done.stderr, file=sys.stderr)
                return 1
            print(f"{what:>6}: {done.stdout.strip()}", flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--share", type=float, default=1.0, help="of all images and boxes")
    parser.add_argument("--folder", type=Path, help="where the tables stay")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    return parser


def generate(folder: Path, share: float) -> None:
    """Writes the tables and the empty files of the images."""
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
    pictures = folder / "images" / SET
    pictures.mkdir(parents=True, exist_ok=True)
    for name in ids:
        (pictures / f"{name}.jpg").touch()

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
        owners = ids[np.sort(rng.integers(start * images // boxes, images, rows))]
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


def _read(folder: Path) -> dict[str, object]:
    from sniper.data import load_dataset

    started = time.perf_counter()
    dataset = load_dataset("openimages", folder, SET, cache_dir=folder / "cache")
    took = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "images": len(dataset.records),
        "objects": dataset.num_objects,
        "groups": dataset.num_ignored,
        "seconds": round(took, 1),
        "peak GB": round(peak / 1e6, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
