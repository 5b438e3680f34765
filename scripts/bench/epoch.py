"""Time and memory of the chips of an epoch, at the size of COCO, with and without proposals.

    .venv/bin/python scripts/bench/epoch.py                      # 123,287 images and their flips
    .venv/bin/python scripts/bench/epoch.py --images 5000        # about 4 % of it

No peer: the question is whether the preparation of an epoch is short beside the epoch itself, and
whether it fits into memory. Each case runs in a process of its own, so that its peak memory is that
of this case: Python, the records with all their arrays (the flipped copies have their own), the
chips and the order of the samples. Making the records is not part of the times. The processor time
(of epoch 1, all threads) tells a busy machine from a slow program.

The images are made by seed, 123,287 of them as in COCO train2014 + val2014:
* sizes: 25 % 640x480, 11 % 640x427, 5 % 640x426, 5 % 480x640, 4 % 500x375, 3 % 427x640; all others
  have a long side of 640 px, a short one of 320 to 640 px, and one in three is upright.
* 0.9 % have no object; all others a log-normal number, median 4.4, deviation 1.0 (mean about 7).
* boxes: square root of the area log-normal, median 56 px, deviation 1.13; ratio of the sides
  log-normal around 0.85, deviation 0.75; cut to 4 px ... the image; the centres of an image lie
  around one place, with a deviation of a sixth of its sides. (Sizes, numbers and boxes follow 150
  real COCO images, the gathering the known number of chips: 956,000 for 244,436 records in 2018.)
* proposals: half of them around the objects (centre off by a quarter of the side, sides by 35 %),
  half anywhere with sides log-uniform from 8 to 400 px.
The pyramid is that of 2018 for COCO: scales 3, 1.667 and 512 px, valid ranges up to 80, 32 to 150
and from 120 px; 2 negative chips an image at most.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

IMAGES = 123287
SIZES = [(640, 480), (640, 427), (640, 426), (480, 640), (500, 375), (427, 640)]
SHARES = [0.25, 0.11, 0.05, 0.05, 0.04, 0.03]
CHUNK = 500  # images that are made together
COLUMNS = [
    ("proposals an image", "proposals"),
    ("records", "records"),
    ("chips", "chips"),
    ("table, s", "table_s"),
    ("epoch 0, s", "epoch_0_s"),
    ("epoch 1, s", "epoch_1_s"),
    ("CPU time, s", "cpu_1_s"),
    ("records, GB", "records_gb"),
    ("peak, GB", "peak_gb"),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=IMAGES, help="before flipping")
    parser.add_argument(
        "--proposals", type=int, nargs="+", default=[0, 900], help="per image, one case each"
    )
    parser.add_argument("--threads", type=int, default=2, help="OMP_NUM_THREADS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one-case", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one_case:
        print(json.dumps(measure(args.images, args.proposals[0], args.seed)))
        return 0
    print(f"{args.images} images with flips, {args.threads} threads, load {os.getloadavg()[0]:.1f}")
    rows = [run_case(args, proposals) for proposals in args.proposals]
    widths = [max(len(title), 10) for title, _ in COLUMNS]
    print("  ".join(title.rjust(width) for (title, _), width in zip(COLUMNS, widths)))
    for row in rows:
        cells = (str(row[name]).rjust(width) for (_, name), width in zip(COLUMNS, widths))
        print("  ".join(cells))
    return 0


def run_case(args: argparse.Namespace, proposals: int) -> dict:
    """The measurements of one case, made in a fresh process."""
    command = [sys.executable, str(Path(__file__).resolve()), "--one-case"]
    command += ["--images", str(args.images), "--seed", str(args.seed)]
    command += ["--proposals", str(proposals)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(images: int, proposals: int, seed: int) -> dict:
    from sniper.chips.box_table import box_table
    from sniper.chips.sampler import ChipSettings, make_epoch
    from sniper.data.record import append_flipped

    settings = ChipSettings(
        scales=(3.0, 1.667, 512.0),
        valid_ranges=((-1, 80), (32, 150), (120, -1)),
        use_neg_chips=proposals > 0,
    )
    records = append_flipped(coco_like_records(images, proposals, seed))
    result = {"proposals": proposals, "records": len(records), "records_gb": gigabytes("VmRSS")}
    start = time.perf_counter()
    table = box_table(records)
    result["table_s"] = round(time.perf_counter() - start, 2)
    for number in range(2):
        epoch = None  # one at a time, as in training
        start, start_cpu = time.perf_counter(), time.process_time()
        epoch = make_epoch(
            table, settings, seed=seed, epoch=number, batch_size=128, gt_rows_only=True
        )
        result[f"epoch_{number}_s"] = round(time.perf_counter() - start, 2)
        result[f"cpu_{number}_s"] = round(time.process_time() - start_cpu, 2)
    for line in epoch.stats.lines():
        print(line, file=sys.stderr)
    return {**result, "chips": epoch.stats.chips, "peak_gb": gigabytes("VmHWM")}


def coco_like_records(images: int, proposals: int, seed: int) -> list:
    """Unflipped records by the distributions in the head of this file."""
    records = []
    for first in range(0, images, CHUNK):
        rng = np.random.default_rng([seed, first])
        records += chunk_of_records(rng, first, min(CHUNK, images - first), proposals)
    return records


def chunk_of_records(rng: np.random.Generator, first: int, count: int, proposals: int) -> list:
    from sniper.data.record import Record, with_proposals

    sizes = image_sizes(rng, count)
    numbers = np.clip(np.exp(rng.normal(np.log(4.4), 1.0, count)), 1, 93).astype(int)
    numbers[rng.random(count) < 0.009] = 0
    owner = np.repeat(np.arange(count), numbers)
    sides = np.exp(rng.normal(np.log(56), 1.13, len(owner)))
    ratios = np.exp(rng.normal(np.log(0.85), 0.75, len(owner)))
    places = rng.uniform(0.3, 0.7, (count, 2))[owner] + rng.normal(0, 0.165, (len(owner), 2))
    gt = place(sides[:, None] * ratios[:, None] ** [0.5, -0.5], places, sizes[owner])
    starts = np.concatenate([[0], np.cumsum(numbers)])
    made = []
    for i in range(count):
        own = gt[starts[i] : starts[i + 1]].copy()
        record = Record(
            image_path=f"images/{first + i:012d}.jpg",
            image_id=first + i,
            width=int(sizes[i, 0]),
            height=int(sizes[i, 1]),
            flipped=False,
            boxes=own,
            classes=rng.integers(1, 81, len(own), dtype=np.int32),
            is_gt=np.ones(len(own), bool),
        )
        if proposals:
            record = with_proposals(record, image_proposals(rng, own, sizes[i], proposals))
        made.append(record)
    return made


def image_sizes(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 2) width and height, px."""
    short = rng.integers(320, 641, count)
    sizes = np.stack([np.full(count, 640), short], axis=1)
    upright = rng.random(count) < 1 / 3
    sizes[upright] = sizes[upright, ::-1]
    kind = rng.choice(len(SIZES) + 1, count, p=[*SHARES, 1 - sum(SHARES)])
    frequent = kind < len(SIZES)
    sizes[frequent] = np.array(SIZES)[kind[frequent]]
    return sizes


