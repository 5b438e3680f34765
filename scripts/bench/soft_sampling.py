"""What Soft Sampling brings where annotations are missing: the same updates with it and without.

    python scripts/bench/soft_sampling.py                     # 24 trainings of a minute or two
    python scripts/bench/soft_sampling.py --sets full labels-0.5 --seeds 0

Sets, all of the same generated pictures (`sniper make-toy-data --openimages`):

* full: every training object is annotated.
* labels-0.3, labels-0.5: a share of the objects, any of them, has no annotation.
* far-0.3: as many, but those farthest from annotated objects: what Soft Sampling assumes. More do
  not lie apart in these pictures.

All trainings begin with the same network: trained before on other pictures, of ten classes and with
all annotations, as ImageNet's backbones are in the paper; its scores of classes start afresh. From
scratch results differ more from seed to seed than with Soft Sampling and without. Each set is
trained with the recipe `open_mobilenetv2_toy` for `--updates` updates, with
TRAIN.SOFT_SAMPLING on and off and everything else alike; the seed of a training also decides what
its set has lost. Tested on held-out pictures, all of whose objects are annotated: mAP of Open
Images at IoU 0.5, with groups as objects and with groups ignored. Every finished run is kept under
`--out`; a second call goes on with what is missing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.training_runs import last_epoch, mean_and_spread, program, schedule, tool

RECIPE = "open_mobilenetv2_toy"
TOY = ("--sizes", 32, 240, "--objects", 6, 12, "--long-side", 448)
# Two levels instead of three, for objects that are not tiny.
KEYS: dict[str, object] = {
    "TRAIN.SCALES": [1.4, 0.5],
    "TRAIN.VALID_RANGES": [[-1, 70], [50, -1]],
    "TEST.SCALES": [[470, 627], [168, 224]],
    "TEST.VALID_RANGES": [[-1, 80], [45, -1]],
    "TEST.BATCH_IMAGES": [1, 4],
}
BEFORE = "sniper_mobilenetv2_toy"
SETS = ("full", "labels-0.3", "labels-0.5", "far-0.3")
MEASURES = {"mAP": "mAP", "mAP (groups ignored)": "mAP_group_weight_0"}


def main() -> int:
    """Makes, trains and tests what is missing, then prints the table."""
    args = _parser().parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    results = {
        (name, soft): [run(args, name, soft, seed) for seed in args.seeds]
        for name in args.sets
        for soft in (False, True)
    }
    print(table(results))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=150, help="(default: %(default)s)")
    parser.add_argument("--updates-before", type=int, default=1000, help="(default: %(default)s)")
    parser.add_argument("--train", type=int, default=300, help="pictures (default: %(default)s)")
    parser.add_argument("--val", type=int, default=100, help="pictures (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("output/soft_sampling"))
    return parser


def make_set(args: argparse.Namespace, name: str, seed: int) -> Path:
    """The folder of a set, made unless it is there."""
    full = args.out.absolute() / "full"
    counts = ("--train", args.train, "--val", args.val, "--test", 1, "--test-dev", 1)
    tool("make-toy-data", full, "--openimages", "--classes", 4, *TOY, *counts)
    if name == "full":
        return full
    kind, _, share = name.partition("-")
    folder = args.out.absolute() / f"{name}-{seed}"
    drop = (f"--drop-{kind}", share, "--drop-seed", seed, "--images-from", full)
    tool("make-toy-data", folder, "--openimages", "--classes", 4, *TOY, *counts, *drop)
    return folder


def pretrained(args: argparse.Namespace) -> str:
    """`network.pretrained` of all trainings; trained unless it is there."""
    out = args.out.absolute()
    prefix = out / "pretrained"
    if not Path(f"{prefix}-0000.params").exists():
        data, folder = out / "pretraining_set", out / "pretraining"
        tool("make-toy-data", data, "--seed", 99, *TOY, "--train", 400, "--val", 1, "--test", 1)
        keys = {
            **KEYS,
            "output_path": str(folder),
            "dataset.root_path": str(folder),
            "dataset.dataset_path": str(data),
            "TRAIN.NUM_PROCESS": 0,
            **schedule(args.updates_before),
        }
        program("main_train.py", BEFORE, keys)
        weights = folder / BEFORE / "train"
        shutil.copyfile(
            weights / f"SNIPER-{last_epoch(weights):04d}.params", f"{prefix}-0000.params"
        )
    return str(prefix)


def run(args: argparse.Namespace, name: str, soft: bool, seed: int) -> dict[str, float]:
    """Result of one training."""
    label = f"{name}-{'soft' if soft else 'plain'}-{seed}"
    result = args.out / f"{label}.json"
    if not result.exists():
        folder = args.out / label
        keys = {
            "output_path": str(folder.absolute()),
            "dataset.root_path": str(folder.absolute()),
            "dataset.dataset_path": str(make_set(args, name, seed)),
            "seed": seed,
            "TRAIN.SOFT_SAMPLING.ENABLE": soft,
            "TRAIN.NUM_PROCESS": 0,
            "dataset.NUM_CLASSES": 7,
            "network.pretrained": pretrained(args),
            "TRAIN.lr": 0.03,
            "TRAIN.warmup_step": 20,
            **KEYS,
            **schedule(args.updates),
        }
        weights = folder / RECIPE / "train"
        if not last_epoch(weights):
            program("main_train.py", RECIPE, keys)
        program("main_test.py", RECIPE, {**keys, "TEST.TEST_EPOCH": last_epoch(weights)})
        (report,) = folder.rglob("*_report.json")
        shutil.copyfile(report, result)
    measured = json.loads(result.read_text(encoding="utf-8"))
    return {title: 100 * measured[key] for title, key in MEASURES.items()}


def table(results: dict[tuple[str, bool], list[dict[str, float]]]) -> str:
    """A line for each set: means and half the range over the seeds, in points."""
    columns = [f"{name}, {how}" for name in MEASURES for how in ("plain", "soft", "difference")]
    lines = ["| set | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in dict.fromkeys(name for name, _ in results):
        cells = []
        for measure in MEASURES:
            plain, soft = ([run[measure] for run in results[name, how]] for how in (False, True))
            differences = [b - a for a, b in zip(plain, soft)]
            cells += [mean_and_spread(values) for values in (plain, soft, differences)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
