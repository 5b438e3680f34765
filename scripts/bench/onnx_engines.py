"""What computes a detector fastest on this CPU: MXNet, ONNX Runtime or OpenVINO, fp32 and INT8.

    python scripts/bench/onnx_engines.py
    python scripts/bench/onnx_engines.py --only mobilenetv2_e2e --size 800x608 --rounds 9

Whole detectors (network, proposals, heads, decoding) with the same random weights see the same
images, in turn in one process with the same threads (`OMP_NUM_THREADS`). First their RoI maps are
compared with those of MXNet in fp32: the relative L2 difference has to be below 0.01 % in fp32 and
20 % in INT8. The INT8 graph of ONNX Runtime runs in OpenVINO, too. Figures are medians over the
rounds, and time of MXNet fp32 / time of the side. Engines that are not installed are left out, and
told. Exit code 1: the maps differ.
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

REFERENCE = "MXNet fp32"
LARGEST_DIFFERENCE = {"fp32": 1e-4, "INT8": 0.2}  # of random weights


def executors(recipe: str, data: Any) -> dict[str, Any]:
    """The sides by name, `<engine> <precision>`."""
    import mxnet as mx

    from sniper.errors import DataError
    from sniper.inference.mxnet_executor import MxnetExecutor
    from sniper.inference.onnx_engines import installed_engines, onnx_engine
    from sniper.inference.onnx_executor import OnnxExecutor
    from sniper.models.model import OnnxModel

    detector = random_detector(recipe, data)
    model = detector.model
    sides: dict[str, Any] = {
        f"MXNet {name}": MxnetExecutor(one, [mx.cpu()])
        for name, one in (("fp32", model), ("INT8", detector.int8()))
    }
    programs = {"fp32": detector.program(), "INT8": detector.int8_program()}
    for engine in installed_engines():
        for name, one in programs.items():
            network = OnnxModel(model.spec, one, None, model.class_names)
            try:
                sides[f"{engine} {name}"] = OnnxExecutor(network, onnx_engine(engine))
            except DataError as error:
                print(f"left out: {engine} {name}: {reason_of(error)}")
    return sides


def reason_of(error: Exception) -> str:
    """Why an engine refuses a network, in one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line[len("got: ") :] for line in lines if line.startswith("got: ")), lines[0])


def measure(recipe: str, width: int, height: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Of every side the difference of its maps, and the seconds of every round."""
    import numpy as np

    data = images(CALIBRATION_IMAGES, width, height)
    sides = executors(recipe, data)
    # A copy: MXNet's outputs hold until its next call.
    maps = {
        name: np.array(side.run(data[:1], info(data[0]))[0].maps["roi"])
        for name, side in sides.items()
    }
    reference = maps[REFERENCE]
    results: dict[str, dict[str, Any]] = {
        name: {
            "difference": relative_difference(one, reference),
            "seconds": [],
        }
        for name, one in maps.items()
    }
    for number in range(rounds):
        for name, side in sides.items():
            image = data[number % len(data)]
            began = time.perf_counter()
            side.run(image[None], info(image))
            results[name]["seconds"].append(time.perf_counter() - began)
    before = results[REFERENCE]["seconds"]
    for result in results.values():
        ratios = [one / other for one, other in zip(before, result["seconds"])]
        result["ratio"] = statistics.median(ratios)
        result["ratio_range"] = [min(ratios), max(ratios)]
    return results


def line(name: str, result: dict[str, Any]) -> str:
    """What a person reads."""
    low, high = result["ratio_range"]
    return (
        f"  {name:<18} {1000 * statistics.median(result['seconds']):7.1f} ms  "
        f"{result['ratio']:.2f} ({low:.2f}-{high:.2f}) times the speed of {REFERENCE}; "
        f"maps differ by {result['difference']:.2e}"
    )


def main(argv: Optional[list[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=sorted(RECIPES), help="one network")
    parser.add_argument("--size", default="800x608", metavar="WIDTHxHEIGHT", help="of the images")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="writes every round to this file")
    args = parser.parse_args(argv)
    width, height = (int(side) for side in args.size.split("x"))
    import sniper  # noqa: F401  (sets the threads before MXNet is imported)
    from sniper.inference.onnx_engines import ENGINES
    from sniper.process import is_installed

    about = machine()
    print(machine_line(about), f"OMP_NUM_THREADS {os.environ['OMP_NUM_THREADS']}")
    if load_warning(about):
        print(load_warning(about))
    for engine in ENGINES:
        if not is_installed(engine):
            print(f"left out, since it is not installed: {engine}")
    results, same = {}, True
    for name in [args.only] if args.only else RECIPES:
        results[name] = measure(RECIPES[name], width, height, args.rounds)
        print(f"{name}, {args.size}")
        for side, result in results[name].items():
            right = result["difference"] <= LARGEST_DIFFERENCE[side.split()[1]]
            print(line(side, result), "" if right else ": TOO MUCH", flush=True)
            same &= right
    if args.json:
        args.json.write_text(json.dumps({"machine": about, "results": results}, indent=1))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