def image_proposals(
    rng: np.random.Generator, gt: np.ndarray, size: np.ndarray, count: int
) -> np.ndarray:
    near = count // 2 if len(gt) else 0
    sides = np.exp(rng.uniform(np.log(8), np.log(400), (count - near, 1)))
    extent = sides * np.exp(rng.normal(0, 0.35, (count - near, 2)))
    anywhere = place(extent, rng.uniform(0, 1, (count - near, 2)), size)
    if not near:
        return anywhere
    objects = gt[rng.integers(0, len(gt), near)]
    extent = objects[:, 2:] - objects[:, :2] + 1
    centres = (objects[:, 2:] + objects[:, :2]) / 2 + rng.normal(0, 0.25, (near, 2)) * extent
    half = extent * np.exp(rng.normal(0, 0.35, (near, 2))) / 2
    last = np.tile(size - 1, 2)
    around = np.clip(np.concatenate([centres - half, centres + half], axis=1), 0, last)
    return np.concatenate([around, anywhere]).astype(np.float32)


def place(extent: np.ndarray, centres: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Boxes of some widths and heights around places in 0 ... 1, pushed into the image."""
    extent = np.clip(extent, 4, size)
    corner = np.clip(centres * size - extent / 2, 0, size - extent)
    return np.round(np.concatenate([corner, corner + extent - 1], axis=1), 2).astype(np.float32)


def gigabytes(field: str) -> float:
    """Memory of this process: VmRSS now, VmHWM at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return round(int(line.split()[1]) * 1024 / 1e9, 2)
    return float("nan")


if __name__ == "__main__":
    raise SystemExit(main())
