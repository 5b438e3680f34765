"""What chips and negative chips bring: the same network, data and number of chips, four ways.

    sniper make-toy-data data/toy
    python scripts/bench/ablation.py                      # all arms, seeds 0 and 1: 80 minutes
    python scripts/bench/ablation.py --arms chips --seeds 3

Arms, all with the recipe's network from scratch, `--updates` updates of 16 chips of 128 px, the
same schedule, and 80 held-out images:

* single-448, single-640: chips cut at one scale only (long side 448 or 640 px; the images have
  640), every object valid, tested on whole images at that scale.
* chips: the recipe's three-level pyramid with its valid ranges, tested on that pyramid.
* negatives: the same, with negative chips around false alarms of an RPN that was trained before
  for `--rpn-updates` updates (one RPN for all seeds).

Every finished run is kept under `--out`; a second call goes on with what is missing. The report's
recall is COCO's AR at 100 detections an image. `--pyramid` also tests the single-scale networks on
the pyramid with all valid ranges open.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.training_runs import last_epoch, mean_and_spread, program, schedule

RECIPE = "sniper_mobilenetv2_toy"
OPEN = [-1, -1]
MEASURES = {
    "AP": "ap",
    "AP50": "ap50",
    "AP small": "ap_small",
    "AP medium": "ap_medium",
    "AP large": "ap_large",
    "AR": "ar_100",
}


def single(long_side: int) -> tuple[dict, dict]:
    """Training and test keys of a single-scale arm."""
    test = {
        "TEST.SCALES": [[long_side * 3 // 4, long_side]],
        "TEST.VALID_RANGES": [OPEN],
        "TEST.BATCH_IMAGES": [4],
        # As many proposals an image as the three levels of the pyramid have together.
        "TEST.PROPOSAL_OP.post_nms_top_n": 300,
    }
    return {"TRAIN.SCALES": [float(long_side)], "TRAIN.VALID_RANGES": [OPEN]}, test


PYRAMID_TEST = {"TEST.VALID_RANGES": [OPEN] * 3}
ARMS: dict[str, tuple[dict, dict]] = {
    "single-448": single(448),
    "single-640": single(640),
    "chips": ({}, {}),
    "negatives": ({"TRAIN.USE_NEG_CHIPS": True}, {}),
}


def main() -> int:
    """Trains and tests what is missing, then prints the table."""
    args = _parser().parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if "negatives" in args.arms:
        mine_proposals(args)
    results = {arm: [run(args, arm, seed) for seed in args.seeds] for arm in args.arms}
    (args.out / "ablation.json").write_text(json.dumps(results, indent=2), encoding="utf-8")
    print(table(results))
    if args.pyramid:
        singles = [arm for arm in args.arms if arm.startswith("single")]
        tested = {
            f"{arm} on the pyramid": [test(args, arm, seed, "pyramid") for seed in args.seeds]
            for arm in singles
        }
        print(table(tested))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--updates", type=int, default=2000, help="(default: %(default)s)")
    parser.add_argument("--rpn-updates", type=int, default=1000, help="(default: %(default)s)")
    parser.add_argument("--data", default="data/toy", help="toy set (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("output/ablation"))
    parser.add_argument("--pyramid", action="store_true", help="single-scale arms there, too")
    return parser


def mine_proposals(args: argparse.Namespace) -> None:
    """RPN training and its proposals on the training set."""
    keys = {
        **_training(args, "rpn", 0, args.rpn_updates),
        "TRAIN.ONLY_PROPOSAL": True,
        "TRAIN.USE_NEG_CHIPS": False,
    }
    if (args.out / "proposals" / "COCO_train_rpn.npz").exists():
        return
    program("main_train.py", RECIPE, keys, "--resume")
    epoch = last_epoch(_folder(args, "rpn", 0))
    extraction = {
        "TEST.TEST_EPOCH": epoch,
        "TEST.EXTRACT_PROPOSALS": True,
        "TEST.PROPOSAL_SAVE_PATH": str(args.out / "proposals"),
        "dataset.test_image_set": "train",
    }
    program("main_test.py", RECIPE, {**keys, **extraction})


def run(args: argparse.Namespace, arm: str, seed: int) -> dict[str, float]:
    """Result of one arm and seed."""
    keys = {**_training(args, arm, seed, args.updates), **ARMS[arm][0]}
    if arm == "negatives":
        keys["proposal_path"] = str(args.out / "proposals")
    if not last_epoch(_folder(args, arm, seed)):
        program("main_train.py", RECIPE, keys)
    return test(args, arm, seed, "own")


def test(args: argparse.Namespace, arm: str, seed: int, how: str) -> dict[str, float]:
    """Tests an arm at its own scales or on the open pyramid."""
    result = args.out / f"{arm}-{seed}-{how}.json"
    if not result.exists():
        folder = _folder(args, arm, seed)
        keys = {
            **_training(args, arm, seed, args.updates),
            **(ARMS[arm][1] if how == "own" else PYRAMID_TEST),
            "TEST.TEST_EPOCH": last_epoch(folder),
        }
        program("main_test.py", RECIPE, keys)
        report = Path(keys["output_path"]) / "results" / "detections_val_report.json"
        result.write_text(report.read_text(encoding="utf-8"), encoding="utf-8")
    measured = json.loads(result.read_text(encoding="utf-8"))
    return {name: 100 * measured[key] for name, key in MEASURES.items()}


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Mean and half the range over the seeds, in points."""
    lines = ["| arm | " + " | ".join(MEASURES) + " |", "|---" * (len(MEASURES) + 1) + "|"]
    for arm, runs in results.items():
        cells = []
        for name in MEASURES:
            cells.append(mean_and_spread([run[name] for run in runs]))
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _training(args: argparse.Namespace, arm: str, seed: int, updates: int) -> dict:
    return {
        "output_path": str(args.out / f"{arm}-{seed}"),
        "dataset.dataset_path": args.data,
        "seed": seed,
        **schedule(updates),
    }


def _folder(args: argparse.Namespace, arm: str, seed: int) -> Path:
    return args.out / f"{arm}-{seed}" / RECIPE / "train"


if __name__ == "__main__":
    sys.exit(main())
