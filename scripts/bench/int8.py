"""How much faster INT8 detectors are than fp32 ones, whole: network, proposals, heads, decoding.

    python scripts/bench/int8.py
    python scripts/bench/int8.py --only resnet_mx_50_e2e --size 800x608 --rounds 9

Both networks have the same random weights and see the same images, in turn (fp32, INT8, fp32, ...)
in one process with the same threads (`OMP_NUM_THREADS`). The fp32 network is the fused graph that
every test uses. First their feature maps are compared: the relative L2 difference has to be below
10 %. The figure is the median over the rounds of fp32 time / INT8 time. What INT8 does to the
accuracy of trained weights is printed by `sniper quantize --eval N`. Exit code 1: the maps differ,
or a goal is missed.

Without AVX-512 VNNI, where `sniper quantize` asks for --any-cpu, the maps may differ by 20 % and
there is no goal: oneDNN cuts off sums of two products at 16 bits, and needs three instructions for
what one does with VNNI. A bit less does not help: MXNet packs weights itself, with 8 bits, and it
cuts ReLU6 by the range of the map, so that a map cannot have a larger one.
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

from bench.random_detectors import (
    CALIBRATION_IMAGES,
    RECIPES,
    images,
    info,
    random_detector,
    relative_difference,
)
from bench.report import load_warning, machine, machine_line

# Goals of fp32 time / INT8 time, on processors with VNNI.
GOALS = {"resnet_mx_50_e2e": 1.4, "mobilenetv2_e2e": 1.3}
LARGEST_DIFFERENCE = 0.1
# Where sums of two products are cut off at 16 bits. Exact sums of weights with 7 bits, as ONNX
# Runtime has them, differ by 13 % for MobileNetV2 there, those of 8 bits by 12 %.
LARGEST_DIFFERENCE_WITHOUT_VNNI = 0.2


def networks(recipe: str, data: Any) -> dict[str, Any]:
    """`fp32` and `INT8`: functions of a batch that detect."""
    detector = random_detector(recipe, data)
    return {name: bound(one) for name, one in (("fp32", detector.model), ("INT8", detector.int8()))}


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
    data = images(CALIBRATION_IMAGES, width, height)
    sides = networks(recipe, data)
    maps = {name: run(data[0]).roi_map for name, run in sides.items()}
    difference = relative_difference(maps["INT8"], maps["fp32"])
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
    goal = "no goal" if result["goal"] is None else f"goal {result['goal']}"
    verdict = "passed" if result["passed"] else "FAILED"
    return (
        f"{name}: fp32 {fp32:.1f} ms, INT8 {int8:.1f} ms, ratio {result['ratio']:.2f} ({low:.2f}-"
        f"{high:.2f}), {goal}; maps differ by {result['difference']:.1%}: {verdict}"
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
    from sniper.models.int8_support import WITHOUT_INSTRUCTIONS, has_int8_instructions

    about = machine()
    print(machine_line(about), f"OMP_NUM_THREADS {os.environ['OMP_NUM_THREADS']}")
    if load_warning(about):
        print(load_warning(about))
    has_vnni = has_int8_instructions()
    if not has_vnni:
        print(f"this processor has {WITHOUT_INSTRUCTIONS}: no goals")
    largest = LARGEST_DIFFERENCE if has_vnni else LARGEST_DIFFERENCE_WITHOUT_VNNI
    results = {}
    for name in [args.only] if args.only else GOALS:
        result = measure(RECIPES[name], width, height, args.rounds)
        result["goal"] = GOALS[name] if has_vnni else None
        is_fast = result["goal"] is None or result["ratio"] >= result["goal"]
        result["passed"] = result["difference"] <= largest and is_fast
        results[name] = result
        print(line(name, result), flush=True)
    if args.json:
        args.json.write_text(json.dumps({"machine": about, "results": results}, indent=1))
    return 0 if all(result["passed"] for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
