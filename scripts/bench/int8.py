"""How much faster INT8 detectors are than fp32 ones, whole: network, proposals, heads, decoding.

    python scripts/bench/int8.py
    python scripts/bench/int8.py --only resnet_mx_50_e2e --size 800x608 --rounds 9

Both networks have the same random weights and see the same images, in turn (fp32, INT8, fp32, ...)
in one process with the same threads (`OMP_NUM_THREADS`). The fp32 network is the fused graph that
every test uses. First their feature maps are compared: the relative L2 difference has to be below
10 %. The figure is the median over the rounds of fp32 time / INT8 time. What INT8 does to the
accuracy of trained weights is printed by `sniper quantize --eval N`. Exit code 1: the maps differ,
or a goal is missed.
"""

from __future__ import annotations

import argparse
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

# Network and the recipe that it comes from; goals of fp32 time / INT8 time.
GOALS = {"resnet_mx_50_e2e": 1.4, "mobilenetv2_e2e": 1.3}
RECIPES = {"resnet_mx_50_e2e": "sniper_res50_e2e", "mobilenetv2_e2e": "sniper_mobilenetv2_e2e"}
LARGEST_DIFFERENCE = 0.1
CALIBRATION_IMAGES = 4
# Scale of the last batch norm of residual branches, so that activations of random weights do not
# grow from unit to unit as those of trained ones do not.
BRANCH_SCALE = 0.3
BRANCHES = ("_bn3_gamma", "linear-batchnorm_gamma")


def images(count: int, width: int, height: int) -> Any:
    """(count, 3, height, width) float32: smooth random patterns minus a mean."""
    import cv2
    import numpy as np

    generator = np.random.default_rng(0)
    small = generator.uniform(-120, 120, (count * 3, height // 8, width // 8)).astype(np.float32)
    planes = [cv2.resize(plane, (width, height)) for plane in small]
    return np.stack(planes).reshape(count, 3, height, width)


def networks(recipe: str, data: Any) -> dict[str, Any]:
    """`fp32` and `INT8`: functions of a batch that detect."""
    from dataclasses import replace

    import numpy as np

    from sniper.config import load_config
    from sniper.models.archive import WeightedGraph as Weights
    from sniper.models.assembly import build_detector
    from sniper.models.quantize import quantize_network
    from sniper.runs.plan import test_plan
    from sniper.runs.speed import random_model

    fp32 = random_model(test_plan(load_config(recipe), devices="cpu").detector)
    for name, value in fp32.arg.items():
        if name.endswith(BRANCHES):
            value[:] = BRANCH_SCALE
    symbol = build_detector(fp32.spec, train=False, roi_map=True)
    ids = np.zeros(1, np.float32)
    inputs = [
        {"data": image[None], "im_info": info(image), "im_ids": ids, "chip_ids": ids}
        for image in data
    ]
    int8 = quantize_network(Weights(symbol, fp32.arg, fp32.aux), inputs)
    models = {
        "fp32": replace(fp32, symbol=symbol),
        "INT8": replace(fp32, arg=int8.arg, aux=int8.aux, symbol=int8.symbol),
    }
    return {name: bound(model) for name, model in models.items()}


def info(image: Any) -> Any:
    """(1, 3) float32: height, width, factor."""
    import numpy as np

    return np.array([[*image.shape[1:], 1.0]], np.float32)


def bound(model: Any) -> Any:
    """A function from one image (3, H, W) to its detections."""
    import mxnet as mx
    import numpy as np

    from sniper.inference.decode import decode_batch
    from sniper.inference.mxnet_executor import MxnetExecutor
    from sniper.loader.windows import TestBatch

    executor = MxnetExecutor(model, [mx.cpu()])
    zero = np.zeros(1, np.int64)

    def run(image: Any) -> Any:
        batch = TestBatch(image[None], info(image), zero, zero, np.zeros(1, bool))
        return decode_batch(executor.run(batch.data, batch.im_info), batch)[0]

    return run


def measure(recipe: str, width: int, height: int, rounds: int) -> dict[str, Any]:
    """Difference of the maps, seconds of every round, and the median ratio."""
    import numpy as np

    data = images(CALIBRATION_IMAGES, width, height)
    sides = networks(recipe, data)
    maps = {name: run(data[0]).roi_map for name, run in sides.items()}
    difference = float(np.linalg.norm(maps["fp32"] - maps["INT8"]) / np.linalg.norm(maps["fp32"]))
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, run in sides.items():
            began = time.perf_counter()
            run(data[number % len(data)])
            seconds[name].append(time.perf_counter() - began)
    ratios = [before / after for before, after in zip(seconds["fp32"], seconds["INT8"])]
    return {
        "difference": difference,
        "seconds": seconds,
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
    }


def line(name: str, result: dict[str, Any]) -> str:
    """What a person reads."""
    fp32, int8 = (1000 * statistics.median(result["seconds"][key]) for key in ("fp32", "INT8"))
    low, high = result["ratio_range"]
    goal = GOALS[name]
    verdict = "passed" if result["passed"] else "FAILED"
    return (
        f"{name}: fp32 {fp32:.1f} ms, INT8 {int8:.1f} ms, ratio {result['ratio']:.2f} ({low:.2f}-"
        f"{high:.2f}), goal {goal}; maps differ by {result['difference']:.1%}: {verdict}"
    )


def main(argv: Optional[list[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=sorted(GOALS), help="one network")
    parser.add_argument("--size", default="800x608", metavar="WIDTHxHEIGHT", help="of the images")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="writes every round to this file")
    args = parser.parse_args(argv)
    width, height = (int(side) for side in args.size.split("x"))
    import sniper  # noqa: F401  (sets the threads before MXNet is imported)

    about = machine()
    print(machine_line(about), f"OMP_NUM_THREADS {os.environ['OMP_NUM_THREADS']}")
    if load_warning(about):
        print(load_warning(about))
    results = {}
    for name in [args.only] if args.only else GOALS:
        result = measure(RECIPES[name], width, height, args.rounds)
        same = result["difference"] <= LARGEST_DIFFERENCE
        result["passed"] = same and result["ratio"] >= GOALS[name]
        results[name] = result
        print(line(name, result), flush=True)
    if args.json:
        args.json.write_text(json.dumps({"machine": about, "results": results}, indent=1))
    return 0 if all(result["passed"] for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
